"""register, login, logout, whoami and devices, as a person types them, against the real service."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from fs.home import open_home
from fs.session import Session
from remote import crashpoints
from remote.accounts import Accounts
from remote.credentials import CredentialStore
from remote.endpoint import Endpoint
from tests.support.service import REPOSITORY, start_service

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(REPOSITORY)}


@pytest.fixture
def registered(aloft, service, email):
    ran = aloft("register", "--server", service.url, "--email", email, "--name", "Ada", "--device", "laptop")
    assert (ran.code, ran.err) == (0, "")
    return email


def stored(home: Path):
    return CredentialStore(home / "credentials.json").read()


def hold_unpushed(monkeypatch, count: int) -> None:
    monkeypatch.setattr("cache.replica.unpushed_changes", lambda home: count)


# ------------------------------------------------------------------------------------------------- register and log in


def test_register_logs_in(aloft, registered, service, home):
    ran = aloft("whoami", "--json")
    assert ran.code == 0
    assert (ran.data["email"], ran.data["device"]["name"], ran.data["server"]) == (registered, "laptop", service.url)
    assert ran.data["quota_bytes"] > ran.data["used_bytes"] == 0
    assert registered in aloft("whoami").out
    assert (home / "credentials.json").stat().st_mode & 0o777 == 0o600


def test_register_again(aloft, registered, service, tmp_path):
    ran = aloft("register", "--server", service.url, "--email", registered, home=tmp_path / "other", password="another password")
    assert ran.code == 1
    assert ran.err.count("\n") == 1
    assert f"aloft login --server {service.url} --email {registered}" in ran.err
    ran = aloft("register", "--server", service.url, "--email", "new@example.org")
    assert (ran.code, "aloft logout" in ran.err) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "password", "why"),
    [
        (["--email", "ada@example.org"], "correct horse", "--server"),
        (["--server", "http://127.0.0.1:1"], "correct horse", "--email"),
        (["--server", "http://127.0.0.1:1", "--email", "ada"], "correct horse", "not an e-mail address"),
        (["--server", "http://127.0.0.1:1", "--email", "a@b"], "short", "at least 8"),
        (["--server", "http://example.org", "--email", "a@b"], "correct horse", "not encrypted"),
        (["--server", "http://127.0.0.1:1", "--email", "a@b", "--ca", "/nowhere"], "correct horse", "/nowhere"),
        (["--server", "http://127.0.0.1:1", "--email", "a@b"], None, "--password-stdin"),
    ],
)
def test_register_with_a_wrong_command_line(aloft, arguments, password, why, monkeypatch):
    monkeypatch.setattr(sys, "stdin", open(os.devnull))  # noqa: SIM115, PTH123
    ran = aloft("register", *arguments, password=password)
    sys.stdin.close()
    assert ran.code == 2
    assert why in ran.err
    assert ran.err.count("\n") == 1
    assert password is None or password not in ran.err


def test_the_password_is_no_option(aloft):
    assert aloft("login", "--password", "secret").code == 2


def test_a_closed_service(aloft, tmp_path):
    with start_service(tmp_path / "data", registration="closed") as service:
        ran = aloft("register", "--server", service.url, "--email", "ada@example.org")
    assert (ran.code, "no new accounts" in ran.err) == (1, True)


def test_login_from_the_same_home_is_the_same_device(aloft, registered, home):
    before = aloft("whoami", "--json").data["device"]
    assert aloft("logout").code == 0
    assert aloft("whoami").code == 4
    ran = aloft("login", "--json")
    assert (ran.code, ran.data["device"]) == (0, before)
    assert len(aloft("devices", "--json").data["devices"]) == 1
    assert aloft("login", "--device", "renamed").code == 0
    assert aloft("whoami", "--json").data["device"] == {"id": before["id"], "name": "renamed"}


def test_login_with_a_wrong_password(aloft, registered, service, tmp_path):
    ran = aloft("login", "--server", service.url, "--email", registered, home=tmp_path / "b", password="wrong password")
    assert ran.code == 4
    assert ran.err.count("\n") == 1
    assert "wrong password" not in ran.err
    ran = aloft("login", "--server", service.url, "--email", registered, "--json", home=tmp_path / "b", password="wrong password")
    assert ran.data["error"]["code"] == 4
    assert stored(tmp_path / "b") is None


def test_login_without_a_service(aloft):
    ran = aloft("login", "--server", "http://127.0.0.1:1", "--email", "ada@example.org", "--json")
    assert (ran.code, ran.data["error"]["code"]) == (5, 5)
    assert "127.0.0.1:1" in ran.err


def test_the_password_from_stdin(service, email, tmp_path):
    command = [sys.executable, "-m", "fs.cli.main", "register", "--server", service.url, "--email", email, "--password-stdin"]
    ran = subprocess.run(
        command,
        input="correct horse\nand more\n",
        capture_output=True,
        text=True,
        env={**ENVIRONMENT, "ALOFT_HOME": str(tmp_path / "home")},
        timeout=60,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    session = Session(open_home(tmp_path / "home"))
    trio.run(session.log_in, Accounts(Endpoint.parse(service.url)), email, "correct horse", "again")


def type_at_prompts(command: list[str], answers: list[str], environment: dict[str, str]) -> tuple[int, str]:
    """Run a command in a terminal and answer each prompt for a password."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(command[0], command, environment)
    shown = ""
    try:
        while True:
            try:
                read = os.read(terminal, 4096).decode()
            except OSError:
                break
            if not read:
                break
            shown += read
            # The blank comes last, when the terminal no longer echoes and what was typed before is thrown away.
            if answers and shown.endswith(": "):
                os.write(terminal, f"{answers.pop(0)}\n".encode())
                shown += "<answered>"
    finally:
        os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), shown


