"""account, password, token and admin, as a person types them, against the real service."""

from __future__ import annotations

import sys

import httpx
import pytest

from tests.support.mailbox import Mailbox
from tests.support.service import start_service

BETTER = "another password"


@pytest.fixture
def registered(aloft, service, email):
    ran = aloft("register", "--server", service.url, "--email", email, "--name", "Ada", "--device", "laptop")
    assert (ran.code, ran.err) == (0, "")
    return email


@pytest.fixture
def data(service):
    """The service's data folder."""
    return service.log.parent / service.log.name.removesuffix(".service.log")


# ------------------------------------------------------------------------------------------------------------- account


def test_the_account_shows_what_was_set(aloft, registered):
    assert aloft("account", "set", "--name", "Ada L.", "--time-zone", "Europe/Berlin").code == 0
    shown = aloft("account").out
    for text in (registered, "Ada L.", "Europe/Berlin", "en"):
        assert text in shown
    data = aloft("account", "show", "--json").data
    assert data["settings"] == {"language": "en", "time_zone": "Europe/Berlin"}
    assert data["last_login_ns"] >= data["created_ns"] > 0


@pytest.mark.parametrize(
    ("arguments", "why"),
    [([], "--name"), (["--time-zone", "Atlantis"], "time zone"), (["--language", "plain English"], "language")],
)
def test_what_is_no_setting(aloft, registered, arguments, why):
    ran = aloft("account", "set", *arguments)
    assert (ran.code, why in ran.err) == (2, True)


def test_closing_the_account(aloft, registered, service, home, tmp_path, monkeypatch):
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False, raising=False)
    assert aloft("account", "close").code == 1
    assert aloft("account", "close", "--yes", password="wrong password").code == 1
    assert aloft("whoami").code == 0
    ran = aloft("account", "close", "--yes", "--json")
    assert (ran.code, ran.data) == (0, {"closed": registered})
    assert aloft("whoami").code == 4
    assert aloft("login", "--email", registered, "--server", service.url, home=tmp_path / "other").code == 4


def test_the_names_that_people_type_who_come_from_elsewhere(aloft, registered, monkeypatch):
    assert aloft("profile", "--json").data == aloft("account", "show", "--json").data
    monkeypatch.setenv("ALOFT_NEW_PASSWORD", BETTER)
    assert aloft("passwd", "--json").data == {"changed": True, "logged_out_others": False}
    assert aloft("close-account", "--yes", "--json", password=BETTER).data == {"closed": registered}


def test_closing_leaves_no_change_behind_unsaid(aloft, registered, monkeypatch):
    monkeypatch.setattr("cache.replica.unpushed_changes", lambda home: 2)
    ran = aloft("account", "close", "--yes")
    assert (ran.code, "aloft sync" in ran.err) == (3, True)
    assert aloft("whoami").code == 0


# ------------------------------------------------------------------------------------------------------------ password


def test_changing_the_password(aloft, registered, service, tmp_path, monkeypatch):
    other = tmp_path / "other"
    assert aloft("login", "--server", service.url, "--email", registered, home=other).code == 0
    monkeypatch.setenv("ALOFT_NEW_PASSWORD", BETTER)
    assert aloft("password", "change", password="wrong password").code == 1
    ran = aloft("password", "change", "--log-out-others", "--json")
    assert (ran.code, ran.data) == (0, {"changed": True, "logged_out_others": True})
    assert (aloft("whoami").code, aloft("whoami", home=other).code) == (0, 4)
    assert aloft("login", home=other).code == 4
    assert aloft("login", home=other, password=BETTER).code == 0
    monkeypatch.setenv("ALOFT_NEW_PASSWORD", "short")
    ran = aloft("password", "change", password=BETTER)
    assert (ran.code, "new password" in ran.err, "short" in ran.err) == (2, True, False)


def test_the_administrator_helps_who_forgot_the_password(aloft, registered, service, data, monkeypatch):
    ran = aloft("password", "forgotten")
    assert (ran.code, "administrator" in ran.err) == (1, True)
    ran = aloft("admin", "reset-password", "nobody@example.org", "--data", str(data))
    assert (ran.code, "no account" in ran.err) == (1, True)
    code = aloft("admin", "reset-password", registered, "--data", str(data)).out.strip()
    monkeypatch.setenv("ALOFT_NEW_PASSWORD", BETTER)
    assert aloft("password", "new", "--code", code).code == 0
    assert aloft("whoami").code == 4
    assert aloft("login", password=BETTER).code == 0
    ran = aloft("password", "new", "--code", code)
    assert (ran.code, "not good" in ran.err) == (1, True)


