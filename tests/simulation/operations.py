"""What a person, or a program, does on one device: every kind of file operation, through the drive's own interfaces.

An operation takes three integers and picks with them among what there is, so it means something in whatever state the steps
before it left. Each tells the ledger what it is about to do before it does it, and what the drive promised after that.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from cache.errors import CacheError
from cache.model import AttributeUpdate, Node, RenameMode
from cache.store.schema import ROOT
from remote.protocol import Kind
from tests.simulation.device import Device, Died, Handle
from tests.simulation.ledger import Ledger

T = TypeVar("T")

NAMES = ("a", "b", "c.txt", "d", "long" * 60 + ".txt")
_LONG_SAID = "long….txt"
HANDLES_MAX = 4
SYNC_SECONDS = 5.0
_KIB = 1024


@dataclass(frozen=True, slots=True)
class Entry:
    parent: int
    name: str
    node: Node
    path: str

    @property
    def is_file(self) -> bool:
        return self.node.kind is Kind.FILE

    @property
    def is_folder(self) -> bool:
        return self.node.kind is Kind.DIRECTORY


class Person:
    """At one device. `trace` hears what was done, in words."""

    def __init__(self, device: Device, ledger: Ledger, trace: Callable[[str], None]) -> None:
        self._device = device
        self._ledger = ledger
        self._trace = trace
        self._written = 0

    async def perform(self, kind: str, a: int, b: int, c: int) -> None:
        """Where there is nothing to do it on, something is made. What the file system refuses counts as done."""
        life = self._device.life
        with self._device.operation():
            try:
                if not await OPERATIONS[kind](self, a, b, c):
                    await self.create(a, b, c)
                return
            except CacheError as refused:
                self._say(f"refused: {type(refused).__name__}")
                return
            except Died:
                pass
            except BaseExceptionGroup as group:
                if group.split(Died)[0] is None:
                    raise
        self._trace(f"{self._device.name} {kind} was cut off by the end of process {life}")

    # ----------------------------------------------------------------------------------------------------- what there is

    def _entries(self) -> list[Entry]:
        found: list[Entry] = []
        folders = [("", ROOT)]
        while folders:
            path, ino = folders.pop()
            for listed in self._device.drive.replica.list_entries(ino, 0, 1_000_000):
                entry = Entry(ino, listed.name, listed.node, f"{path}/{listed.name}")
                found.append(entry)
                if entry.is_folder:
                    folders.append((entry.path, listed.node.ino))
        return sorted(found, key=lambda entry: entry.path)

    def _files(self) -> list[Entry]:
        return [entry for entry in self._entries() if entry.is_file]

    def _folders(self, entries: list[Entry]) -> list[tuple[int, str]]:
        return [(ROOT, ""), *((entry.node.ino, entry.path) for entry in entries if entry.is_folder)]

    def _content(self, choice: int) -> bytes:
        """Bytes that nobody else writes; of every eight choices one is a content that others write too."""
        self._written += 1
        which, more = choice % 8, choice // 8
        if which == 0:
            return b"the same on every device\n" * (1 + more % 2)
        chance = random.Random(f"{self._device.name} {self._written}")
        head = f"{self._written} by {self._device.name};".encode()
        if which < 5:
            return head + b"." * (more % 100)
        if which == 5:
            return head + chance.randbytes(4 * _KIB + more % (3 * _KIB))
        if which == 6:
            return head + chance.randbytes(8 * _KIB + 29 * more % (24 * _KIB))
        return head + bytes(12 * _KIB) + chance.randbytes(more % _KIB) + head

    def _say(self, what: str) -> None:
        self._trace(f"{self._device.name} {what}".replace(NAMES[-1], _LONG_SAID))

    def remove(self, wanted: Callable[[Entry], bool]) -> int:
        """Remove every name of a file that is `wanted`; how many there were."""
        found = [entry for entry in self._files() if wanted(entry)]
        for entry in found:
            self._say(f"gives up {entry.path}")
            self._unlink(entry)
        return len(found)

    # -------------------------------------------------------------------------------------------------------- open files

    async def _open(self, ino: int, *, truncate: bool = False, writable: bool = True) -> Handle:
        file = self._device.drive.files.open(ino, writable=writable)
        handle = Handle(file, self._ledger.opened(self._device.name, file), self._device.life)
        if handle.seen.uncertain and not truncate:
            try:
                await self._read(handle)
            except BaseException:
                self._close_quietly(handle)
                raise
        if truncate:
            handle.seen.truncate(0)
            try:
                file.truncate_nowait(0)
            except BaseException:
                self._release(handle)
                raise
        return handle

    async def _write(self, handle: Handle, offset: int, data: bytes) -> None:
        ino = handle.file.ino
        if ino is not None:
            self._ledger.touching(self._device.name, ino)
        handle.seen.write(offset, data)
        await handle.file.write(offset, data)
        self._still_there(handle)
        self._stamp(handle)

    async def _truncate(self, handle: Handle, size: int) -> None:
        if handle.file.ino is not None:
            self._ledger.touching(self._device.name, handle.file.ino)
        handle.seen.truncate(size)
        await handle.file.truncate(size)
        self._still_there(handle)

    def _stamp(self, handle: Handle) -> None:
        """The kernel keeps the times of what is written, and tells them before it flushes."""
        ino = handle.file.ino
        if ino is not None:
            now = self._device.clock.wall_ns()
            self._device.drive.replica.set_attributes(ino, AttributeUpdate(mtime_ns=now, ctime_ns=now))

    async def _close(self, handle: Handle) -> None:
        try:
            await handle.file.flush()
            self._still_there(handle)
            handle.seen.kept()
            self._say(f"closed {' or '.join(sorted(content.hex()[:6] for content in handle.seen.content))}")
        finally:
            self._close_quietly(handle)

    def _close_quietly(self, handle: Handle) -> None:
        """A process that is dead closes nothing."""
        if handle.life == self._device.life and self._device.alive:
            self._release(handle)

    def _release(self, handle: Handle) -> None:
        handle.file.release()
        handle.seen.released()

    def _still_there(self, handle: Handle) -> None:
        if handle.life != self._device.life or not self._device.alive:
            raise Died

    async def close_all(self) -> None:
        """Close what is still open."""
        while self._device.handles:
            await self.perform("close_open", 0, 0, 0)

    async def _put(self, ino: int, data: bytes, *, truncate: bool) -> None:
        handle = await self._open(ino, truncate=truncate)
        try:
            await self._write(handle, 0, data)
        finally:
            await self._close(handle)

    # ---------------------------------------------------------------------------------------------------- new and written

    async def create(self, a: int, b: int, c: int) -> bool:
        parent, path = _pick(self._folders(self._entries()), a)
        name = NAMES[b % len(NAMES)]
        self._say(f"create {path}/{name}")
        await self._create(parent, name, self._content(c))
        return True

    async def _create(self, parent: int, name: str, data: bytes) -> int:
        self._ledger.naming(self._device.name, name)
        node = self._device.drive.replica.create(parent, name, Kind.FILE, mode=0o644, uid=None, gid=None)
        self._ledger.touching(self._device.name, node.ino)
        await self._put(node.ino, data, truncate=False)
        return node.ino

    async def mkdir(self, a: int, b: int, c: int) -> bool:
        parent, path = _pick(self._folders(self._entries()), a)
        name = NAMES[b % len(NAMES)]
        self._say(f"mkdir {path}/{name}")
        self._mkdir(parent, name)
        return True

    def _mkdir(self, parent: int, name: str) -> int:
        self._ledger.naming(self._device.name, name)
        node = self._device.drive.replica.create(parent, name, Kind.DIRECTORY, mode=0o755, uid=None, gid=None)
        self._ledger.touching(self._device.name, node.ino)
        return node.ino

    async def mkdir_deep(self, a: int, b: int, c: int) -> bool:
        """In the deepest folder."""
        folders = sorted(self._folders(self._entries()), key=lambda folder: -folder[1].count("/"))
        parent, path = folders[0]
        if path.count("/") > 7:
            return False
        name = NAMES[b % 4]
        self._say(f"mkdir {path}/{name}")
        self._mkdir(parent, name)
        return True

    async def unpack(self, a: int, b: int, c: int) -> bool:
        """As from an archive: a folder under the first name that is free, with the same in it on every device."""
        taken = {entry.name for entry in self._entries() if entry.parent == ROOT}
        number = next(number for number in range(len(taken) + 1) if f"unpacked {number}" not in taken)
        name = f"unpacked {number}"
        self._say(f"unpack /{name}")
        top = self._mkdir(ROOT, name)
        self._mkdir(top, "inner")
        await self._create(top, "file", f"file of {name};".encode() * (1 if number % 2 else 400))
        return True

    async def rewrite(self, a: int, b: int, c: int) -> bool:
        """As a program does that makes the same of the same file, wherever it runs: of one of the first few files."""
        if (entry := _pick_or_none(self._files(), a % 3)) is None:
            return False
        self._say(f"rewrite {entry.path}")
        handle = await self._open(entry.node.ino)
        try:
            was = hashlib.sha256(bytes(handle.seen.data)).hexdigest().encode()
            await self._truncate(handle, 0)
            await self._write(handle, 0, was * (1, 1, 90, 150)[was[0] % 4])
        finally:
            await self._close(handle)
        return True

    async def symlink(self, a: int, b: int, c: int) -> bool:
        parent, path = _pick(self._folders(self._entries()), a)
        name = NAMES[b % len(NAMES)]
        self._say(f"symlink {path}/{name}")
        self._ledger.naming(self._device.name, name)
        target = f"../{NAMES[c % 4]}"
        node = self._device.drive.replica.create(parent, name, Kind.SYMLINK, mode=0o777, uid=None, gid=None, target=target)
        self._ledger.touching(self._device.name, node.ino)
        return True

    async def overwrite(self, a: int, b: int, c: int) -> bool:
        if (entry := _pick_or_none(self._files(), a)) is None:
            return False
        self._say(f"overwrite {entry.path}")
        await self._put(entry.node.ino, self._content(c), truncate=True)
        return True

    async def install(self, a: int, b: int, c: int) -> bool:
        """One of the first few files is written, and then gets a mode, which goes up before the bytes do."""
        if (entry := _pick_or_none(self._files(), a % 3)) is None:
            return False
        self._say(f"install {entry.path}")
        await self._put(entry.node.ino, self._content(c), truncate=True)
        mode = (0o600, 0o640, 0o644, 0o700, 0o755)[b % 5]
        self._device.drive.replica.set_attributes(entry.node.ino, AttributeUpdate(mode=mode))
        return True

    async def append(self, a: int, b: int, c: int) -> bool:
        if (entry := _pick_or_none(self._files(), a)) is None:
            return False
        self._say(f"append to {entry.path}")
        handle = await self._open(entry.node.ino)
        try:
            await self._write(handle, handle.file.size, self._content(c))
        finally:
            await self._close(handle)
        return True

    async def patch(self, a: int, b: int, c: int) -> bool:
        """A small write somewhere in the middle, or a little beyond the end."""
        if (entry := _pick_or_none(self._files(), a)) is None:
            return False
        self._say(f"patch {entry.path}")
        handle = await self._open(entry.node.ino)
        try:
            await self._write(handle, b % (handle.file.size + 100), f"<{c} by {self._device.name}>".encode())
        finally:
            await self._close(handle)
        return True

    async def truncate(self, a: int, b: int, c: int) -> bool:
        if (entry := _pick_or_none(self._files(), a)) is None:
            return False
        handle = await self._open(entry.node.ino)
        size = b % (handle.file.size + 100)
        self._say(f"truncate {entry.path} to {size}")
        try:
            await self._truncate(handle, size)
        finally:
            await self._close(handle)
        return True

    async def save_by_rename(self, a: int, b: int, c: int) -> bool:
        """As editors do: a new file beside it, renamed over it."""
        if (entry := _pick_or_none(self._files(), a)) is None:
            return False
        self._say(f"save {entry.path} by rename")
        # The person saw what is replaced: what is written descends from it.
        new = f".{self._device.name}.saving"
        self._ledger.naming(self._device.name, new)
        replica = self._device.drive.replica
        node = replica.create(entry.parent, new, Kind.FILE, mode=0o644, uid=None, gid=None)
        self._ledger.touching(self._device.name, node.ino)
        await self._put(node.ino, self._content(c), truncate=False)
        self._rename(entry.parent, new, node, entry.parent, entry.name, RenameMode.REPLACE)
        return True

    # ---------------------------------------------------------------------------------------------------------- the tree

    def _rename(self, parent: int, name: str, moved: Node, new_parent: int, new_name: str, mode: RenameMode) -> None:
        replica, device = self._device.drive.replica, self._device.name
        self._ledger.naming(device, new_name)
        self._ledger.naming(device, name)
        self._ledger.touching(device, moved.ino)
        try:
            target: Node | None = replica.lookup(new_parent, new_name)
        except CacheError:
            target = None
        if target is not None and target.ino != moved.ino:
            if mode is RenameMode.EXCHANGE:
                self._ledger.touching(device, target.ino)
            else:
                self._ledger.removing(device, target.ino)
        replica.rename(parent, name, new_parent, new_name, mode)

    async def rename(self, a: int, b: int, c: int) -> bool:
        """To one of the few names in any folder, over what is there."""
        entries = self._entries()
        if (entry := _pick_or_none(entries, a)) is None:
            return False
        (parent, path), name = _pick(self._folders(entries), b), NAMES[c % len(NAMES)]
        self._say(f"rename {entry.path} to {path}/{name}")
        self._rename(entry.parent, entry.name, entry.node, parent, name, RenameMode.REPLACE)
        return True

    async def move(self, a: int, b: int, c: int) -> bool:
        """Into another folder, under the same name, unless that is taken."""
        entries = self._entries()
        if (entry := _pick_or_none(entries, a)) is None:
            return False
        parent, path = _pick(self._folders(entries), b)
        self._say(f"move {entry.path} into {path}/")
        self._rename(entry.parent, entry.name, entry.node, parent, entry.name, RenameMode.NO_REPLACE)
        return True

    async def rename_over(self, a: int, b: int, c: int) -> bool:
        files = self._files()
        if len(files) < 2:
            return False
        entry, target = _pick(files, a), _pick(files, b)
        self._say(f"rename {entry.path} over {target.path}")
        self._rename(entry.parent, entry.name, entry.node, target.parent, target.name, RenameMode.REPLACE)
        return True

    async def exchange(self, a: int, b: int, c: int) -> bool:
        entries = self._entries()
        if len(entries) < 2:
            return False
        one, other = _pick(entries, a), _pick(entries, b)
        self._say(f"exchange {one.path} and {other.path}")
        self._rename(one.parent, one.name, one.node, other.parent, other.name, RenameMode.EXCHANGE)
        return True

    async def exchange_folders(self, a: int, b: int, c: int) -> bool:
        folders = [entry for entry in self._entries() if entry.is_folder]
        if len(folders) < 2:
            return False
        one, other = _pick(folders, a), _pick(folders, b)
        self._say(f"exchange {one.path} and {other.path}")
        self._rename(one.parent, one.name, one.node, other.parent, other.name, RenameMode.EXCHANGE)
        return True

    async def turn_over(self, a: int, b: int, c: int) -> bool:
        """Of three folders in each other the inmost becomes the outmost, so that none of the moves can be made alone."""
        folders = {entry.node.ino: entry for entry in self._entries() if entry.is_folder}
        inmost = _pick_or_none([entry for entry in folders.values() if entry.path.count("/") >= 3], a)
        if inmost is None:
            return await self.mkdir_deep(a, b, c)
        middle = folders[inmost.parent]
        outmost = folders[middle.parent]
        self._say(f"turn {inmost.path} over")
        place, aside = outmost.parent, f".{self._device.name}.turning"
        self._rename(middle.parent, middle.name, middle.node, place, aside, RenameMode.NO_REPLACE)
        self._rename(place, outmost.name, outmost.node, middle.node.ino, inmost.name, RenameMode.EXCHANGE)
        self._rename(place, aside, middle.node, inmost.node.ino, middle.name, RenameMode.NO_REPLACE)
        return True

    async def link(self, a: int, b: int, c: int) -> bool:
        entries = self._entries()
        if (entry := _pick_or_none([entry for entry in entries if entry.is_file], a)) is None:
            return False
        (parent, path), name = _pick(self._folders(entries), b), NAMES[c % len(NAMES)]
        self._say(f"link {entry.path} as {path}/{name}")
        self._ledger.naming(self._device.name, name)
        self._ledger.linking(self._device.name, entry.node.ino)
        self._device.drive.replica.link(entry.node.ino, parent, name)
        return True

    async def unlink(self, a: int, b: int, c: int) -> bool:
        if (entry := _pick_or_none([entry for entry in self._entries() if not entry.is_folder], a)) is None:
            return False
        self._say(f"unlink {entry.path}")
        self._unlink(entry)
        return True

    async def unlink_one(self, a: int, b: int, c: int) -> bool:
        """Of a file with several names, on each device another one; where there is no such file, there will be."""
        files = self._files()
        several = [entry for entry in files if entry.node.nlink > 1]
        if not several:
            return await self.link(a, b, c)
        names = [entry for entry in files if entry.node.ino == several[0].node.ino]
        entry = _pick(names, self._device.index)
        self._say(f"unlink {entry.path}, one of {len(names)}")
        self._unlink(entry)
        return True

    def _unlink(self, entry: Entry) -> None:
        self._ledger.removing(self._device.name, entry.node.ino)
        self._device.drive.replica.unlink(entry.parent, entry.name)

    async def rmdir(self, a: int, b: int, c: int) -> bool:
        entries = self._entries()
        used = {entry.parent for entry in entries}
        empty = [entry for entry in entries if entry.is_folder and entry.node.ino not in used]
        if (entry := _pick_or_none(empty, a)) is None:
            return False
        self._say(f"rmdir {entry.path}")
        self._ledger.removing(self._device.name, entry.node.ino)
        self._device.drive.replica.rmdir(entry.parent, entry.name)
        return True

    async def rmtree(self, a: int, b: int, c: int) -> bool:
        entries = self._entries()
        if (top := _pick_or_none([entry for entry in entries if entry.is_folder], a)) is None:
            return False
        self._say(f"remove {top.path} and all in it")
        below = [entry for entry in entries if entry.path.startswith(f"{top.path}/")]
        for entry in sorted([top, *below], key=lambda entry: -entry.path.count("/")):
            if entry.is_folder:
                self._ledger.removing(self._device.name, entry.node.ino)
                self._device.drive.replica.rmdir(entry.parent, entry.name)
            else:
                self._unlink(entry)
        return True

    # ---------------------------------------------------------------------------------------------------------- attributes

    async def chmod(self, a: int, b: int, c: int) -> bool:
        if (entry := _pick_or_none(self._entries(), a)) is None:
            return False
        self._say(f"chmod {entry.path}")
        mode = (0o600, 0o640, 0o644, 0o700, 0o755)[b % 5]
        self._device.drive.replica.set_attributes(entry.node.ino, AttributeUpdate(mode=mode))
        return True

    async def utime(self, a: int, b: int, c: int) -> bool:
        if (entry := _pick_or_none(self._entries(), a)) is None:
            return False
        self._say(f"utime {entry.path}")
        self._device.drive.replica.set_attributes(entry.node.ino, AttributeUpdate(mtime_ns=(1_000_000_000 + b) * 10**9))
        return True

    async def set_xattr(self, a: int, b: int, c: int) -> bool:
        if (entry := _pick_or_none(self._entries(), a)) is None:
            return False
        self._say(f"xattr of {entry.path}")
        self._device.drive.replica.set_xattr(entry.node.ino, f"user.{b % 3}", str(c).encode())
        return True

    # ------------------------------------------------------------------------------------------------- files that stay open

    async def open_file(self, a: int, b: int, c: int) -> bool:
        if len(self._device.handles) >= HANDLES_MAX or (entry := _pick_or_none(self._files(), a)) is None:
            return False
        self._say(f"open {entry.path}")
        self._device.handles.append(await self._open(entry.node.ino))
        return True

    async def create_open(self, a: int, b: int, c: int) -> bool:
        if len(self._device.handles) >= HANDLES_MAX:
            return False
        parent, path = _pick(self._folders(self._entries()), a)
        name = NAMES[b % len(NAMES)]
        self._say(f"create {path}/{name}, and keep it open")
        self._ledger.naming(self._device.name, name)
        node = self._device.drive.replica.create(parent, name, Kind.FILE, mode=0o644, uid=None, gid=None)
        self._ledger.touching(self._device.name, node.ino)
        self._device.handles.append(await self._open(node.ino))
        return True

    async def write_open(self, a: int, b: int, c: int) -> bool:
        if (handle := _pick_or_none(self._device.handles, a)) is None:
            return False
        self._say("write through an open handle")
        await self._write(handle, b % (handle.file.size + 10), self._content(c))
        return True

    async def fsync_open(self, a: int, b: int, c: int) -> bool:
        if (handle := _pick_or_none(self._device.handles, a)) is None:
            return False
        self._say("fsync an open handle")
        await handle.file.fsync()
        self._still_there(handle)
        handle.seen.kept()
        return True

    async def close_open(self, a: int, b: int, c: int) -> bool:
        if (handle := _pick_or_none(self._device.handles, a)) is None:
            return False
        self._say("close an open handle")
        self._device.handles.remove(handle)
        await self._close(handle)
        return True

    # -------------------------------------------------------------------------------------------------- reading and keeping

    async def read(self, a: int, b: int, c: int) -> bool:
        if (entry := _pick_or_none(self._files(), a)) is None:
            return False
        self._say(f"read {entry.path}")
        handle = await self._open(entry.node.ino, writable=False)
        try:
            await self._read(handle)
        finally:
            self._close_quietly(handle)
        return True

    async def read_open(self, a: int, b: int, c: int) -> bool:
        if (handle := _pick_or_none(self._device.handles, a)) is None:
            return False
        self._say("read an open handle")
        await self._read(handle)
        return True

    async def _read(self, handle: Handle) -> None:
        data = await handle.file.read(0, handle.file.size)
        self._still_there(handle)
        self._ledger.check_read(handle.seen, data)

    async def sync(self, a: int, b: int, c: int) -> bool:
        self._say("sync")
        report = await self._device.drive.sync(SYNC_SECONDS)
        self._say(f"sync is complete: {report.complete}")
        return True

    async def pin(self, a: int, b: int, c: int) -> bool:
        if (entry := _pick_or_none(self._entries(), a)) is None:
            return False
        self._say(f"{'un' * (b % 2)}pin {entry.path}")
        await (self._device.drive.unpin if b % 2 else self._device.drive.pin)(entry.node.ino)
        return True

    async def evict(self, a: int, b: int, c: int) -> bool:
        self._say("evict everything")
        await self._device.drive.evict(ROOT)
        return True


Operation = Callable[[Person, int, int, int], Awaitable[bool]]
OPERATIONS: dict[str, Operation] = {
    name: getattr(Person, name)
    for name in (
        *("create", "mkdir", "mkdir_deep", "unpack", "symlink", "overwrite", "rewrite", "install", "append"),
        *("patch", "truncate", "save_by_rename", "rename", "move", "rename_over", "exchange", "exchange_folders", "turn_over"),
        *("link", "unlink", "unlink_one", "rmdir", "rmtree"),
        *("chmod", "utime", "set_xattr", "open_file", "create_open", "write_open", "fsync_open", "close_open"),
        *("read", "read_open", "sync", "pin", "evict"),
    )
}


def _pick(choices: list[T], number: int) -> T:
    return choices[number % len(choices)]


def _pick_or_none(choices: list[T], number: int) -> T | None:
    return choices[number % len(choices)] if choices else None
