"""Folders that are shared with other accounts."""

from __future__ import annotations

import hashlib
import io
import zipfile

import httpx
import pytest

from remote.server.garbage import Garbage, recount
from remote.server.sharednews import tell_members
from tests.support.wire import Device, World, chunked, content, create, entry, mkdir, move, new_id, new_row, problem, remove

BOB = "bob@example.org"


async def text(device: Device, path: str) -> str:
    return (await device.send("GET", "/v1/files/content", params={"path": path})).text


async def try_put(device: Device, path: str, body: bytes) -> httpx.Response:
    """The answer to the upload's beginning; complete if that was let in."""
    id_ = hashlib.sha256(body).hexdigest()
    chunks = [{"id": id_, "size": len(body)}]
    plan = {"path": path, "size": len(body), "fingerprint": id_, "chunks": chunks, "on_conflict": "replace"}
    begun = await device.send("POST", "/v1/files/upload", plan)
    if begun.is_success and begun.json()["state"] != "complete":
        for link in begun.json()["missing"]:
            await device.put(link, body)
        await device.post(f"/v1/files/upload/{begun.json()['id']}/complete", {})
    return begun


async def put(device: Device, path: str, body: bytes) -> None:
    assert (await try_put(device, path, body)).is_success


async def names(device: Device, path: str) -> list[str]:
    return [each["name"] for each in (await device.get("/v1/files", params={"path": path}))["entries"]]


@pytest.fixture
async def bob(world: World, ada: Device) -> Device:
    await world.register(BOB)
    return await world.device(BOB)


@pytest.fixture
async def plans(ada: Device) -> str:
    """`/plans` with a file, and a folder with another; the folder's inode."""
    top, inner = new_id(), new_id()
    await ada.accept(
        mkdir(ada.space, "plans", top),
        create(top, "a.txt", new_id(), b"alpha"),
        mkdir(top, "deep", inner),
        create(inner, "b.txt", new_id(), b"beta"),
    )
    return top


async def share(ada: Device, bob: Device, role: str = "editor", path: str = "/plans") -> str:
    """Share, and accept; the space."""
    made = await ada.post("/v1/shares", {"path": path, "email": BOB, "role": role})
    joined = await bob.post("/v1/invitations/accept", {"space": made["space"]})
    assert joined["role"] == role
    return str(made["space"])


async def test_a_folder_is_seen_by_both(ada: Device, bob: Device, plans: str) -> None:
    await share(ada, bob)
    for device in (ada, bob):
        assert await names(device, "/plans") == ["a.txt", "deep"]
        assert await text(device, "/plans/deep/b.txt") == "beta"


async def test_an_invitation_names_the_folder_and_who_shares_it(ada: Device, bob: Device, plans: str) -> None:
    made = await ada.post("/v1/shares", {"path": "/plans", "email": "Bob@Example.org", "role": "viewer"})
    assert (made["role"], made["path"], [each["email"] for each in made["invited"]]) == ("owner", "/plans", ["Bob@Example.org"])
    (invitation,) = (await bob.get("/v1/invitations"))["invitations"]
    assert (invitation["name"], invitation["owner_email"], invitation["role"]) == ("plans", "ada@example.org", "viewer")
    assert "plans" in (await bob.get("/v1/notifications"))["notifications"][0]["text"]
    assert (await bob.get("/v1/shares"))["shares"] == []
    assert (await bob.send("POST", "/v1/invitations/decline", {"space": made["space"]})).status_code == 204
    assert (await bob.get("/v1/invitations"))["invitations"] == []
    problem(await bob.send("POST", "/v1/invitations/accept", {"space": made["space"]}), 404, "not-found")


async def test_an_invitation_that_is_repeated_is_told_once(ada: Device, bob: Device, plans: str) -> None:
    for role in ("viewer", "viewer", "editor", "editor"):
        await ada.post("/v1/shares", {"path": "/plans", "email": BOB, "role": role})
    told = (await bob.get("/v1/notifications"))["notifications"]
    assert [each["topic"] for each in told] == ["share", "share"]
    (invitation,) = (await bob.get("/v1/invitations"))["invitations"]
    assert invitation["role"] == "editor"


async def test_nobody_learns_whether_an_address_has_an_account(ada: Device, bob: Device, plans: str) -> None:
    known = await ada.post("/v1/shares", {"path": "/plans", "email": BOB})
    unknown = await ada.post("/v1/shares", {"path": "/plans", "email": "nobody@example.org"})
    assert unknown.keys() == known.keys()
    assert [each["role"] for each in unknown["invited"]] == ["editor", "editor"]


