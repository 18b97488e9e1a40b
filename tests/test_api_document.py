"""`docs/api.md`: what it shows works as it stands there, and it names every route."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from remote.server.app import create_app
from remote.server.config import ServerConfig
from tests.support.service import start_service

DOCUMENT = (Path(__file__).resolve().parents[1] / "docs" / "api.md").read_text()


def test_what_it_shows_works(tmp_path: Path) -> None:
    script = "\n".join(re.findall(r"```sh\n(.*?)```", DOCUMENT, re.DOTALL))
    (work := tmp_path / "work").mkdir()
    with start_service(tmp_path / "data") as service:
        ran = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=work, env={**os.environ, "URL": service.url}, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
    assert ran.returncode == 0, f"{ran.stdout}\n{ran.stderr}"
    assert '"name":"New"' in ran.stdout


def test_it_names_every_route_and_no_other(tmp_path: Path) -> None:
    app = create_app(ServerConfig(data=tmp_path / "data", password_memory_kib=64))
    try:
        described = {f"{method.upper()} {path}" for path, methods in app.openapi()["paths"].items() for method in methods}
    finally:
        app.state.service.close()
    table = DOCUMENT[DOCUMENT.index("## Where things are") :]
    mapped = set(re.findall(r"`((?:GET|HEAD|POST|PATCH|DELETE) /\S+)`", table))
    of_devices = {f"{method} {path}" for method, path in re.findall(r"`(GET|POST) (/v1/spaces/\S+)`", DOCUMENT)}
    assert mapped | of_devices == described
