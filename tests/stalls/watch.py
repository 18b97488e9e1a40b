"""Programs under a watchdog: what does not end in time is described (stacks of the mount process, where the kernel has the
program), and cut off through fusectl, so that nothing that cannot be killed stays behind."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.stalls import program
from tests.support.waiting import PATIENCE, wait_until

CONNECTIONS = Path("/sys/fs/fuse/connections")


class Hangs(AssertionError):
    """It did not end in time; the text says where it hangs."""


class Refused(Exception):
    def __init__(self, code: int) -> None:
        super().__init__(os.strerror(code))
        self.errno = code


class Program:
    """Calls of `program`'s functions, each in bounded time."""

    def __init__(self, describe: Callable[[], str] = lambda: "", prefix: Sequence[str] = ()) -> None:
        self.describe = describe
        command = [*prefix, sys.executable, "-I", "-S", program.__file__]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)

    def call(self, name: str, *arguments: Any, seconds: float = PATIENCE) -> Any:
        self.begin(name, *arguments)
        return self.answer(seconds)

    def begin(self, name: str, *arguments: Any) -> None:
        """Ask, and do not wait: `answer` does."""
        assert self.process.stdin is not None
        request = {"call": name, "arguments": [os.fspath(one) if isinstance(one, Path) else one for one in arguments]}
        self._asked = f"{name} {arguments}"[:200]
        self.process.stdin.write(json.dumps(request).encode() + b"\n")

    def answer(self, seconds: float = PATIENCE) -> Any:
        assert self.process.stdout is not None
        line = b""
        while not line.endswith(b"\n"):
            ready, _, _ = select.select([self.process.stdout], [], [], seconds)
            if not ready:
                raise Hangs(f"{self._asked}: no answer within {seconds:.0f} s\n{where(self.process.pid)}\n{self.describe()}")
            part = os.read(self.process.stdout.fileno(), 2**20)
            assert part, f"{self._asked}: the program ended"
            line += part
        answer = json.loads(line)
        if "errno" in answer:
            raise Refused(answer["errno"])
        return answer["result"]

    def end(self) -> None:
        """Kill it, and wait for nothing: what it waits for may be let go later."""
        self.process.kill()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(1)


class Connection:
    """The kernel's side of a mount."""

    def __init__(self, minor: int) -> None:
        self._folder = CONNECTIONS / str(minor)

    def waiting(self) -> int:
        """Requests that are not answered yet."""
        return int((self._folder / "waiting").read_text())

    def max_background(self) -> int:
        """Requests without somebody who waits for each (read-ahead, write-back) that may be outstanding."""
        return int((self._folder / "max_background").read_text())

    def abort(self) -> None:
        with suppress(FileNotFoundError):
            (self._folder / "abort").write_text("1")


def connection_of(point: Path) -> Connection:
    """By the table of mounts: `stat` would ask a mount that may hang."""
    for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
        fields = line.split(" ")
        if fields[4] == str(point):
            return Connection(int(fields[2].split(":")[1]))
    raise AssertionError(f"nothing is mounted at {point}")


def where(pid: int) -> str:
    """Where the kernel has a process's threads."""
    lines = []
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with suppress(OSError):
                lines.append(f"-- {pid}/{task.name} {(task / 'wchan').read_text()}\n{(task / 'stack').read_text()}")
    return "\n".join(lines)


def stacks(pid: int, log: Callable[[], str]) -> str:
    """What a mount process is doing. Ends it: SIGABRT makes it write its stacks into its log."""
    kernel = where(pid)
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGABRT)
        with suppress(BaseException):
            wait_until(lambda: "Current thread" in log() or "Thread 0x" in log(), "the stacks", 10)
    return f"{kernel}\n{log()[-8000:]}"
