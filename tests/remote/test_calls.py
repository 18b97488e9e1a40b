"""JSON calls: what becomes of every kind of answer, of silence, and of the token."""

from __future__ import annotations

import json
import logging
import ssl

import httpx
import pytest
import trio
import trio.testing

from remote import api
from remote.api import Nonsense, NotAuthenticated, Overloaded, Unreachable
from remote.calls import Timeouts
from remote.endpoint import Endpoint
from remote.http import HttpService
from remote.problems import AlreadyExists, error_from_answer, retry_after
from remote.protocol import ObjectToUpload, ProblemType, WantedManifest

TOKEN = "the-access-token"
SPACE = bytes(16)
DEVICE = {"id": "ab" * 16, "name": "laptop", "created_ns": 1, "last_seen_ns": 2}
DEVICES = json.dumps({"devices": [DEVICE], "limit": 5}).encode()
EMPTY_PAGE = {"epoch": "e", "cursor": "c", "has_more": False, "spaces": []}


class ScriptedTokens:
    def __init__(self) -> None:
        self.rejected: list[str] = []

    async def current(self) -> str:
        return TOKEN if not self.rejected else f"{TOKEN}-{len(self.rejected)}"

    async def after_rejection(self, rejected: str) -> str:
        self.rejected.append(rejected)
        return await self.current()


def service_for(url: str, tokens: ScriptedTokens | None = None, timeouts: Timeouts | None = None, **more) -> HttpService:
    return HttpService(
        Endpoint.parse(url), tokens or ScriptedTokens(), timeouts=timeouts or Timeouts(connect=5.0, progress=20.0), **more
    )


def problem(kind: ProblemType | str, status: int, **more: object) -> bytes:
    return json.dumps({"type": kind, "title": "It went wrong", "status": status, "detail": "like this"} | more).encode()


PROBLEM = {"Content-Type": "application/problem+json"}


@pytest.mark.parametrize(
    ("kind", "status", "error"),
    [
        (ProblemType.INVALID, 422, api.Rejected),
        (ProblemType.FORBIDDEN, 403, api.Forbidden),
        (ProblemType.NOT_FOUND, 404, api.NotThere),
        (ProblemType.EXISTS, 409, AlreadyExists),
        (ProblemType.STALE_COMMIT, 409, api.StaleCommit),
        (ProblemType.RESET, 410, api.ResetRequired),
        (ProblemType.TOO_LARGE, 413, api.Rejected),
        (ProblemType.QUOTA, 507, api.QuotaExceeded),
        (ProblemType.RATE_LIMITED, 429, api.Overloaded),
        (ProblemType.UNAVAILABLE, 503, api.Overloaded),
        (ProblemType.INTERNAL, 500, api.Overloaded),
        (ProblemType.UNAUTHENTICATED, 401, api.NotAuthenticated),
        (ProblemType.REVOKED, 401, api.DeviceRevoked),
        ("a-newer-type", 418, api.Rejected),
        ("a-newer-type", 503, api.Overloaded),
    ],
)
async def test_problems_become_the_exceptions_of_the_interface(wire, reply, kind, status, error):
    wire.reply = lambda _: reply(status, problem(kind, status), PROBLEM)
    async with service_for(wire.url) as service:
        with pytest.raises(error, match="like this") as caught:
            await service.devices()
    assert type(caught.value) is error


def test_what_a_service_says_cannot_move_the_cursor_of_a_terminal():
    body = problem(ProblemType.INVALID, 422, detail="a\x1b[2Jb\nc")
    assert str(error_from_answer(422, {"content-type": "application/problem+json"}, body, "host")) == "a [2Jb c"


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, api.Rejected),
        (403, api.Forbidden),
        (404, api.NotThere),
        (429, Overloaded),
        (502, Overloaded),
        (504, Overloaded),
        (507, api.QuotaExceeded),
        (302, Nonsense),
        (308, Nonsense),
    ],
)
async def test_answers_of_whatever_stands_between(wire, reply, status, error):
    wire.reply = lambda _: reply(status, b"<html>", {"Content-Type": "text/html", "Location": "https://elsewhere.example"})
    async with service_for(wire.url) as service:
        with pytest.raises(error):
            await service.devices()


def test_too_many_devices_names_them():
    body = problem(ProblemType.TOO_MANY_DEVICES, 409, devices=[DEVICE])
    error = error_from_answer(409, {"content-type": "application/problem+json"}, body, "host")
    assert isinstance(error, api.TooManyDevices)
    assert [device.name for device in error.devices] == ["laptop"]


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("", None),
        ("7", 7.0),
        ("0", 0.0),
        ("Fri, 20 Nov 2026 10:00:30 GMT", 30.0),
        ("Fri, 20 Nov 2026 09:00:00 GMT", 0.0),
        ("soon", None),
        ("-3", None),
        ("٣", None),
    ],
)
def test_retry_after(value, seconds):
    headers = {} if value is None else {"retry-after": value}
    assert retry_after(headers, now=1795168800.0) == seconds