def test_the_password_from_a_prompt(service, email, tmp_path):
    environment = {name: value for name, value in ENVIRONMENT.items() if name != "ALOFT_PASSWORD"}
    environment["ALOFT_HOME"] = str(tmp_path / "home")
    command = [sys.executable, "-m", "fs.cli.main", "register", "--server", service.url, "--email", email]
    code, shown = type_at_prompts(command, ["correct horse", "correct horse"], environment)
    assert code == 0, shown
    assert shown.count("<answered>") == 2
    assert "correct horse" not in shown


# ---------------------------------------------------------------------------------------------------------- five devices


def test_the_sixth_device(aloft, registered, service, tmp_path):
    login = ("login", "--server", service.url, "--email", registered)
    for number in range(2, 6):
        assert aloft(*login, "--device", f"device {number}", home=tmp_path / str(number)).code == 0
    ran = aloft(*login, "--json", home=tmp_path / "six")
    assert ran.code == 1
    assert {device["name"] for device in ran.data["error"]["devices"]} == {"laptop", *(f"device {n}" for n in range(2, 6))}
    assert all(f"device {n}" in ran.err for n in range(2, 6))
    assert "--replace" in ran.err
    second = next(device for device in ran.data["error"]["devices"] if device["name"] == "device 2")

    assert aloft(*login, "--replace", "zz", home=tmp_path / "six").code == 2
    assert aloft(*login, "--replace", second["id"], home=tmp_path / "six", password="wrong password").code == 4
    assert aloft(*login, "--replace", second["id"][:8], "--device", "six", home=tmp_path / "six").code == 0
    names = {device["name"] for device in aloft("devices", "--json").data["devices"]}
    assert names == {"laptop", "device 3", "device 4", "device 5", "six"}
    assert aloft("whoami", home=tmp_path / "2").code == 4


def test_devices_are_listed_and_removed(aloft, registered, service, tmp_path):
    other = tmp_path / "other"
    assert aloft("login", "--server", service.url, "--email", registered, "--device", "phone", home=other).code == 0
    ran = aloft("devices")
    assert "laptop" in ran.out
    assert "phone" in ran.out
    assert aloft("devices", "list", "--json").data == aloft("devices", "--json").data
    phone = next(device for device in aloft("devices", "--json").data["devices"] if device["name"] == "phone")
    assert not phone["current"]

    assert aloft("devices", "remove", "ffffffff").code == 1
    assert aloft("devices", "remove", "not an id").code == 1
    laptop = aloft("whoami", "--json").data["device"]["id"]
    ran = aloft("devices", "remove", laptop)
    assert (ran.code, "aloft logout" in ran.err) == (1, True)
    ran = aloft("devices", "remove", phone["id"][:8], "--json")
    assert (ran.code, ran.data["removed"]["name"]) == (0, "phone")
    ran = aloft("whoami", home=other)
    assert ran.code == 4
    assert "aloft login" in ran.err
    assert [device["name"] for device in aloft("devices", "--json").data["devices"]] == ["laptop"]


# --------------------------------------------------------------------------------------------------------------- whoami


def test_whoami_without_a_login(aloft):
    ran = aloft("whoami", "--json")
    assert (ran.code, ran.data["error"]["code"]) == (4, 4)
    assert "aloft login" in ran.err


def test_whoami_without_the_service(aloft, home, tmp_path):
    with start_service(tmp_path / "data") as service:
        assert aloft("register", "--server", service.url, "--email", "ada@example.org").code == 0
        service.kill()
        ran = aloft("whoami", "--json")
    assert ran.code == 5
    assert ran.data["error"]["email"] == "ada@example.org"
    assert "ada@example.org" in ran.err


