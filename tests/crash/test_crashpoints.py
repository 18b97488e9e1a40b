"""The mechanism of crash points, and that the list of them is the code's."""

from __future__ import annotations

import ast
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from remote import crashpoints
from remote.crashpoints import CLIENT_POINTS, CRASH_AT, CRASH_NOTE, POINTS, SERVICE_POINTS, Killer, crash_point
from tests.support.service import REPOSITORY


def calls() -> Iterator[tuple[str, ast.Call]]:
    for layer in ("fs", "cache", "remote"):
        for path in sorted((REPOSITORY / layer).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "crash_point":
                    yield f"{path.relative_to(REPOSITORY)}:{node.lineno}", node


def test_every_call_has_a_registered_name_and_every_name_a_call() -> None:
    named: Counter[str] = Counter()
    for where, call in calls():
        (name,) = call.args
        assert isinstance(name, ast.Constant), f"{where}: the name of a crash point is written out"
        assert name.value in POINTS, f"{where}: {name.value} is not registered"
        assert name.value.startswith("service.") == where.startswith("remote/server/"), where
        named[name.value] += 1
    assert named.keys() == POINTS.keys()


def test_no_point_is_of_both_sides() -> None:
    assert len(POINTS) == len(CLIENT_POINTS) + len(SERVICE_POINTS)


def test_nothing_happens_unless_something_is_installed() -> None:
    crash_point("draft.saved")
    passed: list[str] = []
    assert crashpoints.install(passed.append) is None
    try:
        crash_point("draft.saved")
        crash_point("names.created")
    finally:
        hook = crashpoints.install(None)
    crash_point("draft.saved")
    assert passed == ["draft.saved", "names.created"]
    assert hook == passed.append


def passing(environment: dict[str, str], *points: str) -> subprocess.CompletedProcess[str]:
    passes = "".join(f"crash_point({point!r}); print({point!r}, flush=True)\n" for point in points)
    return subprocess.run(
        [sys.executable, "-c", f"from remote.crashpoints import crash_point\n{passes}"],
        env={"PYTHONPATH": str(REPOSITORY)} | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(("asked", "before"), [("draft.saved", 1), ("draft.saved:1", 1), ("draft.saved:2", 3)])
def test_a_process_dies_at_the_passing_that_was_asked_for(tmp_path: Path, asked: str, before: int) -> None:
    note = tmp_path / "note"
    points = ["names.created", "draft.saved", "names.created", "draft.saved", "names.created"]
    done = passing({CRASH_AT: asked, CRASH_NOTE: str(note)}, *points)
    assert done.returncode == -signal.SIGKILL
    assert done.stdout.split() == points[:before]
    assert note.read_text() == "draft.saved\n"


def test_a_process_that_does_not_pass_the_point_lives(tmp_path: Path) -> None:
    done = passing({CRASH_AT: "draft.saved:2", CRASH_NOTE: str(tmp_path / "note")}, "draft.saved", "names.created")
    assert done.returncode == 0
    assert not (tmp_path / "note").exists()


def test_an_unknown_name_is_an_error() -> None:
    done = passing({CRASH_AT: "draft.svaed"})
    assert done.returncode == 1
    assert "there is no crash point 'draft.svaed'" in done.stderr


def test_an_empty_wish_is_none() -> None:
    assert Killer.from_environment({CRASH_AT: ""}) is None
