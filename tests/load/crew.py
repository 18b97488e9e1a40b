"""The workers as processes: started, watched, and ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from tests.load.board import Board, Slot, State
from tests.load.machines import Failed, Hangs
from tests.load.work import Task

REPOSITORY = Path(__file__).resolve().parents[2]
_STACKS_SECONDS = 1.0


class Crew:
    def __init__(self, board: Board) -> None:
        self._board = board
        self._tasks: list[Task] = []
        self._processes: list[subprocess.Popen[bytes]] = []

    def add(self, task: Task) -> None:
        with (task.scratch / "errors.log").open("wb") as errors:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.load.worker"],
                cwd=task.scratch,
                env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
                stdin=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
            )
        assert process.stdin is not None
        process.stdin.write(task.to_json().encode())
        process.stdin.close()
        self._tasks.append(task)
        self._processes.append(process)

    def check(self, hang_seconds: float) -> None:
        """Raise if a worker found something, or an operation of one does not end."""
        now = time.monotonic_ns()
        for task, process, slot in zip(self._tasks, self._processes, self._slots(), strict=True):
            if process.poll() not in (None, 0):
                raise Failed(f"{task.name} ended with {process.returncode}: {self._errors(task)}")
            if slot.since and now - slot.since > hang_seconds * 1e9:
                raise Hangs(f"{task.name} hangs: {slot.operation!r} since {(now - slot.since) / 1e9:.0f} s")

    def are_all(self, state: State) -> bool:
        return all(slot.state is state for slot in self._slots())

    def is_working(self) -> bool:
        return any(slot.state is not State.ENDED for slot in self._slots())

    def wait(self) -> None:
        for task, process in zip(self._tasks, self._processes, strict=True):
            if process.wait(60) != 0:
                raise Failed(f"{task.name} ended with {process.returncode}: {self._errors(task)}")

    def describe(self) -> str:
        slots = zip(self._tasks, self._slots(), strict=True)
        return ", ".join(f"{task.name} {slot.state.name.lower()} {slot.operation}" for task, slot in slots)

    def count(self) -> dict[str, dict[str, int]]:
        slots = zip(self._tasks, self._slots(), strict=True)
        return {task.name: {"done": slot.done, "checked": slot.checked, "excused": slot.excused} for task, slot in slots}

    def stacks(self) -> list[str]:
        """Where each process of each worker is, for somebody who has to find out why it hangs."""
        for process in self._processes:
            if process.poll() is None:
                process.send_signal(signal.SIGUSR1)
        time.sleep(_STACKS_SECONDS)
        found = []
        for task, process in zip(self._tasks, self._processes, strict=True):
            if process.poll() is None:
                kernel = [f"{pid} {_of_kernel(pid)}" for pid in _session(process.pid)]
                found.append(f"{task.name}: {self._errors(task)[-1500:]}; {'; '.join(kernel)}")
        return found

    def kill(self) -> None:
        """With all that they started."""
        for process in self._processes:
            for pid in _session(process.pid):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            with suppress(subprocess.TimeoutExpired):
                process.wait(10)

    def _slots(self) -> list[Slot]:
        return [self._board.slot(task.slot) for task in self._tasks]

    def _errors(self, task: Task) -> str:
        return (task.scratch / "errors.log").read_text(errors="replace").strip()


def _session(leader: int) -> list[int]:
    """A worker and its programs: those that have a session of their own are its children."""
    found = {leader}
    fields = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with suppress(OSError):
                stat = Path(entry.path, "stat").read_text().rpartition(")")[2].split()
                fields[int(entry.name)] = (int(stat[1]), int(stat[3]))
    while more := {pid for pid, above in fields.items() if pid not in found and found.intersection(above)}:
        found |= more
    return sorted(found)


def _of_kernel(pid: int) -> str:
    said = []
    for name in ("wchan", "stack", "syscall"):
        with suppress(OSError):
            said.append(" ".join(Path(f"/proc/{pid}/{name}").read_text().split())[:300])
    return " | ".join(said)