# --------------------------------------------------------------------------------------------------------------- logout


def test_logout_frees_the_slot(aloft, registered, service, tmp_path):
    other = tmp_path / "other"
    assert aloft("login", "--server", service.url, "--email", registered, home=other).code == 0
    ran = aloft("logout", "--json", home=other)
    assert (ran.code, ran.data) == (0, {"email": registered, "service_told": True, "unpushed_changes": 0})
    assert stored(other).tokens is None
    assert [device["name"] for device in aloft("devices", "--json").data["devices"]] == ["laptop"]
    assert aloft("logout", home=other).code == 4


def test_logout_with_changes_that_are_only_here(aloft, registered, home, monkeypatch):
    hold_unpushed(monkeypatch, 3)
    ran = aloft("logout", "--json")
    assert (ran.code, ran.data["error"]["unpushed_changes"]) == (3, 3)
    assert "--keep-drafts" in ran.err
    assert aloft("whoami").code == 0
    ran = aloft("logout", "--keep-drafts", "--json")
    assert (ran.code, ran.data["unpushed_changes"]) == (0, 3)
    assert aloft("whoami").code == 4
    assert aloft("login").code == 0


def test_logout_while_mounted(aloft, registered, home):
    with open_home(home).locked(Path("/mnt/Aloft")):
        ran = aloft("logout")
        assert (ran.code, "aloft umount /mnt/Aloft" in ran.err) == (1, True)
        assert aloft("whoami").code == 0


def test_logout_without_the_service(aloft, home, tmp_path):
    with start_service(tmp_path / "data") as service:
        assert aloft("register", "--server", service.url, "--email", "ada@example.org").code == 0
        service.kill()
        ran = aloft("logout", "--json")
    assert (ran.code, ran.data["service_told"]) == (0, False)
    assert "devices remove" in ran.err
    assert aloft("whoami").code == 4


def test_logout_when_the_way_to_the_service_is_lost(aloft, registered, home, tmp_path):
    store = CredentialStore(home / "credentials.json")
    store.write(store.read().model_copy(update={"ca": str(tmp_path / "gone.pem")}))
    assert aloft("whoami").code == 4
    ran = aloft("logout", "--json")
    assert (ran.code, ran.data["service_told"]) == (0, False)
    assert stored(home).tokens is None


# ------------------------------------------------------------------------------------------- another account in a home


@pytest.fixture
def another(aloft, service, email, tmp_path):
    name = f"other-{email}"
    assert aloft("register", "--server", service.url, "--email", name, home=tmp_path / "of another").code == 0
    return name


@pytest.mark.parametrize("logged_out", [True, False])
def test_another_account_is_refused_while_changes_are_only_here(aloft, registered, another, service, monkeypatch, logged_out):
    hold_unpushed(monkeypatch, 1)
    if logged_out:
        assert aloft("logout", "--keep-drafts").code == 0
    ran = aloft("login", "--email", another)
    assert (ran.code, registered in ran.err) == (3, True)
    ran = aloft("register", "--server", service.url, "--email", f"third-{another}")
    assert ran.code == (3 if logged_out else 1)
    assert aloft("login").code == 0
    assert aloft("whoami", "--json").data["email"] == registered


def test_another_account_is_refused_while_mounted(aloft, registered, another, home):
    with open_home(home).locked():
        assert aloft("login", "--email", another).code == 1
        assert aloft("login").code == 0


def test_another_account_begins_with_an_empty_home(aloft, registered, another, home, monkeypatch):
    hold_unpushed(monkeypatch, 0)
    (home / "replica.db").write_bytes(b"")
    (home / "cache" / "chunk").write_text("of the first account")
    (home / "drafts" / "7").write_text("a draft that no row knows")
    assert aloft("login", "--email", another).code == 0
    assert not (home / "replica.db").exists()
    assert list((home / "cache").iterdir()) == []
    assert list((home / "drafts").iterdir()) == []
    aside = next(home.glob("drafts-of-*"))
    assert (aside / "7").read_text() == "a draft that no row knows"


def test_another_account_is_not_stored_before_what_the_last_one_had_is_gone(aloft, registered, another, home, monkeypatch):
    hold_unpushed(monkeypatch, 0)
    (home / "replica.db").write_bytes(b"")
    (home / "drafts" / "7").write_text("acknowledged, and not yet unlinked")
    seen = {}

    def look(point: str) -> None:
        if point.startswith("set-aside."):
            seen[point] = ((home / "drafts" / "7").exists(), (home / "replica.db").exists(), stored(home).account.email)

    crashpoints.install(look)
    try:
        assert aloft("login", "--email", another).code == 0
    finally:
        crashpoints.install(None)
    assert seen == {
        "set-aside.drafts": (False, True, registered),  # a replica made anew would take them for lost ones
        "set-aside.replica": (False, False, registered),
        "set-aside.finished": (False, False, registered),
    }
    assert stored(home).account.email == another


