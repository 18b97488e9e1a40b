"""Rewind against a notebook: what a tree was after each of many random changes is written down, and any of it comes back."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from remote.accountapi import LoginRequest, RegisterRequest
from remote.fileapi import RestoreRequest, RewindRequest, Rewound
from remote.protocol import CommitAnswer
from remote.server import rewind
from remote.server.config import ServerConfig
from remote.server.database import tree as tree_rows
from remote.server.database.schema import entries, inodes
from remote.server.devices import ALL_SCOPES, Caller
from remote.server.problems import Refused
from remote.server.rewindplan import Limits
from remote.server.service import Service, open_service
from tests.support.wire import PASSWORD, Json, create, entry, mkdir, move, new_id, remove, write

NAMES = ("a", "b", "c", "d")
Snapshot = dict[str, tuple[str, str | None]]
"""The inode of each path, and what it holds."""


@pytest.fixture
def service(tmp_path: Path, database_of: Callable[[str], str | None]) -> Iterator[Service]:
    service = open_service(ServerConfig(tmp_path / "data", database=database_of("data"), password_memory_kib=64))
    yield service
    service.close()


class Drive:
    """One account's space, and a device that does one thing after the other to it."""

    ACTIONS = (
        "make",
        "make",
        "make",
        "folder",
        "folder",
        "write",
        "move",
        "move",
        "move",
        "link",
        "remove",
        "save",
        "swap",
        "restore",
    )

    def __init__(self, service: Service, draw: random.Random) -> None:
        self.service = service
        self.draw = draw
        account = service.accounts.register(RegisterRequest(email=f"{new_id()}@example.org", password=PASSWORD))
        device: Any = {"installation": new_id(), "name": "x"}
        login = service.devices.login(account, LoginRequest(email="", password="", device=device))
        self.caller = Caller(account.id, login.device.id, ALL_SCOPES)
        self.space = account.space
        self.number = 0
        self.replica = new_id()
        self.notes: list[tuple[int, Snapshot]] = [self.note()]
        self.trashed: set[str] = set()

    # -------------------------------------------------------------------------------------------------------- looking

    def rows(self) -> tuple[dict[tuple[str, str], str], dict[str, Any]]:
        with self.service.database.read() as connection:
            live = connection.execute(select(entries).where(entries.c.space_id == self.space, entries.c.inode.is_not(None)))
            held = connection.execute(select(inodes).where(inodes.c.space_id == self.space))
            keys = {(row.parent.hex(), row.name): row.inode.hex() for row in live}
            root = self.space.hex()  # the only id that is another one each time
            ordered = sorted(keys, key=lambda key: ("" if key[0] == root else key[0], key[1]))
            return {key: keys[key] for key in ordered}, {row.id.hex(): row for row in held}

    def snapshot(self) -> Snapshot:
        keys, rows = self.rows()
        found: Snapshot = {}
        pending = [("", self.space.hex())]
        while pending:
            path, folder = pending.pop()
            for (parent, name), inode in keys.items():
                if parent == folder:
                    held = rows[inode].manifest_id
                    found[f"{path}/{name}"] = (inode, None if held is None else held.hex())
                    pending.append((f"{path}/{name}", inode))
        assert len(found) == len(keys), "all hangs on the root"
        return found

    def note(self) -> tuple[int, Snapshot]:
        with self.service.database.read() as connection:
            return max(tree_rows.last_change(connection, self.space), self.service.clock() - 1), self.snapshot()

    # --------------------------------------------------------------------------------------------------------- changing

    def commit(self, *groups: Json) -> bool:
        self.number += 1
        body = {"number": self.number, "replica": self.replica, "epoch": self.service.epoch, "groups": list(groups)}
        committed = self.service.namespace.commit(self.caller, self.space, json.dumps(body).encode())
        return all(outcome.result == "ok" for outcome in CommitAnswer.model_validate_json(committed.answer).outcomes)

    def new_id(self) -> str:
        return self.draw.randbytes(16).hex()

    def step(self) -> None:
        """Something that an application does; what cannot be done, is not."""
        keys, rows = self.rows()
        draw, root = self.draw, self.space.hex()
        folders = [root, *(inode for inode in keys.values() if rows[inode].kind == "directory")]
        free = (draw.choice(folders), draw.choice(NAMES))
        key = draw.choice(list(keys)) if keys else None
        row = None if key is None else rows[keys[key]]
        action = draw.choice(self.ACTIONS)
        if action == "make" and free not in keys:
            self.commit(create(*free, self.new_id(), draw.choice((b"1", b"2", b"3"))))
        elif action == "folder" and free not in keys:
            self.commit(mkdir(*free, self.new_id()))
        elif action == "restore" and self.trashed:
            with suppress(Refused):  # it may have a name again
                self.service.trash.restore(self.caller, RestoreRequest(id=draw.choice(sorted(self.trashed))))
        elif key is None or row is None:
            return
        elif action == "remove":
            self.remove(key, keys, rows)
        elif action == "write" and row.kind == "file":
            self.commit(write(keys[key], draw.choice((b"4", b"5", b"6")), row.content_rev))
        elif action == "move" and free not in keys:
            self.commit(move(keys[key], key, free))
        elif action == "link" and row.kind == "file" and free not in keys:
            self.commit({"entries": [entry(*free, None, keys[key])]})
        elif action == "save" and row.kind == "file":
            saved, temporary = self.new_id(), (key[0], "save~")
            self.commit(create(*temporary, saved, draw.choice((b"7", b"8"))))
            replaced = move(saved, temporary, key, replaced=keys[key])
            seen = [{"inode": keys[key], "content_rev": row.content_rev}]
            if not self.commit({**replaced, "seen": seen, "last": [keys[key]]}):
                self.commit(remove(*temporary, saved, seen=self.number * 1000))
            self.trashed.add(keys[key])
        elif action == "swap":
            other = draw.choice(list(keys))
            if other != key:
                self.commit({"entries": [entry(*key, keys[key], keys[other]), entry(*other, keys[other], keys[key])]})

    def remove(self, key: tuple[str, str], keys: dict[tuple[str, str], str], rows: dict[str, Any]) -> None:
        inode = keys[key]
        for inner in [inner for inner in keys if inner[0] == inode]:
            self.remove(inner, keys, rows)
        last = sum(held == inode for held in keys.values()) == 1
        self.commit(remove(*key, inode, seen=rows[inode].content_rev, last=last))
        self.trashed.add(inode)
        del keys[key]

    def work(self, steps: int) -> None:
        """Several things, each of which is written down."""
        for _ in range(steps):
            self.step()
            self.notes.append(self.note())

    # ----------------------------------------------------------------------------------------------------------- rewind

    def rewind(self, path: str, to_ns: int) -> tuple[list[Rewound], int | None]:
        """The answers until it is complete, and the time that undoes it."""
        request = RewindRequest(path=path, to_ns=to_ns)
        answers = [self.service.rewind.rewind(self.caller, request).answer]
        while not answers[-1].complete:
            assert len(answers) < 300, "it ends"
            answers.append(self.service.rewind.rewind(self.caller, request).answer)
        return answers, next((answer.undo_ns for answer in answers if answer.undo_ns is not None), None)


