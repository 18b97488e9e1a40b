"""The three trees of a merge as lazy views of the replica's rows: base, service and local. Only reads.

Also what push reads of local changes, because it asks the same questions of base and local. Knows the rows; the decisions
are `cache.merge`'s and `cache.groups`'s.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Set
from dataclasses import dataclass
from typing import Any, TypeVar

from cache.merge import Content, Key, Names, Side, State
from cache.store.content import ContentStore
from cache.store.tree import KINDS, BaseRow, InodeRow, TreeStore
from remote.protocol import Kind

Q = TypeVar("Q")
A = TypeVar("A")

_STAGED = "rev, kind, mode, uid, gid, mtime_ns, xattrs, target, device_number, manifest_id, manifest_size, sha256, content_rev"


def encode_opaque(xattrs: Any) -> str | None:
    """The spelling that `cache.store.tree.encode_xattrs` gives, for values that are base64 already."""
    return json.dumps(dict(xattrs), sort_keys=True, separators=(",", ":")) if xattrs else None


def decode_opaque(text: str | None) -> dict[str, str]:
    return {} if text is None else json.loads(text)


@dataclass(frozen=True, slots=True)
class StagedInode:
    """A row of `staged_inode`: what the service holds of an inode since a newer revision than base."""

    rev: int
    kind: Kind
    base: BaseRow
    target: str | None
    device_number: int | None
    content_rev: int


@dataclass(frozen=True, slots=True)
class CompleteContent:
    """A content of which the service holds all bytes: the drafts up to `draft`, or (None) the row's own manifest."""

    draft: int | None
    manifest_id: bytes
    size: int
    sha256: bytes | None

    def content(self) -> Content:
        return Content(self.manifest_id, self.size, self.sha256)


class Remembered:
    """A side that answers each question once: for work during which no row changes."""

    def __init__(self, side: Side) -> None:
        self.names = _remembered(side.names)
        self.holder = _remembered(side.holder)
        self.state = _remembered(side.state)
        self.children = side.children


def _remembered(ask: Callable[[Q], A]) -> Callable[[Q], A]:
    answers: dict[Q, A] = {}

    def answer(question: Q) -> A:
        try:
            return answers[question]
        except KeyError:
            found = answers[question] = ask(question)
            return found

    return answer


class LocalSide:
    def __init__(self, tree: TreeStore) -> None:
        self._tree = tree
        self._execute = tree.database.sql.execute

    def names(self, ino: int) -> Names:
        return frozenset(self._tree.names(ino))

    def holder(self, key: Key) -> int | None:
        return self._tree.child(*key)

    def children(self, ino: int) -> Iterable[tuple[str, int]]:
        return self._tree.children(ino)

    def state(self, ino: int) -> State | None:
        row = self._tree.inode(ino)
        if row is None:
            return None
        if row.kind is not Kind.FILE:
            return state_of_row(row, None)
        top = self._execute(_TOP_DRAFT, (ino, -1 if row.manifest_id is None else row.manifest_size)).fetchone()
        return state_of_row(row, Content(*(top or (row.manifest_id, row.manifest_size, row.sha256))))


_TOP_DRAFT = (
    "SELECT CASE WHEN sealed THEN manifest_id END, size, CASE WHEN sealed THEN sha256 END FROM draft WHERE ino = ?1 "
    "AND NOT (extents = x'' AND floor >= size AND size = ?2 AND id = (SELECT min(id) FROM draft WHERE ino = ?1)) "
    "ORDER BY id DESC LIMIT 1"
)
"""None of a draft that holds nothing, over the content that it shows: what the service lost is sent again through one."""


class BaseSide:
    def __init__(self, tree: TreeStore) -> None:
        self._tree = tree

    def names(self, ino: int) -> Names:
        return frozenset(self._tree.base_names(ino))

    def holder(self, key: Key) -> int | None:
        return self._tree.base_entry(*key)

    def children(self, ino: int) -> Iterable[tuple[str, int]]:
        return self._tree.base_children(ino)

    def state(self, ino: int) -> State | None:
        row, base = self._tree.inode(ino), self._tree.base_inode(ino)
        if row is None or base is None:
            return None
        return state_of_base(row.kind, base, row.content_rev, row.target, row.device_number)


