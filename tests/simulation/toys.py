"""Small histories made by hand, to see what the ledger and the invariants accept and what they refuse.

The service is the real one, and so are the rows of each device; but nothing runs: a test says itself what each device sends,
which may be wrong in every way that a real device must not be.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cache.clock import SystemClock, SystemRandomness
from cache.replica import Replica
from cache.store.content import ContentStore
from cache.store.database import Database
from cache.store.schema import ROOT
from cache.store.tree import TreeStore
from remote.manifest import manifest_id
from remote.protocol import Kind
from remote.server.devices import Caller
from remote.server.service import Service
from tests.simulation.ledger import Ledger
from tests.support.wire import create, inline

SPACE_NUMBER = 1


@dataclass(eq=False)
class File:
    """What the ledger knows of a drive's open file."""

    ino: int | None


class Toy:
    """The rows of one device, and its voice on the service."""

    def __init__(self, name: str, home: Path, service: Service, caller: Caller, space: bytes, ledger: Ledger) -> None:
        self.name = name
        self.space = space
        self.path = home / f"{name}.db"
        self.database = Database.open(self.path)
        self.tree = TreeStore(self.database)
        self.contents = ContentStore(self.database)
        with self.database.transaction():
            self.tree.add_space(space, now_ns=0)
        self.replica = Replica(self.database, self.tree, SystemClock(), SystemRandomness())
        self.ledger = ledger
        self._service = service
        self._caller = caller
        self._replica = name.encode().hex().ljust(32, "0")
        self._number = 0
        ledger.device_started(name, self.path)

    @property
    def root(self) -> str:
        return self.space.hex()

    def id(self, ino: int) -> str:
        return self.tree.id_of(ino).hex()

    # ----------------------------------------------------------------------------------------------- what its person does

    def create(self, name: str, data: bytes | None, parent: int = ROOT) -> int:
        """A new file, or (None) a new folder."""
        self.ledger.naming(self.name, name)
        kind = Kind.DIRECTORY if data is None else Kind.FILE
        ino = self.replica.create(parent, name, kind, mode=0o755 if data is None else 0o644, uid=None, gid=None).ino
        if data is not None:
            self.write(ino, data)
        return ino

    def write(self, ino: int, data: bytes, *, closed: bool = True) -> None:
        """As `open(O_TRUNC), write, close`; if not `closed`, the file stays open."""
        handle = self.ledger.opened(self.name, File(ino))
        handle.truncate(0)
        handle.write(0, data)
        with self.database.transaction():
            self.contents.drop_drafts(ino)
            self.contents.add_draft(ino, len(data), 0, b"", data, 0)
        if closed:
            handle.kept()
            handle.released()

    def unlink(self, name: str) -> None:
        self.ledger.removing(self.name, self.replica.lookup(ROOT, name).ino)
        self.replica.unlink(ROOT, name)

    # ------------------------------------------------------------------------------------------------- what its drive does

    def send(self, *groups: dict[str, Any]) -> None:
        """A commit that the service must accept; the ledger looks at it."""
        self._number += 1
        commit = {"number": self._number, "replica": self._replica, "epoch": self._service.epoch, "groups": groups}
        body = json.dumps(commit).encode()
        answer = json.loads(self._service.namespace.commit(self._caller, self.space, body).answer)
        assert [outcome["result"] for outcome in answer["outcomes"]] == ["ok"] * len(groups), answer
        self.ledger.committed(self.name)

    def has(self, ino: int, data: bytes) -> None:
        """The row says now that the file holds what the service has."""
        with self.database.transaction():
            self.contents.drop_drafts(ino)
            self.tree.update_inode(ino, manifest_id=manifest_id(inline(data)), manifest_size=len(data))

    def learn(self, id_: str, name: str, data: bytes | None, parent: int = ROOT) -> int:
        """Take an inode over from the service."""
        known: dict[str, Any] = {}
        if data is not None:
            known = {"manifest_id": manifest_id(inline(data)), "manifest_size": len(data), "size": len(data)}
        with self.database.transaction():
            return self.tree.insert_inode(
                *(bytes.fromhex(id_), SPACE_NUMBER, Kind.DIRECTORY if data is None else Kind.FILE),
                **{"mode": 0o644, "uid": None, "gid": None, "now_ns": 0, "name": (parent, name), **known},
            )

    def close(self) -> None:
        self.ledger.device_stopped(self.name)
        self.database.close()


@dataclass
class World:
    ledger: Ledger
    service: Service
    ada: Toy
    bob: Toy

    def shared(self, name: str, data: bytes) -> tuple[int, int, str]:
        """A file of ada's that bob has too: its number at each, and its id."""
        ino = self.ada.create(name, data)
        id_ = self.ada.id(ino)
        self.ada.send(create(self.ada.root, name, id_, data))
        self.ada.has(ino, data)
        return ino, self.bob.learn(id_, name, data), id_

    def rev(self, id_: str) -> int:
        return self.ledger.served.tree.rows[bytes.fromhex(id_)].content_rev

    @property
    def faults(self) -> str:
        return "\n".join(self.ledger.wrong)