def test_an_account_of_the_same_address_elsewhere(aloft, registered, service, home, tmp_path, monkeypatch):
    with start_service(tmp_path / "data") as elsewhere:
        assert aloft("register", "--server", elsewhere.url, "--email", registered, home=tmp_path / "b").code == 0
        hold_unpushed(monkeypatch, 2)
        ran = aloft("login", "--server", elsewhere.url)
        assert ran.code == 3
        # The session that was begun to find out was ended again.
        assert len(aloft("devices", "--json", home=tmp_path / "b").data["devices"]) == 1
    assert stored(home).server == service.url
    assert aloft("whoami").code == 0


def test_a_damaged_file_of_credentials(aloft, registered, service, home, monkeypatch):
    (home / "credentials.json").write_text("{")
    assert aloft("whoami").code == 4
    hold_unpushed(monkeypatch, 2)
    ran = aloft("login", "--server", service.url, "--email", registered)
    assert (ran.code, "move that file away" in ran.err) == (3, True)
    hold_unpushed(monkeypatch, 0)
    assert aloft("login", "--server", service.url, "--email", registered).code == 0


def test_a_replica_that_cannot_be_read(aloft, registered, home):
    (home / "replica.db").write_bytes(b"no database" * 1000)
    ran = aloft("logout")
    assert (ran.code, "aloft fsck" in ran.err) == (1, True)
    assert aloft("whoami").code == 0


# -------------------------------------------------------------------------------------------------------- the frame


def test_help_is_quick_and_teaches():
    code = "import sys, fs.cli.main; fs.cli.main.run(['--help']); print(*sorted(sys.modules), file=sys.stderr)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=ENVIRONMENT, timeout=60, check=True)
    heavy = {"httpx", "trio", "sqlalchemy", "fastapi", "uvicorn", "pyfuse3", "pydantic", "remote.server.app", "cache.replica"}
    assert heavy & set(ran.stderr.split()) == set()
    for word in ("register", "login", "logout", "whoami", "devices", "serve", "ALOFT_HOME", "Exit codes"):
        assert word in ran.stdout
    for number in range(7):
        assert f" {number}  " in ran.stdout


@pytest.mark.parametrize("arguments", [["nonsense"], ["login", "--nonsense"], ["devices", "remove"], ["serve", "--port", "x"]])
def test_usage_errors(aloft, arguments):
    ran = aloft(*arguments)
    assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)
    ran = aloft(*arguments, "--json")
    assert (ran.code, ran.data["error"]["code"]) == (2, 2)


def test_no_arguments_show_the_help(aloft):
    assert aloft().out == aloft("--help").out


def test_version(aloft):
    assert aloft("version").out.startswith("aloft ")
    assert set(aloft("version", "--json").data) == {"version"}


def test_an_unusable_home(aloft, tmp_path):
    (tmp_path / "file").write_text("")
    ran = aloft("whoami", "--json", home=tmp_path / "file")
    assert (ran.code, ran.data["error"]["code"]) == (1, 1)
    assert "ALOFT_HOME" in ran.err


# ---------------------------------------------------------------------------------------------------------------- serve


def test_serve_says_where_it_listens_and_stops_cleanly(tmp_path):
    command = [sys.executable, "-m", "fs.cli.main", "serve", "--data", str(tmp_path / "data"), "--port", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT) as process:
        try:
            said = json.loads(process.stdout.readline())
            second = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=60, check=False)
            process.terminate()
            _, log = process.communicate(timeout=60)
        finally:
            process.kill()
    assert said["url"].startswith("http://127.0.0.1:")
    assert said["data"] == str(tmp_path / "data")
    assert process.returncode == 0, log
    assert (second.returncode, "another service" in second.stderr) == (1, True)


def test_serve_with_half_of_tls(aloft, tmp_path):
    ran = aloft("serve", "--tls-cert", str(tmp_path / "cert.pem"))
    assert (ran.code, "go together" in ran.err) == (2, True)


def test_serve_on_a_port_that_is_taken(service, tmp_path):
    command = [sys.executable, "-m", "fs.cli.main", "serve", "--data", str(tmp_path / "data"), "--port", str(service.port)]
    ran = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=60, check=False)
    assert (ran.returncode, "--port" in ran.stderr) == (1, True)
