"""The lazy, batched commit check against the plain one: random groups on random trees, and both must say the same.

The reference looks at the whole tree every time. Which conflict is named may differ where a group has several; whether it is
accepted, the revisions and the tree that follows may not. After each commit the reference checks that its tree is sound.
"""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from remote.accountapi import LoginRequest, RegisterRequest
from remote.protocol import Kind
from remote.server.config import ServerConfig
from remote.server.devices import ALL_SCOPES, Caller
from remote.server.service import Service, open_service
from tests.support.reference_service import PlainGroup, ReferenceService, RowChange
from tests.support.wire import PASSWORD, Json, content, inline, new_id

SEEDS = 60
COMMITS = 12
NAMES = ("a", "b", "c")
FOLDERS, FILES = 5, 4


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    data: Path = tmp_path_factory.mktemp("reference") / "data"
    service = open_service(ServerConfig(data, password_memory_kib=64))
    yield service
    service.close()


class Pair:
    """One space on the real service, and the reference that is sent the same."""

    def __init__(self, service: Service, seed: int) -> None:
        self.random = random.Random(seed)
        self.service = service
        account = service.accounts.register(RegisterRequest(email=f"{seed}@example.org", password=PASSWORD))
        device: Any = {"installation": new_id(), "name": "x"}
        login = service.devices.login(account, LoginRequest(email="", password="", device=device))
        self.caller = Caller(account.id, login.device.id, ALL_SCOPES)
        self.space = account.space
        self.reference = ReferenceService(account.space.hex())
        self.reference.revision = 1
        self.folders = [self.random.randbytes(16).hex() for _ in range(FOLDERS)]
        self.files = [self.random.randbytes(16).hex() for _ in range(FILES)]

    def kind(self, inode: str) -> Kind:
        return Kind.DIRECTORY if inode in self.folders else Kind.FILE

    # ------------------------------------------------------------------------------------------------------ generating

    def group(self) -> PlainGroup:
        """Some entries, more often than not with the base that is right, and rows for some of what they name."""
        group, draw = PlainGroup(), self.random
        for _ in range(draw.choice((0, 1, 1, 2, 2, 3))):
            parent = draw.choice([self.reference.root, *self.folders, *self.folders, *self.files[:1]])
            key = (parent, draw.choice(NAMES))
            base = self.reference.holder(key) if draw.random() < 0.9 else draw.choice([None, *self.folders, *self.files])
            group.entries[key] = (base, draw.choice([None, *self.folders, *self.files]))
        self.move_something(group)
        for inode in dict.fromkeys(new for _, new in group.entries.values() if new is not None):
            if (inode not in self.reference.rows or not self.reference.names(inode)) and draw.random() < 0.9:
                group.inodes[inode] = self.row(inode, full=True)
        if draw.random() < 0.3:
            inode = draw.choice([*self.folders, *self.files])
            group.inodes.setdefault(inode, self.row(inode, full=draw.random() < 0.2))
        self.look_at(group)
        return group

    def move_something(self, group: PlainGroup) -> None:
        """Half of the groups also move, or remove, something that is there."""
        live = [(key, inode) for key, (inode, _) in self.reference.entries.items() if inode is not None]
        if not live or self.random.random() < 0.5:
            return
        key, inode = self.random.choice(live)
        target = (self.random.choice([self.reference.root, *self.folders]), self.random.choice(NAMES))
        group.entries.setdefault(key, (inode, None))
        if self.random.random() < 0.7:
            group.entries.setdefault(target, (self.reference.holder(target), inode))

    def row(self, inode: str, *, full: bool) -> RowChange:
        kind, known = self.kind(inode), self.reference.rows.get(inode)
        change = RowChange(kind, {"mode": self.random.randrange(0o1000)}, full=full)
        if kind is Kind.FILE and (full or self.random.random() < 0.7):
            change.content = self.random.choice(("x", "y", "z"))
            right = known.content_rev if known is not None else 0
            change.base = right if self.random.random() < 0.8 else max(0, right - 1)
        return change

    def look_at(self, group: PlainGroup) -> None:
        """What the group says that it has seen, and knows to lose."""
        for base, _ in group.entries.values():
            row = None if base is None else self.reference.rows.get(base)
            if row is None or base is None:
                continue
            if self.random.random() < 0.9:
                group.seen[base] = row.content_rev if self.random.random() < 0.9 else row.content_rev - 1
            if self.random.random() < 0.9:
                group.last.add(base)

    # ---------------------------------------------------------------------------------------------------------- sending

    def wire(self, group: PlainGroup) -> Json:
        return {
            "entries": [{"parent": p, "name": n, "base": base, "inode": new} for (p, n), (base, new) in group.entries.items()],
            "inodes": [self.wire_row(inode, change) for inode, change in group.inodes.items()],
            "seen": [{"inode": inode, "content_rev": max(0, rev)} for inode, rev in group.seen.items()],
            "last": sorted(group.last),
        }

    def wire_row(self, inode: str, change: RowChange) -> Json:
        row: Json = {"id": inode, "attributes": change.attributes}
        if change.full:
            row["full"] = {"kind": change.kind}
        if isinstance(change.content, str):
            row["content"] = content(inline(change.content.encode()), base=change.base)
        return row

    def commit(self, number: int, groups: list[PlainGroup]) -> None:
        groups_sent = [self.wire(group) for group in groups]
        commit = {"number": number, "replica": "00" * 16, "epoch": self.service.epoch, "groups": groups_sent}
        body = json.dumps(commit).encode()
        expected = self.reference.commit("device", number, groups)
        answer = json.loads(self.service.namespace.commit(self.caller, self.space, body).answer)
        assert expected is not None
        for group, mine, theirs in zip(groups, answer["outcomes"], expected, strict=True):
            assert (mine["result"] == "ok") == theirs.ok, (self.wire(group), mine, theirs)
            if theirs.ok:
                for (key, (_, new)), rev in zip(group.entries.items(), mine["entries"], strict=True):
                    # What never was anything has no tombstone here, and one in the reference.
                    assert rev == theirs.entries[key] or (new is None and rev == 0)
                files = [inode for inode in group.inodes if self.kind(inode) is Kind.FILE]
                content_revs = dict(zip(group.inodes, (row["content_rev"] for row in mine["inodes"]), strict=True))
                assert [content_revs[inode] for inode in files] == [theirs.inodes[inode][1] for inode in files]
        assert answer["revision"] == self.reference.revision

    def compare_trees(self) -> None:
        page = json.loads(self.service.feed.page(self.caller, "", 5000).answer)["spaces"][0]
        mine = {(row["parent"], row["name"]): (row["inode"], row["rev"]) for row in page["entries"]}
        assert mine == {key: held for key, held in self.reference.entries.items() if held[0] is not None}
        contents = {row["id"]: row["content_rev"] for row in page["inodes"] if row["kind"] == "file"}
        rows = self.reference.rows
        named = {inode for inode in rows if self.reference.names(inode)}
        assert contents == {inode: rows[inode].content_rev for inode in named if inode in self.files}
        assert {row["id"] for row in page["inodes"]} == named | {self.reference.root}


@pytest.mark.parametrize("seed", range(SEEDS))
def test_the_check_agrees_with_the_plain_one(service: Service, seed: int) -> None:
    pair = Pair(service, seed)
    for number in range(1, COMMITS + 1):
        pair.commit(number, [pair.group()])
        pair.compare_trees()


@pytest.mark.parametrize("seed", range(1000, 1000 + SEEDS))
def test_groups_of_one_commit_see_what_the_earlier_ones_did(service: Service, seed: int) -> None:
    """The groups are made on a copy of the reference that applies them as they come: so most bases are right."""
    pair = Pair(service, seed)
    truth = pair.reference
    for number in range(1, COMMITS + 1):
        ahead = ReferenceService(truth.root)
        ahead.__dict__.update({name: copy.deepcopy(value) for name, value in truth.__dict__.items() if name != "watch"})
        groups = []
        pair.reference = ahead
        for _ in range(4):
            groups.append(pair.group())
            ahead.apply("device", groups[-1])
        pair.reference = truth
        pair.commit(number, groups)
        pair.compare_trees()