@pytest.fixture
def allow(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """So many changes in a request."""
    return lambda changes_max: monkeypatch.setattr(rewind, "EDIT", Limits(changes_max, 2**20))


at_random = settings(
    max_examples=12,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
seeds, limits = st.integers(0, 2**32), st.sampled_from((1, 3, 1000))


@at_random
@given(seed=seeds, changes_max=limits)
def test_everything_is_what_it_was(service: Service, allow: Callable[[int], None], seed: int, changes_max: int) -> None:
    allow(changes_max)
    draw = random.Random(seed)
    drive = Drive(service, draw)
    for _ in range(3):
        drive.work(12)
        at, then = draw.choice(drive.notes)
        before = drive.snapshot()
        dry = service.rewind.rewind(drive.caller, RewindRequest(path="/", to_ns=at, dry_run=True)).answer
        assert drive.snapshot() == before
        answers, undo_ns = drive.rewind("/", at)
        assert drive.snapshot() == then
        assert (answers[-1].left, answers[-1].gone) == (0, 0)
        if changes_max == 1000:
            assert answers == [dry.model_copy(update={"undo_ns": undo_ns})]
        drive.notes.append(drive.note())
        assert drive.rewind("/", at)[1] is None, "what is as it was stays"
        if undo_ns is not None and draw.random() < 0.7:
            drive.rewind("/", undo_ns)
            assert drive.snapshot() == before
            drive.notes.append(drive.note())


@at_random
@given(seed=seeds, changes_max=limits)
def test_a_folder_is_what_it_was_and_nothing_else_is_lost(
    service: Service, allow: Callable[[int], None], seed: int, changes_max: int
) -> None:
    allow(changes_max)
    draw = random.Random(seed)
    drive = Drive(service, draw)
    for _ in range(6):
        drive.work(8)
        at, then = draw.choice(drive.notes)
        before = drive.snapshot()
        was = {inode: path for path, (inode, _) in then.items()}
        _, rows = drive.rows()
        folders = [path for path, (id_, _) in before.items() if rows[id_].kind == "directory" and id_ in was]
        if not folders:
            continue
        path = draw.choice(folders)
        answers, undo_ns = drive.rewind(path, at)
        after = drive.snapshot()
        if not answers[-1].left:
            assert _inside(after, path) == _inside(then, was[before[path][0]])
        there_then, there_before, there = ({inode for inode, _ in each.values()} for each in (then, before, after))
        assert (there_then & there_before) <= there, "what was there then is never removed"
        assert drive.rewind(path, at)[1] is None
        if undo_ns is not None:
            undone, _ = drive.rewind(path, undo_ns)
            if not undone[-1].left:
                assert _inside(drive.snapshot(), path) == _inside(before, path)
        drive.notes.append(drive.note())


def _inside(tree: Snapshot, path: str) -> Snapshot:
    return {each.removeprefix(path): held for each, held in tree.items() if each.startswith(f"{path}/")}
