"""The repository is what it says: the packages are its own, the top level is the agreed one, documents name what exists."""

from __future__ import annotations

import ast
import importlib
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("fs", "cache", "remote")
TOP_LEVEL = {"fs", "cache", "remote", "tests", "scripts", "docs", "pyproject.toml", "README.md", "LICENSE"}
SCRIPTS = ("setup", "test", "check", "demo", "bench", "simulate")
ALOFT = Path(sys.executable).with_name("aloft")


def files_of_the_repository() -> list[Path]:
    """Tracked files and those that wait to be."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listing = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [Path(line) for line in listing.splitlines()]


@pytest.mark.parametrize("name", PACKAGES)
def test_the_packages_are_this_projects(name: str) -> None:
    """`fs` and `cache` are names that others use too: what is imported must be what stands here."""
    module = importlib.import_module(name)
    assert module.__file__ is not None
    assert Path(module.__file__).resolve() == ROOT / name / "__init__.py"


@pytest.mark.parametrize("name", PACKAGES)
def test_the_command_imports_this_projects_packages(name: str, tmp_path: Path) -> None:
    """Also from another folder, without the test runner's path."""
    command = [sys.executable, "-I", "-c", f"import {name}; print({name}.__file__)"]
    where = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout.strip()
    assert Path(where).resolve() == ROOT / name / "__init__.py"


def test_the_top_level() -> None:
    found = {path.parts[0] for path in files_of_the_repository()}
    assert {name for name in found if not name.startswith(".")} == TOP_LEVEL


@pytest.mark.parametrize("name", PACKAGES)
def test_package_files_hold_a_docstring_only(name: str) -> None:
    for path in (ROOT / name).rglob("__init__.py"):
        source = path.read_text().strip()
        assert source.startswith('"""'), path
        assert source.endswith('"""'), path
        assert source.count('"""') == 2, path


def test_every_module_says_what_it_owns() -> None:
    silent = [
        str(path)
        for path in files_of_the_repository()
        if path.suffix == ".py" and path.parts[0] in PACKAGES and not (ROOT / path).read_text().lstrip().startswith(('"""', "# "))
    ]
    assert silent == []


def test_nothing_is_raised_out_of_an_except_star() -> None:
    """Until Python 3.11.4, and so on Debian 12, it comes out wrapped in a group, which nobody expects."""
    raising = [
        f"{path}:{handler.lineno}"
        for path in files_of_the_repository()
        if path.suffix == ".py" and path.parts[0] in PACKAGES
        for block in ast.walk(ast.parse((ROOT / path).read_text()))
        if isinstance(block, ast.TryStar)
        for handler in block.handlers
        if any(isinstance(node, ast.Raise) for node in ast.walk(handler))
    ]
    assert raising == []


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_can_be_run(name: str) -> None:
    path = ROOT / "scripts" / name
    assert path.read_text().startswith("#!")
    assert os.access(path, os.X_OK)


def test_continuous_integration_runs_the_tests() -> None:
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    assert "scripts/test" in (ROOT / ".ci" / "run").read_text()


def test_the_pins_cover_the_declared_dependencies() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = project["dependencies"] + project["optional-dependencies"]["dev"]
    pinned = {
        line.split("==")[0].lower() for line in (ROOT / "scripts" / "requirements.txt").read_text().splitlines() if "==" in line
    }
    missing = [name for name in (re.split(r"[<>=\[]", entry)[0].lower() for entry in declared) if name not in pinned]
    assert missing == []


def test_every_dependency_has_its_line() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = project["dependencies"] + project["optional-dependencies"]["dev"]
    document = (ROOT / "docs" / "dependencies.md").read_text().lower()
    missing = [name for name in (re.split(r"[<>=\[]", entry)[0].lower() for entry in declared) if name not in document]
    assert missing == []


@pytest.mark.parametrize("document", ["README.md", "docs/design.md", "docs/dependencies.md"])
def test_documents_name_files_that_exist(document: str) -> None:
    text = (ROOT / document).read_text()
    named = re.findall(r"`((?:fs|cache|remote|tests|scripts|docs|\.ci)/[\w./-]+)`", text)
    assert [name for name in named if not (ROOT / name).exists()] == []
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]
    assert [link for link in links if not (ROOT / document).parent.joinpath(link).exists()] == []


def test_the_readmes_commands_exist() -> None:
    named = set(
        re.findall(
            r"\baloft ([a-z]+(?:-[a-z]+)*)", "\n".join(re.findall(r"```.*?```|`[^`]+`", (ROOT / "README.md").read_text(), re.S))
        )
    )
    listed = subprocess.run(
        [ALOFT, "--help"], env=os.environ | {"COLUMNS": "200"}, capture_output=True, text=True, check=True
    ).stdout
    commands = set(re.findall(r"^\W*([a-z][a-z-]+)\b", listed, re.M))
    assert named
    assert named <= commands


def test_this_kernel_has_fuse() -> None:
    """Without it no promise can be tested: a failure, not a skip."""
    assert Path("/dev/fuse").exists(), "this kernel offers no FUSE (/dev/fuse is missing); a container needs --device /dev/fuse"
