"""Which bytes are nowhere any more since the service was restored to an older state: not there, and not on the device.

A device goes on asking for them, and says so. Its person may then remove the file; nothing else is excused by a restore.
"""

from __future__ import annotations

import sqlite3

from remote.manifest import Encoding, decode_manifest
from tests.simulation.device import Device
from tests.simulation.ledger import Ledger
from tests.simulation.operations import Entry, Person


def give_up_lost(ledger: Ledger, device: Device, person: Person) -> int:
    """The person removes each file of which the device says that a part cannot be had, if that is true. How many names."""
    status = device.drive.status()
    waiting = {f"/{queued.path}" for queued in status.queue.first if queued.error is not None}

    def is_lost(entry: Entry) -> bool:
        said = entry.path in waiting or any(entry.name in problem.rpartition(": ")[0] for problem in status.problems)
        if not said or not is_gone(ledger, device, entry.node.ino):
            return False
        ledger.giving_up(device.name, entry.node.ino)
        return True

    return person.remove(is_lost)


def is_gone(ledger: Ledger, device: Device, ino: int) -> bool:
    """Whether a part of the content that lies beneath what was written to a file is neither on the device nor on the service."""
    replica, inode = ledger.replica(device.name), ledger.id_of(device.name, ino)
    manifest_id, encoded = replica.execute(
        "SELECT i.manifest_id, m.data FROM inode i LEFT JOIN manifest m ON m.id = i.manifest_id WHERE i.ino = ?", (ino,)
    ).fetchone()
    if manifest_id is None:
        return False
    if encoded is None:
        return not ledger.served.has_version(inode, manifest_id)
    return any(
        not ledger.served.has_object(chunk.object_id) and not has_chunk(device, chunk.object_id)
        for chunk in decode_manifest(encoded).chunks
        if chunk.encoding is not Encoding.ZEROS
    )


def has_chunk(device: Device, object_id: bytes) -> bool:
    """Whether one of the device's caches has it."""
    for index in device.home.rglob("cache.db"):
        with sqlite3.connect(f"file:{index}?mode=ro", uri=True) as sql:
            if sql.execute("SELECT 1 FROM Cache WHERE key = ?", (object_id,)).fetchone() is not None:
                return True
    return False
