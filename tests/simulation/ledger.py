"""The ledger of a simulation: what people did and saw, held against every commit on the service.

The harness says what a person is *about to do* on a device, before it does it (a crash may come in the middle, and what
happened then counts as wanted), and what the drive then promised. After each commit that the service applied, the ledger looks
at what changed there, and finds fault with: an overwrite or a deletion of a content that nobody on that device had seen, a name
for a nameless inode without a fresh operation of that device, a second name that nobody made, bytes or names that nobody gave,
and whatever is no tree. What must be true after healing is `tests.simulation.invariants`'.

How the harness calls it (`device`: the name of a device; `ino`: the drive's number):

    ledger = Ledger()
    ledger.service_at(data_folder, space)              once, and after the data folder was replaced (`service_left` before it)
    ledger.device_started(device, replica_file)        after each start of a drive; `device_stopped` after each end
    ledger.naming(device, name)                        before create, mkdir, symlink, rename, link: the new name
    ledger.touching(device, ino)                       before rename or a write, of the inode that it happens to
    ledger.linking(device, ino)                        before a link (names are `naming`'s)
    ledger.removing(device, ino)                       before unlink or rmdir, and for what a rename replaces
    handle = ledger.opened(device, file)               after files.open: what a person sees in it, shared by its handles
    handle.write(offset, data); handle.truncate(size)  before the drive's call (O_TRUNC: right after open)
    handle.kept()                                      after close's flush, or fsync, returned
    handle.released()                                  after file.release()
    ledger.check_read(handle, data)                    what a read of the whole file gave; needed first where `uncertain`
    ledger.committed(device)                           after every commit that the service applied, of whomever it was
    ledger.raise_if_wrong()                            between steps: what is found within the drives' tasks is kept until then

and the faults: `device_crashed` (before `device_stopped`), `device_backed_up`, `device_restored`, `service_backed_up`,
`service_restored`, `service_collected`. Merges are followed by `tests.simulation.coverage.observed`.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from cache.recovery import FOLDER
from cache.replica import EMPTY_MANIFEST_ID
from remote.copynames import read_copy_name
from tests.simulation.handles import Contents, Handle, OpenFile
from tests.simulation.history import EMPTY, History, id_of
from tests.simulation.served import Key, Row, Served, Tree


class Violation(AssertionError):
    """The run was not right; the text says what happened to which content."""


@dataclass(slots=True)
class Known:
    """What is known of one device. All of it belongs to its home, and goes back with it when that is restored."""

    local: dict[bytes, Contents] = field(default_factory=dict)
    """The content that was written here last into an inode."""
    emptied: dict[bytes, Contents] = field(default_factory=dict)
    """What was in an inode before a person made it empty here."""
    views: dict[bytes, set[bytes]] = field(default_factory=dict)
    """What a person saw in a file when its last name was removed here."""
    fresh: set[bytes] = field(default_factory=set)
    """Inodes on which something was done here that the service may not know yet."""
    stale: set[bytes] = field(default_factory=set)
    """Contents that came back with a restored home: the device does not know what became of them."""

    unsent: Counter[bytes] = field(default_factory=Counter)
    """In a backup: how many names of each inode the service did not have."""

    def copy(self) -> Known:
        views = {inode: set(seen) for inode, seen in self.views.items()}
        return Known(dict(self.local), dict(self.emptied), views, set(self.fresh), set(self.stale), Counter(self.unsent))


class Ledger:
    """`single`: the only device on which people do anything, if there is one: its merges must change nothing there."""

    def __init__(self, single: str | None = None) -> None:
        self.single = single
        self.history = History()
        self.on_service: set[bytes] = set()
        """Contents that the service had at any time."""
        self.names: set[str] = {FOLDER}
        """What people called anything."""
        self.wrong: list[str] = []
        """What was found, in its order."""
        self.was_restored = False
        """The service was: devices bring back what it lost, under the names that they know beside those that it has."""
        self._came_back: set[bytes] = set()
        """Contents that took the place of one that had replaced them, since a device named the file again that had not heard of
        that one: others cannot know that it is an old one."""
        self._brought_back: dict[bytes, set[bytes]] = {}
        """Of an inode without a name, the contents that gave it one again, of whose writers none had seen what it held."""
        self._emptied: dict[bytes, set[bytes]] = {}
        """Of an inode, the contents that an empty one replaced on the service, and whose writer had seen them."""
        self._filled: dict[bytes, set[bytes]] = {}
        """Of an inode, the contents that replaced an empty one."""
        self._contents: dict[bytes, bytes] = {}
        """Which content each manifest is that the service ever had."""
        self._links: Counter[bytes] = Counter()
        self._unlinked: Counter[bytes] = Counter()
        self._given_up: set[bytes] = set()
        self._devices: dict[str, Known] = {}
        self._replicas: dict[str, sqlite3.Connection] = {}
        self._device_at: dict[Path, str] = {}
        self._handles: dict[int, Handle] = {}
        self._served: Served | None = None

    def raise_if_wrong(self) -> None:
        if self.wrong:
            raise Violation("\n".join(self.wrong))

    # ------------------------------------------------------------------------------------------------ where things are

    @property
    def served(self) -> Served:
        assert self._served is not None, "no service yet"
        return self._served

    def service_at(self, data: Path, space: bytes) -> None:
        """The service's data folder, and the id of the account's space."""
        self.service_left()
        self._served = Served(data, space)

    def service_moved(self, data: Path) -> None:
        """It crashed, and goes on in a copy of its data folder. A commit that it had applied may have to be looked at yet."""
        self.served.move(data)

    def service_left(self) -> None:
        """The data folder is about to be replaced."""
        if self._served is not None:
            self._served.close()
            self._served = None

    def device_started(self, device: str, replica: Path) -> None:
        self.device_stopped(device)
        self._devices.setdefault(device, Known())
        self._replicas[device] = sqlite3.connect(f"file:{replica}?mode=ro", uri=True, isolation_level=None)
        self._device_at[replica] = device

    def device_stopped(self, device: str) -> None:
        """The drive has ended, however. May be repeated; open files are forgotten."""
        replica = self._replicas.pop(device, None)
        if replica is not None:
            replica.close()
        self._device_at = {path: name for path, name in self._device_at.items() if name != device}
        for handle in self._handles.values():
            handle.gone |= handle.device == device
        self._handles = {key: handle for key, handle in self._handles.items() if not handle.gone}

    def device_at(self, replica: Path) -> str | None:
        """Whose replica that file is; None of one that a crash left behind."""
        return self._device_at.get(replica)

    def replica(self, device: str) -> sqlite3.Connection:
        """A connection that only reads, next to the drive's own."""
        return self._replicas[device]

    def close(self) -> None:
        for device in list(self._replicas):
            self.device_stopped(device)
        self.service_left()

    # ------------------------------------------------------------------------------------------------- what people do

    def naming(self, device: str, name: str) -> None:
        self.names.add(name)

    def touching(self, device: str, ino: int) -> None:
        self._devices[device].fresh.add(self.id_of(device, ino))

    def linking(self, device: str, ino: int) -> None:
        self._links[self.id_of(device, ino)] += 1
        self.touching(device, ino)

    def removing(self, device: str, ino: int) -> None:
        """A name of the inode goes. Whoever removes the last one has seen what is in the file."""
        self.touching(device, ino)
        names = self._replicas[device].execute("SELECT nlink FROM inode WHERE ino = ?", (ino,)).fetchone()[0]
        self._unlinked[self.id_of(device, ino)] += names > 1
        if names == 1:
            inode, content = self.id_of(device, ino), self.sees(device, ino)
            self._devices[device].views.setdefault(inode, set()).update(self._seen(device, inode, content))
            self._delete(content)
            for handle in self._handles.values():
                handle.deleted |= handle.device == device and handle.file.ino == ino

    def giving_up(self, device: str, ino: int) -> None:
        """The file is about to be removed because what is in it is lost, though the service may have an older content."""
        self._given_up.add(self.id_of(device, ino))

    def opened(self, device: str, file: OpenFile) -> Handle:
        """What the file shows; the drive's handles on one file share one."""
        handle = self._handles.get(id(file))
        if handle is not None:
            handle.handles += 1
            return handle
        assert file.ino is not None
        inode, content = self.id_of(device, file.ino), self.sees(device, file.ino)
        data = bytearray(self.history.contents[min(content)].data)
        handle = Handle(self, device, file, inode, data, content, self._seen(device, inode, content), sorted(content))
        self._handles[id(file)] = handle
        return handle

    def check_read(self, handle: Handle, data: bytes) -> None:
        """A read of the whole file must show what was written to it. After a crash this settles which of several it is."""
        id_ = self.history.adopt(data)
        if id_ is None or (id_ not in handle.content and not handle.uncertain):
            self.fail(f"{handle.device} reads {self.show(data)} where {self.show(bytes(handle.data))} was written")
        elif handle.uncertain:
            handle.holds(id_, data)
            handle.saw = self._seen(handle.device, handle.inode, handle.content)
            self._devices[handle.device].local[handle.inode] = handle.content

    def sees(self, device: str, ino: int) -> Contents:
        """What a person on the device sees in a file now; nothing in what is no file."""
        found = self._replicas[device].execute(_CONTENT, (ino,)).fetchone()
        if found is None or found[0] != "file":
            return frozenset()
        for handle in self._handles.values():  # what is written may not be in a row yet
            if handle.device == device and handle.file.ino == ino:
                return handle.content
        _, manifest, is_draft = found
        if is_draft or manifest is None:
            return self._devices[device].local.get(self.id_of(device, ino), frozenset({EMPTY}))
        return frozenset({EMPTY if manifest == EMPTY_MANIFEST_ID else self.content(manifest)})

    def _seen(self, device: str, inode: bytes, content: Contents) -> Contents:
        """What a person has seen who sees this: also what was there before it was emptied."""
        return content | self._devices[device].emptied.get(inode, frozenset()) if EMPTY in content else content

    # ----------------------------------------------------------------------------------------------- called by handles

    def wrote(self, handle: Handle) -> bytes:
        """A person changes the file, having seen what `handle` showed until now."""
        known = self._devices[handle.device]
        id_ = self.history.write(handle.device, bytes(handle.data), handle.saw)
        self._find(handle)
        if handle.file.ino is None:  # what is in the inode now is not touched: a copy is about to be made
            return id_
        known.local[handle.inode] = frozenset({id_})
        known.fresh.add(handle.inode)
        if id_ == EMPTY:  # nothing that descends from it may ever be written, so it is as good as deleted
            known.emptied[handle.inode] = handle.saw
            self._delete(handle.saw)
        return id_

    def promised(self, handle: Handle) -> None:
        self._find(handle)
        for id_ in handle.content:
            self.history.contents[id_].promised = True
        if handle.file.ino is None:  # another device's content has its inode: it has no file of its own that anybody sees
            if handle.deleted:
                self._delete(handle.content)
            return
        self._devices[handle.device].local[handle.inode] = handle.content
        if self._is_deleted_here(handle, handle.file.ino):
            self._delete(handle.content)

    def released(self, handle: Handle) -> None:
        if handle.handles == 0:
            self._handles.pop(id(handle.file), None)

    def _find(self, handle: Handle) -> None:
        """A file may have become another inode's, which was made here: a conflicted copy. Not if the transaction that makes it so
        ends here."""
        row = self._replicas[handle.device].execute("SELECT id FROM identity WHERE ino = ?", (handle.file.ino,)).fetchone()
        if row is not None and row[0] != handle.inode:
            handle.inode = row[0]
            self._devices[handle.device].fresh.add(handle.inode)

    def _is_deleted_here(self, handle: Handle, ino: int) -> bool:
        """Whether the file has no name because somebody on this device removed it, so that what is written goes with it."""
        row = self._replicas[handle.device].execute("SELECT nlink FROM inode WHERE ino = ?", (ino,)).fetchone()
        return row is not None and row[0] == 0 and handle.deleted

    def _delete(self, contents: Iterable[bytes]) -> None:
        for id_ in contents:
            self.history.contents[id_].deleted = True

    # ------------------------------------------------------------------------------------------------------ the service

    def committed(self, device: str) -> None:
        """Look at what a commit of `device` changed on the service."""
        rows, entries = self.served.news()
        tree = self.served.tree
        held = [tree.entries.get(key) for key in entries]
        touched = {id_ for id_ in (*rows, *entries.values(), *held) if id_ is not None}
        before = {id_: (tree.rows.get(id_), tree.is_named(id_)) for id_ in touched}
        self.served.take(rows, entries)
        for id_, (old, was_named) in before.items():
            new = tree.rows.get(id_)
            if new is None:
                self.fail(f"{device} named an inode that the service does not have")
                continue
            self._check_file(device, tree, id_, old, new, was_named)
            if old is not None and not was_named and tree.is_named(id_):
                self._check_revival(device, tree, id_)
            self._check_names(device, tree, id_, new)
        for key, inode in entries.items():
            self._check_entry(device, tree, key, inode)

    def _check_file(self, device: str, tree: Tree, id_: bytes, old: Row | None, new: Row, was_named: bool) -> None:
        if new.manifest_id is None:
            return
        content = self.content(new.manifest_id)
        self.on_service.add(content)
        if old is None or old.manifest_id is None:
            return
        before = self.content(old.manifest_id)
        if not was_named:
            if content != before and self.history.descends(before, content):
                self._came_back.add(content)
            elif not self.history.descends(content, before):
                self._brought_back.setdefault(id_, set()).add(content)
            return
        known = self._devices[device]
        seen = known.emptied.get(id_, ()) if content == EMPTY else (content,)
        unseen = not any(self.history.descends(one, before) or self.history.outlives(one, before) for one in (*seen, content))
        if unseen and not self._is_brought_back_again(id_, content) and not self._is_emptied_again(id_, content, before):
            self.fail(f"{device} overwrote {self.name(before)} with {self.name(content)}, whose writer has not seen it")
        if content == EMPTY and not unseen:
            self._emptied.setdefault(id_, set()).add(before)
        if before == EMPTY:
            self._filled.setdefault(id_, set()).add(content)
        views = known.views.get(id_, ())
        seen_here = any(self.history.descends(one, before) or self._is_brought_back_again(id_, one) for one in views)
        if not tree.is_named(id_) and not seen_here and id_ not in self._given_up:
            self.fail(f"{device} deleted {self.name(before)}, which nobody there has seen")

    def _is_brought_back_again(self, id_: bytes, content: bytes) -> bool:
        """An edit beat a deletion, which the restored service has forgotten: the device takes it for one of what was deleted."""
        return self.was_restored and any(self.history.descends(content, one) for one in self._brought_back.get(id_, ()))

    def _is_emptied_again(self, id_: bytes, content: bytes, before: bytes) -> bool:
        """Nothing tells one empty content from another, so that none has a descent: whoever has one that the restored service
        lost, or what was written into it, sends that again."""
        filled = content == EMPTY or any(self.history.descends(content, one) for one in self._filled.get(id_, ()))
        emptied = self._emptied.get(id_, ())
        return self.was_restored and filled and any(self.history.descends(one, before) for one in emptied)

    def _check_revival(self, device: str, tree: Tree, id_: bytes) -> None:
        if id_ not in self._devices[device].fresh and not self.was_restored:
            self.fail(f"{device} revived {tree.path(id_)!r}, though nobody there did anything to it")

    def _check_names(self, device: str, tree: Tree, id_: bytes, row: Row) -> None:
        """Of a file with links, a name that one device removes and others move: when they have heard of the removal, each move
        is a name more, as a link would be."""
        names = tree.names.get(id_, set())
        moved = self._unlinked[id_] * (len(self._devices) - 2) if self._links[id_] else 0
        if len(names) > 1 + self._links[id_] + max(moved, 0) and not (self.was_restored and row.kind != "directory"):
            self.fail(f"{device} gave a {row.kind} the names {sorted(name for _, name in names)}; nobody linked it")

    def _check_entry(self, device: str, tree: Tree, key: Key, inode: bytes | None) -> None:
        parent, name = key
        if inode is None:
            if tree.children.get(parent) and not tree.is_named(parent):
                self.fail(f"{device} removed a folder that is not empty")
            return
        fault = tree.fault(key, inode)
        if fault is not None:
            self.fail(f"{device} left no tree on the service: {fault}")
        if name not in self.names and not read_copy_name(name) and tree.path(parent) != FOLDER:
            self.fail(f"{device} gave the name {name!r}, which nobody asked for")

    def content(self, manifest: bytes) -> bytes:
        """The id of a content that the service holds. It must be one that somebody wrote, and all of it must be there (P5)."""
        try:
            data = self.served.read(manifest)
        except AssertionError as missing:
            if self.was_restored and manifest in self._contents:
                return self._contents[manifest]  # only devices have it now
            self.fail(str(missing))
            return EMPTY
        id_ = self.history.adopt(data)
        if id_ is None:
            self.fail(f"the service holds {self.show(data)}, which nobody wrote")
            return EMPTY
        self._contents[manifest] = id_
        return id_

    # ------------------------------------------------------------------------------------------------- merges on a device

    def before_merge(self, device: str) -> None:
        """What was done to inodes that are now as the service was known to have them is done."""
        known, execute = self._devices[device], self._replicas[device].execute
        known.fresh = {inode for inode in known.fresh if execute(_IS_DIRTY, (inode,)).fetchone()[0]}

    def check_copy(self, device: str, source: int, manifest: bytes | None) -> None:
        """A merge is about to make a copy of what is in `source`, since the service has the content of `manifest`."""
        if manifest is None:
            return
        mine, theirs = self.sees(device, source), self.content(manifest)
        if theirs in mine and self._replicas[device].execute(_IS_HASHED, (source,)).fetchone() != (1,):
            return  # the drive cannot know yet that they are equal
        if self.was_restored and self._base_went_back(device, source, theirs):
            return
        excused = self._devices[device].stale | self._came_back
        if any(id_ in excused or self.history.contents[id_].forgiven for id_ in (*mine, theirs)):
            return
        if all(id_ == theirs or self.history.is_surely_related(id_, theirs) for id_ in mine):
            names = ", ".join(self.name(id_) for id_ in mine)
            self.fail(f"{device} made a copy of {names} beside {self.name(theirs)}, though one of them replaced the other")

    def _base_went_back(self, device: str, source: int, theirs: bytes) -> bool:
        """Whether what is in `source` was made from something that the service lost: base is nothing then, or what the service
        was restored to. Another device may have sent again what lies between, and nobody can tell that from an edit."""
        base = self._replicas[device].execute(_BASE_MANIFEST, (source,)).fetchone()
        if base is None or base[0] is None:
            return base is not None
        content = EMPTY if base[0] == EMPTY_MANIFEST_ID else self.content(base[0])
        return content != theirs and self.history.descends(theirs, content)

    def copied(self, device: str, source: int, copy: int, content: Contents) -> None:
        """The merge made a conflicted copy of the content."""
        known, of, to = self._devices[device], self.id_of(device, source), self.id_of(device, copy)
        known.local[to] = content
        known.fresh.add(to)
        if of in known.emptied:
            known.emptied[to] = known.emptied[of]

    def folder_revived(self, device: str, ino: int) -> None:
        """The merge keeps a folder that the service has no more. Only what lies in it can be why, if nobody touched it here."""
        inode = self.id_of(device, ino)
        if inode not in self._devices[device].fresh:
            lies_in_it = self._replicas[device].execute("SELECT 1 FROM entry WHERE parent = ? LIMIT 1", (ino,)).fetchone()
            if lies_in_it is None and not self.was_restored:
                self.fail(f"{device} keeps an empty folder that the service removed, though nobody there did anything to it")
            self._devices[device].fresh.add(inode)

    def picture(self, device: str) -> object:
        """All that a person sees on the device."""
        entries = self._replicas[device].execute("SELECT parent, name, ino FROM entry ORDER BY parent, name").fetchall()
        rows = self._replicas[device].execute(
            "SELECT ino, kind, mode, uid, gid, xattrs, target, CASE WHEN kind <> 'directory' THEN mtime_ns END FROM inode "
            "WHERE nlink > 0 ORDER BY ino"
        )
        return entries, [(*row, self.sees(device, row[0])) for row in rows.fetchall()]

    # ----------------------------------------------------------------------------------------------------------- faults

    def device_crashed(self, device: str) -> None:
        """Call it before `device_stopped`. Open files hold what was promised last, or anything that was written since."""
        for handle in self._unpromised(device):
            self._find(handle)
            self.history.interrupted(device, handle.states)
            if handle.file.ino is not None:
                self._devices[device].local[handle.inode] = frozenset(handle.states)

    def _unpromised(self, device: str) -> Iterable[Handle]:
        """Open files that were written since something was promised."""
        return [handle for handle in self._handles.values() if handle.device == device and len(handle.states) > 1]

    def device_backed_up(self, device: str) -> tuple[Known, frozenset[bytes]]:
        """What `device_restored` needs when the home is put back to what it is now. Of open files, what is in it is as after a
        crash."""
        known, contents = self._devices[device].copy(), frozenset(self.history.contents)
        known.unsent = Counter(dict(self._replicas[device].execute(_UNSENT_NAMES).fetchall()))
        for handle in self._unpromised(device):
            self.history.interrupted(device, handle.states)
            contents -= {*handle.states[1:]}
            if handle.file.ino is not None:
                known.local[handle.inode] = frozenset(handle.states)
        return known, contents

    def device_restored(self, device: str, backup: tuple[Known, frozenset[bytes]]) -> None:
        """The home is what it was when `backup` was made. Contents that were written here since, and that the service never
        had, are lost with it; and of those that came back the device does not know what became of them."""
        self.single = None
        known, before = backup
        removed = self._devices[device].views
        self._devices[device] = known.copy()
        self._links.update(known.unsent)  # what became of these names meanwhile it does not know: they are given once more
        for inode, seen in removed.items():  # a commit that was under way may be applied after this
            self._devices[device].views.setdefault(inode, set()).update(seen)
        self._devices[device].stale |= {id_ for content in known.local.values() for id_ in content}
        for id_, written in self.history.contents.items():
            if id_ not in before and id_ not in self.on_service and written.writers == {device}:
                written.forgiven = f"the home of {device} was restored to a state before it"

    def service_restored(self) -> None:
        """The service's database is what it was in a backup (call after `service_at`). Contents that it had and has no more
        may be lost; what it never had is still on the devices."""
        self.single = None
        self.was_restored = True
        kept = {self.content(manifest) for manifests in self.served.versions().values() for manifest in manifests}
        for id_ in self.on_service - kept:
            self.history.contents[id_].forgiven = "the service was restored to a state before it"
        self.on_service &= kept

    def service_collected(self) -> None:
        """The service dropped tombstones and what has no name any more."""
        self.served.reload()

    # --------------------------------------------------------------------------------------------------------- messages

    def fail(self, text: str) -> None:
        self.wrong.append(text)

    def name(self, id_: bytes) -> str:
        return self.show(self.history.contents[id_].data)

    @staticmethod
    def show(data: bytes) -> str:
        return f"{data[:24]!r} ({len(data)} bytes, {id_of(data).hex()[:6]})"

    def id_of(self, device: str, ino: int) -> bytes:
        """The id of an inode of the device."""
        row = self._replicas[device].execute("SELECT id FROM identity WHERE ino = ?", (ino,)).fetchone()
        assert row is not None, "an inode of the device is unknown there"
        id_: bytes = row[0]
        return id_


