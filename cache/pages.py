"""What a service must not say in a page: of the feed, or of one folder. Names were checked when the page was parsed.

A page that contradicts what the service said before raises `Contradiction` (P6), one that makes no sense `Nonsense`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from cache.guards import Contradiction, check_revision
from cache.store.sync import SpaceRow
from remote.api import Nonsense
from remote.manifest import BadManifest, decode_manifest, manifest_id
from remote.protocol import ChangesPage, Content, EpochStart, FolderPage, InodeState, Kind, SpaceChanges

PAGES_OF_ONE_REVISION = 1000
"""A commit is one revision, and has at most some hundred thousand rows."""
RESTORED = "the service was restored to an older state, or is another one (its epoch changed)"


def check_epoch(known: str | None, spaces: Iterable[SpaceRow], page: ChangesPage) -> None:
    """Another epoch is gone along with only if the service has had everything that this device ever heard of it."""
    if known in (None, page.epoch):
        return
    shared = shared_revisions(page.history, known)
    if shared is None or any(space.known > shared.get(space.id, 0) for space in spaces):
        raise Contradiction(RESTORED)


def shared_revisions(history: Sequence[EpochStart], epoch: str | None) -> dict[bytes, int] | None:
    """Up to which revision of each space (one that is not named: 0) what was seen in `epoch` is the service's history, too.
    None: nothing is known of that."""
    at = next((index for index, began in enumerate(history) if began.epoch == epoch), None)
    if at is None or at + 1 == len(history):
        return None
    later = [{start.space: start.revision for start in began.spaces} for began in history[at + 1 :]]
    return {space: min(starts.get(space, 0) for starts in later) for space in later[0]}


class PageOrder:
    """The feed comes in the order of revisions: pages that say there is more, and begin again or bring nothing, go in a
    circle. A space that is listed from the beginning again, because this account is a member again, has an order of its own."""

    def __init__(self) -> None:
        self._reached: dict[bytes, int] = {}
        self._listed: set[bytes] = set()
        """Spaces of which the last page was a page of a listing from the beginning."""
        self._same = 0

    def check(self, cursor: str, page: ChangesPage) -> None:
        """`cursor`: what was asked for. `Nonsense`; the page counts when it is noted."""
        if cursor == "":
            self._reached, self._same = {}, 0
        revisions = {changes.space: _revisions(changes) for changes in page.spaces}
        if page.has_more and (page.cursor == cursor or not any(revisions.values())):
            raise Nonsense("the service says that there is more, and does not say what")
        if not page.has_more and any(changes.has_more for changes in page.spaces):
            raise Nonsense("the service says that there is more, and that there is not")
        reached = self._before(page)
        if any(min(some) < reached.get(space, 0) for space, some in revisions.items() if some):
            raise Nonsense("the service sends changes again that it has sent already")
        if self._same >= PAGES_OF_ONE_REVISION:
            raise Nonsense("the service sends changes of one revision without end")

    def note(self, page: ChangesPage) -> None:
        before = dict(self._reached)
        self._reached = self._before(page)
        self._listed = {changes.space for changes in page.spaces if changes.full}
        for changes in page.spaces:
            self._reached[changes.space] = max([self._reached.get(changes.space, 0), *_revisions(changes)])
        self._same = self._same + 1 if page.has_more and before == self._reached else 0

    def _before(self, page: ChangesPage) -> dict[bytes, int]:
        """What was reached before this page, without spaces of which it begins a listing."""
        begun = {changes.space for changes in page.spaces if changes.full} - self._listed
        return {space: reached for space, reached in self._reached.items() if space not in begun}


def _revisions(changes: SpaceChanges) -> list[int]:
    return [row.rev for row in changes.inodes] + [row.rev for row in changes.entries]


def check_page(space: SpaceRow, page: SpaceChanges, acknowledged: int) -> None:
    """`acknowledged`: the newest revision that the service had acknowledged when it was asked for the page."""
    check_revision(space.id.hex(), page.revision, max(space.snapshot, acknowledged))
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
        shape = (row.content is not None) is (row.kind is Kind.FILE) and (row.target is not None) is (
            row.kind in (Kind.SYMLINK, Kind.MOUNT)
        )
        if not shape or not row.content_rev <= row.rev <= page.revision:
            raise Nonsense(f"the service describes inode {row.id.hex()} in a way that cannot be")
        if row.content is not None and row.content.manifest is not None:
            _check_manifest(row.id, row.content, row.content.manifest)
    if any(entry.rev > page.revision for entry in page.entries):
        raise Nonsense("the service sent an entry of a revision that it has not reached")


def _check_manifest(inode: bytes, content: Content, encoded: bytes) -> None:
    if manifest_id(encoded) != content.manifest_id:
        raise Nonsense(f"the service sent a manifest of inode {inode.hex()} that does not have the hash that names it")
    try:
        size = decode_manifest(encoded).size
    except BadManifest as bad:
        raise Nonsense(f"the service sent a manifest of inode {inode.hex()} that is none: {bad}") from bad
    if size != content.size:
        raise Nonsense(f"the service says that inode {inode.hex()} has {content.size} bytes, and its manifest says {size}")
