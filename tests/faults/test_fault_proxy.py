"""The proxy itself: what it does to a request is what a test asked for, and nothing else."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest

from tests.support.fault_proxy import (
    Answer,
    Cut,
    Fault,
    FaultProxy,
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

BODY = bytes(range(256)) * 1000


class Echo(BaseHTTPRequestHandler):
    """Answers what it is sent, or `BODY`."""

    protocol_version = "HTTP/1.1"
    received: list[bytes]

    def do_GET(self) -> None:
        self._answer(BODY)

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.received.append(body)
        self._answer(body)

    do_POST = do_PUT

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture
def received() -> list[bytes]:
    return []


@pytest.fixture
def proxy(received: list[bytes]) -> Iterator[FaultProxy]:
    handler = type("Handler", (Echo,), {"received": received})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.01))
    thread.start()
    with FaultProxy(server.server_port) as proxy:
        yield proxy
    server.shutdown()
    thread.join()
    server.server_close()


def ask(url: str, method: str = "GET", target: str = "/objects/a", body: bytes | None = None) -> tuple[int, bytes]:
    client = http.client.HTTPConnection(urlsplit(url).netloc, timeout=PATIENCE)
    try:
        client.request(method, target, body)
        answer = client.getresponse()
        return answer.status, answer.read()
    finally:
        client.close()


def test_without_a_fault_everything_passes(proxy: FaultProxy, received: list[bytes]) -> None:
    client = http.client.HTTPConnection(urlsplit(proxy.url).netloc, timeout=PATIENCE)
    for number in range(3):
        client.request("PUT", "/objects/a", BODY[number:])
        assert client.getresponse().read() == BODY[number:]
    client.close()
    assert received == [BODY, BODY[1:], BODY[2:]]
    assert ask(proxy.url, "POST", "/v1/x", b"{}") == (200, b"{}")
    assert (proxy.count(Kind.PUT), proxy.count(Kind.API), proxy.count(Kind.GET), proxy.count()) == (3, 1, 0, 4)
    assert len(proxy.moments(Kind.API, path="/v1/x")) == 1


def test_an_answer_of_its_own(proxy: FaultProxy, received: list[bytes]) -> None:
    with proxy.inject(Answer(503, {"Retry-After": "7"}, b"later"), Kind.PUT) as fault:
        assert ask(proxy.store_url, "PUT", body=BODY) == (503, b"later")
        assert ask(proxy.store_url)[0] == 200, "it is for another kind"
    assert (received, fault.hits) == ([], 1)
    assert ask(proxy.store_url, "PUT", body=BODY) == (200, BODY)


def test_only_some_requests(proxy: FaultProxy) -> None:
    fault = proxy.inject(Answer(500), Kind.API, path="commit", skip=1, times=2)
    said = [ask(proxy.url, "POST", target, b"")[0] for target in ("/commit", "/commit", "/other", "/commit", "/commit")]
    assert said == [200, 500, 200, 500, 200]
    assert fault.hits == 2


@pytest.mark.parametrize(
    ("fault", "error", "arrives"),
    [
        (Reset(Where.REQUEST_BODY, 1000), ConnectionResetError, False),
        (Reset(Where.ANSWER), ConnectionResetError, True),
        (Reset(Where.ANSWER_BODY, 1000), ConnectionResetError, True),
        (Cut(Where.ANSWER_BODY, 1000), http.client.IncompleteRead, True),
        (Cut(Where.ANSWER), http.client.RemoteDisconnected, True),
        (Garbage(b"nonsense\r\n\r\n"), http.client.BadStatusLine, False),
    ],
)
def test_broken_connections(
    proxy: FaultProxy, received: list[bytes], fault: Fault, error: type[Exception], arrives: bool
) -> None:
    with proxy.inject(fault), pytest.raises(error):
        ask(proxy.store_url, "PUT", body=BODY)
    assert bool(received) is arrives


def test_other_bytes(proxy: FaultProxy, received: list[bytes]) -> None:
    with proxy.inject(Rewrite(flip(-1))):
        assert ask(proxy.store_url) == (200, BODY[:-1] + b"\xfe")
    with proxy.inject(Rewrite(lambda body: body + b"more")):
        assert ask(proxy.store_url) == (200, BODY + b"more")
    with proxy.inject(Rewrite(lambda body: body[:10], request=True)):
        assert ask(proxy.store_url, "PUT", body=BODY) == (200, BODY[:10])
    assert received == [BODY[:10]]


@pytest.mark.parametrize("where", list(Where))
def test_a_stall_ends_when_it_is_withdrawn(proxy: FaultProxy, where: Where) -> None:
    fault = proxy.inject(Stall(where, after=1000))
    answers: list[tuple[int, bytes]] = []
    thread = threading.Thread(target=lambda: answers.append(ask(proxy.store_url, "PUT", body=BODY)))
    thread.start()
    wait_until(lambda: fault.hits == 1)
    thread.join(0.3)
    assert thread.is_alive()
    fault.stop()
    thread.join(PATIENCE)
    assert answers == [(200, BODY)]


def test_a_trickle(proxy: FaultProxy) -> None:
    began = time.monotonic()
    with proxy.inject(Trickle(len(BODY) * 4), Kind.GET):
        assert ask(proxy.store_url) == (200, BODY)
    assert time.monotonic() - began > 0.2


def test_each_door_can_be_away(proxy: FaultProxy) -> None:
    for _ in range(2):
        proxy.set_store_away(True)
        with pytest.raises(ConnectionRefusedError):
            ask(proxy.store_url)
        assert ask(proxy.url)[0] == 200
        proxy.set_store_away(False)
        assert ask(proxy.store_url)[0] == 200


def test_a_connection_that_was_kept_gets_no_answer_from_a_door_that_is_away(proxy: FaultProxy) -> None:
    """Also not in the first moment: a device whose next request came within it was once answered."""
    client = http.client.HTTPConnection(urlsplit(proxy.store_url).netloc, timeout=PATIENCE)

    def ask_again() -> bytes:
        client.request("GET", "/objects/a")
        return client.getresponse().read()

    assert ask_again() == BODY
    proxy.set_store_away(True)
    with pytest.raises(ConnectionError):
        ask_again()
    client.close()
    assert proxy.count(Kind.GET) == 1


def test_a_door_that_closes_breaks_what_is_under_way(proxy: FaultProxy) -> None:
    fault = proxy.inject(Stall(Where.ANSWER))
    failures: list[Exception] = []

    def asking() -> None:
        try:
            ask(proxy.url)
        except OSError as error:
            failures.append(error)

    thread = threading.Thread(target=asking)
    thread.start()
    wait_until(lambda: fault.hits == 1)
    proxy.set_service_away(True)
    thread.join(PATIENCE)
    assert [type(error) for error in failures] == [ConnectionResetError]
    proxy.clear()
    assert ask(proxy.url)[0] == 200


def test_a_service_that_is_not_there(proxy: FaultProxy) -> None:
    upstream, proxy.upstream = proxy.upstream, 1
    with pytest.raises(http.client.RemoteDisconnected):
        ask(proxy.url)
    proxy.upstream = upstream
    assert ask(proxy.url)[0] == 200
