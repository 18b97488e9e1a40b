"""What the next commit says, when many changes wait."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import trio

from cache.commits import CommitBuilder, Held, Made, encoded
from cache.model import AttributeUpdate
from cache.store.schema import ROOT
from remote.protocol import CommitRequest, ContentChange, Kind
from tests.support.exchange_device import ExchangeDevice
from tests.support.wire_service import WireService

FILES = 600
"""More than two slices of the search."""


class StoppedClock:
    """A search that is never out of time."""

    def wall_ns(self) -> int:
        return 0

    def monotonic(self) -> float:
        return 0.0


async def test_no_content_stands_twice_in_a_commit(tmp_path: Path) -> None:
    """The search that goes on where the last one stopped comes round to where it began: there it ends."""
    device = ExchangeDevice(tmp_path / "laptop", WireService().link("laptop"))
    files = [device.create(f"f{number}", "one") for number in range(FILES)]
    await run_until_quiet(device)
    for ino in files:
        device.write_ino(ino, "another")
    store = device.exchange.store
    builder = CommitBuilder(store, device.tree, device.contents, StoppedClock())
    some = builder.build(store.space(1), Held(), groups_max=FILES // 2)
    assert len(some.contents) == FILES // 2
    all_of_them = builder.build(store.space(1), Held(), groups_max=2 * FILES)
    assert Counter(ino for ino, _ in all_of_them.contents) == Counter(files)
    device.close()


async def test_what_is_known_of_a_commit_is_what_its_body_says(tmp_path: Path) -> None:
    """So that a large one need not be read again when it is answered."""
    device = ExchangeDevice(tmp_path / "laptop", WireService().link("laptop"))
    changed, removed = (device.create(name, "one") for name in ("changed", "removed"))
    await run_until_quiet(device)
    device.write_ino(changed, "another")
    device.replica.set_attributes(changed, AttributeUpdate(mode=0o600))
    device.replica.unlink(ROOT, "removed")
    device.create("new", "content")
    device.replica.create(ROOT, "link", Kind.SYMLINK, mode=0o777, uid=None, gid=None, target="changed")
    store = device.exchange.store
    commit = CommitBuilder(store, device.tree, device.contents, StoppedClock()).build(store.space(1), Held())
    request = commit.request(7, Made(store.replica(), "epoch", 5))
    read = CommitRequest.model_validate_json(encoded(request))
    assert request == read
    assert {type(change.content) for group in read.groups for change in group.inodes} == {ContentChange, type(None)}
    assert any(group.last == [device.tree.id_of(removed)] for group in read.groups)
    assert encoded(read) == encoded(request)
    device.close()


class HurriedClock(StoppedClock):
    """Each look at it takes a millisecond, so that a search ends long before it has seen everything."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        self.now += 0.001
        return self.now


async def test_a_search_among_contents_that_wait_comes_to_an_end(tmp_path: Path) -> None:
    """However many wait for their bytes: what is ready is found behind them, and then the search rests."""
    device = ExchangeDevice(tmp_path / "laptop", WireService().link("laptop"))
    edited = [device.create(f"f{number}", "one") for number in range(FILES // 2)]
    await run_until_quiet(device)
    for ino in edited:
        device.write_ino(ino, "waits", complete=False)
    for number in range(FILES // 2):
        device.create(f"new{number}", None)
    device.create("the last", "ready")
    builder = CommitBuilder(device.exchange.store, device.tree, device.contents, HurriedClock())
    assert await searched(builder, device) == {"the last"}
    device.replica.unlink(ROOT, "the last")
    assert await searched(builder, device) == set()
    device.close()


async def searched(builder: CommitBuilder, device: ExchangeDevice) -> set[str]:
    """The names in the first commit that says anything; the search must not go on for ever."""
    space = device.exchange.store.space(1)
    for _ in range(FILES):
        commit = builder.build(space, Held(inodes={ROOT: math.inf}))  # but for its time, which is always ready
        if commit.groups:
            return {entry.name for group in commit.groups for entry in group.entries}
        if not commit.unfinished:
            return set()
    raise AssertionError("the search begins anew for ever")


async def run_until_quiet(device: ExchangeDevice) -> None:
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(device.run)
            while not device.is_quiet():  # noqa: ASYNC110 (what is waited for is spread over the device and the service)
                await trio.sleep(0.01)
            nursery.cancel_scope.cancel()
