"""The order of the feed's pages: what goes in a circle is refused, what begins anew for a reason is not."""

from __future__ import annotations

import pytest

from cache.pages import PageOrder
from remote.api import Nonsense
from remote.protocol import ChangesPage, EntryState, SpaceChanges

HOME, SHARED = b"H" * 16, b"S" * 16


def of(space: bytes, *revisions: int, full: bool = False) -> SpaceChanges:
    entries = [EntryState(parent=space, name=f"{rev}", inode=b"I" * 16, rev=rev) for rev in revisions]
    return SpaceChanges(space=space, revision=20, has_more=False, full=full, inodes=[], entries=entries)


def page(*spaces: SpaceChanges, more: bool = False) -> ChangesPage:
    return ChangesPage(epoch="e", cursor="next", has_more=more, spaces=list(spaces))


def sent(order: PageOrder, *pages: ChangesPage) -> None:
    for each in pages:
        order.check("cursor", each)
        order.note(each)


def test_what_comes_again_is_refused() -> None:
    order = PageOrder()
    sent(order, page(of(HOME, 5, 7)), page(of(HOME, 7, 8)))
    with pytest.raises(Nonsense, match="sent already"):
        sent(order, page(of(HOME, 6)))
    sent(order, page(of(HOME, 9)))


def test_a_listing_is_in_order_too() -> None:
    order = PageOrder()
    sent(order, page(of(HOME, 1, 5, full=True), more=True), page(of(HOME, 5, 9, full=True), more=True))
    with pytest.raises(Nonsense, match="sent already"):
        sent(order, page(of(HOME, 4, full=True)))


def test_a_space_of_which_one_is_a_member_again_begins_anew() -> None:
    order = PageOrder()
    sent(order, page(of(HOME, 3), of(SHARED, 1, 9, full=True)), page(of(HOME), of(SHARED, 12)), page(of(HOME, 4)))
    sent(order, page(of(HOME, 5), of(SHARED, 1, 9, 12, full=True)))
    sent(order, page(of(HOME, 6)), page(of(HOME, 7), of(SHARED, 1, 9, 12, full=True)), page(of(HOME), of(SHARED, 13)))
    sent(order, page(of(HOME), of(SHARED, 1, 9, full=True)))  # left and back between two pages
    with pytest.raises(Nonsense, match="sent already"):
        sent(order, page(of(HOME), of(SHARED, 3)))
    with pytest.raises(Nonsense, match="sent already"):
        sent(order, page(of(HOME, 2), of(SHARED, 10)))
