"""What a service must not say in a page: of the feed, or of one folder. Names were checked when the page was parsed.

A page that contradicts what the service said before raises `Contradiction` (P6), one that makes no sense `Nonsense`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from cache.guards import Contradiction, check_revision
from cache.store.sync import SpaceRow, SyncStore
from remote.api import Nonsense
from remote.manifest import manifest_id
from remote.protocol import FolderPage, InodeState, Kind, SpaceChanges


def check_epoch(store: SyncStore, epoch: str) -> None:
    known = store.epoch()
    if known is not None and epoch != known:
        raise Contradiction("the service was restored to an older state, or is another one (its epoch changed)")


def check_page(space: SpaceRow, page: SpaceChanges) -> None:
    check_revision(space.id.hex(), page.revision, space.snapshot)
    _check_rows(page)


def check_folder_page(space: SpaceRow, folder: bytes, page: FolderPage, revision: int) -> None:
    """`revision`: what the service had reached when the page was asked for."""
    check_revision(space.id.hex(), page.revision, revision)
    _check_rows(page)
    described = {row.id for row in page.inodes}
    if any(entry.parent != folder or entry.inode not in described for entry in page.entries):
        raise Nonsense("the service sent a folder with names of something else, or that it does not describe")


def riding_manifests(inodes: Iterable[InodeState]) -> Iterator[tuple[bytes, bytes]]:
    """(id, manifest) of those that came with the rows."""
    for row in inodes:
        if row.content is not None and row.content.manifest is not None:
            yield row.content.manifest_id, row.content.manifest


def _check_rows(page: SpaceChanges | FolderPage) -> None:
    for row in page.inodes:
        if (row.content is None) is (row.kind is Kind.FILE) or max(row.rev, row.content_rev) > page.revision:
            raise Nonsense(f"the service describes inode {row.id.hex()} in a way that cannot be")
        content = row.content
        if content is not None and content.manifest is not None and manifest_id(content.manifest) != content.manifest_id:
            raise Nonsense(f"the service sent a manifest of inode {row.id.hex()} that does not have the hash that names it")
    if any(entry.rev > page.revision for entry in page.entries):
        raise Nonsense("the service sent an entry of a revision that it has not reached")
