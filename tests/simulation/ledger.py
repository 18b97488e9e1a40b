"""The ledger of a simulation: what people did and saw, held against every commit on the service.

The harness says what a person is *about to do* on a device, before it does it (a crash may come in the middle, and what
happened then counts as wanted), and what the drive then promised. After each commit that the service applied, the ledger looks
at what changed there, and refuses: an overwrite or a deletion of a content that nobody on that device had seen, a name for a
nameless inode without a fresh operation of that device, a second name that nobody made, bytes or names that nobody gave, and
whatever is no tree. Anything wrong is a `Violation`. What must be true after healing is `tests.simulation.invariants`'.

How the harness calls it (`device`: any name of a device; `ino`: the drive's number):

    ledger = Ledger()
    ledger.service_at(data_folder, space)              once, and again after a restored database (see `service_restored`)
    ledger.device_started(device, replica_file)        after each start of a drive; `device_stopped` after each end
    ledger.naming(device, name)                        before create, mkdir, symlink, rename, link: the new name
    ledger.touching(device, ino)                       before rename or a write, of the inode that it happens to
    ledger.linking(device, ino)                        before a link (names are `naming`'s)
    ledger.removing(device, ino)                       before unlink or rmdir, and for what a rename replaces
    handle = ledger.opened(device, file)               after files.open: what a person sees in it, shared by its handles
    handle.write(offset, data); handle.truncate(size)  before the drive's call (O_TRUNC: right after open)
    handle.kept()                                      after close's flush, or fsync, returned
    handle.released()                                  after file.release()
    ledger.check_read(handle, data)                    what a read of the whole file gave
    ledger.committed(device)                           after every commit that the service applied, of whomever it was
    ledger.device_crashed / device_backed_up / device_restored / service_backed_up / service_restored / service_collected
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from cache.copynames import is_copy_name
from cache.recovery import FOLDER
from tests.simulation.history import EMPTY, History, id_of
from tests.simulation.served import Key, Row, Served

Contents = frozenset[bytes]
"""What a file may hold, by id: one content, or several where a crash left it open which."""


class Violation(AssertionError):
    """The run was not right; the text says what happened to which content."""


class OpenFile(Protocol):
    """The drive's file (`cache.openfile.File`). `ino` None: the service's content took its place in the tree."""

    ino: int | None


@dataclass(slots=True)
class Handle:
    """What people see in one open file of a device, through however many handles."""

    ledger: Ledger
    device: str
    file: OpenFile
    inode: bytes
    data: bytearray
    content: Contents
    states: list[bytes] = field(default_factory=list)
    """The contents since the last promise, that one first."""
    handles: int = 1

    def write(self, offset: int, data: bytes) -> None:
        if data:
            self.data.extend(bytes(max(offset - len(self.data), 0)))
            self.data[offset : offset + len(data)] = data
            self._changed()

    def truncate(self, size: int) -> None:
        self.data = self.data[:size].ljust(size, b"\0")
        self._changed()

    def kept(self) -> None:
        """The drive promised what is there now: `close` or `fsync` returned."""
        self.ledger.promised(self)
        self.states = list(self.content)[:1]

    def released(self) -> None:
        self.handles -= 1
        self.ledger.released(self)

    def _changed(self) -> None:
        self.content = frozenset({self.ledger.wrote(self)})
        self.states += self.content


@dataclass(slots=True)
class _Device:
    """What is known of one device. All of it belongs to its home, and goes back with it when that is restored."""

    local: dict[bytes, Contents] = field(default_factory=dict)
    """The content that was written here last into an inode."""
    views: dict[bytes, set[bytes]] = field(default_factory=dict)
    """What a person saw in a file when its last name was removed here."""
    fresh: set[bytes] = field(default_factory=set)
    """Inodes on which something was done here that the service may not know yet."""
    stale: set[bytes] = field(default_factory=set)
    """Contents that came back with a restored home: the device does not know what became of them."""

    def copy(self) -> _Device:
        views = {inode: set(seen) for inode, seen in self.views.items()}
        return _Device(dict(self.local), views, set(self.fresh), set(self.stale))


class Ledger:
    """`single`: the only device on which people do anything, if there is one: its merges must change nothing there."""

    def __init__(self, single: str | None = None) -> None:
        self.single = single
        self.history = History()
        self.on_service: set[bytes] = set()
        """Contents that the service had at any time."""
        self.copies_made = 0
        self.names: set[str] = {FOLDER}
        self._links: Counter[bytes] = Counter()
        self._devices: dict[str, _Device] = {}
        self._replicas: dict[str, sqlite3.Connection] = {}
        self._handles: dict[int, Handle] = {}
        self._served: Served | None = None

    # ------------------------------------------------------------------------------------------------ where things are

    @property
    def served(self) -> Served:
        assert self._served is not None, "no service yet"
        return self._served

    def service_at(self, data: Path, space: bytes) -> None:
        """The service's data folder, and the id of the account's space."""
        if self._served is not None:
            self._served.close()
        self._served = Served(data, space)

    def device_started(self, device: str, replica: Path) -> None:
        self.device_stopped(device)
        self._devices.setdefault(device, _Device())
        self._replicas[device] = sqlite3.connect(f"file:{replica}?mode=ro", uri=True, isolation_level=None)

    def device_stopped(self, device: str) -> None:
        """The drive has ended, however. May be repeated; open files are forgotten."""
        replica = self._replicas.pop(device, None)
        if replica is not None:
            replica.close()
        self._handles = {key: handle for key, handle in self._handles.items() if handle.device != device}

    def close(self) -> None:
        for device in list(self._replicas):
            self.device_stopped(device)
        if self._served is not None:
            self._served.close()

    # ------------------------------------------------------------------------------------------------- what people do

    def naming(self, device: str, name: str) -> None:
        self.names.add(name)

    def touching(self, device: str, ino: int) -> None:
        self._devices[device].fresh.add(self._id(device, ino))

    def linking(self, device: str, ino: int) -> None:
        self._links[self._id(device, ino)] += 1
        self.touching(device, ino)

    def removing(self, device: str, ino: int) -> None:
        """A name of the inode goes. Whoever removes the last one has seen what is in the file."""
        self.touching(device, ino)
        seen = self.sees(device, ino)
        self._devices[device].views.setdefault(self._id(device, ino), set()).update(seen)
        if self._replicas[device].execute("SELECT nlink FROM inode WHERE ino = ?", (ino,)).fetchone()[0] <= 1:
            self._delete(seen)

    def opened(self, device: str, file: OpenFile) -> Handle:
        """What the file shows; the drive's handles on one file share one."""
        handle = self._handles.get(id(file))
        if handle is not None:
            handle.handles += 1
            return handle
        assert file.ino is not None
        content = self.sees(device, file.ino)
        data = bytearray(self.history.contents[next(iter(content))].data if content else b"")
        handle = Handle(self, device, file, self._id(device, file.ino), data, content, list(content))
        self._handles[id(file)] = handle
        return handle

    def check_read(self, handle: Handle, data: bytes) -> None:
        """A read of the whole file must show what was written to it. After a crash this settles which of several it is."""
        if bytes(handle.data) == data:
            return
        id_ = self.history.adopt(data)
        if id_ is None or (len(handle.content) < 2 and id_ not in handle.content):
            raise Violation(f"{handle.device} reads {self.show(data)} where {self.show(bytes(handle.data))} was written")
        handle.data, handle.content, handle.states = bytearray(data), frozenset({id_}), [id_]

    def sees(self, device: str, ino: int) -> Contents:
        """What a person on the device sees in a file now; nothing in what is no file."""
        row = (
            self._replicas[device]
            .execute(
                "SELECT i.kind, i.manifest_id, EXISTS (SELECT 1 FROM draft d WHERE d.ino = i.ino) FROM inode i WHERE i.ino = ?",
                (ino,),
            )
            .fetchone()
        )
        if row is None or row[0] != "file":
            return frozenset()
        for handle in self._handles.values():  # what is written may not be in a row yet
            if handle.device == device and handle.file.ino == ino:
                return handle.content
        _, manifest, is_draft = row
        if is_draft or manifest is None:
            return self._devices[device].local.get(self._id(device, ino), frozenset({EMPTY}))
        return frozenset({self._content(manifest)})

    # ----------------------------------------------------------------------------------------------- called by handles

    def wrote(self, handle: Handle) -> bytes:
        """A person changes the file, having seen what `handle` showed until now."""
        device = self._devices[handle.device]
        id_ = self.history.write(handle.device, bytes(handle.data), handle.content)
        if handle.file.ino is not None:
            handle.inode = self._id(handle.device, handle.file.ino)
        device.local[handle.inode] = frozenset({id_})
        device.fresh.add(handle.inode)
        return id_

    def promised(self, handle: Handle) -> None:
        for id_ in handle.content:
            self.history.contents[id_].promised = True
        if handle.file.ino is not None:
            inode = self._id(handle.device, handle.file.ino)
            self._devices[handle.device].local[inode] = handle.content
            if self._is_deleted_here(handle.device, handle.file.ino):
                self._delete(handle.content)

    def released(self, handle: Handle) -> None:
        if handle.handles == 0:
            self._handles.pop(id(handle.file), None)

    def _is_deleted_here(self, device: str, ino: int) -> bool:
        """Whether the file has no name because somebody on this device removed it, so that what is written goes with it."""
        row = self._replicas[device].execute("SELECT nlink FROM inode WHERE ino = ?", (ino,)).fetchone()
        return row is not None and row[0] == 0 and self._id(device, ino) in self._devices[device].views

    def _delete(self, contents: Iterable[bytes]) -> None:
        for id_ in contents:
            self.history.contents[id_].deleted = True

    # ------------------------------------------------------------------------------------------------------ the service

    def committed(self, device: str) -> None:
        """Look at what a commit of `device` changed on the service."""
        rows, entries = self.served.news()
        tree = self.served.tree
        before = {id_: (tree.rows.get(id_), tree.is_named(id_)) for id_ in self._touched(rows, entries)}
        self.served.take(rows, entries)
        for id_, (old, was_named) in before.items():
            new = tree.rows.get(id_)
            if new is None:
                raise Violation(f"{device} named an inode that the service does not have")
            is_named = tree.is_named(id_)
            if new.kind == "file":
                self._check_file(device, id_, old, new, was_named, is_named)
            if old is not None and is_named and not was_named:
                self._check_revival(device, id_, new)
            self._check_names(device, id_, new)
        for key, inode in entries.items():
            self._check_entry(device, key, inode)

    def _touched(self, rows: Iterable[bytes], entries: dict[Key, bytes | None]) -> set[bytes]:
        held = [self.served.tree.entries.get(key) for key in entries]
        return {id_ for id_ in (*rows, *entries.values(), *held) if id_ is not None}

    def _check_file(self, device: str, id_: bytes, old: Row | None, new: Row, was_named: bool, is_named: bool) -> None:
        assert new.manifest_id is not None, "the service has a file without a content"
        content = self._content(new.manifest_id)
        self.on_service.add(content)
        if old is None or not was_named:
            return
        assert old.manifest_id is not None
        before = self._content(old.manifest_id)
        if not self.history.descends(content, before):
            raise Violation(f"{device} overwrote {self.name(before)} with {self.name(content)}, which has not seen it")
        if not is_named and not any(self.history.descends(seen, before) for seen in self._devices[device].views.get(id_, ())):
            raise Violation(f"{device} deleted {self.name(before)} without having seen it")

    def _check_revival(self, device: str, id_: bytes, row: Row) -> None:
        tree = self.served.tree
        if id_ in self._devices[device].fresh or (row.kind == "directory" and tree.children.get(id_)):
            return
        raise Violation(f"{device} revived {tree.path(id_)!r}, though nobody there did anything to it")

    def _check_names(self, device: str, id_: bytes, row: Row) -> None:
        names = self.served.tree.names.get(id_, set())
        if len(names) > 1 + self._links[id_]:
            raise Violation(f"{device} gave a {row.kind} the names {sorted(name for _, name in names)}; nobody linked it")

    def _check_entry(self, device: str, key: Key, inode: bytes | None) -> None:
        tree, (parent, name) = self.served.tree, key
        if inode is None:
            if tree.children.get(parent) and not tree.is_named(parent):
                raise Violation(f"{device} removed a folder that is not empty")
            return
        fault = tree.fault(key, inode)
        if fault is not None:
            raise Violation(f"{device} left no tree on the service: {fault}")
        if name not in self.names and not is_copy_name(name) and tree.path(parent) != FOLDER:
            raise Violation(f"{device} gave the name {name!r}, which nobody asked for")

    def _content(self, manifest: bytes) -> bytes:
        """Of a content that the service holds. It must be one that somebody wrote."""
        data = self.served.read(manifest)
        id_ = self.history.adopt(data)
        if id_ is None:
            raise Violation(f"the service holds {self.show(data)}, which nobody wrote")
        return id_

    # ----------------------------------------------------------------------------------------------- merges on a device

    def before_merge(self, device: str, untouched: Iterable[int]) -> None:
        """These inodes of the device are as the service has them, so what was done to them there is done."""
        self._devices[device].fresh -= {self._id(device, ino) for ino in untouched}

    def copied(self, device: str, source: int, copy: int, service: Row | None) -> None:
        """A merge made a conflicted copy of what was in `source`, whose content is the service's now."""

    # ----------------------------------------------------------------------------------------------------------- faults

    def device_crashed(self, device: str) -> None:
        """Call it before `device_stopped`. Open files hold what was promised last, or anything that was written since."""
        for handle in self._handles.values():
            if handle.device == device and len(handle.states) > 1:
                self.history.interrupted(device, handle.states)
                self._devices[device].local[handle.inode] = frozenset(handle.states)

    def device_backed_up(self, device: str) -> object:
        """What `device_restored` needs when the home is put back to what it is now."""
        return self._devices[device].copy()

    def device_restored(self, device: str, backup: object) -> None:
        """The home is what it was when `backup` was made; what it closed since and did not send is lost with it."""

    def service_backed_up(self) -> object:
        return None

    def service_restored(self, backup: object) -> None:
        """The service's database is what it was: contents that only it had since then may be lost."""

    def service_collected(self) -> None:
        """The service dropped tombstones and what has no name any more; versions of living files stay."""
        self.served.reload()

    # --------------------------------------------------------------------------------------------------------- messages

    def name(self, id_: bytes) -> str:
        return self.show(self.history.contents[id_].data)

    def show(self, data: bytes) -> str:
        return f"{data[:24]!r} ({len(data)} bytes, {id_of(data).hex()[:6]})"

    def _id(self, device: str, ino: int) -> bytes:
        row = self._replicas[device].execute("SELECT id FROM identity WHERE ino = ?", (ino,)).fetchone()
        assert row is not None, "an inode of the device is unknown there"
        id_: bytes = row[0]
        return id_
