"""Downloads of plain clients: which objects a version is made of, with links, or its bytes through the service. Blocking.

A download is of one version: what is looked up once is a manifest, and what is named by `version` stays the same bytes. Bytes
that go through the service are read from the store chunk by chunk, and compared with the chunk's SHA-256 and length first.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from remote.encoding import BadObject, decode
from remote.fileapi import LINKS_MAX, DownloadChunk, FileDownload, Replicas
from remote.manifest import ChunkRef, Encoding, Manifest, decode_manifest
from remote.protocol import Kind, Link, ProblemType
from remote.server.access import member_of
from remote.server.database import contents as rows
from remote.server.database.contents import StoredObject
from remote.server.database.engine import Database
from remote.server.database.tree import InodeRow
from remote.server.devices import Caller
from remote.server.files import open_path, open_trees
from remote.server.mediatypes import media_type
from remote.server.objects.store import LinkBase, NoSuchObject, ObjectStore, StoreUnavailable, object_key
from remote.server.paths import find, place_of, split_path
from remote.server.problems import Refused, not_found
from remote.server.tree import Tree

CHUNKS_MAX = 4096
"""In one answer."""
ZEROS_PIECE = 2**20
STORE_RETRY_SECONDS = 10


@dataclass(frozen=True, slots=True)
class Wanted:
    """A file by its path or its inode, in a version or as it is now."""

    path: str | None
    id: bytes | None
    version: bytes | None


@dataclass(frozen=True, slots=True)
class Found:
    space: bytes
    owner: bytes
    inode: bytes
    path: str | None
    """None: it has no name any more."""
    version: bytes
    sha256: bytes | None
    mtime_ns: int
    manifest: Manifest

    @property
    def name(self) -> str:
        return self.inode.hex() if self.path is None else self.path.rpartition("/")[2]

    @property
    def size(self) -> int:
        return self.manifest.size


@dataclass(frozen=True, slots=True)
class Piece:
    """Some of the bytes of a chunk, [start, end) in its object; `key` None: zeros."""

    ref: ChunkRef
    key: str | None
    start: int
    end: int


class FileDownloads:
    def __init__(self, database: Database, store: ObjectStore, link_seconds: int) -> None:
        self._database = database
        self._store = store
        self._link_seconds = link_seconds

    def plan(self, caller: Caller, wanted: Wanted, start: int, end: int | None, base: LinkBase) -> FileDownload:
        """The chunks that hold the bytes [start, end), as many as fit into one answer."""
        with self._database.read() as connection:
            found = self._find(connection, caller, wanted)
            end = found.size if end is None else min(end, found.size)
            chunks, next_ = _chunks_of(found.manifest, start, end)
            stored = self._stored(connection, found, [ref for _, ref in chunks])
        ids = list(stored)
        return FileDownload(
            id=found.inode,
            path=found.path,
            version=found.version,
            size=found.size,
            sha256=found.sha256,
            content_type=media_type(found.name),
            mtime_ns=found.mtime_ns,
            content=found.manifest.inline,
            chunks=[_download_chunk(offset, ref) for offset, ref in chunks],
            links=[self._link(base, found.owner, stored[id_]) for id_ in ids],
            next=next_,
            expires_in=self._link_seconds,
        )

    def replicas(self, caller: Caller, wanted: Wanted) -> Replicas:
        """Where the objects of the version lie. `StoreUnavailable`."""
        with self._database.read() as connection:
            found = self._find(connection, caller, wanted)
            chunks, _ = _chunks_of(found.manifest, 0, found.size)
            stored = self._stored(connection, found, [ref for _, ref in chunks])
        keys = [object_key(found.owner, each.object_id, each.generation) for each in stored.values()]
        places = Counter(place for held in self._store.replicas(keys).values() for place in held)
        return Replicas(objects=len(keys), places=dict(places))

    def link(self, caller: Caller, wanted: Wanted, chunk: bytes, base: LinkBase) -> Link:
        """A fresh link for one object of the version."""
        with self._database.read() as connection:
            found = self._find(connection, caller, wanted)
            stored = rows.stored_objects(connection, found.owner, [chunk] if chunk in found.manifest.object_ids() else [])
        if chunk not in stored:
            raise not_found("This version has no such chunk.")
        return self._link(base, found.owner, stored[chunk])

    def look_up(self, caller: Caller, wanted: Wanted) -> Found:
        with self._database.read() as connection:
            return self._find(connection, caller, wanted)

    def pieces(self, found: Found, start: int, end: int) -> Iterator[Piece]:
        """What the bytes [start, end) are made of, in their order."""
        refs = [(offset, ref) for offset, ref in _overlapping(found.manifest, start, end)]
        with self._database.read() as connection:
            stored = self._stored(connection, found, [ref for _, ref in refs])
        keys = {id_: object_key(found.owner, id_, each.generation) for id_, each in stored.items()}
        return _pieces(refs, keys, start, end)

    def read(self, piece: Piece) -> bytes:
        """`Refused` (unavailable) where the store does not give the bytes that it was given."""
        if piece.key is None:
            return bytes(piece.end - piece.start)
        try:
            stored = self._store.read(piece.key, piece.ref.stored_length)
            if hashlib.sha256(stored).digest() != piece.ref.object_id:
                raise BadObject("an object does not have the SHA-256 that is its name")
            return bytes(memoryview(decode(stored, piece.ref))[piece.start : piece.end])
        except (StoreUnavailable, NoSuchObject, BadObject) as error:
            raise Refused(
                ProblemType.UNAVAILABLE, f"A chunk cannot be read: {error}.", retry_after_seconds=STORE_RETRY_SECONDS
            ) from error

    def _find(self, connection: Connection, caller: Caller, wanted: Wanted) -> Found:
        tree, path, row = find_file(connection, caller, wanted)
        if row.kind is not Kind.FILE:
            raise Refused(ProblemType.INVALID, "Only files have a content.", field="path" if wanted.id is None else "id")
        owner = member_of(connection, caller, tree.root).owner
        return content_of(connection, tree.root, owner, path, row, wanted.version)

    def _stored(self, connection: Connection, found: Found, refs: Sequence[ChunkRef]) -> dict[bytes, StoredObject]:
        """The objects of these chunks, in their order."""
        ids = dict.fromkeys(ref.object_id for ref in refs if ref.encoding is not Encoding.ZEROS)
        stored = rows.stored_objects(connection, found.owner, ids)
        return {id_: stored[id_] for id_ in ids}

    def _link(self, base: LinkBase, owner: bytes, stored: StoredObject) -> Link:
        key = object_key(owner, stored.object_id, stored.generation)
        return self._store.sign_get(base, key, stored.object_id, self._link_seconds)


def content_of(
    connection: Connection, space: bytes, owner: bytes, path: str | None, file: InodeRow, version: bytes | None
) -> Found:
    """What a file holds, or held in the version. `Refused` (not found) if it never did, or no longer has it."""
    assert file.manifest_id is not None
    found, sha256, mtime_ns = file.manifest_id, file.sha256, file.attributes.mtime_ns
    if version not in (None, found):
        former = rows.version(connection, space, file.id, version)
        if former is None:
            raise not_found("The file has no such version.")
        found, sha256, mtime_ns = former.manifest_id, former.sha256, former.mtime_ns
    body = rows.manifest_bodies(connection, space, [found]).get(found)
    if body is None:
        raise not_found("The file was replaced or removed meanwhile.")
    return Found(space, owner, file.id, path, found, sha256, mtime_ns, decode_manifest(body))


def find_file(connection: Connection, caller: Caller, wanted: Wanted) -> tuple[Tree, str | None, InodeRow]:
    if (wanted.path is None) == (wanted.id is None):
        raise Refused(ProblemType.INVALID, "Give a path or an id.", field="path")
    if wanted.path is not None:
        tree, names = open_path(connection, caller, split_path(wanted.path))
        place, row = find(tree, names)
        return tree, place.path, row
    assert wanted.id is not None
    for tree in open_trees(connection, caller):
        row_by_id = tree.inode(wanted.id)
        if row_by_id is not None:
            named = place_of(tree, wanted.id)
            return tree, None if named is None else named.path, row_by_id
    raise not_found("There is no such file.")


def _overlapping(manifest: Manifest, start: int, end: int) -> Iterator[tuple[int, ChunkRef]]:
    """The chunks, with their offsets, that hold some of the bytes [start, end)."""
    if manifest.inline is not None or start >= end:
        return
    for index in range(manifest.chunk_at(start), len(manifest.chunks)):
        if manifest.offsets[index] >= end:
            return
        yield manifest.offsets[index], manifest.chunks[index]


def _chunks_of(manifest: Manifest, start: int, end: int) -> tuple[list[tuple[int, ChunkRef]], int | None]:
    """As many as fit into one answer, and the offset to go on at, if there are more."""
    chunks: list[tuple[int, ChunkRef]] = []
    objects: set[bytes] = set()
    for offset, ref in _overlapping(manifest, start, end):
        if len(chunks) == CHUNKS_MAX or (len(objects) == LINKS_MAX and ref.object_id not in objects):
            return chunks, offset
        if ref.encoding is not Encoding.ZEROS:
            objects.add(ref.object_id)
        chunks.append((offset, ref))
    return chunks, None


def _download_chunk(offset: int, ref: ChunkRef) -> DownloadChunk:
    if ref.encoding is Encoding.ZEROS:
        return DownloadChunk(offset=offset, size=ref.length, encoding="zeros")
    return DownloadChunk(
        offset=offset,
        size=ref.length,
        encoding="zstd" if ref.encoding is Encoding.ZSTD else "raw",
        id=ref.object_id,
        start=ref.start,
        plain_size=ref.plain_length,
        stored_size=ref.stored_length,
    )


def _pieces(refs: Sequence[tuple[int, ChunkRef]], keys: Mapping[bytes, str], start: int, end: int) -> Iterator[Piece]:
    for offset, ref in refs:
        first, last = max(start, offset) - offset, min(end, offset + ref.length) - offset
        if ref.encoding is not Encoding.ZEROS:
            yield Piece(ref, keys[ref.object_id], ref.start + first, ref.start + last)
            continue
        for at in range(first, last, ZEROS_PIECE):
            yield Piece(ref, None, at, min(at + ZEROS_PIECE, last))
