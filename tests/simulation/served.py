"""What the service holds, read from its tables and its object files: the tree, the contents, the versions.

A second connection that only reads. `refresh` takes what changed since the last time by revision; `reload` takes all, for a
service that collected, or was replaced by a backup.
"""

from __future__ import annotations

import hashlib
import sqlite3
from dataclasses import dataclass, field
from pathlib import Path

from cache.encoding import decode
from remote.manifest import ChunkRef, Encoding, decode_manifest
from remote.server.backupfolder import StoredBackup
from remote.server.objects.store import object_key

Key = tuple[bytes, str]


@dataclass(frozen=True, slots=True)
class Row:
    """An inode as the service has it."""

    kind: str
    mode: int
    uid: int | None
    gid: int | None
    mtime_ns: int
    xattrs: bytes | None
    target: str | None
    device_number: int | None
    manifest_id: bytes | None
    content_rev: int
    rev: int


@dataclass(slots=True)
class Tree:
    """The inodes and the live entries of a space, with the names of each inode and of each folder's children."""

    root: bytes
    rows: dict[bytes, Row] = field(default_factory=dict)
    entries: dict[Key, bytes] = field(default_factory=dict)
    names: dict[bytes, set[Key]] = field(default_factory=dict)
    children: dict[bytes, set[str]] = field(default_factory=dict)

    def put(self, key: Key, inode: bytes | None) -> None:
        old = self.entries.pop(key, None)
        if old is not None:
            self.names[old].discard(key)
            self.children[key[0]].discard(key[1])
        if inode is not None:
            self.entries[key] = inode
            self.names.setdefault(inode, set()).add(key)
            self.children.setdefault(key[0], set()).add(key[1])

    def is_named(self, inode: bytes) -> bool:
        return inode == self.root or bool(self.names.get(inode))

    def path(self, inode: bytes) -> str:
        """For messages: one of its paths, or its id."""
        parts: list[str] = []
        while inode != self.root and self.names.get(inode) and len(parts) < 100:
            inode, name = min(self.names[inode])
            parts.append(name)
        return "/".join(reversed(parts)) if inode == self.root else f"?{inode.hex()[:6]}/{'/'.join(reversed(parts))}"

    def faults(self) -> list[str]:
        """What makes it no tree."""
        return [fault for key, inode in self.entries.items() if (fault := self.fault(key, inode)) is not None]

    def fault(self, key: Key, inode: bytes) -> str | None:
        row = self.rows.get(inode)
        if row is None:
            return f"{key[1]!r} names an inode that is not there"
        if row.kind == "directory" and len(self.names[inode]) != 1:
            return f"the folder {key[1]!r} has {len(self.names[inode])} names"
        folder, met = key[0], {inode} if row.kind == "directory" else set()
        while folder != self.root:
            above = self.rows.get(folder)
            if above is None or above.kind != "directory" or not self.names.get(folder):
                return f"{key[1]!r} lies in what is no folder of the tree"
            if folder in met:
                return f"{key[1]!r} lies in itself"
            met.add(folder)
            folder = next(iter(self.names[folder]))[0]
        return None


