"""Each fault at each stage of an upload: what was written is read here all the while, the status says what is wrong, nothing
is sent without end, and when the fault is gone it is on the other device."""

from __future__ import annotations

import os
from collections.abc import Iterable

import pytest

from tests.faults.pair import Pair, arrives, drive_status, read, sync, wait_for_status
from tests.support.fault_proxy import (
    S3_REQUEST_TIMEOUT,
    STORE,
    Answer,
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
from tests.support.waiting import wait_until

ATTEMPTS_MAX = 60
"""Requests of one file while a fault lasts that each answers at once; without back-off they would be thousands."""
HOUR = {"Retry-After": "3600"}

LASTING: dict[str, tuple[Fault, Kind, str, str]] = {
    "the store refuses links": (Answer(403), Kind.PUT, "", "refuses the link"),
    "the store knows nothing": (Answer(404), Kind.PUT, "", "does not hold the object"),
    "the store is broken": (Answer(500), Kind.PUT, "", "status 500"),
    "the store asks for an hour": (Answer(503, HOUR), Kind.PUT, "", "status 503"),
    "bodies do not reach the store in time": (S3_REQUEST_TIMEOUT, Kind.PUT, "", "RequestTimeout"),
    "bodies are damaged on the way": (Rewrite(flip(1000), request=True), Kind.PUT, "", "refused the object"),
    "the store cuts connections": (Reset(Where.REQUEST_BODY, 1000), Kind.PUT, "", "broke"),
    "the service does not plan": (Answer(503, HOUR), Kind.API, "/uploads", "status 503"),
    "the service does not commit": (Answer(503, HOUR), Kind.API, "/commit", "status 503"),
}
PASSING: dict[str, tuple[Fault, Kind, str]] = {
    "an expired link": (Answer(403), Kind.PUT, ""),
    "a body that is cut short": (Reset(Where.REQUEST_BODY, 5000), Kind.PUT, ""),
    "a body of another length": (Rewrite(lambda body: body[:-1], request=True), Kind.PUT, ""),
    "a damaged body": (Rewrite(flip(0), request=True), Kind.PUT, ""),
    "an answer of the store that is lost": (Reset(Where.ANSWER), Kind.PUT, ""),
    "a slow store": (Trickle(200_000), Kind.PUT, ""),
    "an answer to a plan that is lost": (Reset(Where.ANSWER), Kind.API, "/uploads"),
    "an acknowledgement that is lost": (Reset(Where.ANSWER), Kind.API, "/commit"),
    "an acknowledgement that is cut": (Reset(Where.ANSWER_BODY, 20), Kind.API, "/commit"),
    "no HTTP at all": (Garbage(b"220 mail.example.org ESMTP\r\n"), Kind.API, "/commit"),
}


ALWAYS = {
    *("the store refuses links", "the store asks for an hour", "bodies do not reach the store in time"),
    *("the service does not commit", "an expired link", "a body that is cut short", "a damaged body"),
    *("an acknowledgement that is lost", Where.REQUEST_BODY),
}
"""What every run of the tests plays; the others cost their time, too, and run with `--long`."""


def some(cases: Iterable[object]) -> list[object]:
    return [case if case in ALWAYS else pytest.param(case, marks=pytest.mark.long) for case in cases]


@pytest.fixture(autouse=True)
def no_fault_is_left(pair: Pair) -> None:
    pair.proxy.clear()


def written(pair: Pair, name: str) -> bytes:
    content = os.urandom(200_000)
    (pair.a / name).write_bytes(content)
    return content


@pytest.mark.parametrize("name", some(LASTING))
def test_a_fault_that_lasts(pair: Pair, name: str) -> None:
    fault, kind, path, complaint = LASTING[name]
    with pair.proxy.inject(fault, kind, path=path) as injected:
        content = written(pair, name)
        wait_until(lambda: injected.hits > 0)
        wait_for_status(pair.one, complaint)
        assert read(pair.a / name) == content
        assert read(pair.b / name) is None, "P5: the version is there only when all of it is"
    sync(pair.one)
    arrives(pair.b / name, content)
    assert injected.hits < ATTEMPTS_MAX


@pytest.mark.parametrize("name", some(PASSING))
def test_a_fault_that_passes(pair: Pair, name: str) -> None:
    fault, kind, path = PASSING[name]
    with pair.proxy.inject(fault, kind, path=path, times=1) as injected:
        content = written(pair, name)
        sync(pair.one)
        assert injected.hits == 1
    arrives(pair.b / name, content)


@pytest.mark.parametrize("where", some([Where.REQUEST_BODY, Where.REQUEST_PASSED_ON, Where.ANSWER]))
def test_a_stall_is_waited_out(pair: Pair, where: Where) -> None:
    """Shorter than the time-out: the transfer goes on where it was."""
    with pair.proxy.inject(Stall(where, after=1000), Kind.PUT, times=1) as injected:
        content = written(pair, where.value)
        wait_until(lambda: injected.hits == 1)
        other = f"beside {where.value}"
        (pair.a / other).write_bytes(b"small")
        arrives(pair.b / other, b"small")
    sync(pair.one)
    arrives(pair.b / where.value, content)


@pytest.mark.long
@pytest.mark.parametrize("kind", [Kind.PUT, Kind.API])
@pytest.mark.parametrize("where", [Where.REQUEST_BODY, Where.ANSWER, Where.ANSWER_BODY])
def test_a_stall_without_end(pair: Pair, kind: Kind, where: Where) -> None:
    """Minutes: each attempt is given up, and the next one goes through."""
    path = "/commit" if kind is Kind.API else ""
    name = f"for ever {kind.value} {where.value}"
    pair.proxy.inject(Stall(where), kind, path=path, times=1)
    content = written(pair, name)
    sync(pair.one)
    arrives(pair.b / name, content)


@pytest.mark.long
def test_stalls_of_minutes_in_all_turns(pair: Pair) -> None:
    """The store takes half of each body and then nothing: the status says it, what needs no object goes up meanwhile, and when
    the store is well again the rest does, and what came later."""
    with pair.proxy.inject(Stall(Where.REQUEST_BODY, after=100_000), Kind.PUT) as stall:
        contents = {f"stalled {number}": written(pair, f"stalled {number}") for number in range(6)}
        wait_until(lambda: stall.hits > 0)
        (pair.a / "no object").write_bytes(b"small")
        arrives(pair.b / "no object", b"small")
        wait_for_status(pair.one, "does not answer in time")
        wait_until(lambda: all(file["error"] for file in drive_status(pair.one)["queue"]["first"]), "all had their turn")
        assert pair.one.json("status")["drive"]["connection"] == "online"
    contents["beside"] = written(pair, "beside")
    sync(pair.one)
    for name, content in contents.items():
        arrives(pair.b / name, content)


def test_the_store_is_away_and_the_service_is_not(pair: Pair) -> None:
    pair.proxy.set_store_away(True)
    content = written(pair, "waits")
    (pair.a / "folder").mkdir()
    (pair.a / "tiny").write_bytes(b"needs no object")
    arrives(pair.b / "tiny", b"needs no object")
    assert (pair.b / "folder").is_dir()
    wait_for_status(pair.one, "cannot connect")
    status = pair.one.json("status")["drive"]
    assert status["connection"] == "online"
    assert "waits" in [file["path"] for file in status["queue"]["first"]]
    done = pair.one.run("sync")
    assert done.returncode == 3, done.stdout + done.stderr
    assert "cannot connect" in done.stdout + done.stderr
    pair.proxy.set_store_away(False)
    sync(pair.one)
    arrives(pair.b / "waits", content)


def test_the_service_is_away_and_the_store_is_not(pair: Pair) -> None:
    pair.proxy.set_service_away(True)
    sent = pair.proxy.count(*STORE)
    content = written(pair, "offline")
    assert read(pair.a / "offline") == content
    wait_for_status(pair.one, "cannot connect")
    assert pair.one.json("status")["drive"]["connection"] == "unreachable"
    assert pair.one.run("sync").returncode in (3, 5)
    assert pair.proxy.count(*STORE) == sent
    pair.proxy.set_service_away(False)
    sync(pair.one)
    arrives(pair.b / "offline", content)
