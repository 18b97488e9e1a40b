"""Which files a tier takes: by their size, and by what their names, and who sends them, say that they are. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from remote.server.config import TierConfig
from remote.server.mediatypes import OTHER, media_type

ANY = "*/*"


def types_of(names: Iterable[str], claimed: str | None = None) -> set[str]:
    """All that the names of a file, and who sends it, say that it is; `OTHER` if nobody says anything."""
    said = {media_type(name) for name in names} - {OTHER}
    return said | ({claimed} if claimed is not None else set()) or {OTHER}


def too_large(tier: TierConfig, size: int) -> str | None:
    """Why a file of so many bytes is not taken."""
    largest = tier.largest_file_bytes
    if largest is None or size <= largest:
        return None
    return f"{size} bytes are more than a file may have in this account's tier, which is {largest}"


def wrong_type(tier: TierConfig, types: Collection[str]) -> str | None:
    """Why a file of these types is not taken: each of them has to be."""
    for type_ in sorted(types):
        if not {ANY, type_, f"{type_.partition('/')[0]}/*"}.intersection(tier.content_types):
            return f"{type_} is not among the types that this account's tier takes: {', '.join(tier.content_types)}"
    return None