async def test_what_was_there_before_keeps_its_versions(ada: Device, bob: Device, plans: str) -> None:
    before = (await ada.get("/v1/files/metadata", params={"path": "/plans/a.txt"}))["version"]
    row = (await ada.get("/v1/files/metadata", params={"path": "/plans/a.txt"}))["id"]
    await put(ada, "/plans/a.txt", b"second")
    await share(ada, bob)
    versions = (await bob.get("/v1/files/versions", params={"path": "/plans/a.txt"}))["versions"]
    assert [each["version"] for each in versions][1:] == [before]
    assert await text(bob, "/plans/a.txt") == "second"
    assert (await ada.get("/v1/files/metadata", params={"path": "/plans/a.txt"}))["id"] != row


async def test_an_editor_writes_on_the_owners_account(ada: Device, bob: Device, plans: str) -> None:
    await share(ada, bob)
    used = (await ada.get("/v1/account"))["used_bytes"]
    await put(bob, "/plans/new.txt", b"n" * 100_000)
    await bob.post("/v1/files/folder", {"path": "/plans/more"})
    assert await text(ada, "/plans/new.txt") == "n" * 100_000
    assert await names(ada, "/plans") == ["a.txt", "deep", "more", "new.txt"]
    assert (await ada.get("/v1/account"))["used_bytes"] > used
    assert (await bob.get("/v1/account"))["used_bytes"] == 0


async def test_a_viewer_reads_and_changes_nothing(ada: Device, bob: Device, plans: str) -> None:
    space = await share(ada, bob, "viewer")
    assert await text(bob, "/plans/a.txt") == "alpha"
    problem(await bob.send("DELETE", "/v1/files", params={"path": "/plans/a.txt"}), 403, "forbidden")
    problem(await bob.send("POST", "/v1/files/folder", {"path": "/plans/x"}), 403, "forbidden")
    problem(await try_put(bob, "/plans/x.txt", b"x"), 403, "forbidden")
    problem(await bob.try_commit(create(space, "x", new_id(), b"x"), number=1, space=space), 403, "forbidden")
    problem(await bob.send("POST", f"/v1/spaces/{space}/uploads", {"objects": [{"id": "0" * 64, "length": 5}]}), 403, "forbidden")
    assert await names(ada, "/plans") == ["a.txt", "deep"]


async def test_the_owner_changes_roles_and_removes(ada: Device, bob: Device, plans: str) -> None:
    await share(ada, bob, "viewer")
    await ada.post("/v1/shares/role", {"path": "/plans", "email": BOB, "role": "editor"})
    await bob.post("/v1/files/folder", {"path": "/plans/x"})
    for path, more in (("/role", {"email": BOB}), ("/remove", {"email": BOB}), ("", {"email": "c@d"}), ("/unshare", {})):
        problem(await bob.send("POST", f"/v1/shares{path}", {"path": "/plans", **more}), 403, "forbidden")
    left = await ada.post("/v1/shares/remove", {"path": "/plans", "email": BOB})
    assert [each["role"] for each in left["members"]] == ["owner"]
    assert await names(bob, "/") == []
    problem(await bob.send("GET", "/v1/files", params={"path": "/plans"}), 404, "not-found")
    assert (await bob.get("/v1/trash"))["entries"] == []


async def test_a_member_leaves(ada: Device, bob: Device, plans: str) -> None:
    space = await share(ada, bob)
    problem(await ada.send("POST", "/v1/shares/leave", {"path": "/plans"}), 403, "forbidden")
    assert (await bob.send("POST", "/v1/shares/leave", {"path": "/plans"})).status_code == 204
    assert await names(bob, "/") == []
    problem(await bob.send("POST", f"/v1/spaces/{space}/downloads", {"objects": ["0" * 64]}), 404, "not-found")
    assert await names(ada, "/plans") == ["a.txt", "deep"]


