"""What a program did to a folder, step by step, and what may be there after the drive was killed in one of the steps."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

PAGE = 4096

Content = bytes | None
"""Of a file; None: it is a folder."""
State = Mapping[str, Content]
Partly = Callable[[Content], bool]
"""Whether a path that was being written may look like this."""


class Died(Exception):
    """The file system went away under a call."""


class Broken(AssertionError):
    """A promise was not kept."""


@dataclass(frozen=True, slots=True)
class Step:
    """A call that has not returned: what there was before it, what there is after it, and what else may be seen of it."""

    what: str
    before: State
    after: State
    partly: Mapping[str, Partly]


@dataclass(slots=True)
class Ledger:
    state: dict[str, Content] = field(default_factory=dict)
    step: Step | None = None

    @contextmanager
    def doing(
        self, what: str, after: Mapping[str, Content], gone: tuple[str, ...] = (), partly: Mapping[str, Partly] | None = None
    ) -> Iterator[None]:
        """Around one call of a program, or several up to the close(): `after` it these paths are so, and those in `gone` not."""
        new = {path: content for path, content in self.state.items() if path not in gone} | dict(after)
        self.step = Step(what, dict(self.state), new, partly or {})
        try:
            yield
        except OSError as error:
            raise Died(f"{what}: {error}") from error
        self.state, self.step = new, None

    def check(self, seen: State) -> str:
        """What `seen` is: fit for the table. `Broken` if it is nothing that may be. Later checks want exactly this."""
        outcome = self._outcome(seen)
        self.state, self.step = dict(seen), None
        return outcome

    def _outcome(self, seen: State) -> str:
        step = self.step
        if step is None:
            _same(self.state, seen, "after all calls had returned")
            return "all calls had returned; all is there"
        if dict(seen) == dict(step.after):
            return f"in {step.what}: as after it"
        if dict(seen) == dict(step.before):
            return f"in {step.what}: as before it"
        for path, may_be in step.partly.items():
            if path in seen and not may_be(seen[path]):
                raise Broken(f"in {step.what}: {path} is nothing that was written: {_describe(seen[path])}")
        rest = {path: content for path, content in step.before.items() if path not in step.partly}
        _same(rest, {path: content for path, content in seen.items() if path not in step.partly}, f"in {step.what}")
        if lost := [path for path in step.partly if path in step.before and path in step.after and path not in seen]:
            raise Broken(f"in {step.what}: {lost} are gone")
        return f"in {step.what}: a part of it"


def _same(wanted: State, seen: State, when: str) -> None:
    if dict(wanted) == dict(seen):
        return
    said = []
    for path in sorted({*wanted, *seen}):
        if path not in seen:
            said.append(f"{path} is missing")
        elif path not in wanted:
            said.append(f"{path} is there without cause ({_describe(seen[path])})")
        elif wanted[path] != seen[path]:
            said.append(f"{path} has another content: {_describe(seen[path])}, not {_describe(wanted[path])}")
    raise Broken(f"{when}: " + "; ".join(said))


def _describe(content: Content) -> str:
    if content is None:
        return "a folder"
    return f"{len(content)} bytes {content[:8].hex()}…{content[-4:].hex()}"


def pages_of(old: bytes, new: bytes) -> Partly:
    """Every page is the old one, the new one, or was never written: what a file is that was being written in its place."""

    def may_be(seen: Content) -> bool:
        if seen is None or len(seen) > max(len(old), len(new)):
            return False
        for at in range(0, len(seen), PAGE):
            piece = seen[at : at + PAGE]
            sources = [source[at : at + PAGE][: len(piece)] for source in (old, new)]
            if piece not in [source + bytes(len(piece) - len(source)) for source in (*sources, b"")]:
                return False
        return True

    return may_be


def look_at(folder: Path) -> dict[str, Content]:
    """All that is in a folder, by paths below it; bytes of files, None for folders."""
    found: dict[str, Content] = {}
    pending = [folder]
    while pending:
        current = pending.pop()
        with os.scandir(current) as entries:
            for entry in entries:
                path = Path(entry.path)
                name = str(path.relative_to(folder))
                if entry.is_dir(follow_symlinks=False):
                    found[name] = None
                    pending.append(path)
                else:
                    found[name] = path.read_bytes()
    return found


def modes_of(folder: Path, paths: State) -> dict[str, int]:
    return {path: stat.S_IMODE((folder / path).stat().st_mode) for path in paths}
