"""The command line in this process, against the real service in another."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from fs.cli.main import run
from tests.support.service import RunningService, start_service

PASSWORD = "correct horse"
_numbers = count()


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        """The one JSON document on stdout."""
        return json.loads(self.out)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    with start_service(tmp_path_factory.mktemp("service") / "data") as running:
        yield running


@pytest.fixture
def email() -> str:
    return f"ada-{next(_numbers)}@example.org"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def aloft(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """Runs one command in a home (default: `home`), with the password in the environment unless it is None."""

    def command(*arguments: str, home: Path = home, password: str | None = PASSWORD) -> Ran:
        monkeypatch.setenv("ALOFT_HOME", str(home))
        if password is None:
            monkeypatch.delenv("ALOFT_PASSWORD", raising=False)
        else:
            monkeypatch.setenv("ALOFT_PASSWORD", password)
        capsys.readouterr()
        code = run(arguments)
        captured = capsys.readouterr()
        return Ran(code, captured.out, captured.err)

    return command


@pytest.fixture
def ada(aloft: Callable[..., Ran], service: RunningService, email: str) -> Callable[..., Ran]:
    """Commands in a home that is logged in."""
    assert aloft("register", "--server", service.url, "--email", email).code == 0
    return aloft


@pytest.fixture
def put(ada: Callable[..., Ran], tmp_path: Path) -> Callable[[str, str], None]:
    """Puts a text at a path."""

    def write(path: str, text: str) -> None:
        file = tmp_path / "file"
        file.write_text(text)
        assert ada("put", str(file), path).code == 0

    return write