async def test_a_folder_that_is_not_shared_any_more_is_as_it_was_left(ada: Device, bob: Device, plans: str) -> None:
    await share(ada, bob)
    await put(bob, "/plans/new.txt", b"by bob")
    await ada.send("DELETE", "/v1/files", params={"path": "/plans/a.txt"})
    assert (await ada.send("POST", "/v1/shares/unshare", {"path": "/plans"})).status_code == 204
    assert await names(ada, "/plans") == ["deep", "new.txt"]
    assert (await text(ada, "/plans/deep/b.txt"), await text(ada, "/plans/new.txt")) == ("beta", "by bob")
    assert await names(bob, "/") == []
    assert (await ada.get("/v1/files/metadata", params={"path": "/plans"}))["shared_space"] is None
    gone = [each["path"] for each in (await ada.get("/v1/trash"))["entries"]]
    assert "/plans/a.txt" in gone
    assert (await ada.get("/v1/shares"))["shares"] == []
    await share(ada, bob)
    assert await names(bob, "/plans") == ["deep", "new.txt"]


async def test_a_single_file_gets_a_folder_of_its_own(ada: Device, bob: Device, plans: str) -> None:
    made = await ada.post("/v1/shares", {"path": "/plans/a.txt", "email": BOB})
    assert made["path"] == "/plans/a.txt (shared)"
    await bob.post("/v1/invitations/accept", {"space": made["space"]})
    assert await names(ada, "/plans") == ["a.txt (shared)", "deep"]
    assert await text(bob, "/a.txt (shared)/a.txt") == "alpha"


async def test_shared_folders_do_not_nest(ada: Device, bob: Device, plans: str) -> None:
    await share(ada, bob, path="/plans/deep")
    asked = {"email": "carol@example.org"}
    assert (
        "shared already" in problem(await ada.send("POST", "/v1/shares", {"path": "/plans", **asked}), 400, "invalid")["detail"]
    )
    await ada.post("/v1/files/folder", {"path": "/plans/deep/er"})
    problem(await ada.send("POST", "/v1/shares", {"path": "/plans/deep/er", **asked}), 400, "invalid")
    problem(await ada.send("POST", "/v1/shares", {"path": "/", **asked}), 400, "invalid")
    problem(await ada.send("POST", "/v1/shares", {"path": "/plans/deep", "email": "ada@example.org"}), 400, "invalid")


async def test_a_mount_is_moved_but_not_deleted(ada: Device, bob: Device, plans: str) -> None:
    await share(ada, bob)
    await bob.post("/v1/files/folder", {"path": "/work"})
    await bob.post("/v1/files/move", {"source": "/plans", "target": "/work/from ada"})
    assert await text(bob, "/work/from ada/a.txt") == "alpha"
    assert await text(ada, "/plans/a.txt") == "alpha"
    for path in ("/work", "/work/from ada"):
        refused = await bob.send("DELETE", "/v1/files", params={"path": path, "recursive": True})
        assert "unshare" in problem(refused, 400, "invalid")["detail"]
    problem(await bob.send("POST", "/v1/files/copy", {"source": "/work/from ada", "target": "/x"}), 400, "invalid")
    problem(await bob.send("POST", "/v1/files/move", {"source": "/work/from ada/a.txt", "target": "/a.txt"}), 400, "invalid")
    assert await text(bob, "/work/from ada/a.txt") == "alpha"


async def test_a_device_neither_makes_nor_removes_mounts(ada: Device, bob: Device, plans: str) -> None:
    space = await share(ada, bob)
    mount = (await bob.get("/v1/files/metadata", params={"path": "/plans"}))["id"]
    outcome = await bob.outcome(remove(bob.space, "plans", mount))
    assert outcome["result"] == "refused"
    forged = new_id()
    row = {"id": forged, "full": {"kind": "mount", "target": space}, "attributes": {"mode": 0o755, "mtime_ns": 1}}
    outcome = await bob.outcome({"entries": [entry(bob.space, "forged", None, forged)], "inodes": [row]})
    assert outcome["result"] == "refused"
    outcome = await bob.outcome({"entries": [], "inodes": [{"id": mount, "attributes": {"mode": 0o777}}]})
    assert outcome["result"] == "refused"
    assert (await bob.outcome(create(mount, "below", new_id(), b"x")))["result"] == "conflict"
    await bob.accept(move(mount, (bob.space, "plans"), (bob.space, "renamed")))
    assert await text(bob, "/renamed/a.txt") == "alpha"