def test_a_date_to_retry_after_is_by_the_clock_of_who_wrote_it():
    """Ours may be hours away from it."""
    headers = {"date": "Fri, 20 Nov 2026 10:00:00 GMT", "retry-after": "Fri, 20 Nov 2026 10:00:30 GMT"}
    for hours in (-7, 0, 30):
        assert retry_after(headers, now=1795168800.0 + hours * 3600) == 30


async def test_retry_after_reaches_the_caller(wire, reply):
    wire.reply = lambda _: reply(503, b"", {"Retry-After": "12"})
    async with service_for(wire.url) as service:
        with pytest.raises(Overloaded) as caught:
            await service.devices()
    assert caught.value.retry_after == 12


async def test_a_redirect_is_not_followed(wire, reply):
    wire.reply = lambda _: reply(307, b"", {"Location": f"{wire.url}/elsewhere"})
    async with service_for(wire.url) as service:
        with pytest.raises(Nonsense, match="redirects"):
            await service.devices()
    assert [received.target for received in wire.received] == ["/v1/devices"]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"devices": 3, "limit": 1}', b"<html>"])
async def test_answers_that_the_protocol_does_not_allow(wire, reply, body):
    wire.reply = lambda _: reply(200, body)
    async with service_for(wire.url) as service:
        with pytest.raises(Nonsense):
            await service.devices()


async def test_a_name_from_the_feed_that_no_folder_may_hold(wire, reply):
    entry = {"parent": "00" * 16, "name": "../up", "inode": "11" * 16, "rev": 1}
    space = {"space": "00" * 16, "revision": 1, "has_more": False, "full": True, "entries": [entry]}
    wire.reply = lambda _: reply(200, json.dumps(EMPTY_PAGE | {"spaces": [space]}).encode())
    async with service_for(wire.url) as service:
        with pytest.raises(Nonsense, match="name"):
            await service.changes("", wait_seconds=0, limit=10)


async def test_big_answers_are_parsed_elsewhere(wire, reply):
    entries = [{"parent": "00" * 16, "name": f"name {n}", "inode": "11" * 16, "rev": n} for n in range(5000)]
    space = {"space": "00" * 16, "revision": 5000, "has_more": False, "full": True, "entries": entries}
    wire.reply = lambda _: reply(200, json.dumps(EMPTY_PAGE | {"spaces": [space]}).encode())
    async with service_for(wire.url) as service:
        page = await service.changes("", wait_seconds=0, limit=5000)
    assert len(page.spaces[0].entries) == 5000
    assert page.spaces[0].entries[4999].name == "name 4999"


async def test_answers_to_other_questions_are_nonsense(wire, reply):
    link = {"id": "22" * 32, "method": "GET", "url": "http://127.0.0.1/o"}
    answers = {
        "/uploads": {"missing": [link | {"method": "PUT"}], "expires_in": 300},
        "/downloads": {"links": [link], "expires_in": 300},
        "/manifests": {"manifests": []},
    }
    wire.reply = lambda received: reply(200, json.dumps(answers["/" + received.target.rsplit("/", 1)[1]]).encode())
    async with service_for(wire.url) as service:
        with pytest.raises(Nonsense):
            await service.plan_uploads(SPACE, [ObjectToUpload(id=bytes(32), length=1)])
        with pytest.raises(Nonsense):
            await service.plan_downloads(SPACE, [bytes(32)])
        with pytest.raises(Nonsense):
            await service.manifests(SPACE, [WantedManifest(inode=bytes(16), manifest_id=bytes(32))])


NAMES = [{"parent": "11" * 16, "name": name, "inode": "22" * 16, "rev": 1} for name in ("a", "b")]


@pytest.mark.parametrize(
    ("after", "page"),
    [
        ("a", {"entries": NAMES}),
        ("", {"entries": NAMES[::-1]}),
        ("", {"entries": [NAMES[0], NAMES[0]]}),
        ("", {"entries": NAMES, "next": "a"}),
        ("c", {"entries": [], "next": "c"}),
    ],
)
async def test_names_of_a_folder_must_go_on(wire, reply, after, page):
    wire.reply = lambda _: reply(200, json.dumps({"epoch": "e", "revision": 1, "inodes": []} | page).encode())
    async with service_for(wire.url) as service:
        with pytest.raises(Nonsense, match="order"):
            await service.folder(SPACE, b"\x11" * 16, after=after, limit=10)


async def test_what_goes_over_the_wire(wire, reply):
    answers = {"/v1/changes": json.dumps(EMPTY_PAGE).encode(), "/v1/devices": DEVICES}
    wire.reply = lambda received: reply(200, answers.get(received.target.split("?")[0], b""))
    async with service_for(wire.url) as service:
        await service.changes("a&b", wait_seconds=0, limit=7)
        await service.devices()
        await service.remove_device(b"\x01" * 16)
        assert service.statistics().requests == 3
        assert service.statistics().latency is not None
    assert [f"{r.method} {r.target}" for r in wire.received] == [
        "GET /v1/changes?cursor=a%26b&limit=7&wait=0",
        "GET /v1/devices",
        f"DELETE /v1/devices/{'01' * 16}",
    ]
    for received in wire.received:
        assert received.headers["authorization"] == f"Bearer {TOKEN}"
        assert received.headers["accept-encoding"] == "identity"