class Served:
    """The service's data folder, as a reader sees it. `close` before the folder is replaced."""

    def __init__(self, data: Path, space: bytes) -> None:
        self._data = data
        self._space = space
        self._sql = _connect(data)
        self._plain: dict[bytes, bytes] = {}
        self._bytes: dict[bytes, bytes] = {}
        self._owner: bytes = self._sql.execute("SELECT owner FROM spaces WHERE id = ?", (space,)).fetchone()[0]
        self.tree = Tree(space)
        self.revision = -1
        self.reload()

    def close(self) -> None:
        self._sql.close()

    def move(self, data: Path) -> None:
        """The folder is another now, with all that was committed in this one. What of it was taken is known as before."""
        self._sql.close()
        self._data = data
        self._sql = _connect(data)
        self._plain.clear()
        self._bytes.clear()

    def reload(self) -> None:
        self.tree = Tree(self._space)
        self.revision = -1
        self.refresh()

    def refresh(self) -> tuple[dict[bytes, Row], dict[Key, bytes | None]]:
        """Take what is new. Returns the rows and the names (None: gone) that changed, whose old state is lost by it."""
        rows, entries = self.news()
        self.take(rows, entries)
        return rows, entries

    def news(self) -> tuple[dict[bytes, Row], dict[Key, bytes | None]]:
        """The rows and names (None: gone) of newer revisions than what was taken."""
        execute, since = self._sql.execute, (self._space, self.revision)
        rows = {
            id_: Row(*fields)
            for id_, *fields in execute(
                "SELECT id, kind, mode, uid, gid, mtime_ns, xattrs, target, device_number, manifest_id, content_rev, rev "
                "FROM inodes WHERE space_id = ? AND rev > ?",
                since,
            )
        }
        found = execute("SELECT parent, name, inode FROM entries WHERE space_id = ? AND rev > ?", since)
        return rows, {(parent, name): inode for parent, name, inode in found}

    def take(self, rows: dict[bytes, Row], entries: dict[Key, bytes | None]) -> None:
        self.tree.rows.update(rows)
        for key, inode in entries.items():
            self.tree.put(key, inode)
        self.revision = self.current_revision()

    def current_revision(self) -> int:
        revision: int = self._sql.execute("SELECT rev FROM spaces WHERE id = ?", (self._space,)).fetchone()[0]
        return revision

    def problems(self) -> list[tuple[str, str]]:
        """What the rows say that contradicts other rows: (rule, the first case)."""
        found = []
        for rule, statement in _RULES.items():
            row = self._sql.execute(statement).fetchone()
            if row is not None:
                found.append((rule, repr(row)))
        return found

    # -------------------------------------------------------------------------------------------------------- contents

    def has_version(self, inode: bytes, manifest_id: bytes) -> bool:
        key = (self._space, inode, manifest_id)
        return self._has("SELECT 1 FROM versions WHERE space_id = ? AND inode = ? AND manifest_id = ?", key)

    def has_object(self, object_id: bytes) -> bool:
        """Whether the devices of the account may have it."""
        return self._has("SELECT 1 FROM space_objects WHERE space_id = ? AND object_id = ?", (self._space, object_id))

    def _has(self, statement: str, key: tuple[bytes, ...]) -> bool:
        return self._sql.execute(statement, key).fetchone() is not None

    def versions(self) -> dict[bytes, set[bytes]]:
        """The manifests of all contents of each inode that are kept."""
        found: dict[bytes, set[bytes]] = {}
        for inode, manifest in self._sql.execute("SELECT inode, manifest_id FROM versions WHERE space_id = ?", (self._space,)):
            found.setdefault(inode, set()).add(manifest)
        return found

    def read(self, manifest_id: bytes) -> bytes:
        """The bytes of a content, from the object files. `AssertionError` if they are not all there (P5)."""
        known = self._bytes.get(manifest_id)
        if known is None:
            known = self._bytes[manifest_id] = self._assemble(manifest_id)
        return known

    def _assemble(self, manifest_id: bytes) -> bytes:
        row = self._sql.execute("SELECT body FROM manifests WHERE space_id = ? AND id = ?", (self._space, manifest_id)).fetchone()
        assert row is not None, "the service has a content without its manifest"
        manifest = decode_manifest(row[0])
        if manifest.inline is not None:
            return manifest.inline
        return b"".join(self._slice(chunk) for chunk in manifest.chunks)

    def _slice(self, chunk: ChunkRef) -> bytes:
        if chunk.encoding is Encoding.ZEROS:
            return bytes(chunk.length)
        plain = self._plain.get(chunk.object_id)
        if plain is None:
            plain = self._plain[chunk.object_id] = bytes(decode(self._stored(chunk), chunk))
        return plain[chunk.start : chunk.start + chunk.length]

    def _stored(self, chunk: ChunkRef) -> bytes:
        row = self._sql.execute(
            "SELECT generation FROM objects WHERE owner = ? AND object_id = ?", (self._owner, chunk.object_id)
        ).fetchone()
        assert row is not None, "a content on the service names an object that the service does not know"
        stored = StoredBackup(self._data).read(object_key(self._owner, chunk.object_id, row[0]), chunk.stored_length)
        assert stored is not None, "a content on the service names an object that the store does not have"
        assert hashlib.sha256(stored).digest() == chunk.object_id, "an object is not what its name says"
        return stored


def _connect(data: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{data / 'aloft.db'}?mode=ro", uri=True, isolation_level=None, check_same_thread=False)


_RULES = {
    "a content has no manifest": (
        "SELECT hex(v.inode) FROM (SELECT space_id, inode, manifest_id FROM versions UNION SELECT space_id, id, manifest_id "
        "FROM inodes WHERE manifest_id IS NOT NULL) v LEFT JOIN manifests m ON m.space_id = v.space_id AND m.id = v.manifest_id "
        "WHERE m.id IS NULL"
    ),
    "a content is no version": (
        "SELECT hex(i.id) FROM inodes i WHERE i.manifest_id IS NOT NULL AND NOT EXISTS (SELECT 1 FROM versions v "
        "WHERE v.space_id = i.space_id AND v.inode = i.id AND v.manifest_id = i.manifest_id)"
    ),
    "a named object is not stored": (
        "SELECT hex(n.object_id) FROM space_objects n JOIN spaces s ON s.id = n.space_id LEFT JOIN objects o "
        "ON o.owner = s.owner AND o.object_id = n.object_id WHERE o.object_id IS NULL"
    ),
    "a revision is above its space's": (
        "SELECT s.rev FROM spaces s WHERE s.rev < (SELECT max(rev) FROM inodes i WHERE i.space_id = s.id) "
        "OR s.rev < (SELECT max(rev) FROM entries e WHERE e.space_id = s.id)"
    ),
    "a content's revision is above its row's": "SELECT hex(id) FROM inodes WHERE content_rev > rev",
    "what the account uses is not what is stored": (
        "SELECT a.used_bytes FROM accounts a WHERE a.used_bytes <> "
        "(SELECT coalesce(sum(length), 0) FROM objects o WHERE o.owner = a.id) + (SELECT coalesce(sum(m.length), 0) "
        "FROM manifests m JOIN spaces s ON s.id = m.space_id WHERE s.owner = a.id)"
    ),
}
