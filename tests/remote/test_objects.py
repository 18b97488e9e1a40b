"""Object bytes over presigned links, against a server on a socket that misbehaves in every way."""

from __future__ import annotations

import hashlib
import random
import socket

import httpx
import pytest
import trio
import trio.testing

from remote.api import Corrupt, LinkExpired, Nonsense, NotThere, Rejected, StoreUnavailable, Transient, Unreachable
from remote.calls import Timeouts
from remote.endpoint import Endpoint
from remote.http import HttpService
from remote.link import RateLimit
from remote.protocol import Link

TOKEN = "the-access-token"
BODY = random.Random(7).randbytes(700_001)


class FixedToken:
    async def current(self) -> str:
        return TOKEN

    async def after_rejection(self, rejected: str) -> str:
        return rejected


def service_for(url: str, progress: float = 20.0, **more) -> HttpService:
    return HttpService(Endpoint.parse(url), FixedToken(), timeouts=Timeouts(connect=5.0, progress=progress), **more)


def get_link(url: str, body: bytes = BODY, **headers: str) -> Link:
    return Link(id=hashlib.sha256(body).digest(), method="GET", url=f"{url}/objects/one?signature=s%2Fcret", headers=headers)


def put_link(url: str, body: bytes = BODY) -> Link:
    return Link(
        id=hashlib.sha256(body).digest(), method="PUT", url=f"{url}/objects/one?signature=s%2Fcret", headers={"x-sum": "1"}
    )


async def test_get_returns_the_bytes_and_keeps_the_connection(wire, reply):
    wire.reply = lambda _: reply(body=BODY)
    async with service_for(wire.url) as service:
        for _ in range(3):
            body = await service.get_object(get_link(wire.url), len(BODY))
            assert body == BODY
            assert type(body) is bytearray
        statistics = service.statistics()
    assert wire.connections == 1
    assert (statistics.objects_received, statistics.bytes_received) == (3, 3 * len(BODY))
    assert statistics.download_rate is not None
    assert {received.target for received in wire.received} == {"/objects/one?signature=s%2Fcret"}


async def test_get_without_a_content_length(wire, reply):
    wire.reply = lambda _: reply(body=BODY, announced=-1, close=True)
    async with service_for(wire.url) as service:
        assert await service.get_object(get_link(wire.url), len(BODY)) == BODY


async def test_get_of_a_chunked_body(wire, reply):
    encoded = b"%x\r\n" % len(BODY) + BODY + b"\r\n0\r\n\r\n"
    wire.reply = lambda _: reply(body=encoded, announced=-1, headers={"Transfer-Encoding": "chunked"})
    async with service_for(wire.url) as service:
        assert await service.get_object(get_link(wire.url), len(BODY)) == BODY
        assert await service.get_object(get_link(wire.url), len(BODY)) == BODY
    assert wire.connections == 1


async def test_put_sends_the_bytes_with_the_headers_of_the_link(wire):
    async with service_for(wire.url) as service:
        await service.put_object(put_link(wire.url), BODY)
        await service.put_object(put_link(wire.url), memoryview(BODY))
        statistics = service.statistics()
    assert [received.body == BODY for received in wire.received] == [True, True]
    assert wire.received[0].headers["content-length"] == str(len(BODY))
    assert wire.received[0].headers["x-sum"] == "1"
    assert "transfer-encoding" not in wire.received[0].headers
    assert (statistics.objects_sent, statistics.bytes_sent) == (2, 2 * len(BODY))
    assert wire.connections == 1


async def test_the_access_token_never_goes_to_a_link(wire, reply):
    wire.reply = lambda received: reply(body=BODY if received.method == "GET" else b"")
    async with service_for(wire.url) as service:
        await service.get_object(get_link(wire.url), len(BODY))
        await service.put_object(put_link(wire.url), BODY)
    assert len(wire.received) == 2
    for received in wire.received:
        assert "authorization" not in received.headers
        assert TOKEN not in str(received.headers) + received.target


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (403, LinkExpired),
        (404, NotThere),
        (429, StoreUnavailable),
        (500, StoreUnavailable),
        (503, StoreUnavailable),
        (400, Rejected),
        (301, Nonsense),
        (307, Nonsense),
    ],
)
@pytest.mark.parametrize("method", ["GET", "PUT"])
async def test_refusals_of_the_store(wire, reply, status, kind, method):
    wire.reply = lambda _: reply(status, b"<Error/>", {"Retry-After": "7", "Location": "http://127.0.0.1:9/elsewhere"})
    async with service_for(wire.url) as service:
        get, put = get_link(wire.url), put_link(wire.url)
        with pytest.raises(kind) as caught:
            await (service.get_object(get, len(BODY)) if method == "GET" else service.put_object(put, BODY))
        if kind is StoreUnavailable:
            assert caught.value.retry_after == 7
        assert service.statistics().bytes_sent == 0
    assert "secret" not in str(caught.value)
    assert "s%2Fcret" not in str(caught.value)
    assert isinstance(caught.value, Transient) == (kind in (LinkExpired, StoreUnavailable))


