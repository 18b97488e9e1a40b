"""Where the parts of one home lie. Only paths: nothing is made or opened here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class HomePaths:
    home: Path
    database: Path
    drafts: Path
    """A file for each draft that is too large for the replica."""
    chunks: Path
    """The chunk cache, which may be dropped at any time."""
    pinned: Path
    """Chunks of pinned files."""

    @classmethod
    def under(cls, home: Path, cache_folder: Path | None = None) -> HomePaths:
        """The usual places; `cache_folder` moves the evictable chunks (only) elsewhere."""
        return cls(home, home / "replica.db", home / "drafts", cache_folder or home / "chunks", home / "pinned")