async def test_devices_see_the_space_in_the_feed_and_its_end(ada: Device, bob: Device, plans: str) -> None:
    before = (await bob.changes())["cursor"]
    space = await share(ada, bob, "viewer")
    page = await bob.changes(before)
    by_space = {each["space"]: each for each in page["spaces"]}
    assert by_space.keys() == {bob.space, space}
    assert by_space[space]["full"]
    assert {each["name"] for each in by_space[space]["entries"]} == {"a.txt", "deep", "b.txt"}
    (mount,) = [each for each in by_space[bob.space]["inodes"] if each["kind"] == "mount"]
    assert (mount["target"], mount["attributes"]["mode"]) == (space, 0o555)
    await ada.post("/v1/shares/role", {"path": "/plans", "email": BOB, "role": "editor"})
    page = await bob.changes(page["cursor"])
    (mount,) = [each for each in page["spaces"][0]["inodes"] + page["spaces"][1]["inodes"] if each["kind"] == "mount"]
    assert mount["attributes"]["mode"] == 0o755
    await ada.send("POST", "/v1/shares/unshare", {"path": "/plans"})
    page = await bob.changes(page["cursor"])
    (changes,) = page["spaces"]
    assert [(each["name"], each["inode"]) for each in changes["entries"]] == [("plans", None)]


async def test_an_owner_who_closes_the_account_leaves_no_mount(ada: Device, bob: Device, plans: str) -> None:
    await share(ada, bob)
    assert (await ada.send("POST", "/v1/account/close", {"password": "correct horse"})).status_code == 204
    assert await names(bob, "/") == []
    assert (await bob.get("/v1/shares"))["shares"] == []


async def test_trash_search_conflicts_and_expiry_know_shared_folders(world: World, ada: Device, bob: Device, plans: str) -> None:
    await share(ada, bob)
    await bob.post("/v1/files/folder", {"path": "/work"})
    await bob.post("/v1/files/move", {"source": "/plans", "target": "/work/ours"})
    await put(bob, "/work/ours/report (conflicted copy, x, 2026-11-20).txt", b"some words")
    (conflict,) = (await bob.get("/v1/sync/conflicts"))["conflicts"]
    assert conflict["copied"]["path"].startswith("/work/ours/report (")
    await bob.post("/v1/sync/conflict/resolve", {"id": conflict["copied"]["id"], "keep": "copy"})
    world.service.indexing.do_what_is_due()
    for device, path in ((ada, "/plans/report.txt"), (bob, "/work/ours/report.txt")):
        assert [hit["path"] for hit in (await device.get("/v1/search", params={"q": "report"}))["hits"]] == [path]
        assert [hit["path"] for hit in (await device.get("/v1/search", params={"q": "words"}))["hits"]] == [path]
    await bob.post("/v1/files/expiry", {"path": "/work/ours/deep", "after_seconds": 3600})
    assert [each["path"] for each in (await ada.get("/v1/files/expiry"))["expiries"]] == ["/plans/deep"]
    await bob.send("DELETE", "/v1/files", params={"path": "/work/ours/report.txt"})
    (gone,) = (await bob.get("/v1/trash"))["entries"]
    assert gone["path"] == "/work/ours/report.txt"
    problem(await bob.send("DELETE", "/v1/trash", params={"id": gone["id"]}), 403, "forbidden")
    back = await bob.post("/v1/trash/restore", {"id": gone["id"]})
    assert back["file"]["path"] == "/work/ours/report.txt"
    assert await text(ada, "/plans/report.txt") == "some words"


async def test_a_link_into_a_shared_folder_ends_with_the_membership(ada: Device, bob: Device, plans: str) -> None:
    await share(ada, bob)
    url = (await bob.post("/v1/links", {"path": "/plans/a.txt"}))["url"]
    folder = (await bob.post("/v1/links", {"path": "/plans"}))["url"]
    assert (await bob.http.get(url)).text == "alpha"
    archive = await bob.http.get(folder)
    assert 'filename="plans.zip"' in archive.headers["content-disposition"]
    with zipfile.ZipFile(io.BytesIO(archive.content)) as members:
        assert members.read("plans/deep/b.txt") == b"beta"
    assert {each["path"] for each in (await bob.get("/v1/links"))["links"]} == {"/plans", "/plans/a.txt"}
    await ada.post("/v1/shares/remove", {"path": "/plans", "email": BOB})
    assert (await bob.http.get(url)).status_code == 404
    assert (await bob.get("/v1/links"))["links"] == []


