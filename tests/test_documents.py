"""What the documents name is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_every_test_that_the_threat_model_names_exists() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", (ROOT / "docs" / "security.md").read_text())
    assert len(named) > 40
    for file, test in named:
        functions = {node.name for node in ast.walk(ast.parse((ROOT / file).read_text())) if hasattr(node, "name")}
        assert not test or test in functions, f"{file} has no {test}"


def test_every_threat_names_a_test() -> None:
    rows = re.findall(r"^\| (?!threat|---)(.*) \|$", (ROOT / "docs" / "security.md").read_text(), re.MULTILINE)
    assert rows
    assert [row for row in rows if "`tests/" not in row.split(" | ")[-1]] == []
