"""The commit check, row by row of the sync protocol, and what an accepted commit leaves behind."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from remote.manifest import ChunkRef, Manifest, Split
from tests.support.wire import (
    Device,
    World,
    chunked,
    content,
    create,
    entry,
    file_row,
    inline,
    mkdir,
    move,
    new_id,
    new_row,
    problem,
    remove,
    write,
)


async def test_accepted_groups_take_one_revision_each_and_say_so_row_by_row(ada: Device) -> None:
    folder, one, two = new_id(), new_id(), new_id()
    answer = await ada.accept(mkdir(ada.space, "d", folder), create(folder, "1", one), create(folder, "2", two))
    assert answer["revision"] == 4
    assert [(o["entries"], o["inodes"]) for o in answer["outcomes"]] == [
        ([2], [{"rev": 2, "content_rev": 0}]),
        ([3], [{"rev": 3, "content_rev": 3}]),
        ([4], [{"rev": 4, "content_rev": 4}]),
    ]


async def test_content_revision_moves_with_content_only(ada: Device) -> None:
    file = new_id()
    await ada.accept(create(ada.space, "f", file, b"one"))
    touched = await ada.outcome({"inodes": [{"id": file, "attributes": {"mode": 0o600}}]})
    assert touched["inodes"] == [{"rev": 3, "content_rev": 2}]
    written = await ada.outcome(write(file, b"two", 2))
    assert written["inodes"] == [{"rev": 4, "content_rev": 4}]


async def test_what_is_as_asked_takes_no_revision(ada: Device) -> None:
    file = new_id()
    first = await ada.commit(create(ada.space, "f", file, b"one"))
    again = await ada.commit(create(ada.space, "f", file, b"one"))
    assert again["revision"] == first["revision"]
    assert again["outcomes"] == first["outcomes"]


async def test_equal_content_is_no_conflict_whatever_its_base(ada: Device) -> None:
    file, body = new_id(), b"the same"
    await ada.accept(create(ada.space, "f", file, b"old"))
    await ada.accept(write(file, body, 2, sha256=hashlib.sha256(body).digest()))
    assert (await ada.outcome(write(file, body, 1)))["inodes"] == [{"rev": 3, "content_rev": 3}]
    twin = chunked(body)
    await ada.upload(body)
    change = content(twin, base=1, sha256=hashlib.sha256(body).digest())
    assert (await ada.outcome({"inodes": [{"id": file, "content": change}]}))["inodes"] == [{"rev": 3, "content_rev": 3}]
    assert await ada.manifest(file, twin) is not None, "its sender relies on the manifest that it sent"
    assert (await ada.try_download(hashlib.sha256(body).hexdigest())).status_code == 200


async def test_a_group_applies_whole_or_not_at_all_and_the_others_do(ada: Device) -> None:
    one, two, three = new_id(), new_id(), new_id()
    half_wrong = {
        "entries": [entry(ada.space, "good", None, one), entry(ada.space, "bad", new_id(), two)],
        "inodes": [file_row(one), file_row(two)],
    }
    answer = await ada.commit(half_wrong, create(ada.space, "other", three))
    assert [o["result"] for o in answer["outcomes"]] == ["conflict", "ok"]
    entries, inodes = await ada.listing()
    assert set(entries) == {(ada.space, "other")}
    assert set(inodes) == {ada.space, three}


class Prepared:
    """A tree with one of each: what the conflicts below are about."""

    def __init__(self, device: Device) -> None:
        self.root = device.space
        self.folder, self.inner, self.file, self.linked, self.link = (new_id() for _ in range(5))


@pytest.fixture
async def tree(ada: Device) -> Prepared:
    """folder/ (rev 2), folder/inner/ (3), file (4, content 4), a and b: one file (5)."""
    tree = Prepared(ada)
    await ada.accept(
        mkdir(tree.root, "folder", tree.folder),
        mkdir(tree.folder, "inner", tree.inner),
        create(tree.root, "file", tree.file, b"one"),
        {
            "entries": [entry(tree.root, "a", None, tree.linked), entry(tree.root, "b", None, tree.linked)],
            "inodes": [file_row(tree.linked, b"linked")],
        },
    )
    return tree


X, Y = new_id(), new_id()
"""Inodes that the tree does not know."""

CONFLICTS: list[tuple[str, str, Callable[[Prepared], dict[str, Any]]]] = [
    ("an entry that is not there", "entry", lambda t: move(t.file, (t.root, "nothing"), (t.root, "z"))),
    ("an entry that holds something else", "entry", lambda t: remove(t.root, "file", X)),
    ("a name that is taken", "entry", lambda t: create(t.root, "file", X)),
    ("a full row of a named inode", "already named", lambda t: {"inodes": [file_row(t.file, b"two")]}),
    ("a content over another one", "content", lambda t: write(t.file, b"two", 3)),
    ("attributes of an unknown inode", "unknown", lambda t: {"inodes": [{"id": X, "attributes": {"mode": 0}}]}),
    ("a name for an unknown inode", "unknown", lambda t: {"entries": [entry(t.root, "x", None, X)]}),
    ("a row without a name", "trashed", lambda t: {"inodes": [file_row(X)]}),
    (
        "a row of what loses its last name",
        "trashed",
        lambda t: {**remove(t.root, "file", t.file, seen=4), "inodes": [{"id": t.file, "attributes": {"mode": 0}}]},
    ),
    ("a folder that is not empty", "not empty", lambda t: remove(t.root, "folder", t.folder)),
    (
        "a folder that something is put into",
        "not empty",
        lambda t: {"entries": [entry(t.folder, "inner", t.inner, None), entry(t.inner, "x", None, X)], "inodes": [file_row(X)]},
    ),
    ("a last name that was not known to be one", "last name", lambda t: remove(t.root, "file", t.file, seen=4, last=False)),
    ("a content that was not seen", "edited", lambda t: remove(t.root, "file", t.file, seen=3)),
    ("a content that nobody claims to have seen", "edited", lambda t: remove(t.root, "file", t.file)),
    ("a folder with two names", "two names", lambda t: {"entries": [entry(t.root, "again", None, t.inner)]}),
    ("a second name of the root", "two names", lambda t: {"entries": [entry(t.root, "root", None, t.root)]}),
    ("a parent that is a file", "no parent", lambda t: create(t.file, "x", X)),
    ("a parent that nobody knows", "no parent", lambda t: create(Y, "x", X)),
    ("a folder moved into itself", "cycle", lambda t: move(t.folder, (t.root, "folder"), (t.folder, "folder"))),
    ("a folder moved below itself", "cycle", lambda t: move(t.folder, (t.root, "folder"), (t.inner, "folder"))),
    (
        "two folders in each other",
        "cycle",
        lambda t: {"entries": [entry(Y, "x", None, X), entry(X, "y", None, Y)], "inodes": [new_row(X), new_row(Y)]},
    ),
]


@pytest.mark.parametrize(("name", "kind", "group"), CONFLICTS, ids=[name for name, _, _ in CONFLICTS])
async def test_conflicts(ada: Device, tree: Prepared, name: str, kind: str, group: Callable[[Prepared], dict[str, Any]]) -> None:
    before = await ada.listing()
    answer = await ada.commit(group(tree))
    assert (answer["outcomes"][0]["result"], answer["outcomes"][0]["conflict"]) == ("conflict", kind)
    assert answer["revision"] == 5
    assert await ada.listing() == before


async def test_what_looks_like_a_conflict_but_is_none(ada: Device, tree: Prepared) -> None:
    third = new_id()
    answer = await ada.accept(
        remove(tree.root, "a", tree.linked, last=False),  # another name is left
        {  # the two exchange their names
            "entries": [
                entry(tree.root, "folder", tree.folder, tree.file),
                entry(tree.root, "file", tree.file, tree.folder),
            ]
        },
        {  # a folder is emptied and removed in one group
            "entries": [entry(tree.folder, "inner", tree.inner, None), entry(tree.root, "file", tree.folder, None)],
        },
        {  # saved by renaming over: the old file's content was seen
            **move(third, (tree.root, "new"), (tree.root, "b"), tree.linked),
            "entries": [entry(tree.root, "b", tree.linked, third)],
            "inodes": [file_row(third, b"saved")],
            "seen": [{"inode": tree.linked, "content_rev": 5}],
            "last": [tree.linked],
        },
    )
    assert answer["revision"] == 9
    entries, _ = await ada.listing()
    assert {name: row["inode"] for (_, name), row in entries.items()} == {"b": third, "folder": tree.file}


async def test_a_folder_that_an_earlier_group_removed_takes_nothing(ada: Device, tree: Prepared) -> None:
    first, second = new_id(), new_id()
    answer = await ada.commit(
        create(tree.inner, "x", first),
        remove(tree.inner, "x", first, seen=6),
        remove(tree.folder, "inner", tree.inner),
        create(tree.inner, "y", second),
    )
    assert [o["conflict"] for o in answer["outcomes"]] == [None, None, None, "no parent"]


async def test_a_folder_cannot_go_below_one_that_an_earlier_group_walked(ada: Device, tree: Prepared) -> None:
    below_itself = move(tree.folder, (tree.root, "folder"), (tree.inner, "folder"))
    answer = await ada.commit(create(tree.inner, "x", new_id()), below_itself)
    assert [o["conflict"] for o in answer["outcomes"]] == [None, "cycle"]


async def test_nothing_that_stays_nothing_leaves_no_trace_even_in_a_folder_that_comes_later(ada: Device) -> None:
    folder, file = new_id(), new_id()
    nothing = {"entries": [entry(folder, "x", None, None), entry(ada.space, "y", None, file)], "inodes": [file_row(file)]}
    outcome = await ada.outcome(nothing)
    assert (outcome["result"], outcome["entries"]) == ("ok", [0, 2])
    await ada.accept(mkdir(ada.space, "d", folder), create(folder, "x", new_id()))


async def test_a_symlink_loses_its_last_name_without_a_content_to_have_seen(ada: Device) -> None:
    link = new_id()
    row = new_row(link, "symlink", full={"target": "there"})
    await ada.accept({"entries": [entry(ada.space, "l", None, link)], "inodes": [row]}, remove(ada.space, "l", link))


async def test_deep_exchanges_are_checked_on_their_final_state(ada: Device) -> None:
    a, b, c = new_id(), new_id(), new_id()
    root = ada.space
    await ada.accept(mkdir(root, "a", a), mkdir(a, "b", b), mkdir(b, "c", c))
    turned = {
        "entries": [
            entry(root, "a", a, c),
            entry(a, "b", b, None),
            entry(b, "c", c, None),
            entry(c, "b", None, b),
            entry(b, "a", None, a),
        ]
    }
    await ada.accept(turned)
    entries, _ = await ada.listing()
    assert {key: row["inode"] for key, row in entries.items()} == {(root, "a"): c, (c, "b"): b, (b, "a"): a}
    below = {"entries": [entry(root, "a", c, None), entry(a, "c", None, c)]}
    assert (await ada.outcome(below))["conflict"] == "cycle"
    apart = await ada.commit(
        {"entries": [entry(c, "b", b, None), entry(root, "b", None, b)]},
        {"entries": [entry(root, "a", c, None), entry(b, "c", None, c)]},
        create(c, "f", new_id()),
    )
    assert [o["result"] for o in apart["outcomes"]] == ["ok", "ok", "ok"]


async def test_revival_takes_the_full_row_and_keeps_the_old_content(ada: Device) -> None:
    file = new_id()
    await ada.accept(create(ada.space, "f", file, b"old"), remove(ada.space, "f", file, seen=2))
    revived = await ada.outcome(create(ada.space, "g", file, b"new"))
    assert (revived["result"], revived["inodes"]) == ("ok", [{"rev": 4, "content_rev": 4}])
    assert await ada.manifest(file, inline(b"old")) is not None
    wrong_kind = {"entries": [entry(ada.space, "h", None, file)], "inodes": [new_row(file, "fifo")]}
    await ada.accept(remove(ada.space, "g", file, seen=4))
    assert (await ada.outcome(wrong_kind))["result"] == "refused"


async def test_a_name_given_back_without_the_row_shows_the_row_in_the_feed(ada: Device) -> None:
    """Whoever listed everything while the inode had no name has never seen it."""
    file = new_id()
    await ada.accept(create(ada.space, "f", file, b"x"), remove(ada.space, "f", file, seen=2))
    page = await ada.changes("")
    assert file not in {row["id"] for row in page["spaces"][0]["inodes"]}
    await ada.accept({"entries": [entry(ada.space, "g", None, file)]})
    page = await ada.changes(page["cursor"])
    assert [row["id"] for row in page["spaces"][0]["inodes"]] == [file]


async def test_attributes_change_by_field(ada: Device) -> None:
    file = new_id()
    await ada.accept(create(ada.space, "f", file))
    changes: list[dict[str, Any]] = [
        {"mode": 0o600, "uid": 5, "gid": 6, "mtime_ns": -7, "xattrs": {"user.a": "YQ==", "user.b": "Yg=="}},
        {"uid": None},
        {"xattrs": {"user.a": None, "user.c": ""}},
    ]
    for change in changes:
        await ada.accept({"inodes": [{"id": file, "attributes": change}]})
    _, inodes = await ada.listing()
    expected = {"mode": 0o600, "uid": None, "gid": 6, "mtime_ns": -7, "xattrs": {"user.b": "Yg==", "user.c": ""}}
    assert inodes[file]["attributes"] == expected


async def test_the_root_folder_has_attributes_too(ada: Device) -> None:
    await ada.accept({"inodes": [{"id": ada.space, "attributes": {"mode": 0o700}}]})
    _, inodes = await ada.listing()
    assert inodes[ada.space]["attributes"]["mode"] == 0o700


async def test_every_kind_comes_back_as_it_was_sent(ada: Device) -> None:
    rows = {
        "fifo": new_row(new_id(), "fifo"),
        "socket": new_row(new_id(), "socket"),
        "character": new_row(new_id(), "character", full={"device_number": 2**63 - 1}),
        "block": new_row(new_id(), "block", full={"device_number": 259}),
        "symlink": new_row(new_id(), "symlink", full={"target": "../ünï/✓"}),
    }
    await ada.accept(*({"entries": [entry(ada.space, name, None, row["id"])], "inodes": [row]} for name, row in rows.items()))
    _, inodes = await ada.listing()
    for kind, row in rows.items():
        held = inodes[row["id"]]
        assert held["kind"] == kind
        assert held["target"] == row["full"].get("target")
        assert held["device_number"] == row["full"].get("device_number")


@pytest.mark.parametrize(
    ("what", "row"),
    [
        ("a file without content", new_row(new_id(), "file")),
        ("a folder with content", new_row(new_id(), "directory", content=content(inline(b"")))),
        ("a symlink without a target", new_row(new_id(), "symlink")),
        ("a target of a file", new_row(new_id(), "file", content=content(inline(b"")), full={"target": "x"})),
        ("a device number of a folder", new_row(new_id(), "directory", full={"device_number": 1})),
        ("bytes that are no manifest", new_row(new_id(), "file", content=content(b"nonsense"))),
        ("a wrong sum of an inline content", new_row(new_id(), "file", content=content(inline(b"x"), sha256=bytes(32)))),
    ],
)
async def test_what_can_never_be_right_is_refused_by_group(ada: Device, what: str, row: dict[str, Any]) -> None:
    good = new_id()
    answer = await ada.commit(
        {"entries": [entry(ada.space, "bad", None, row["id"])], "inodes": [row]}, create(ada.space, "good", good)
    )
    assert [o["result"] for o in answer["outcomes"]] == ["refused", "ok"], what
    assert answer["outcomes"][0]["detail"]


async def test_a_target_that_no_device_could_show_is_refused(ada: Device) -> None:
    row = new_row(new_id(), "symlink", full={"target": "a\0b"})
    problem(await ada.try_commit({"entries": [entry(ada.space, "link", None, row["id"])], "inodes": [row]}), 400, "invalid")


async def test_doubles_within_a_group_are_refused(ada: Device) -> None:
    one, two = new_id(), new_id()
    twice_entry = {
        "entries": [entry(ada.space, "x", None, one), entry(ada.space, "x", None, two)],
        "inodes": [file_row(one), file_row(two)],
    }
    twice_inode = {"entries": [entry(ada.space, "x", None, one)], "inodes": [file_row(one), file_row(one, b"2")]}
    answer = await ada.commit(twice_entry, twice_inode)
    assert [o["result"] for o in answer["outcomes"]] == ["refused", "refused"]


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\0b", "x" * 256, "ü" * 128])
async def test_names_that_no_folder_may_hold(ada: Device, name: str) -> None:
    document = problem(await ada.try_commit(create(ada.space, name, new_id())), 400, "invalid")
    assert document["field"] == "groups.0.entries.0.name"


async def test_extended_attributes_are_limited_over_all_commits(ada: Device) -> None:
    file = new_id()
    await ada.accept(create(ada.space, "f", file))
    large = "A" * (4 * 16 * 1024)  # 48 KiB
    await ada.accept({"inodes": [{"id": file, "attributes": {"xattrs": {"user.a": large}}}]})
    outcome = await ada.outcome({"inodes": [{"id": file, "attributes": {"xattrs": {"user.b": large}}}]})
    assert outcome["result"] == "refused"


async def test_sparse_contents_need_no_object(ada: Device) -> None:
    file = new_id()
    manifest = Manifest.from_chunks(Split(0, 0, 0), (ChunkRef.zeros(2**40),)).encode()
    await ada.accept(
        {"entries": [entry(ada.space, "f", None, file)], "inodes": [new_row(file, "file", content=content(manifest))]}
    )
    _, inodes = await ada.listing()
    assert inodes[file]["content"]["size"] == 2**40


@pytest.mark.parametrize("database_of", ["sqlite"], indirect=True)
async def test_a_full_disk_is_said_and_nothing_half_done_remains(ada: Device) -> None:
    """SQLite refuses to grow, as it does on a full disk; with room again the same commit goes through."""
    database = ada.world.service.database

    def limit(pages: int) -> None:
        """Of all connections that the pool has."""
        with database.write() as one, database.read() as two, database.read() as three:
            for connection in (one, two, three):
                connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")

    with database.write() as connection:
        used = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
    limit(used + 3)
    groups = [create(ada.space, f"f{n}", new_id(), os.urandom(4000)) for n in range(200)]
    response = await ada.try_commit(*groups, number=1)
    problem(response, 503, "unavailable")
    assert "retry-after" in response.headers
    limit(1_000_000)
    assert (await ada.listing())[0] == {}
    assert (await ada.get("/v1/account"))["used_bytes"] == 0
    answer = await ada.commit(*groups, number=1)
    assert {outcome["result"] for outcome in answer["outcomes"]} == {"ok"}


# ------------------------------------------------------------------------------------------------------------- numbers


async def test_a_repeated_number_gets_the_recorded_outcome(ada: Device, other: Device) -> None:
    file = new_id()
    first = await ada.try_commit(create(ada.space, "f", file, b"one"), number=7)
    await other.accept(write(file, b"two", 2))
    again = await ada.try_commit(create(ada.space, "f", file, b"one"), number=7)
    assert again.content == first.content


async def test_a_repeated_number_with_another_body_does_not_get_the_outcome_of_the_first(ada: Device) -> None:
    await ada.accept(create(ada.space, "f", new_id(), b"one"))
    problem(await ada.try_commit(mkdir(ada.space, "d", new_id()), number=ada.number), 409, "stale-commit")
    entries, _ = await ada.listing()
    assert set(entries) == {(ada.space, "f")}


async def test_a_replica_that_is_begun_anew_counts_from_one(ada: Device) -> None:
    file = new_id()
    old = await ada.try_commit(create(ada.space, "f", file, b"one"), number=7)
    before, ada.replica = ada.replica, new_id()
    await ada.commit(mkdir(ada.space, "d", new_id()), number=1)
    ada.replica = before
    late = await ada.try_commit(create(ada.space, "f", file, b"one"), number=7)
    assert late.content == old.content, "what the old replica sent is still recorded"
    problem(await ada.try_commit(mkdir(ada.space, "e", new_id()), number=6), 409, "stale-commit")


async def test_a_commit_of_another_epoch_is_refused_unless_it_is_recorded(ada: Device) -> None:
    problem(await ada.try_commit(mkdir(ada.space, "d", new_id()), epoch="another"), 409, "other-epoch")
    assert await ada.listing() == (await ada.listing())
    assert (await ada.changes(""))["spaces"][0]["revision"] == 1


async def test_a_device_that_knows_of_later_revisions_is_told_that_the_service_went_back(ada: Device) -> None:
    problem(await ada.try_commit(mkdir(ada.space, "d", new_id()), known=2), 409, "behind")
    await ada.try_commit(mkdir(ada.space, "d", new_id()), known=1)
    assert (await ada.changes(""))["spaces"][0]["revision"] == 2


async def test_a_smaller_number_is_refused(ada: Device) -> None:
    await ada.commit(mkdir(ada.space, "a", new_id()), number=3)
    problem(await ada.try_commit(mkdir(ada.space, "b", new_id()), number=2), 409, "stale-commit")
    entries, _ = await ada.listing()
    assert set(entries) == {(ada.space, "a")}


async def test_devices_count_for_themselves_and_go_on_after_a_new_login(world: World, ada: Device, other: Device) -> None:
    await ada.commit(mkdir(ada.space, "a", new_id()), number=5)
    await other.commit(mkdir(ada.space, "b", new_id()), number=1)
    again = replace(await world.device(ada.account["email"], ada.installation), replica=ada.replica)
    problem(await again.try_commit(mkdir(ada.space, "c", new_id()), number=4), 409, "stale-commit")
    await again.commit(mkdir(ada.space, "c", new_id()), number=6)


async def test_two_devices_write_one_file_and_the_second_is_told(ada: Device, other: Device) -> None:
    file = new_id()
    await ada.accept(create(ada.space, "f", file, b"one"))
    await ada.accept(write(file, b"two", 2))
    assert (await other.outcome(write(file, b"three", 2)))["conflict"] == "content"
    assert (await other.outcome(write(file, b"three", 3)))["result"] == "ok"
    for body in (b"one", b"two", b"three"):
        assert await ada.manifest(file, inline(body)) is not None


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[1]",
        b'{"number":0,%s,"groups":[{}]}',
        b'{"number":1,%s,"groups":[]}',
        b'{"number":1,%s,"groups":[{"surprise":1}]}',
        b'{"number":1,%s,"groups":[{"entries":[{"parent":"00","name":"x","base":null,"inode":null}]}]}',
        b'{"number":1e400,%s,"groups":[{}]}',
        b'{"number":1,"groups":[{}]}',
        b"\xff\xfe",
    ],
)
async def test_bad_bodies_get_a_problem(ada: Device, body: bytes) -> None:
    body = body.replace(b"%s", f'"replica":"{ada.replica}","epoch":"{ada.world.epoch}"'.encode())
    response = await ada.send("POST", f"/v1/spaces/{ada.space}/commit", content=body)
    problem(response, 400, "invalid")
