"""`aloft tier`, as a person types it, against the real service."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.service import start_service


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tmp_path_factory.mktemp("service") / "data"


@pytest.fixture(scope="module")
def service(data):
    file = data.with_name("aloft.toml")
    file.write_text('[tiers.free]\nquota_bytes = 10240\nlargest_file_bytes = 5120\ncontent_types = ["image/*"]\n')
    with start_service(data, config=file) as running:
        yield running


@pytest.fixture
def registered(aloft, service, email):
    assert aloft("register", "--server", service.url, "--email", email).code == 0
    return email


def use(data: Path, email: str, count: int) -> None:
    with closing(sqlite3.connect(data / "aloft.db", timeout=60)) as sql, sql:
        sql.execute("UPDATE accounts SET used_bytes = ? WHERE email = ?", (count, email))


def test_tiers_are_shown_with_what_is_used(aloft, registered, data):
    use(data, registered, 2048)
    shown = aloft("tier")
    assert (shown.code, shown.err) == (0, "")
    for text in ("2.0 KiB of 10.0 KiB", "free (yours)", "5.0 KiB", "image/*", "30 days", "plus", "1.0 TiB", "pro"):
        assert text in shown.out, text
    found = aloft("tier", "--json").data
    assert (found["tier"], found["used_bytes"], found["quota_bytes"]) == ("free", 2048, 10240)
    assert [tier["name"] for tier in found["tiers"]] == ["free", "plus", "pro"]


def test_a_tier_is_chosen_and_one_that_is_too_small_refused(aloft, registered, data):
    assert aloft("tier", "plus", "--json").data["tier"] == "plus"
    assert aloft("whoami", "--json").data["quota_bytes"] == 2**40
    use(data, registered, 20_000)
    refused = aloft("tier", "free")
    assert (refused.code, refused.err.count("\n")) == (1, 1)
    assert "10240 bytes, and 20000 are used or reserved: remove 9760 bytes first" in refused.err
    assert aloft("tier", "--json").data["tier"] == "plus"


def test_there_is_no_such_tier_and_nobody_is_logged_in(aloft, tmp_path):
    wrong = aloft("tier", "gold")
    assert (wrong.code, "free, plus, pro" in wrong.err) == (2, True)
    assert aloft("tier", home=tmp_path / "other").code == 4