async def test_a_commit_goes_out_byte_for_byte(wire, reply):
    answer = {"epoch": "e", "number": 1, "revision": 2, "outcomes": []}
    wire.reply = lambda _: reply(200, json.dumps(answer).encode())
    stored = b'{ "number": 1,   "groups": [] }'
    async with service_for(wire.url) as service:
        assert (await service.commit(SPACE, stored)).revision == 2
    assert wire.received[0].body == stored
    assert wire.received[0].headers["content-type"] == "application/json"


async def test_a_rejected_token_is_renewed_once(wire, reply):
    tokens = ScriptedTokens()
    wire.reply = lambda received: reply(200, DEVICES) if received.headers["authorization"].endswith("-1") else reply(401)
    async with service_for(wire.url, tokens) as service:
        await service.devices()
    assert tokens.rejected == [TOKEN]
    assert len(wire.received) == 2


async def test_a_token_that_stays_rejected_is_not_renewed_for_ever(wire, reply):
    wire.reply = lambda _: reply(401)
    async with service_for(wire.url) as service:
        with pytest.raises(NotAuthenticated):
            await service.devices()
    assert len(wire.received) == 2


async def test_a_server_that_never_answers(wire, reply):
    wire.reply = lambda _: reply(silent=True, stall=True)
    async with service_for(wire.url, timeouts=Timeouts(connect=5.0, progress=0.2)) as service:
        with pytest.raises(Unreachable, match="in time"), trio.fail_after(10):
            await service.devices()


async def test_a_server_that_answers_drop_by_drop(autojump_clock):
    class Dripping(httpx.AsyncByteStream):
        async def __aiter__(self):
            while True:
                yield b" "
                await trio.sleep(10)

    async def drip(_):
        return httpx.Response(200, stream=Dripping())

    async with service_for("http://127.0.0.1:1", transport=httpx.MockTransport(drip)) as service:
        with pytest.raises(Unreachable, match="in time"):
            await service.devices()
        assert trio.current_time() == pytest.approx(Timeouts().total)


async def test_a_long_poll_may_take_as_long_as_asked(autojump_clock):
    async def slowly(_):
        await trio.sleep(300)
        return httpx.Response(200, json=EMPTY_PAGE)

    async with service_for("http://127.0.0.1:1", transport=httpx.MockTransport(slowly)) as service:
        page = await service.changes("c", wait_seconds=299, limit=1)
    assert page.cursor == "c"
    assert service.statistics().latency is None


async def test_the_long_poll_leaves_connections_to_others(wire, reply):
    polling = trio.Event()
    token = trio.lowlevel.current_trio_token()

    def script(received):
        if "changes" in received.target:
            token.run_sync_soon(polling.set)
            return reply(silent=True, stall=True)
        return reply(200, DEVICES)

    wire.reply = script
    async with service_for(wire.url) as service, trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(lambda: service.changes("c", wait_seconds=60, limit=1))
        await polling.wait()
        for _ in range(20):
            await service.devices()
        nursery.cancel_scope.cancel()


async def test_refused_and_cut_off(wire, reply):
    wire.reply = lambda _: reply(200, b"{", announced=1000, close=True)
    async with service_for(wire.url) as service:
        with pytest.raises(Unreachable):
            await service.devices()
    wire.stop()
    async with service_for(wire.url) as service:
        with pytest.raises(Unreachable, match="cannot connect"):
            await service.devices()


async def test_a_kept_connection_that_ends_under_the_call_is_retried(wire, reply):
    def script(received):
        return reply(silent=True) if received.connection == 0 and len(wire.received) > 1 else reply(200, DEVICES)

    wire.reply = script
    async with service_for(wire.url) as service:
        await service.devices()
        await service.devices()
    assert [received.connection for received in wire.received] == [0, 0, 1]


async def test_neither_queries_nor_tokens_are_logged(wire, reply, caplog):
    caplog.set_level(logging.DEBUG)
    wire.reply = lambda received: reply(200, json.dumps(EMPTY_PAGE).encode())
    async with service_for(wire.url) as service:
        await service.changes("secret-cursor", wait_seconds=0, limit=1)
    assert "secret-cursor" not in caplog.text
    assert TOKEN not in caplog.text


async def test_an_untrusted_certificate_says_what_to_do():
    async def refuse(_):
        error = ssl.SSLCertVerificationError("bad")
        error.verify_message = "self-signed certificate"
        raise httpx.ConnectError("handshake") from error

    async with service_for("http://127.0.0.1:1", transport=httpx.MockTransport(refuse)) as service:
        with pytest.raises(Unreachable, match="--ca"):
            await service.devices()
