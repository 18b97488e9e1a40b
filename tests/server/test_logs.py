"""The log in JSON: one object in each line, with the request's id, and nothing that is secret."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest

from tests.support.service import start_service
from tests.support.wire import PASSWORD, Json, new_id


def lines(log: Path) -> list[Json]:
    return [json.loads(line) for line in log.read_text().splitlines()]


def test_every_line_is_an_object_and_no_secret_is_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALOFT_LOG_FORMAT", "json")
    with start_service(tmp_path / "data") as service, httpx.Client(base_url=service.url, trust_env=False) as http:
        http.post("/v1/accounts", json={"email": "ada@example.org", "password": PASSWORD})
        device = {"installation": new_id(), "name": "here"}
        body = {"email": "ada@example.org", "password": PASSWORD, "device": device}
        tokens = http.post("/v1/sessions", json=body).json()["tokens"]
        header = {"Authorization": f"Bearer {tokens['access_token']}"}
        made = http.post("/v1/personal-tokens", json={"name": "t", "scopes": ["files:read"]}, headers=header).json()
        answer = http.get("/v1/changes", params={"cursor": "secret"}, headers=header)
        service.stop()
    access = [line for line in lines(service.log) if line["logger"] == "aloft.access"]
    last = access[-1]
    assert (last["method"], last["path"], last["status"], last["address"]) == ("GET", "/v1/changes", 400, "127.0.0.1")
    assert last["request_id"] == answer.headers["x-request-id"]
    assert last["milliseconds"] > 0
    text = service.log.read_text()
    for secret in (PASSWORD, made["token"], tokens["access_token"], tokens["refresh_token"], "cursor=", "ada@example.org"):
        assert secret not in text
