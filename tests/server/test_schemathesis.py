"""Whatever is sent that the OpenAPI description allows, or does not: no answer is a 500, and each is as described."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.support.service import start_service
from tests.support.wire import PASSWORD

CHECKS = "not_a_server_error,content_type_conformance,response_schema_conformance,status_code_conformance"
LEFT_OUT = (
    *("/v1/changes", "/v1/account/close", "/v1/account/password", "/v1/sessions/current", "/v1/devices", "/v1/devices/{device}"),
    *("/v1/users/tier", "/v1/notifications", "/v1/notifications/stream"),
)
"""Those for changes and notifications wait for them, as they should; the others end the session that asks, or its room."""


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(["--phases", "coverage"], id="each limit of each field"),
        pytest.param(["--phases", "fuzzing", "--max-examples", "10"], id="what nobody thought of"),
        pytest.param(
            ["--phases", "fuzzing,stateful", "--max-examples", "300"],
            id="for long",
            marks=[pytest.mark.long, pytest.mark.timeout(3600)],
        ),
    ],
)
def test_no_request_is_answered_by_a_failure(tmp_path: Path, options: list[str]) -> None:
    with start_service(tmp_path / "data") as service, httpx.Client(base_url=service.url) as http:
        assert http.post("/v1/accounts", json={"email": "ada@example.org", "password": PASSWORD}).is_success
        device = {"installation": "00" * 16, "name": "laptop"}
        login = http.post("/v1/sessions", json={"email": "ada@example.org", "password": PASSWORD, "device": device}).json()
        command = [
            *(sys.executable, "-m", "schemathesis.cli", "run", f"{service.url}/openapi.json", "--checks", CHECKS, "--seed", "1"),
            *("--header", f"Authorization: Bearer {login['tokens']['access_token']}", "--no-color", "--workers", "1"),
            *(word for path in LEFT_OUT for word in ("--exclude-path", path)),
            *options,
        ]
        ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        assert "passed" in ran.stdout