def test_an_invitation_and_a_code_by_email(aloft, tmp_path, email, monkeypatch):
    with Mailbox() as mailbox:
        for key, value in {"HOST": "127.0.0.1", "PORT": str(mailbox.port), "TLS": "none", "SENDER": "aloft@example.org"}.items():
            monkeypatch.setenv(f"ALOFT_SMTP_{key}", value)
        with start_service(tmp_path / "data", registration="invite") as service:
            register = ["register", "--server", service.url, "--email", email]
            assert aloft(*register).code == 1
            code = aloft("admin", "invite", "--data", str(tmp_path / "data"), "--json").data["invitation"]
            assert aloft(*register, "--invitation", code).code == 0
            assert aloft("password", "forgotten").code == 0
            text = mailbox.next()[1].get_content()
            code = text.partition("--code ")[2].split()[0]
            monkeypatch.setenv("ALOFT_NEW_PASSWORD", BETTER)
            assert aloft("password", "new", "--code", code).code == 0
            assert aloft("login", password=BETTER).code == 0


def test_admin_without_a_service(aloft, tmp_path):
    ran = aloft("admin", "invite", "--data", str(tmp_path / "nothing"))
    assert (ran.code, "no service" in ran.err) == (1, True)


# -------------------------------------------------------------------------------------------------------------- tokens


def test_a_token_from_its_making_to_its_end(aloft, registered, service):
    ran = aloft("token", "create", "backup", "--scope", "files:read", "--scope", "account:read", "--days", "7")
    token = ran.out.strip()
    assert (ran.code, token[:10]) == (0, "aloft_pat_")

    def status() -> int:
        return httpx.get(f"{service.url}/v1/account", headers={"Authorization": f"Bearer {token}"}, trust_env=False).status_code

    assert status() == 200
    (listed,) = aloft("token", "list", "--json").data["tokens"]
    assert (listed["name"], listed["scopes"]) == ("backup", ["account:read", "files:read"])
    assert listed["expires_ns"] - listed["created_ns"] == 7 * 86400 * 10**9
    shown = aloft("token", "list").out
    assert "backup" in shown
    assert token not in shown
    assert aloft("token", "revoke", "ffff" * 8).code == 2
    assert aloft("token", "revoke", listed["id"][:8]).code == 0
    assert status() == 401
    assert aloft("token", "list", "--json").data["tokens"] == []


def test_a_token_without_a_device(aloft, registered, service, tmp_path):
    arguments = ["token", "create", "script", "--scope", "files:read", "--never-expires"]
    assert aloft(*arguments, home=tmp_path / "other").code == 4
    login = ["--email", registered, "--server", service.url]
    ran = aloft(*arguments, *login, "--json", home=tmp_path / "other")
    assert (ran.code, ran.data["personal_token"]["expires_ns"]) == (0, None)
    assert aloft(*arguments, *login, home=tmp_path / "other", password="wrong password").code == 4
    assert len(aloft("devices", "--json").data["devices"]) == 1


def test_a_scope_that_there_is_not(aloft, registered):
    ran = aloft("token", "create", "x", "--scope", "everything")
    assert (ran.code, "files:read" in ran.err) == (2, True)


# -------------------------------------------------------------------------------------------------------------- devices


def test_all_other_devices(aloft, registered, service, tmp_path):
    for name in ("a", "b"):
        assert aloft("login", "--server", service.url, "--email", registered, home=tmp_path / name).code == 0
    assert aloft("devices", "remove").code == 2
    assert len(aloft("devices", "remove", "--others", "--json").data["removed"]) == 2
    assert [aloft("whoami", home=tmp_path / name).code for name in ("a", "b")] == [4, 4]
    assert aloft("whoami").code == 0


# ------------------------------------------------------------------------------------------------------------ audit log


def test_the_log_of_the_account_and_of_the_service(aloft, registered, data):
    aloft("login", password="wrong password")
    actions = [event["action"] for event in aloft("account", "log", "--json").data["events"]]
    assert actions == ["device.login", "device.login", "account.register"]
    shown = aloft("account", "log", "--limit", "2").out
    for said in ("unauthenticated", "laptop", "--before"):
        assert said in shown
    found = aloft("admin", "audit", "--data", str(data), "--email", registered, "--action", "account.register", "--json").data
    assert [(event["email"], event["result"]) for event in found["events"]] == [(registered, "done")]
    assert "when" in aloft("admin", "audit", "--data", str(data)).out
    assert aloft("admin", "audit", "--data", str(data), "--email", "nobody@example.org").code == 1
    assert aloft("admin", "audit", "--data", str(data), "--before", "nonsense").code == 1
