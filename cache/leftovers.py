"""What the replica need not know any more: manifests that no row speaks of, and more hints than are worth their place.

Every save leaves the manifest of the content before behind: without this the replica would grow with each. A hand goes round both
tables, a few rows at each turn, so that a tree of a million files costs the loop no more than an empty one.
"""

from __future__ import annotations

import math

import trio

from cache.files import Files
from cache.store.content import ContentStore

LOOK_AT_ONCE = 200
TURNS_MAX = 50
"""While much of what it meets goes, the hand goes on, but not for longer than this."""
KNOWN_CHUNKS_MAX = 100_000
"""Some 150 bytes each. One more that is forgotten costs one compression if its content comes again."""


class Leftovers:
    def __init__(self, store: ContentStore, files: Files) -> None:
        self._store = store
        self._files = files
        self._manifests_after = b""
        self._chunks_after = (0, b"")
        self._chunks_counted = 0
        self._chunks_surplus = 0.0

    async def tidy(self) -> None:
        """One turn of the hand."""
        for _ in range(TURNS_MAX):
            if self._drop_manifests() < LOOK_AT_ONCE / 4:
                break
            await trio.lowlevel.checkpoint()
        self._trim_chunks()

    def _drop_manifests(self) -> int:
        """How many of the next manifests were dropped."""
        in_use = self._files.manifests_in_use()
        dropped, end = self._store.drop_unused_manifests(self._manifests_after, LOOK_AT_ONCE, in_use)
        self._manifests_after = end
        return dropped

    def _trim_chunks(self) -> None:
        """A round counts them; if there were too many, the next one forgets as large a part of them. They are in the order of
        their hashes, so that any part is as good as another."""
        keys = self._store.known_chunks(self._chunks_after, LOOK_AT_ONCE)
        surplus = keys[: math.ceil(len(keys) * self._chunks_surplus)]
        self._store.forget_chunks(surplus)
        self._chunks_counted += len(keys) - len(surplus)
        if len(keys) == LOOK_AT_ONCE:
            self._chunks_after = keys[-1]
            return
        self._chunks_surplus = max(0.0, 1 - KNOWN_CHUNKS_MAX / max(1, self._chunks_counted))
        self._chunks_after, self._chunks_counted = (0, b""), 0