async def test_an_editor_gets_nothing_of_the_owners_other_files(ada: Device, bob: Device, plans: str) -> None:
    """Who knows the id of an object of the owner's private file gets neither "present" nor a byte."""
    secret = b"private" * 1000
    await put(ada, "/private.bin", secret)
    space = await share(ada, bob)
    id_ = hashlib.sha256(secret).hexdigest()
    plan = await bob.post(f"/v1/spaces/{space}/uploads", {"objects": [{"id": id_, "length": len(secret)}]})
    assert [each["id"] for each in plan["missing"]] == [id_]
    problem(await bob.send("POST", f"/v1/spaces/{space}/downloads", {"objects": [id_]}), 404, "not-found")
    row = new_row(new_id(), "file", content=content(chunked(secret)))
    answer = (
        await bob.try_commit({"entries": [entry(space, "x", None, row["id"])], "inodes": [row]}, number=1, space=space)
    ).json()
    assert answer["outcomes"][0]["result"] == "missing"


async def test_usage_is_what_a_recount_finds(world: World, ada: Device, bob: Device, plans: str) -> None:
    await share(ada, bob)
    await put(bob, "/plans/new.bin", b"n" * 50_000)
    await ada.send("POST", "/v1/shares/unshare", {"path": "/plans"})
    told = (await ada.get("/v1/account"))["used_bytes"]
    assert recount(world.service.database) == []
    Garbage(world.service.database, world.service.store, world.clock).collect()
    assert await text(ada, "/plans/new.bin") == "n" * 50_000
    assert (await ada.get("/v1/account"))["used_bytes"] < told, "the space is emptied"
    assert recount(world.service.database) == []


async def test_a_large_folder_is_shared_in_one_go(ada: Device, bob: Device) -> None:
    top = new_id()
    await ada.accept(mkdir(ada.space, "big", top), *(create(top, f"f{number}", new_id(), b"x") for number in range(999)))
    await share(ada, bob, path="/big")
    page = await bob.get("/v1/files", params={"path": "/big", "limit": 1000})
    assert len(page["entries"]) == 999


async def test_members_hear_of_what_others_changed(world: World, ada: Device, bob: Device, plans: str) -> None:
    await share(ada, bob)
    assert tell_members(world.service.database, world.clock) == 0
    await put(bob, "/plans/new.txt", b"one")
    assert tell_members(world.service.database, world.clock) == 1
    newest = (await ada.get("/v1/notifications"))["notifications"][0]
    assert (newest["topic"], newest["path"]) == ("share.files", "/plans/new.txt")
    await put(ada, "/plans/x", b"1")
    await put(ada, "/plans/y", b"2")
    await bob.post("/v1/files/move", {"source": "/plans", "target": "/from ada"})
    assert tell_members(world.service.database, world.clock) == 1
    newest = (await bob.get("/v1/notifications"))["notifications"][0]
    assert newest["text"] == "2 files in /from ada were changed by other members."
    assert tell_members(world.service.database, world.clock) == 0, "once"


async def test_a_conflict_is_told_with_the_path_of_its_owner(ada: Device, bob: Device, plans: str) -> None:
    space = await share(ada, bob)
    name = "a (conflicted copy, x, 2026-11-20).txt"
    await bob.try_commit(create(space, name, new_id(), b"x"), number=1, space=space)
    newest = (await ada.get("/v1/notifications"))["notifications"][0]
    assert (newest["topic"], newest["path"]) == ("conflict", f"/plans/{name}")


async def test_a_rewind_leaves_mounts_and_reaches_into_shared_folders(world: World, ada: Device, bob: Device, plans: str) -> None:
    world.clock.advance(10)
    before = world.clock()
    world.clock.advance(10)
    await share(ada, bob)
    await bob.post("/v1/files/folder", {"path": "/work"})
    world.clock.advance(10)
    then = world.clock()
    world.clock.advance(10)
    await bob.send("DELETE", "/v1/files", params={"path": "/plans/a.txt"})
    done = await bob.post("/v1/files/rewind", {"path": "/plans", "to_ns": then})
    assert (done["restored"], done["complete"]) == (1, True)
    assert await text(ada, "/plans/a.txt") == "alpha"
    back = await ada.post("/v1/files/rewind", {"path": "/", "to_ns": before})
    assert back["complete"]
    assert await names(ada, "/") == ["plans", "plans (2)"], "the folder as it was, beside the shared one"
    assert await names(ada, "/plans") == await names(ada, "/plans (2)") == ["a.txt", "deep"]
    assert await text(bob, "/plans/a.txt") == "alpha"
    assert (await bob.post("/v1/files/rewind", {"path": "/", "to_ns": before}))["left"] == 1