async def test_wrong_bytes_are_corrupt(wire, reply):
    wire.reply = lambda _: reply(body=BODY[:-1] + b"!")
    async with service_for(wire.url) as service:
        with pytest.raises(Corrupt, match="hash"):
            await service.get_object(get_link(wire.url), len(BODY))


@pytest.mark.parametrize("change", [-1, 1, -700_001])
async def test_an_object_of_another_length_is_corrupt(wire, reply, change):
    wire.reply = lambda _: reply(body=(BODY + b"?")[: len(BODY) + change])
    async with service_for(wire.url) as service:
        with pytest.raises(Corrupt, match="long"):
            await service.get_object(get_link(wire.url), len(BODY))


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, "RequestTimeout", StoreUnavailable),
        (400, "InternalError", StoreUnavailable),
        (400, "ExpiredToken", LinkExpired),
        (403, "RequestTimeTooSkewed", LinkExpired),
        (400, "IncompleteBody", StoreUnavailable),
        (403, "QuotaExceeded", StoreUnavailable),
        (404, "NoSuchBucket", StoreUnavailable),
        (400, "BadDigest", Rejected),
        (400, "XAmzContentSHA256Mismatch", Rejected),
    ],
)
async def test_s3_s_error_codes_say_whether_another_attempt_helps(wire, reply, status, code, kind):
    xml = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>…</Message></Error>'.encode()
    wire.reply = lambda _: reply(status, xml)
    async with service_for(wire.url) as service:
        for call in (lambda: service.put_object(put_link(wire.url), BODY), lambda: service.get_object(get_link(wire.url), 10)):
            with pytest.raises(kind) as caught:
                await call()
            assert isinstance(caught.value, Transient) == (kind is not Rejected)


async def test_a_store_that_is_away_says_nothing_of_the_service(wire, reply):
    wire.reply = lambda _: reply(body=BODY[:300_000], announced=len(BODY), close=True)
    async with service_for(wire.url) as service:
        with pytest.raises(StoreUnavailable) as caught:
            await service.get_object(get_link(wire.url), len(BODY))
    assert not isinstance(caught.value, Unreachable)


async def test_a_body_that_is_cut_off_is_unreachable(wire, reply):
    wire.reply = lambda _: reply(body=BODY[:300_000], announced=len(BODY), close=True)
    async with service_for(wire.url) as service:
        with pytest.raises(StoreUnavailable):
            await service.get_object(get_link(wire.url), len(BODY))


@pytest.mark.parametrize("silent", [True, False])
async def test_a_server_that_stalls_is_unreachable_after_the_timeout(wire, reply, silent):
    wire.reply = lambda _: reply(body=BODY[:300_000], announced=len(BODY), stall=True, silent=silent)
    async with service_for(wire.url, progress=0.2) as service:
        with pytest.raises(StoreUnavailable, match="in time"), trio.fail_after(10):
            await service.get_object(get_link(wire.url), len(BODY))
    assert wire.ended.acquire(timeout=10)


async def test_cancelling_ends_the_thread_and_the_connection(wire, reply):
    arrived = trio.Event()
    token = trio.lowlevel.current_trio_token()

    def stall(_):
        token.run_sync_soon(arrived.set)
        return reply(body=BODY[:300_000], announced=len(BODY), stall=True)

    wire.reply = stall
    async with service_for(wire.url, progress=60) as service, trio.open_nursery() as nursery:
        nursery.start_soon(service.get_object, get_link(wire.url), len(BODY))
        await arrived.wait()
        nursery.cancel_scope.cancel()
    assert await trio.to_thread.run_sync(lambda: wire.ended.acquire(timeout=10))


async def test_a_kept_connection_that_the_server_closed_is_replaced(wire, reply):
    wire.reply = lambda received: reply(body=BODY, close=True)
    async with service_for(wire.url) as service:
        await service.get_object(get_link(wire.url), len(BODY))
        assert await trio.to_thread.run_sync(lambda: wire.ended.acquire(timeout=10))
        assert await service.get_object(get_link(wire.url), len(BODY)) == BODY
    assert wire.connections == 2


@pytest.mark.parametrize("method", ["GET", "PUT"])
async def test_a_kept_connection_that_ends_under_the_request_is_retried_once(wire, reply, method):
    def script(received):
        if len(wire.received) == 1:
            return reply(body=BODY)
        return reply(silent=True) if received.connection == 0 else reply(body=BODY)

    wire.reply = script
    async with service_for(wire.url) as service:
        await service.get_object(get_link(wire.url), len(BODY))
        if method == "GET":
            assert await service.get_object(get_link(wire.url), len(BODY)) == BODY
        else:
            await service.put_object(put_link(wire.url), BODY)
    assert [received.connection for received in wire.received] == [0, 0, 1]


