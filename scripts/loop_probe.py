"""The command `aloft` with a probe on its event loop: `loop_probe.py FILE mount DIR --foreground …`.

Each step of a task that held the loop for long becomes a line of JSON in FILE: `wall` and `cpu` in milliseconds (on a machine
with other work the second says what was ours), and `place`, where the loop was found while it was held.
"""

from __future__ import annotations

import functools
import json
import sys
import threading
import time
from pathlib import Path
from types import FrameType

import trio

from fs.cli.main import run

LONG_SECONDS = 0.003
LOOK_SECONDS = 0.002
OURS = ("fs", "cache", "remote")


class Probe(trio.abc.Instrument):
    def __init__(self, path: Path) -> None:
        self._file = path.open("a", buffering=1)
        self._loop = threading.get_ident()
        self._began = self._cpu = 0.0
        self._running = False
        self._place = ""
        threading.Thread(target=self._look, daemon=True).start()

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._place = ""
        self._cpu, self._began, self._running = time.thread_time(), time.perf_counter(), True

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        self._running = False
        cpu, wall = time.thread_time() - self._cpu, time.perf_counter() - self._began
        if cpu > LONG_SECONDS:
            line = {"wall": 1000 * wall, "cpu": 1000 * cpu, "place": self._place or task.name}
            self._file.write(json.dumps(line) + "\n")

    def _look(self) -> None:
        while True:
            time.sleep(LOOK_SECONDS)
            if self._running and not self._place and time.perf_counter() - self._began > LONG_SECONDS:
                self._place = _place(sys._current_frames().get(self._loop))


def _place(frame: FrameType | None) -> str:
    """The innermost of our functions, and who called it."""
    names: list[str] = []
    while frame is not None and len(names) < 3:
        if frame.f_globals.get("__name__", "").split(".")[0] in OURS:
            names.append(f"{frame.f_globals['__name__']}.{frame.f_code.co_qualname}")
        frame = frame.f_back
    return " < ".join(names)


def main() -> int:
    plain = trio.run

    @functools.wraps(plain)
    def probed(*arguments: object, **options: object) -> object:
        return plain(*arguments, instruments=[Probe(Path(sys.argv[1]))], **options)  # type: ignore[arg-type]

    trio.run = probed  # type: ignore[assignment]
    return run(sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main())
