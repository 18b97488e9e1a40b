"""Forgotten passwords, with the e-mails read at a real SMTP server."""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from remote.server.config import SmtpConfig
from remote.server.service import create_password_code
from tests.support.mailbox import PASSWORD as MAIL_PASSWORD
from tests.support.mailbox import USER, Mailbox
from tests.support.wire import PASSWORD, Device, World, new_id, problem

ADA = "ada@example.org"
BETTER = "another password"
TLS = Path(__file__).parents[1] / "remote" / "tls"


@pytest.fixture
def mailbox() -> Iterator[Mailbox]:
    with Mailbox() as mailbox:
        yield mailbox


@pytest.fixture
def world(open_world: Callable[..., World], mailbox: Mailbox) -> World:
    smtp = SmtpConfig(host="127.0.0.1", port=mailbox.port, tls="none", sender="Aloft <aloft@example.org>")
    return open_world(smtp=smtp, public_url="https://aloft.example.org")


async def forget(world: World, email: str = ADA) -> httpx.Response:
    return await world.http.post("/v1/password/forgotten", json={"email": email})


async def renew(world: World, code: str, password: str = BETTER) -> httpx.Response:
    return await world.http.post("/v1/password/new", json={"code": code, "new_password": password})


def code_in(mailbox: Mailbox) -> str:
    _, message = mailbox.next()
    match = re.search(r"The code is: (\S+)", message.get_content())
    assert match is not None
    return match[1]


async def test_a_code_replaces_the_password_once_and_logs_everybody_out(
    world: World, mailbox: Mailbox, ada: Device, other: Device, eve: Device
) -> None:
    token = (await ada.post("/v1/personal-tokens", {"name": "t", "scopes": ["account:read"]}))["token"]
    asked = await forget(world, "ADA@example.org")
    assert (asked.status_code, asked.content) == (204, b"")
    recipients, message = mailbox.next()
    assert (recipients, message["To"], message["From"]) == ([ADA], ADA, "Aloft <aloft@example.org>")
    text = message.get_content()
    assert "aloft password new --server https://aloft.example.org --code" in text
    match = re.search(r"The code is: (\S+)", text)
    assert match is not None
    assert problem(await renew(world, match[1], "short"), 400, "invalid")["field"] == "new_password"
    assert (await renew(world, match[1])).status_code == 204
    for device in (ada, other):
        problem(await device.send("GET", "/v1/account"), 401, "revoked")
    problem(await ada.send("GET", "/v1/account", token=token), 401, "unauthenticated")
    await eve.get("/v1/account")
    assert problem(await renew(world, match[1]), 403, "forbidden")["field"] == "code"
    problem(await world.try_login(ADA, ada.installation), 401, "unauthenticated")
    assert (await world.try_login(ADA, ada.installation, password=BETTER)).status_code == 200


async def test_nobody_learns_whether_there_is_such_an_account(world: World, mailbox: Mailbox, ada: Device) -> None:
    known, unknown = await forget(world), await forget(world, "nobody@example.org")
    for answer in (known, unknown):
        del answer.headers["x-request-id"]
    assert (known.status_code, known.content, known.headers) == (unknown.status_code, unknown.content, unknown.headers)
    assert mailbox.next()[0] == [ADA]
    answers = [(await forget(world, email)).status_code for email in (ADA, "nobody@example.org") for _ in range(3)]
    assert answers == [204, 204, 429] * 2
    assert [mailbox.next()[0] for _ in range(2)] == [[ADA]] * 2
    world.service.outbox.close()
    assert mailbox.is_empty


async def test_a_code_is_good_for_half_an_hour(world: World, mailbox: Mailbox, ada: Device) -> None:
    await forget(world)
    code = code_in(mailbox)
    world.clock.advance(30 * 60)
    problem(await renew(world, code), 403, "forbidden")
    await forget(world)
    code, later = code_in(mailbox), await forget(world)
    assert later.status_code == 204
    world.clock.advance(30 * 60 - 1)
    assert (await renew(world, f" {code}\n")).status_code == 204
    problem(await renew(world, code_in(mailbox)), 403, "forbidden")


async def test_another_way_to_a_new_password_ends_the_codes(world: World, mailbox: Mailbox, ada: Device) -> None:
    await forget(world)
    code = code_in(mailbox)
    body = {"password": PASSWORD, "new_password": BETTER}
    assert (await ada.send("POST", "/v1/account/password", body)).status_code == 204
    problem(await renew(world, code), 403, "forbidden")


async def test_a_closed_account_gets_no_code(world: World, mailbox: Mailbox, ada: Device) -> None:
    await forget(world)
    code = code_in(mailbox)
    await ada.send("POST", "/v1/account/close", {"password": PASSWORD})
    problem(await renew(world, code), 403, "forbidden")
    await forget(world)
    world.service.outbox.close()
    assert mailbox.is_empty


async def test_guessing_codes_is_slowed_down(world: World) -> None:
    for _ in range(20):
        problem(await renew(world, new_id()), 403, "forbidden")
    problem(await renew(world, new_id()), 429, "rate-limited")


async def test_without_smtp_the_administrator_helps(open_world: Callable[..., World]) -> None:
    world = open_world()
    ada = await world.device(ADA)
    for email in (ADA, "nobody@example.org"):
        assert "administrator" in problem(await forget(world, email), 403, "forbidden")["detail"]
    assert create_password_code(world.service.config, "nobody@example.org") is None
    code = create_password_code(world.service.config, ADA)
    assert code is not None
    world.clock.now_ns = 0  # the administrator's clock is the real one
    assert (await renew(world, code)).status_code == 204
    problem(await ada.send("GET", "/v1/account"), 401, "revoked")


async def test_tls_and_a_login_at_the_mail_server(open_world: Callable[..., World], tmp_path: Path) -> None:
    (tmp_path / "password").write_text(MAIL_PASSWORD + "\n")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(TLS / "cert.pem", TLS / "key.pem")
    with Mailbox(context) as mailbox:
        smtp = SmtpConfig(
            host="127.0.0.1", port=mailbox.port, sender="aloft@example.org", user=USER, password_file=tmp_path / "password",
            ca=TLS / "cert.pem",
        )  # fmt: skip
        world = open_world(smtp=smtp)
        await world.register(ADA)
        assert (await forget(world)).status_code == 204
        _, message = mailbox.next()
        assert "aloft password new --code" in message.get_content()


async def test_a_mail_server_that_is_not_trusted_gets_nothing(
    open_world: Callable[..., World], caplog: pytest.LogCaptureFixture
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(TLS / "cert.pem", TLS / "key.pem")
    with Mailbox(context) as mailbox:
        world = open_world(smtp=SmtpConfig(host="127.0.0.1", port=mailbox.port, sender="aloft@example.org"))
        await world.register(ADA)
        assert (await forget(world)).status_code == 204
        world.service.outbox.close()
        assert mailbox.is_empty
    assert "certificate" in caplog.text
    assert ADA not in caplog.text
