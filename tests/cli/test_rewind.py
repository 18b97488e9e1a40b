"""`aloft rewind`, as a person types it."""

from __future__ import annotations

import re
import time

import pytest

from remote.fileapi import Rewound
from remote.files import Files


@pytest.fixture
def then(ada, put):
    """A time at which `/d/f` and `/d/g` were there; since then one was deleted, one overwritten, and one made."""
    assert ada("mkdir", "/d").code == 0
    put("/d/f", "f")
    put("/d/g", "g")
    moment = time.time_ns()
    assert ada("rm", "/d/f").code == 0
    put("/d/g", "changed")
    put("/d/h", "h")
    return str(moment)


def names(ada, path):
    return ada("ls", path).out.split()


def test_a_folder_is_rewound_and_that_is_undone(ada, put, then, tmp_path):
    would = ada("rewind", "/d", "--to", then, "--dry-run")
    assert would.out.splitlines()[:3] == ["restored  /d/f", "removed   /d/h", "content   /d/g"]
    assert "1 restored, 1 to the trash, 1 content set back" in would.out
    assert names(ada, "/d") == ["g", "h"], "nothing was changed"
    done = ada("rewind", "d", "--to", then, "--yes")
    assert "/d is as it was at 2" in done.out
    assert names(ada, "/d") == ["f", "g"]
    assert ada("get", "/d/g", str(tmp_path / "g")).code == 0
    assert (tmp_path / "g").read_text() == "g"
    undo = re.search(r"To undo it: aloft (rewind .*)", done.err)
    assert undo is not None
    undone = ada(*undo[1].split(), "--yes", "--json")
    assert {name: undone.data[name] for name in ("restored", "removed", "contents", "complete")} == {
        "restored": 1, "removed": 1, "contents": 1, "complete": True,
    }  # fmt: skip
    assert names(ada, "/d") == ["g", "h"]
    assert "nothing changes" in ada("rewind", "/d", "--to", str(time.time_ns()), "--yes").out


def test_it_asks_first(ada, then, monkeypatch):
    asked = []
    monkeypatch.setattr("typer.confirm", lambda question, err: asked.append(question))
    assert "nothing was changed" in ada("rewind", "/", "--to", then).err
    assert re.fullmatch(r"Rewind / to 2.*: 1 restored, 1 to the trash, 1 content set back\?", asked[0])
    assert names(ada, "/d") == ["g", "h"]


def test_what_cannot_be_is_said(ada, then):
    assert ada("rewind", "/d", "--to", "yesterday", "--yes").code == 2
    assert "is not known any more" in ada("rewind", "/d", "--to", "3d", "--yes").err
    assert "is no folder" in ada("rewind", "/d/g", "--to", then, "--yes").err
    assert "There is nothing at /x" in ada("rewind", "/x", "--to", then, "--dry-run").err


def test_it_asks_again_until_it_is_complete_and_says_how_to_undo_what_was_done(ada, then, monkeypatch):
    """The service takes a thousand changes in a request: here it is as if one were, and the third request failed."""
    real, calls = Files.rewind, []

    async def one(self, path, to_ns, *, dry_run=False):
        calls.append(path)
        if len(calls) == 3:
            raise OSError("the line is down")
        answer: Rewound = await real(self, path, to_ns, dry_run=dry_run)
        return answer.model_copy(update={"complete": len(calls) == 5})

    monkeypatch.setattr(Files, "rewind", one)
    failed = ada("rewind", "/d", "--to", then, "--yes")
    assert failed.code == 1
    assert "it is not complete: at least 1 restored" in failed.err
    assert "To undo it: aloft rewind /d --to 1" in failed.err
    assert "nothing changes" in ada("rewind", "/d", "--to", then, "--yes").out
    assert len(calls) == 5