_CONTENT = (
    "SELECT i.kind, i.manifest_id, EXISTS (SELECT 1 FROM draft d WHERE d.ino = i.ino AND NOT (d.extents = x'' "
    "AND d.floor >= d.size AND d.size = i.manifest_size)) FROM inode i WHERE i.ino = ?"
)
"""A draft that holds nothing was made by the drive, so that what the service lost is sent again."""
_IS_HASHED = "SELECT sealed AND sha256 IS NOT NULL FROM draft WHERE ino = ? ORDER BY id DESC LIMIT 1"
"""Of what was written last: what was written before it says nothing."""
_BASE_MANIFEST = "SELECT manifest_id FROM inode_base WHERE ino = ?"
_UNSENT_NAMES = (
    "SELECT x.id, count(*) FROM entry e JOIN entry_base b USING (parent, name) JOIN identity x ON x.ino = e.ino "
    "JOIN inode i ON i.ino = e.ino WHERE b.ino IS NOT e.ino AND i.kind <> 'directory' GROUP BY x.id"
)
_IS_DIRTY = (
    "SELECT EXISTS (SELECT 1 FROM identity x WHERE x.id = ? AND (EXISTS (SELECT 1 FROM draft d WHERE d.ino = x.ino) "
    "OR EXISTS (SELECT 1 FROM inode_base b WHERE b.ino = x.ino) OR EXISTS (SELECT 1 FROM entry_base b WHERE b.ino = x.ino) "
    "OR EXISTS (SELECT 1 FROM entry e JOIN entry_base b USING (parent, name) WHERE e.ino = x.ino)))"
)
