"""Small contents that wait at the same time share objects: thousands of files in a few requests. Pure.

A pack is an object whose plain bytes are the contents one after the other; each file's manifest is a slice of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cache.chunking import MEDIUM_SPLIT
from remote.manifest import ChunkRef, Manifest

PACKED_MAX = 64 * 1024
"""Contents up to this size are packed."""
PACK_SIZE = 2**20


@dataclass(frozen=True, slots=True)
class Pack:
    """`members[i]` is the content at `starts[i]`, named by its place in the list that was packed."""

    plain: bytes
    members: tuple[int, ...]
    starts: tuple[int, ...]


def pack(contents: Sequence[bytes]) -> list[Pack]:
    """Put contents together, in their order, into packs of about `PACK_SIZE`."""
    packs: list[Pack] = []
    members: list[int] = []
    size = 0
    for at, content in enumerate(contents):
        if members and size + len(content) > PACK_SIZE:
            packs.append(_made(contents, members))
            members, size = [], 0
        members.append(at)
        size += len(content)
    if members:
        packs.append(_made(contents, members))
    return packs


def slice_of(whole: ChunkRef, start: int, length: int) -> ChunkRef:
    return ChunkRef(whole.object_id, whole.plain_length, whole.stored_length, whole.encoding, start, length)


def one_chunk(ref: ChunkRef) -> Manifest:
    return Manifest.from_chunks(MEDIUM_SPLIT, (ref,))


def _made(contents: Sequence[bytes], members: list[int]) -> Pack:
    starts, size = [], 0
    for at in members:
        starts.append(size)
        size += len(contents[at])
    return Pack(b"".join(contents[at] for at in members), tuple(members), tuple(starts))
