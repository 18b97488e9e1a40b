"""Several transfers of a command at a time: run, shown while they run, and what became of each."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import trio

from cache.errors import NotTransferred
from cache.lanes import Lanes, Progress
from fs.cli.output import ExitCode, note, printable
from fs.cli.wording import counted, human_size
from remote.api import NotAuthenticated, Permanent, Transient

FILES_AT_ONCE = 4
_REFRESH_SECONDS = 0.2

R = TypeVar("R")


@dataclass(slots=True)
class Job(Generic[R]):
    """A file to transfer; when `run` has returned, it has a result or an error."""

    source: str
    target: str
    progress: Progress = field(default_factory=Progress)
    result: R | None = None
    error: Exception | None = None


async def run(
    jobs: Sequence[Job[R]], one: Callable[[Job[R], Lanes], Awaitable[R]], parallel: int, verb: str, *, shown: bool
) -> None:
    """Do what has no error yet. What would fail for all of them is raised. `parallel`: chunks that move at a time."""
    lanes, turns = Lanes(parallel), trio.CapacityLimiter(FILES_AT_ONCE)
    fatal: list[Exception] = []

    async def do(job: Job[R], scope: trio.CancelScope) -> None:
        async with turns:
            try:
                job.result = await one(job, lanes)
            except* (Permanent, NotTransferred, OSError) as group:
                job.error = _first(group)
                if isinstance(job.error, NotAuthenticated):
                    fatal.append(job.error)
                    scope.cancel()
            except* Transient as group:
                fatal.append(_first(group))
                scope.cancel()

    async with _bars(jobs, verb, shown=shown and sys.stderr.isatty()), trio.open_nursery() as nursery:
        for job in jobs:
            if job.error is None:
                nursery.start_soon(do, job, nursery.cancel_scope)
    if fatal:
        raise fatal[0]


def failures(jobs: Sequence[Job[Any]]) -> list[dict[str, str]]:
    """For the JSON document."""
    return [{"source": job.source, "target": job.target, "error": _text(job.error)} for job in jobs if job.error is not None]


def tell_failures(jobs: Sequence[Job[Any]]) -> int:
    """One line each for the person; the exit code."""
    failed = [job for job in jobs if job.error is not None]
    for job in failed:
        note(f"aloft: {printable(job.source)}: {printable(_text(job.error))}")
    if failed:
        note(f"aloft: {counted(len(failed), 'file')} of {len(jobs)} failed; the same command tries them again")
    return ExitCode.FAILED if failed else ExitCode.OK


def how_much(progress: Progress, verb: str) -> str:
    return f"{human_size(progress.total)}, {verb} {human_size(progress.moved)}"


def _text(error: Exception | None) -> str:
    return str(error.strerror or error) if isinstance(error, OSError) else str(error)


def _first(group: BaseExceptionGroup[Any]) -> Exception:
    """One of several failures at once, which often are one."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, Exception)
    return error


@asynccontextmanager
async def _bars(jobs: Sequence[Job[R]], verb: str, *, shown: bool) -> AsyncIterator[None]:
    """A bar for each file under way, and one for all, on a terminal."""
    if not shown:
        yield
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
        tasks = {id(job): bars.add_task(escape(printable(job.source)), visible=False, total=None) for job in jobs}

        def show() -> None:
            for job in jobs:
                progress, over = job.progress, job.result is not None or job.error is not None
                checking = not progress.done and progress.looked_at < progress.total and progress.looked_at > 0
                bars.update(
                    tasks[id(job)],
                    description=f"{'checking' if checking else verb} {escape(printable(job.source))}",
                    total=progress.total or None,
                    completed=progress.looked_at if checking else progress.done,
                    visible=progress.total > 0 and not over,
                )

        async def keep_showing() -> None:
            while True:
                show()
                await trio.sleep(_REFRESH_SECONDS)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep_showing)
            yield
            nursery.cancel_scope.cancel()