class ServiceSide:
    """What is staged over base. (Of a listing that replaces base, the names that it lacks are staged as tombstones.)"""

    def __init__(self, tree: TreeStore, base: BaseSide) -> None:
        self._base = base
        self._execute = tree.database.sql.execute

    def names(self, ino: int) -> Names:
        staged = self._execute("SELECT parent, name FROM staged_entry WHERE ino = ?", (ino,)).fetchall()
        return frozenset([*staged, *(key for key in self._base.names(ino) if not self._is_staged(key))])

    def holder(self, key: Key) -> int | None:
        staged = self._execute("SELECT ino FROM staged_entry WHERE parent = ? AND name = ?", key).fetchone()
        if staged is not None:
            ino: int | None = staged[0]
            return ino
        return self._base.holder(key)

    def children(self, ino: int) -> Iterable[tuple[str, int]]:
        children: dict[str, int | None] = dict(self._base.children(ino))
        children.update(self._execute("SELECT name, ino FROM staged_entry WHERE parent = ?", (ino,)).fetchall())
        return [(name, child) for name, child in children.items() if child is not None]

    def state(self, ino: int) -> State | None:
        row = self.staged(ino)
        if row is None:
            return self._base.state(ino)
        return state_of_base(row.kind, row.base, row.content_rev, row.target, row.device_number)

    def staged(self, ino: int) -> StagedInode | None:
        row = self._execute(f"SELECT {_STAGED} FROM staged_inode WHERE ino = ?", (ino,)).fetchone()
        if row is None:
            return None
        return StagedInode(row[0], KINDS[row[1]], BaseRow(*row[2:7], *row[9:12]), row[7], row[8], row[12])

    def _is_staged(self, key: Key) -> bool:
        return self._execute("SELECT 1 FROM staged_entry WHERE parent = ? AND name = ?", key).fetchone() is not None


class LocalChanges:
    """What push asks about the local changes of one space: `cache.groups.Pending`, and the contents that may be sent.

    `held_names` are not to be told to the service now, nor that any of `held_removals` lost its last name. The manifests
    that a commit would need, and that are not here, are gathered in `missing_manifests`: (inode, manifest id).
    """

    def __init__(
        self,
        tree: TreeStore,
        contents: ContentStore,
        root: int,
        held_names: Set[Key] = frozenset(),
        held_removals: Set[int] = frozenset(),
    ) -> None:
        self.root = root
        self.missing_manifests: dict[int, bytes] = {}
        self._held_names = held_names
        self._held_removals = held_removals
        self.base: Side = Remembered(BaseSide(tree))
        self.local: Side = Remembered(LocalSide(tree))
        self._tree = tree
        self._contents = contents
        self._execute = tree.database.sql.execute

    def is_complete(self, ino: int) -> bool:
        content = self.complete_content(ino)
        if content is None:
            return False
        if self._contents.manifest(content.manifest_id) is None:
            self.missing_manifests[ino] = content.manifest_id
            return False
        return True

    def is_held(self, key: Key) -> bool:
        if key in self._held_names:
            return True
        old = self.base.holder(key) if self._held_removals else None
        return old in self._held_removals and not self.local.names(old) if old is not None else False

    def complete_content(self, ino: int) -> CompleteContent | None:
        """The newest content of a file that the service could take now."""
        draft = self._execute(
            "SELECT id, manifest_id, size, sha256 FROM draft WHERE ino = ? AND complete = 1 ORDER BY id DESC LIMIT 1", (ino,)
        ).fetchone()
        if draft is not None:
            return CompleteContent(*draft)
        row = self._tree.inode(ino)
        if row is None or row.manifest_id is None or self._contents.has_drafts(ino):
            return None
        return CompleteContent(None, row.manifest_id, row.manifest_size, row.sha256)

    def dirty_keys_in(self, folder: int) -> list[Key]:
        rows = self._execute(
            "SELECT b.parent, b.name FROM entry_base b LEFT JOIN entry e ON e.parent = b.parent AND e.name = b.name "
            "WHERE b.parent = ? AND b.ino IS NOT e.ino",
            (folder,),
        )
        return rows.fetchall()


def state_of_row(row: InodeRow, content: Content | None) -> State:
    """The local state."""
    return State(
        row.kind,
        row.mode,
        row.uid,
        row.gid,
        row.mtime_ns,
        decode_opaque(row.xattrs),
        content,
        row.content_rev,
        row.target,
        row.device_number,
    )


def state_of_base(kind: Kind, base: BaseRow, content_rev: int, target: str | None, device_number: int | None) -> State:
    content = Content(base.manifest_id, base.manifest_size, base.sha256) if kind is Kind.FILE else None
    xattrs = decode_opaque(base.xattrs)
    return State(kind, base.mode, base.uid, base.gid, base.mtime_ns, xattrs, content, content_rev, target, device_number)
