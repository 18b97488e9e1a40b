"""Both clients trust the authority that the person named, and nobody unknown. The key in `tls/` guards nothing."""

from __future__ import annotations

import hashlib
import ssl
from pathlib import Path

import pytest

from remote.api import StoreUnavailable, Unreachable
from remote.calls import Timeouts
from remote.endpoint import Endpoint
from remote.http import HttpService
from remote.protocol import Link

BODY = bytes(range(256)) * 5000
FOLDER = Path(__file__).with_name("tls")


class FixedToken:
    async def current(self) -> str:
        return "token"

    async def after_rejection(self, rejected: str) -> str:
        return rejected


@pytest.fixture
def secure_wire(make_wire):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(FOLDER / "cert.pem", FOLDER / "key.pem")
    return make_wire(context)


def service_for(url: str, ca: Path | None) -> HttpService:
    return HttpService(Endpoint.parse(url, ca=ca), FixedToken(), timeouts=Timeouts(connect=5.0, progress=5.0))


async def test_with_the_authority(secure_wire, reply):
    secure_wire.reply = lambda received: reply(
        body=BODY if received.target == "/o" and received.method == "GET" else b'{"devices": [], "limit": 5}'
    )
    url = f"{secure_wire.url}/o"
    async with service_for(secure_wire.url, FOLDER / "cert.pem") as service:
        assert (await service.devices()).limit == 5
        link = Link(id=hashlib.sha256(BODY).digest(), method="GET", url=url)
        assert await service.get_object(link, len(BODY)) == BODY
        await service.put_object(Link(id=link.id, method="PUT", url=url), BODY)
        assert await service.get_object(link, len(BODY)) == BODY
    assert secure_wire.connections == 2  # one for calls, one for objects
    assert secure_wire.received[2].body == BODY


async def test_without_it(secure_wire):
    async with service_for(secure_wire.url, None) as service:
        with pytest.raises(Unreachable, match="--ca"):
            await service.devices()
        with pytest.raises(StoreUnavailable, match="--ca"):
            await service.get_object(Link(id=bytes(32), method="GET", url=f"{secure_wire.url}/o"), 10)
    assert secure_wire.received == []


async def test_a_stalled_transfer_over_tls_is_bounded(secure_wire, reply):
    secure_wire.reply = lambda _: reply(body=BODY[:1000], announced=len(BODY), stall=True)
    service = HttpService(
        Endpoint.parse(secure_wire.url, ca=FOLDER / "cert.pem"), FixedToken(), timeouts=Timeouts(connect=5.0, progress=0.2)
    )
    async with service:
        with pytest.raises(StoreUnavailable, match="in time"):
            await service.get_object(Link(id=bytes(32), method="GET", url=f"{secure_wire.url}/o"), len(BODY))