async def test_a_fresh_connection_without_an_answer_is_not_retried(wire, reply):
    wire.reply = lambda _: reply(silent=True)
    async with service_for(wire.url) as service:
        with pytest.raises(StoreUnavailable):
            await service.get_object(get_link(wire.url), len(BODY))
    assert len(wire.received) == 1


async def test_a_refused_connection_is_unreachable_at_once(wire):
    wire.stop()
    async with service_for(wire.url) as service:
        with pytest.raises(StoreUnavailable, match="refused"):
            await service.get_object(get_link(wire.url), len(BODY))


async def test_an_early_refusal_is_heard(wire, reply):
    wire.hasty = True
    wire.reply = lambda _: reply(403, close=True)
    body = bytes(30_000_000)
    async with service_for(wire.url) as service:
        with pytest.raises(LinkExpired):
            await service.put_object(put_link(wire.url, body), body)


async def test_headers_beyond_ascii(wire, reply):
    wire.reply = lambda _: reply(200, BODY, {"X-Owner": "J\xc3\xb6rg"})
    async with service_for(wire.url) as service:
        assert await service.get_object(get_link(wire.url), len(BODY)) == BODY


async def test_a_server_that_never_shakes_hands():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"https://127.0.0.1:{silent.getsockname()[1]}"
        async with HttpService(Endpoint.parse(url), FixedToken(), timeouts=Timeouts(connect=0.3, progress=5.0)) as service:
            with pytest.raises(StoreUnavailable, match="in time"), trio.fail_after(10):
                await service.get_object(get_link(url), len(BODY))
            with pytest.raises(Unreachable, match="in time"), trio.fail_after(10):
                await service.devices()


@pytest.mark.parametrize(
    "url", ["http://example.org/object", "ftp://127.0.0.1/o", "http://user:pw@127.0.0.1/o", "no address", "http://[::1/o"]
)
async def test_links_that_are_not_followed(wire, url):
    async with service_for(wire.url) as service:
        link = Link(id=bytes(32), method="GET", url=url)
        with pytest.raises(Nonsense):
            await service.get_object(link, 10)
    assert wire.received == []


async def test_a_link_to_the_wrong_method_is_not_followed(wire):
    async with service_for(wire.url) as service:
        with pytest.raises(Nonsense):
            await service.put_object(get_link(wire.url), BODY)
        with pytest.raises(Nonsense):
            await service.get_object(put_link(wire.url), len(BODY))
    assert wire.received == []


@pytest.mark.parametrize("value", ["a\r\nb: c", "\N{SNOWMAN}"])
async def test_a_link_with_impossible_headers(wire, value):
    async with service_for(wire.url) as service:
        with pytest.raises((Nonsense, StoreUnavailable)):
            await service.get_object(get_link(wire.url, header=value), len(BODY))
    assert wire.received == []


async def test_limits_hold_up_the_transfers(wire, reply):
    wire.reply = lambda received: reply(body=BODY if received.method == "GET" else b"")
    limits = {"upload_limit": RateLimit(1_000_000.0), "download_limit": RateLimit(1_000_000.0)}
    async with service_for(wire.url, **limits) as service:
        before = trio.current_time()
        await service.get_object(get_link(wire.url), len(BODY))
        middle = trio.current_time()
        await service.put_object(put_link(wire.url), BODY)
        after = trio.current_time()
    # A quarter of a second's worth was saved up, so 0.7 s become at least 0.45.
    assert middle - before >= 0.4
    assert after - middle >= 0.4


async def test_lifting_the_limit_frees_a_transfer_that_waits(wire, reply):
    wire.reply = lambda _: reply(body=BODY)
    limit = RateLimit(1_000.0)
    async with service_for(wire.url, download_limit=limit) as service, trio.open_nursery() as nursery:
        nursery.start_soon(service.get_object, get_link(wire.url), len(BODY))
        while not wire.received:
            await trio.testing.wait_all_tasks_blocked(0.01)
        limit.set_rate(None)


async def test_another_transport_serves_as_well():
    async def app(scope, receive, send):
        sent = b""
        while True:
            message = await receive()
            sent += message.get("body", b"")
            if not message.get("more_body"):
                break
        assert scope["method"] == "GET" or sent == BODY
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": BODY if scope["method"] == "GET" else b""})

    url = "http://127.0.0.1:1"
    async with service_for(url, object_transport=httpx.ASGITransport(app)) as service:
        assert await service.get_object(get_link(url), len(BODY)) == BODY
        await service.put_object(put_link(url), memoryview(BODY))
        with pytest.raises(Corrupt):
            await service.get_object(get_link(url), len(BODY) - 1)
        with pytest.raises(Corrupt):
            await service.get_object(get_link(url, b"other"), len(BODY))
