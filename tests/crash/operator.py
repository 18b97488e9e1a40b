"""What whoever runs a service does beside it, as a process of its own that can die: `python -m tests.crash.operator WHAT DATA`.

`collect`: forget all tombstones. `sweep`: remove all garbage at once. `restore`: begin a new epoch, since the data folder was put
back to a copy.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from remote.server.collection import collect
from remote.server.config import ServerConfig
from remote.server.database.engine import SqliteDatabase
from remote.server.epochs import begin_epoch
from remote.server.garbage import Garbage
from remote.server.keys import new_key
from remote.server.objects.opening import open_local


def main(what: str, data: Path) -> None:
    if what == "restore":
        begin_epoch(data)
        return
    database = SqliteDatabase(data / "aloft.db")
    try:
        if what == "sweep":
            store = open_local(ServerConfig(data), new_key(os.urandom), time.time_ns, os.urandom, clear=False)
            Garbage(database, store, time.time_ns, grace_ns=0, abandoned_ns=0, closed_ns=0).collect()
        else:
            collect(database, time.time_ns, keep_ns=0)
    finally:
        database.close()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
