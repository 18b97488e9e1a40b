"""`python -m tests.load.worker`: one worker, told its task as JSON on stdin. Exits with 1, and says why on stderr, if it found
something wrong."""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import traceback

from tests.load.files import FileWorker
from tests.load.programs import Copies, Fio, Git, Sqlite, StressNg
from tests.load.sharing import Reader, SharedWriter
from tests.load.trees import TreeWorker
from tests.load.work import Task, Worker

KINDS: dict[str, type[Worker]] = {
    "files": FileWorker,
    "tree": TreeWorker,
    "shared": SharedWriter,
    "reader": Reader,
    "git": Git,
    "copies": Copies,
    "sqlite": Sqlite,
    "fio": Fio,
    "stress-ng": StressNg,
}


def main() -> int:
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1)
    os.umask(0o022)
    task = Task.from_json(sys.stdin.read())
    try:
        KINDS[task.kind](task).run()
    except Exception:  # noqa: BLE001 - whatever it is, the run wants to know
        sys.stderr.write(traceback.format_exc())
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
