"""Each fault at each stage of a download: the reader gets the right bytes or an error within the I/O budget, never others; and
the right bytes once the fault is gone."""

from __future__ import annotations

import errno
import os
import threading
import time
from pathlib import Path

import pytest

from tests.faults.pair import IO_TIMEOUT, Pair, sync, wait_for_status
from tests.support.fault_proxy import (
    S3_REQUEST_TIMEOUT,
    Answer,
    Cut,
    Fault,
    Garbage,
    Kind,
    Reset,
    Rewrite,
    Stall,
    Trickle,
    Where,
    flip,
)
from tests.support.waiting import PATIENCE, wait_until

SAID = {errno.EIO, errno.ETIMEDOUT, errno.ENETDOWN}
HOUR = {"Retry-After": "3600"}

PASSING: dict[str, tuple[Fault, Kind, str]] = {
    "an expired link": (Answer(403), Kind.GET, ""),
    "a broken store": (Answer(500), Kind.GET, ""),
    "a busy store": (Answer(503, {"Retry-After": "1"}), Kind.GET, ""),
    "a request that came too slowly": (S3_REQUEST_TIMEOUT, Kind.GET, ""),
    "a body that is cut short": (Cut(Where.ANSWER_BODY, 1000), Kind.GET, ""),
    "a connection that is reset": (Reset(Where.ANSWER_BODY, 100_000), Kind.GET, ""),
    "a flipped bit": (Rewrite(flip(12345)), Kind.GET, ""),
    "fewer bytes, honestly": (Rewrite(lambda body: body[:-7]), Kind.GET, ""),
    "more bytes": (Rewrite(lambda body: body + b"more"), Kind.GET, ""),
    "another object": (Rewrite(lambda body: os.urandom(len(body))), Kind.GET, ""),
    "a slow store": (Trickle(300_000), Kind.GET, ""),
    "no HTTP at all": (Garbage(b"220 mail.example.org ESMTP\r\n"), Kind.GET, ""),
    "a plan that is lost": (Reset(Where.ANSWER), Kind.API, "/downloads"),
}
LASTING: dict[str, tuple[Fault, Kind, str]] = {
    "links that are refused": (Answer(403), Kind.GET, ""),
    "an object that is gone": (Answer(404), Kind.GET, ""),
    "a broken store": (Answer(500), Kind.GET, ""),
    "a store that asks for an hour": (Answer(503, HOUR), Kind.GET, ""),
    "bytes that are always wrong": (Rewrite(flip(0)), Kind.GET, ""),
    "bodies that are always cut": (Cut(Where.ANSWER_BODY, 1000), Kind.GET, ""),
    "a stall before the answer": (Stall(Where.ANSWER), Kind.GET, ""),
    "a stall in the middle of the body": (Stall(Where.ANSWER_BODY, 100_000), Kind.GET, ""),
    "a crawl": (Trickle(2_000), Kind.GET, ""),
    "no links": (Answer(503, HOUR), Kind.API, "/downloads"),
    "links that never come": (Stall(Where.ANSWER), Kind.API, "/downloads"),
}
REQUESTS_MAX = 40


@pytest.fixture(scope="module")
def contents(pair: Pair) -> dict[str, bytes]:
    """Files that are on the service and not on the second device: one for each test, each an object of its own."""
    names = [f"passing {name}" for name in PASSING] + [f"lasting {name}" for name in LASTING] + ["away", "many"]
    contents = {name: os.urandom(300_000) for name in names}
    for name, content in contents.items():
        (pair.a / name).write_bytes(content)
    sync(pair.one)
    wait_until(lambda: set(contents) <= set(os.listdir(pair.b)))
    return contents


@pytest.fixture(autouse=True)
def no_fault_is_left(pair: Pair) -> None:
    pair.proxy.clear()


def refusal(path: Path) -> int | None:
    """The errno with which reading a file ends; None: it works, and what it gives is for the caller to compare."""
    failures: list[int | None] = []

    def reading() -> None:
        try:
            path.read_bytes()
            failures.append(None)
        except OSError as error:
            failures.append(error.errno)

    reader = threading.Thread(target=reading, daemon=True)
    reader.start()
    reader.join(PATIENCE)
    assert failures, "P4: the read never ended"
    return failures[0]


@pytest.mark.parametrize("name", PASSING)
def test_a_fault_that_passes(pair: Pair, contents: dict[str, bytes], name: str) -> None:
    fault, kind, path = PASSING[name]
    file = pair.b / f"passing {name}"
    with pair.proxy.inject(fault, kind, path=path, times=1) as injected:
        began = time.monotonic()
        if refusal(file) is not None:
            assert time.monotonic() - began >= IO_TIMEOUT, "it gave up although there was time for another attempt"
            wait_until(lambda: refusal(file) is None)
        assert file.read_bytes() == contents[f"passing {name}"]
    assert injected.hits == 1


@pytest.mark.parametrize("name", LASTING)
def test_a_fault_that_lasts(pair: Pair, contents: dict[str, bytes], name: str) -> None:
    fault, kind, path = LASTING[name]
    file = pair.b / f"lasting {name}"
    with pair.proxy.inject(fault, kind, path=path) as injected:
        assert refusal(file) in SAID
        assert file.stat().st_size == len(contents[f"lasting {name}"])
        assert injected.hits < REQUESTS_MAX
    wait_until(lambda: refusal(file) is None, "the fault is gone, and the file can be read")
    assert file.read_bytes() == contents[f"lasting {name}"]


def test_the_store_is_away_and_the_service_is_not(pair: Pair, contents: dict[str, bytes]) -> None:
    pair.proxy.set_store_away(True)
    assert refusal(pair.b / "away") in SAID
    wait_for_status(pair.two, "cannot connect")
    (pair.a / "new name").mkdir()
    wait_until((pair.b / "new name").is_dir)
    assert pair.two.json("status")["drive"]["connection"] == "online"
    pair.proxy.set_store_away(False)
    wait_until(lambda: refusal(pair.b / "away") is None)
    assert (pair.b / "away").read_bytes() == contents["away"]


def test_the_service_is_away_and_the_store_is_not(pair: Pair, contents: dict[str, bytes]) -> None:
    pair.proxy.set_service_away(True)
    wait_for_status(pair.two, "cannot connect")
    assert refusal(pair.b / "many") in SAID
    assert (pair.b / "many").stat().st_size == len(contents["many"])
    pair.proxy.set_service_away(False)
    wait_until(lambda: refusal(pair.b / "many") is None)
    assert (pair.b / "many").read_bytes() == contents["many"]
