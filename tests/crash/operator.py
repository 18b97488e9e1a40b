"""What whoever runs a service does beside it, as a process of its own that can die: `python -m tests.crash.operator WHAT DATA`.

`collect`: forget all tombstones. `sweep`: remove all garbage at once. `restore`: begin a new epoch, since the data folder was put
back to a copy. `rewrap`: a new master key, and two hours later the former one is dropped. `spread`: keep a copy of each
object in a second folder, too.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from remote.server.collection import collect
from remote.server.config import ObjectsConfig, ServerConfig
from remote.server.database.engine import SqliteDatabase
from remote.server.epochs import begin_epoch
from remote.server.garbage import Garbage
from remote.server.keys import new_key
from remote.server.objects.opening import open_local
from remote.server.objects.rewrapping import KEPT_NS, Rewrapping
from remote.server.scrub import Scrubber


def main(what: str, data: Path) -> None:
    if what == "restore":
        begin_epoch(data)
        return
    config = ServerConfig(data)
    if what == "spread":
        config = ServerConfig(data, objects=ObjectsConfig(folders=(data / "objects", data / "more"), copies=2))
    database = SqliteDatabase(data / "aloft.db")
    store = open_local(config, new_key(os.urandom), time.time_ns, os.urandom, clear=False)
    try:
        if what == "sweep":
            Garbage(database, store, time.time_ns, grace_ns=0, abandoned_ns=0, closed_ns=0).collect()
        elif what == "rewrap":
            Rewrapping(store, data, time.time_ns, os.urandom).run()
            Rewrapping(store, data, lambda: time.time_ns() + 2 * KEPT_NS, os.urandom).run(finish=True)
        elif what == "spread":
            Scrubber(database, store, time.time_ns).run()
        else:
            collect(database, time.time_ns, keep_ns=0)
    finally:
        database.close()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
