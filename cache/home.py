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
    cache: Path
    """The chunk cache. What is pinned lies in it too; nothing in it is missed when it is gone."""

    @classmethod
    def under(cls, home: Path, cache_folder: Path | None = None) -> HomePaths:
        """The usual places; the cache may lie elsewhere."""
        return cls(home, home / "replica.db", home / "drafts", cache_folder or home / "cache")
