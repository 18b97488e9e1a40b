"""`aloft put`, `get`, `ls`, `mkdir`, `mv`, `cp` and `rm` without a mount, and transfers that go on after they were stopped."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from cache.getting import get
from cache.lanes import Lanes, Progress
from cache.putting import put
from fs.home import open_home
from remote.credentials import CredentialStore
from remote.fileapi import OnConflict
from remote.files import Files
from remote.http import open_service
from tests.cli.conftest import Ran
from tests.support.service import RunningService

BIG = random.Random(1).randbytes(12 * 2**20)
"""A dozen chunks that cannot be compressed."""

Aloft = Callable[..., Ran]


@pytest.fixture
def big(tmp_path: Path) -> Path:
    file = tmp_path / "big.bin"
    file.write_bytes(BIG)
    return file


def names(ran: Ran) -> list[str]:
    return [entry["name"] for entry in ran.data["entries"]]


def test_there_and_back(ada: Aloft, big: Path, tmp_path: Path) -> None:
    sent = ada("put", str(big), "/", "--json").data["files"][0]
    assert (sent["path"], sent["size"], sent["sent_bytes"]) == ("/big.bin", len(BIG), len(BIG))
    again = ada("put", str(big), "/again", "--json").data["files"][0]
    assert (again["version"], again["sent_bytes"]) == (sent["version"], 0), "the service has it already"
    assert ada("get", "big.bin", str(tmp_path / "got")).code == 0
    assert (tmp_path / "got").read_bytes() == BIG
    assert (tmp_path / "got").stat().st_mtime_ns == big.stat().st_mtime_ns
    assert not (tmp_path / "got.part").exists()


def test_folders_there_and_back(ada: Aloft, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "below" / "empty").mkdir(parents=True)
    (tree / "below" / "é.txt").write_text("text " * 10_000)
    (tree / "none").write_bytes(b"")
    (tree / "link").symlink_to("none")
    refused = ada("put", str(tree), "/")
    assert (refused.code, "give -r" in refused.err) == (1, True)
    sent = ada("put", "-r", str(tree), "/")
    assert (sent.code, "left out" in sent.err) == (0, True)
    assert ada("get", "/tree", str(tmp_path)).code == 1
    got = tmp_path / "got"
    assert ada("get", "-r", "/tree", str(got)).code == 0
    found = {str(path.relative_to(got)): path.is_file() and path.read_bytes() for path in got.rglob("*")}
    assert found == {"below": False, "below/empty": False, "below/é.txt": b"text " * 10_000, "none": b""}


def test_one_that_fails_does_not_keep_the_others_back(ada: Aloft, big: Path, tmp_path: Path) -> None:
    ran = ada("put", str(tmp_path / "nothing"), str(big), "/", "--json")
    assert ran.code == 1
    assert [file["path"] for file in ran.data["files"]] == ["/big.bin"]
    assert [(failed["source"], failed["error"]) for failed in ran.data["failed"]] == [
        (str(tmp_path / "nothing"), "No such file or directory")
    ]
    assert "1 file of 2 failed" in ran.err


def test_names_are_listed_made_moved_copied_and_removed(ada: Aloft, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a" * 5000)
    (tmp_path / "b").write_bytes(b"b")
    assert ada("mkdir", "/x/y").code == 1
    assert ada("mkdir", "-p", "/x/y").code == 0
    assert ada("put", str(tmp_path / "a"), str(tmp_path / "b"), "/x/").code == 0
    assert names(ada("ls", "/x", "--json")) == ["a", "b", "y"]
    assert names(ada("ls", "x", "--sort", "size", "--reverse", "--json"))[0] == "a"
    assert ada("ls", "/x").out == "a\nb\ny/\n"
    assert "4.9 KiB" in ada("ls", "-l", "/x/a").out
    assert ada("mv", "/x/a", "/x/b", "/x/y").out == "/x/y/a\n/x/y/b\n"
    assert ada("cp", "/x/y", "/z").code == 0
    taken = ada("cp", "/x/y/a", "/z/a")
    assert (taken.code, "already" in taken.err) == (1, True)
    assert ada("cp", "/x/y/a", "/z/a", "--on-conflict", "rename").out == "/z/a (2)\n"
    assert ada("mv", "/z/b", "/z/a", "--on-conflict", "replace").code == 0
    assert names(ada("ls", "/z", "--json")) == ["a", "a (2)"]
    kept = ada("rm", "/z")
    assert (kept.code, "recursive" in kept.err) == (1, True)
    assert ada("rm", "-r", "/z", "/x", "--json").data == {"removed": 7}
    assert ada("ls").out == ""


@pytest.mark.parametrize(
    "wrong",
    [("put", "x"), ("mv", "x"), ("put", "x", "/y", "--on-conflict", "x"), ("ls", "--sort", "x"), ("get", "a", "b", "/nowhere")],
)
def test_what_is_wrong_is_said_before_anything_is_done(aloft: Aloft, wrong: tuple[str, ...]) -> None:
    assert aloft(*wrong).code == 2


def test_where_there_is_no_folder(ada: Aloft, big: Path) -> None:
    for target in ("/nowhere/", "/nowhere/x"):
        assert ada("put", str(big), target).code == 1
    assert "aloft mkdir /nowhere" in ada("put", str(big), "/nowhere/").err
    assert ada("get", "/nowhere").code == 1


def test_nobody_is_logged_in(aloft: Aloft, big: Path) -> None:
    assert aloft("put", str(big), "/").code == 4


def test_a_token_takes_the_place_of_a_device(
    ada: Aloft, service: RunningService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = ada("token", "create", "t", "--scope", "files:read").out.strip()
    monkeypatch.setenv("ALOFT_TOKEN", token)
    elsewhere = tmp_path / "elsewhere"
    assert ada("ls", home=elsewhere).code == 2, "nobody says where the service is"
    monkeypatch.setenv("ALOFT_SERVER", service.url)
    assert ada("ls", home=elsewhere).code == 0
    denied = ada("mkdir", "/x", home=elsewhere)
    assert (denied.code, "files:write" in denied.err) == (1, True)
    monkeypatch.setenv("ALOFT_TOKEN", "aloft_pat_of_nobody")
    assert ada("ls", home=elsewhere).code == 4


# ------------------------------------------------------------------------------------------------- stopped, and again


def stopped(home: Path, transfer: Callable[[Files, Progress], object], at_bytes: int) -> int:
    """Stop a transfer when so many bytes have moved; how many had."""
    progress = Progress()

    async def run() -> None:
        async with open_service(CredentialStore(open_home(home).credentials)) as service, trio.open_nursery() as nursery:
            nursery.start_soon(transfer, Files(service), progress)  # type: ignore[arg-type]
            while progress.moved < at_bytes:  # noqa: ASYNC110 (bytes are counted, not told of)
                await trio.sleep(0.001)
            nursery.cancel_scope.cancel()

    trio.run(run)
    assert at_bytes <= progress.moved < len(BIG), "it was stopped in the middle"
    return progress.moved


def test_a_put_goes_on_with_what_is_missing(ada: Aloft, home: Path, big: Path) -> None:
    def begin(files: Files, progress: Progress) -> object:
        return put(files, big, "/big.bin", OnConflict.FAIL, Lanes(1), progress)

    moved = stopped(home, begin, 2 * 2**20)
    assert names(ada("ls", "--json")) == []
    rest = ada("put", str(big), "/big.bin", "--json").data["files"][0]
    assert moved + rest["sent_bytes"] <= len(BIG), "no chunk that came was sent again"
    assert 0 < rest["sent_bytes"] < len(BIG)


def test_a_get_goes_on_with_what_is_missing(ada: Aloft, home: Path, big: Path, tmp_path: Path) -> None:
    assert ada("put", str(big), "/").code == 0
    target = tmp_path / "got"

    def begin(files: Files, progress: Progress) -> object:
        return get(files, "/big.bin", target, Lanes(1), progress)

    moved = stopped(home, begin, 2 * 2**20)
    assert (tmp_path / "got.part").exists()
    rest = ada("get", "/big.bin", str(target), "--json").data["files"][0]
    assert moved + rest["fetched_bytes"] <= len(BIG) + 4 * 2**20, "but for a chunk that was on its way"
    assert rest["fetched_bytes"] < len(BIG)
    assert target.read_bytes() == BIG


def test_a_get_of_a_file_that_changed_begins_anew(ada: Aloft, home: Path, big: Path, tmp_path: Path) -> None:
    assert ada("put", str(big), "/").code == 0
    target, other = tmp_path / "got", os.urandom(5 * 2**20)

    def begin(files: Files, progress: Progress) -> object:
        return get(files, "/big.bin", target, Lanes(1), progress)

    stopped(home, begin, 2 * 2**20)
    big.write_bytes(other)
    assert ada("put", str(big), "/").code == 0
    assert ada("get", "/big.bin", str(target), "--json").data["files"][0]["fetched_bytes"] == len(other)
    assert target.read_bytes() == other
