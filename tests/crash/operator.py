"""What whoever runs a service does beside it, as a process of its own that can die: `python -m tests.crash.operator WHAT DATA`.

`collect`: forget all tombstones. `restore`: begin a new epoch, since the data folder was put back to a copy.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from remote.server.collection import collect
from remote.server.database.engine import SqliteDatabase
from remote.server.epochs import begin_epoch


def main(what: str, data: Path) -> None:
    if what == "restore":
        begin_epoch(data)
        return
    database = SqliteDatabase(data / "aloft.db")
    try:
        collect(database, time.time_ns, keep_ns=0)
    finally:
        database.close()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
