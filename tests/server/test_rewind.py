"""Rewind: a folder, or everything, is what it was at a time; and is what it is again."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from sqlalchemy import func, select

from remote.accountapi import TierName
from remote.server import rewind
from remote.server.config import TierConfig, TiersConfig
from remote.server.database.schema import former_names, spaces
from remote.server.expiry import expire
from remote.server.garbage import Garbage
from remote.server.rewindplan import Limits
from tests.server.test_files import stat, tree_of
from tests.server.test_trash import listed, remove_tree, revision, unlink, versions
from tests.support.wire import PASSWORD, Device, Json, World, create, entry, mkdir, move, new_id, problem, remove, write

DAY = 24 * 3600
COUNTS = ("restored", "moved", "removed", "contents", "left", "gone")


@pytest.fixture
async def tree(ada: Device, world: World) -> dict[str, str]:
    """`/d/e/f`, `/d/g` and `/h`, of a device; their inodes by path."""
    ids = {path: new_id() for path in ("/d", "/d/e", "/d/e/f", "/d/g", "/h")}
    await ada.accept(
        mkdir(ada.space, "d", ids["/d"]),
        mkdir(ids["/d"], "e", ids["/d/e"]),
        create(ids["/d/e"], "f", ids["/d/e/f"], b"f"),
        create(ids["/d"], "g", ids["/d/g"], b"g"),
        create(ada.space, "h", ids["/h"], b"h"),
    )
    world.clock.advance(60)
    return ids


def now(world: World) -> int:
    """A time between what was done and what follows."""
    world.clock.advance(60)
    moment = world.clock()
    world.clock.advance(60)
    return moment


async def ask(device: Device, path: str, to_ns: int, **more: Any) -> Json:
    return await device.post("/v1/files/rewind", {"path": path, "to_ns": to_ns, **more})


async def rewound(device: Device, path: str, to_ns: int, **counts: int) -> Json:
    """A rewind that one request does, which counts just these; a dry run said so, and did nothing."""
    before = await tree_of(device)
    dry = await ask(device, path, to_ns, dry_run=True)
    assert await tree_of(device) == before
    done = await ask(device, path, to_ns)
    assert {name: done[name] for name in COUNTS} == {**dict.fromkeys(COUNTS, 0), **counts}
    assert done["complete"]
    assert {**dry, "undo_ns": done["undo_ns"]} == done
    again = await ask(device, path, to_ns)
    assert again["undo_ns"] is None, "there is nothing left to do"
    return done


async def rows_of(world: World, space: str) -> int:
    with world.service.database.read() as connection:
        here = former_names.c.space_id == bytes.fromhex(space)
        return int(connection.execute(select(func.count()).where(here)).scalar_one())


# ------------------------------------------------------------------------------------------------------------ what is kept


async def test_only_what_a_name_held_costs_a_row(world: World, ada: Device, tree: dict[str, str]) -> None:
    assert await rows_of(world, ada.space) == 0, "what is made is no change of a name"
    await ada.accept(write(tree["/h"], b"h2", await revision(ada, tree["/h"])))
    assert await rows_of(world, ada.space) == 0
    await ada.accept(move(tree["/h"], (ada.space, "h"), (ada.space, "i")))
    assert await rows_of(world, ada.space) == 2
    await unlink(ada, ada.space, "i", tree["/h"])
    assert await rows_of(world, ada.space) == 3
    made = new_id()
    await ada.accept(create(ada.space, "tmp", made), move(made, (ada.space, "tmp"), (ada.space, "kept")))
    assert await rows_of(world, ada.space) == 3, "a commit is one moment"


async def test_each_commit_has_a_time_of_its_own(world: World, ada: Device, tree: dict[str, str]) -> None:
    for text in (b"1", b"2"):
        await ada.accept(write(tree["/h"], text, await revision(ada, tree["/h"])))
    world.clock.advance(-600)
    await ada.accept(write(tree["/h"], b"3", await revision(ada, tree["/h"])))
    world.clock.advance(-DAY)
    await ada.accept(write(tree["/h"], b"4", await revision(ada, tree["/h"])))
    times = [row["created_ns"] for row in reversed(await versions(ada, path="/h"))]
    assert times[1] < times[2] < times[3] < times[2] + 10, "also when the clock was put back a little"
    assert times[4] == world.clock(), "a clock that was wrong by much is right again"


# ------------------------------------------------------------------------------------------------------------ one change


async def test_a_deleted_folder_comes_back_whole(world: World, ada: Device, tree: dict[str, str]) -> None:
    before, then = await tree_of(ada), now(world)
    await remove_tree(ada, tree)
    done = await rewound(ada, "/", then, restored=4)
    assert await tree_of(ada) == before
    assert await listed(ada) == {}
    assert sorted(each["path"] for each in done["changes"]) == ["/d", "/d/e", "/d/e/f", "/d/g"]
    assert {each["what"] for each in done["changes"]} == {"restored"}
    assert (await stat(ada, "/d/e/f"))["id"] == tree["/d/e/f"], "with its history"


async def test_devices_hear_of_it(world: World, ada: Device, other: Device, tree: dict[str, str]) -> None:
    then = now(world)
    await unlink(ada, tree["/d"], "g", tree["/d/g"])
    cursor = (await other.changes(""))["cursor"]
    await ask(ada, "/d", then)
    entries, inodes = await other.listing(cursor=cursor)
    assert entries[tree["/d"], "g"]["inode"] == tree["/d/g"]
    assert tree["/d/g"] in inodes


async def test_contents_and_their_times_are_set_back(world: World, ada: Device, tree: dict[str, str]) -> None:
    mtime, then = (await stat(ada, "/h"))["mtime_ns"], now(world)
    for text in (b"two", b"three"):
        group = write(tree["/h"], text, await revision(ada, tree["/h"]))
        group["inodes"][0]["attributes"] = {"mtime_ns": world.clock()}
        await ada.accept(group)
    await rewound(ada, "/", then, contents=1)
    found = await stat(ada, "/h")
    assert (found["sha256"] or hashlib.sha256(b"h").hexdigest(), found["size"], found["mtime_ns"]) == (
        hashlib.sha256(b"h").hexdigest(), 1, mtime,
    )  # fmt: skip
    assert [row["size"] for row in await versions(ada, path="/h")] == [1, 5, 3, 1], "as a new version"


async def test_names_go_back_also_when_they_were_swapped(world: World, ada: Device, tree: dict[str, str]) -> None:
    before, then = await tree_of(ada), now(world)
    await ada.accept(
        {"entries": [entry(tree["/d"], "g", tree["/d/g"], tree["/h"]), entry(ada.space, "h", tree["/h"], tree["/d/g"])]}
    )
    await ada.accept(move(tree["/d/e"], (tree["/d"], "e"), (ada.space, "e2")))
    await rewound(ada, "/", then, moved=3)
    assert await tree_of(ada) == before
    assert await listed(ada) == {}


async def test_a_file_saved_by_rename_is_the_old_file_again(world: World, ada: Device, tree: dict[str, str]) -> None:
    before, then = await tree_of(ada), now(world)
    saved = new_id()
    await ada.accept(create(tree["/d"], "g~", saved, b"saved"))
    replaced = move(saved, (tree["/d"], "g~"), (tree["/d"], "g"), replaced=tree["/d/g"])
    seen = [{"inode": tree["/d/g"], "content_rev": await revision(ada, tree["/d/g"])}]
    await ada.accept({**replaced, "seen": seen, "last": [tree["/d/g"]]})
    await rewound(ada, "/d", then, restored=1, removed=1)
    assert await tree_of(ada) == before
    assert (await stat(ada, "/d/g"))["id"] == tree["/d/g"]
    assert set(await listed(ada)) == {"/d/g"}, "what was saved is in the trash"


async def test_what_was_made_since_goes_to_the_trash(world: World, ada: Device, tree: dict[str, str]) -> None:
    before, then = await tree_of(ada), now(world)
    new, deep = new_id(), new_id()
    await ada.accept(mkdir(tree["/d"], "new", new), mkdir(new, "deep", deep), create(deep, "x", new_id()))
    await ada.accept(move(tree["/d/g"], (tree["/d"], "g"), (deep, "g")))
    await rewound(ada, "/d", then, removed=3, moved=1)
    assert await tree_of(ada) == before
    assert set(await listed(ada)) == {"/d/new"}


async def test_a_folder_in_the_way_makes_room(world: World, ada: Device, tree: dict[str, str]) -> None:
    before, then = await tree_of(ada), now(world)
    await unlink(ada, tree["/d"], "g", tree["/d/g"])
    folder = new_id()
    await ada.accept(mkdir(tree["/d"], "g", folder), create(folder, "x", new_id()))
    await rewound(ada, "/d", then, removed=2, restored=1)
    assert await tree_of(ada) == before


async def test_hard_links_come_and_go(world: World, ada: Device, tree: dict[str, str]) -> None:
    await ada.accept({"entries": [entry(tree["/d"], "link", None, tree["/h"])]})
    before, then = await tree_of(ada), now(world)
    await ada.accept(remove(tree["/d"], "link", tree["/h"], seen=await revision(ada, tree["/h"]), last=False))
    await ada.accept({"entries": [entry(tree["/d/e"], "since", None, tree["/h"])]})
    await rewound(ada, "/", then, moved=1)
    assert await tree_of(ada) == before
    entries, _ = await ada.listing()
    assert {key[1] for key, row in entries.items() if row["inode"] == tree["/h"]} == {"h", "link"}


async def test_a_link_made_since_goes_and_the_file_stays(world: World, ada: Device, tree: dict[str, str]) -> None:
    before, then = await tree_of(ada), now(world)
    await ada.accept({"entries": [entry(tree["/d/e"], "since", None, tree["/h"])]})
    await rewound(ada, "/", then, removed=1)
    assert await tree_of(ada) == before
    assert await listed(ada) == {}


# ------------------------------------------------------------------------------------------------------------- of a folder


async def test_only_what_was_in_the_folder_is_rewound(world: World, ada: Device, tree: dict[str, str]) -> None:
    then = now(world)
    await ada.accept(write(tree["/h"], b"kept", await revision(ada, tree["/h"])), create(ada.space, "kept", new_id()))
    await unlink(ada, tree["/d"], "g", tree["/d/g"])
    await rewound(ada, "/d", then, restored=1)
    assert set(await tree_of(ada)) == {"/d", "/d/e", "/d/e/f", "/d/g", "/h", "/kept"}
    assert (await stat(ada, "/h"))["size"] == 4


async def test_what_was_moved_out_or_in_goes_back(world: World, ada: Device, tree: dict[str, str]) -> None:
    before, then = await tree_of(ada), now(world)
    await ada.accept(move(tree["/d/e"], (tree["/d"], "e"), (ada.space, "e")))
    await ada.accept(move(tree["/h"], (ada.space, "h"), (tree["/d"], "h")))
    await rewound(ada, "/d", then, moved=2)
    assert await tree_of(ada) == before


async def test_what_cannot_go_back_is_left(world: World, ada: Device, tree: dict[str, str]) -> None:
    then = now(world)
    await ada.accept(move(tree["/h"], (ada.space, "h"), (tree["/d"], "h")), create(ada.space, "h", new_id()))
    done = await ask(ada, "/d", then)
    assert (done["left"], done["complete"], done["undo_ns"]) == (1, True, None)
    assert done["changes"] == [{"path": "/d/h", "what": "left"}]
    assert (await stat(ada, "/d/h"))["id"] == tree["/h"]


async def test_a_folder_that_came_from_elsewhere_takes_what_was_made_in_it_along(
    world: World, ada: Device, tree: dict[str, str]
) -> None:
    outside = new_id()
    await ada.accept(mkdir(ada.space, "outside", outside))
    then = now(world)
    await ada.accept(move(outside, (ada.space, "outside"), (tree["/d"], "inside")), create(outside, "made", new_id()))
    await rewound(ada, "/d", then, moved=1)
    assert set(await tree_of(ada)) >= {"/outside", "/outside/made"}
    assert await listed(ada) == {}


async def test_the_folder_is_the_one_that_is_there_now_wherever_it_was(world: World, ada: Device, tree: dict[str, str]) -> None:
    then = now(world)
    await unlink(ada, tree["/d/e"], "f", tree["/d/e/f"])
    await ada.accept(move(tree["/d/e"], (tree["/d"], "e"), (ada.space, "elsewhere")))
    done = await rewound(ada, "/elsewhere", then, restored=1)
    assert done["changes"] == [{"path": "/elsewhere/f", "what": "restored"}]
    assert (await stat(ada, "/elsewhere/f"))["id"] == tree["/d/e/f"]


async def test_a_folder_that_was_moved_into_what_it_held_stays_in_there(world: World, ada: Device, tree: dict[str, str]) -> None:
    then = now(world)
    await ada.accept(
        move(tree["/d/e"], (tree["/d"], "e"), (ada.space, "e")), move(tree["/d"], (ada.space, "d"), (tree["/d/e"], "d"))
    )
    done = await ask(ada, "/e/d", then)
    assert (done["left"], done["complete"]) == (2, True), "/d/e, which holds it, and itself"
    assert set(await tree_of(ada)) == {"/e", "/e/f", "/e/d", "/e/d/g", "/h"}


# ---------------------------------------------------------------------------------------------------- several requests, undo


async def test_a_large_folder_takes_several_requests_any_of_which_may_be_the_last_for_now(
    world: World, ada: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rewind, "EDIT", Limits(10, 2**20))
    folder, ids = new_id(), [new_id() for _ in range(25)]
    await ada.accept(mkdir(ada.space, "d", folder), *(create(folder, f"{number}", id_) for number, id_ in enumerate(ids)))
    before, then = await tree_of(ada), now(world)
    _, rows = await ada.listing()
    seen = [rows[id_]["content_rev"] for id_ in ids]
    await ada.accept(*(remove(folder, f"{number}", ids[number], seen=seen[number]) for number in range(22)))
    await ada.accept(
        *(write(ids[number], b"new", seen[number]) for number in range(22, 25)), mkdir(folder, "made", made := new_id())
    )
    await ada.accept(*(create(made, f"{number}", new_id()) for number in range(5)))
    changed = await tree_of(ada)
    dry = await ask(ada, "/d", then, dry_run=True)
    first = await ask(ada, "/d", then)
    assert (first["complete"], first["restored"]) == (False, 10)
    assert len(await tree_of(ada)) == len(changed) + 10
    world.clock.advance(3600)  # interrupted, and repeated later
    await ada.refresh()
    answers = [first]
    while not answers[-1]["complete"]:
        answers.append(await ask(ada, "/d", then))
    assert len(answers) == 4
    assert await tree_of(ada) == before
    assert {name: sum(answer[name] for answer in answers) for name in COUNTS} == {name: dry[name] for name in COUNTS}
    assert (dry["restored"], dry["removed"], dry["contents"]) == (22, 6, 3)
    while not (await ask(ada, "/d", first["undo_ns"]))["complete"]:
        pass
    assert await tree_of(ada) == changed


async def test_a_rewind_is_undone_and_the_undoing_too(world: World, ada: Device, tree: dict[str, str]) -> None:
    before, then = await tree_of(ada), now(world)
    await ada.accept(write(tree["/h"], b"two", await revision(ada, tree["/h"])))
    await ada.accept(move(tree["/d/g"], (tree["/d"], "g"), (ada.space, "moved")))
    await unlink(ada, tree["/d/e"], "f", tree["/d/e/f"])
    await ada.accept(create(ada.space, "new", new_id(), b"new"))
    changed = await tree_of(ada)
    done = await rewound(ada, "/", then, restored=1, moved=1, removed=1, contents=1)
    assert await tree_of(ada) == before
    undone = await rewound(ada, "/", done["undo_ns"], restored=1, moved=1, removed=1, contents=1)
    assert await tree_of(ada) == changed
    await ask(ada, "/", undone["undo_ns"])
    assert await tree_of(ada) == before


# ------------------------------------------------------------------------------------------------------- what is refused, gone


async def test_what_cannot_be_asked_for_is_said(world: World, ada: Device, tree: dict[str, str]) -> None:
    then = now(world)
    await ada.accept(mkdir(ada.space, "new", new_id()))

    async def refused(path: str, to_ns: int, field: str) -> str:
        answer = problem(await ada.send("POST", "/v1/files/rewind", {"path": path, "to_ns": to_ns}), 400, "invalid")
        assert answer["field"] == field
        return str(answer["detail"])

    assert "before 2027-01-15T08:00:00Z is not known" in await refused("/", then - DAY * 10**9, "to_ns")
    assert "not come yet" in await refused("/", world.clock() + 3600 * 10**9, "to_ns")
    assert "/new was not there" in await refused("/new", then, "to_ns")
    assert "is no folder" in await refused("/h", then, "path")
    problem(await ada.send("POST", "/v1/files/rewind", {"path": "/nothing", "to_ns": then}), 404, "not-found")
    await remove_tree(ada, tree)
    gone = now(world)
    await ask(ada, "/", then)
    assert "/d was not there" in await refused("/d", gone, "to_ns"), "it was in the trash"


async def test_nobody_else_can(world: World, ada: Device, eve: Device, tree: dict[str, str]) -> None:
    then = now(world)
    await unlink(ada, tree["/d"], "g", tree["/d/g"])
    problem(await eve.send("POST", "/v1/files/rewind", {"path": "/d", "to_ns": then}), 404, "not-found")
    done = await ask(eve, "/", then)
    assert (done["id"], done["restored"]) == (eve.space, 0), "hers is another root"
    assert "/d/g" not in await tree_of(ada)


async def test_what_was_removed_for_good_is_gone(world: World, ada: Device, tree: dict[str, str]) -> None:
    then = now(world)
    await remove_tree(ada, tree)
    await ada.send("DELETE", "/v1/trash", params={"id": tree["/d/g"]})
    await ada.accept(create(ada.space, "d", new_id(), b"a file is called so now"))
    trash = {row["id"] for row in (await listed(ada)).values()}
    assert tree["/d"] in trash
    done = await ask(ada, "/", then)
    assert {name: done[name] for name in COUNTS} == dict(zip(COUNTS, (3, 0, 1, 0, 0, 1), strict=True))
    assert {"path": "/d/g", "what": "gone"} in done["changes"]
    assert set(await tree_of(ada)) == {"/d", "/d/e", "/d/e/f", "/h"}


async def test_what_is_in_a_folder_that_is_gone_cannot_come_back_either(world: World, ada: Device, tree: dict[str, str]) -> None:
    then = now(world)
    await ada.accept(move(tree["/d/g"], (tree["/d"], "g"), (ada.space, "g")))
    await unlink(ada, tree["/d/e"], "f", tree["/d/e/f"])
    await ada.accept(remove(tree["/d"], "e", tree["/d/e"]), remove(ada.space, "d", tree["/d"]))
    await ada.send("DELETE", "/v1/trash")
    done = await ask(ada, "/", then)
    assert {name: done[name] for name in COUNTS} == dict(zip(COUNTS, (0, 0, 0, 0, 1, 3), strict=True))
    assert set(await tree_of(ada)) == {"/g", "/h"}, "what is there is left"


async def test_it_goes_back_as_far_as_the_tier_keeps_things(world: World, ada: Device, tree: dict[str, str]) -> None:
    service, then = world.service, now(world)
    await ada.accept(write(tree["/h"], b"two", await revision(ada, tree["/h"])))
    await ada.accept(move(tree["/d/g"], (tree["/d"], "g"), (ada.space, "g")))
    await unlink(ada, tree["/d/e"], "f", tree["/d/e/f"])
    between, at_two = now(world), await tree_of(ada)
    world.clock.advance(10 * DAY)
    await ada.refresh()
    await unlink(ada, ada.space, "g", tree["/d/g"])
    kept = service.config.tier(TierName.FREE).kept_days
    world.clock.advance((kept - 10) * DAY - 60)
    await ada.refresh()
    assert expire(service.database, service.config.tier, world.clock).trash == 1
    assert await rows_of(world, ada.space) == 1, "what no time needs any more went, too"
    problem(await ada.send("POST", "/v1/files/rewind", {"path": "/", "to_ns": then}), 400, "invalid")
    await ask(ada, "/", between)
    assert await tree_of(ada) == at_two


async def test_the_tier_takes_back_what_the_space_had(open_world: Any) -> None:
    world = open_world()
    ada = await world.device()
    large = new_id()
    await ada.accept(create(ada.space, "large", large, b"x" * 100))
    then = now(world)
    await ada.accept(write(large, b"", await revision(ada, large)))
    await ada.accept(move(large, (ada.space, "large"), (ada.space, "small")))
    await world.close()
    strict = open_world(tiers=TiersConfig(free=TierConfig(largest_file_bytes=10, content_types=("image/*",))))
    strict.clock.now_ns = world.clock.now_ns
    strict.accounts = world.accounts
    again = await strict.device(ada.account["email"])
    await rewound(again, "/", then, moved=1, contents=1)
    assert (await stat(again, "/large"))["size"] == 100


async def test_the_rows_go_with_the_space(world: World, ada: Device, tree: dict[str, str]) -> None:
    await remove_tree(ada, tree)
    assert await rows_of(world, ada.space) == 4
    assert (await ada.send("POST", "/v1/account/close", {"password": PASSWORD})).status_code in (200, 204)
    world.clock.advance(40 * DAY)
    Garbage(world.service.database, world.service.store, world.clock).collect()
    assert await rows_of(world, ada.space) == 0
    with world.service.database.read() as connection:
        assert connection.execute(select(spaces.c.id).where(spaces.c.id == bytes.fromhex(ada.space))).one()
