"""Pages that make no sense, or never end: a device says so, and stops or asks again with patience. Nothing local is lost."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from cache.model import Connection as State
from remote.api import ResetRequired
from remote.manifest import Manifest, manifest_id
from remote.protocol import Attributes, ChangesPage, CommitAnswer, Content, EntryState, InodeState, Kind
from tests.support.exchange_device import ExchangeDevice
from tests.support.wire_service import SPACE, WireService

PATIENCE = 60.0
NEW, OTHER = b"\x42" * 16, b"\x43" * 16
TEXT = Manifest.from_inline(b"text").encode()
BEFORE = {"a/": None, "a/f": "text", "b/": None}
Doctor = Callable[[ExchangeDevice, ChangesPage], ChangesPage]


async def until(condition: Callable[[], object]) -> None:
    with trio.fail_after(PATIENCE):
        while not condition():  # noqa: ASYNC110 (what is waited for is spread over the device and the service)
            await trio.sleep(0.002)


@pytest.fixture
def service() -> WireService:
    return WireService()


@pytest.fixture
async def laptop(service: WireService, tmp_path: Path, nursery: trio.Nursery) -> AsyncIterator[ExchangeDevice]:
    device = ExchangeDevice(tmp_path / "laptop", service.link("laptop"))
    scope, ended = trio.CancelScope(), trio.Event()

    async def run() -> None:
        with scope:
            await device.run()
        ended.set()

    nursery.start_soon(run)
    device.make_folder("a")
    device.make_folder("b")
    device.create("a/f", "text")
    await until(device.is_quiet)
    yield device
    scope.cancel()
    await ended.wait()
    device.close()


async def doctor(device: ExchangeDevice, change: Doctor) -> None:
    """From the next page on, every page of the feed is what `change` makes of it. The device is made to ask for one."""
    device.link.set_down(True)
    await until(lambda: device.connection.state is State.UNREACHABLE)
    real = device.link.service.page

    def page(cursor: str, limit: int, **more: bool) -> ChangesPage:
        return change(device, real(cursor, limit, **more))

    device.link.service.page = page  # type: ignore[method-assign]
    device.link.service.tree.revision += 1
    device.link.set_down(False)


def heal(device: ExchangeDevice) -> None:
    del device.link.service.page  # type: ignore[method-assign]


def with_rows(page: ChangesPage, *rows: InodeState | EntryState, **fields: Any) -> ChangesPage:
    (changes,) = page.spaces
    inodes = [row for row in rows if isinstance(row, InodeState)]
    entries = [row for row in rows if isinstance(row, EntryState)]
    changes = changes.model_copy(update={"inodes": inodes, "entries": entries, **fields})
    return page.model_copy(update={"spaces": [changes], "has_more": changes.has_more})


def file(page: ChangesPage, **fields: Any) -> InodeState:
    rev = page.spaces[0].revision
    content = Content(manifest_id=manifest_id(TEXT), size=4, manifest=TEXT)
    row = InodeState(id=NEW, rev=rev, kind=Kind.FILE, attributes=Attributes(), content=content, content_rev=rev)
    return row.model_copy(update=fields)


def name(page: ChangesPage, inode: bytes | None = NEW, parent: bytes = SPACE, name: str = "new") -> EntryState:
    return EntryState(parent=parent, name=name, inode=inode, rev=page.spaces[0].revision)


def new_file(page: ChangesPage, **fields: Any) -> ChangesPage:
    return with_rows(page, file(page, **fields), name(page))


def id_of(device: ExchangeDevice, path: str) -> bytes:
    return device.tree.id_of(device.node(path).ino)


REFUSED: dict[str, Doctor] = {
    "more of nothing": lambda _, page: with_rows(page, has_more=True),
    "more, and the same cursor": lambda device, page: new_file(page).model_copy(
        update={"has_more": True, "cursor": device.exchange.store.cursor()}
    ),
    "more, and not more": lambda _, page: new_file(page).model_copy(
        update={"spaces": [new_file(page).spaces[0].model_copy(update={"has_more": True})]}
    ),
    "what was sent already": lambda _, page: with_rows(page, file(page, rev=1, content_rev=1), has_more=True),
    "a file without content": lambda _, page: new_file(page, content=None),
    "a folder with content": lambda _, page: new_file(page, kind=Kind.DIRECTORY),
    "a link to nowhere": lambda _, page: new_file(page, kind=Kind.SYMLINK, content=None),
    "a file with a target": lambda _, page: new_file(page, target="there"),
    "a revision that it has not reached": lambda _, page: new_file(page, rev=page.spaces[0].revision + 1),
    "a content that is newer than its file": lambda _, page: new_file(page, content_rev=page.spaces[0].revision + 1),
    "a manifest under another's name": lambda _, page: new_file(
        page, content=Content(manifest_id=bytes(32), size=4, manifest=TEXT)
    ),
    "a manifest of another size": lambda _, page: new_file(
        page, content=Content(manifest_id=manifest_id(TEXT), size=5000, manifest=TEXT)
    ),
    "a manifest that is none": lambda _, page: new_file(
        page, content=Content(manifest_id=manifest_id(b"no"), size=2, manifest=b"no")
    ),
}
STOPPED: dict[str, Doctor] = {
    "a revision that goes back": lambda _, page: with_rows(page, revision=page.spaces[0].revision - 2),
    "a file that is a folder": lambda device, page: with_rows(page, file(page, id=id_of(device, "a"))),
    "a folder that is a file": lambda device, page: with_rows(
        page, file(page, id=id_of(device, "a/f"), kind=Kind.DIRECTORY, content=None)
    ),
    "a name of what is not described": lambda _, page: with_rows(page, name(page)),
    "a folder with two names": lambda device, page: with_rows(page, name(page, id_of(device, "a"), id_of(device, "b"))),
    "a folder in itself": lambda device, page: with_rows(
        page, name(page, id_of(device, "a"), id_of(device, "a")), name(page, None, SPACE, "a")
    ),
    "a name in a file": lambda device, page: with_rows(page, file(page), name(page, NEW, id_of(device, "a/f"))),
    "a name in what nobody knows": lambda _, page: with_rows(page, file(page), name(page, NEW, OTHER)),
    "a folder gone, and not what is in it": lambda _, page: with_rows(page, name(page, None, SPACE, "a")),
    "the root in a folder": lambda device, page: with_rows(page, name(page, SPACE, id_of(device, "a"))),
    "a listing that lacks everything": lambda _, page: with_rows(page, full=True),
}


@pytest.mark.parametrize("what", REFUSED)
async def test_a_page_that_makes_no_sense_is_refused_and_asked_for_again(laptop: ExchangeDevice, what: str) -> None:
    before = laptop.link.service.tree.revision
    await doctor(laptop, REFUSED[what])
    await until(lambda: "the service" in (laptop.exchange.pull.status.error or ""))
    assert laptop.connection.stopped_because is None
    assert laptop.paths() == BEFORE
    heal(laptop)
    laptop.link.service.tree.revision = before
    laptop.create("goes on", "text")
    await until(laptop.is_quiet)
    assert laptop.paths() == {**BEFORE, "goes on": "text"}


@pytest.mark.parametrize("what", STOPPED)
async def test_a_service_that_contradicts_itself_stops_the_exchange(laptop: ExchangeDevice, what: str) -> None:
    await doctor(laptop, STOPPED[what])
    await until(lambda: laptop.connection.state is State.STOPPED)
    assert laptop.connection.stopped_because
    assert laptop.paths() == BEFORE
    heal(laptop)
    assert laptop.exchange.reconnect.go_on() is not None
    await until(lambda: laptop.exchange.store.replacing(1) is None)
    await until(laptop.is_quiet)
    assert laptop.paths() == BEFORE, "and a person's word gets it going again"


@pytest.mark.parametrize(
    "change",
    [
        {"outcomes": []},
        {"number": 1000},
        {"epoch": "another"},
        {"revision": 0},
    ],
)
async def test_the_answer_to_another_commit_is_not_recorded(
    laptop: ExchangeDevice, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]
) -> None:
    real = laptop.link.service.commit
    answered = trio.Event()

    def commit(*arguments: Any) -> CommitAnswer:
        answered.set()
        return real(*arguments).model_copy(update=change)

    monkeypatch.setattr(laptop.link.service, "commit", commit)
    laptop.write("a/f", "new")
    await answered.wait()
    await until(lambda: laptop.connection.stopped_because or laptop.exchange.push.status.error)
    assert laptop.exchange.store.outstanding(1) is not None
    assert laptop.contents.draft_ids(), "what was not acknowledged is still here"
    assert laptop.paths()["a/f"] == "new"


# ------------------------------------------------------------------------------------------------- what never ends


class Endless:
    """Counts what a device asks within ten minutes, and gives up on one that would ask for ever."""

    POLLS_MAX = 2000

    def __init__(self, device: ExchangeDevice, answer: Callable[[int], ChangesPage]) -> None:
        self.polls = 0
        self._answer = answer
        device.link.changes = self.changes  # type: ignore[method-assign]

    async def changes(self, cursor: str, **_: object) -> ChangesPage:
        await trio.lowlevel.checkpoint()
        self.polls += 1
        assert self.polls < self.POLLS_MAX, "it is followed without a pause"
        return self._answer(self.polls)


def empty(number: int) -> ChangesPage:
    return ChangesPage(epoch="epoch", cursor=str(number), has_more=False, spaces=[])


def reset(number: int) -> ChangesPage:
    raise ResetRequired("the cursor is too old")


def circle(number: int) -> ChangesPage:
    service = WireService()
    page = service.page("", 1000)
    (changes,) = page.spaces
    more = changes.model_copy(update={"has_more": True})
    return page.model_copy(update={"cursor": str(number % 3), "has_more": True, "spaces": [more]})


def ever_anew(number: int) -> ChangesPage:
    """Each page begins a listing that is complete; every other one is too old."""
    if number % 2:
        raise ResetRequired("the cursor is too old")
    return WireService().page("", 1000)


@pytest.mark.parametrize("answer", [empty, reset, circle, ever_anew])
async def test_what_never_ends_is_not_followed_without_a_pause(
    tmp_path: Path, nursery: trio.Nursery, autojump_clock: MockClock, answer: Callable[[int], ChangesPage]
) -> None:
    device = ExchangeDevice(tmp_path / "laptop", WireService().link("laptop"))
    endless = Endless(device, answer)
    with trio.move_on_after(600):
        await device.exchange.pull.run()
    assert endless.polls > 3
    assert device.paths() == {}
    device.close()
