"""Search: what is found, by whom, and what never is."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.wire import Device, Json, World, create, mkdir, move, new_id, problem, remove


async def search(device: Device, q: str = "", **more: Any) -> list[str]:
    """The paths that are found now, all of them, when the index has followed."""
    device.world.service.indexing.do_what_is_due()
    page = await device.get("/v1/search", params={"q": q, **more})
    assert page["up_to_date"]
    return [hit["path"] for hit in page["hits"]]


async def drop(device: Device, parent: str, name: str, inode: str) -> None:
    await device.accept(remove(parent, name, inode, seen=(await device.listing())[1][inode]["content_rev"]))


async def test_a_name_is_found_by_what_is_in_it(ada: Device) -> None:
    folder, file = new_id(), new_id()
    await ada.accept(mkdir(ada.space, "Reisen", folder), create(folder, "Évora 2024.txt", file, b"x"))
    await ada.accept(create(ada.space, "100%_sure.txt", new_id(), b"x"), create(ada.space, "x", new_id(), b"x"))
    assert await search(ada, "evora") == ["/Reisen/Évora 2024.txt"]
    assert await search(ada, "VOR 024") == ["/Reisen/Évora 2024.txt"]
    assert await search(ada, '"évora 2024"') == ["/Reisen/Évora 2024.txt"]
    assert await search(ada, "evora 2025") == []
    assert await search(ada, "reise") == ["/Reisen"]
    assert await search(ada, "0%_s") == ["/100%_sure.txt"]
    assert await search(ada, "0__s") == []
    assert await search(ada, "x") == ["/x", "/100%_sure.txt", "/Reisen/Évora 2024.txt"], "the whole name before a part"
    (hit,) = (await ada.get("/v1/search", params={"q": "evora"}))["hits"]
    assert (hit["id"], hit["kind"], hit["size"], hit["content_type"], hit["matched"]) == (file, "file", 1, "text/plain", ["name"])


async def test_what_moved_or_went_is_found_where_it_is(ada: Device) -> None:
    folder, file, other = new_id(), new_id(), new_id()
    await ada.accept(mkdir(ada.space, "d", folder), create(ada.space, "first.txt", file, b"1"))
    await ada.accept(create(ada.space, "gone.txt", other, b"2"))
    assert await search(ada, "first") == ["/first.txt"]
    assert await search(ada, "gone") == ["/gone.txt"]
    await ada.accept(move(file, (ada.space, "first.txt"), (folder, "second.txt")))
    await drop(ada, ada.space, "gone.txt", other)
    for name in ("first", "gone"):
        page = await ada.get("/v1/search", params={"q": name})
        assert (page["hits"], page["up_to_date"]) == ([], False), "also before the index has followed"
    assert await search(ada, "second") == ["/d/second.txt"]
    assert await search(ada, "gone") == []
    await ada.accept(move(folder, (ada.space, "d"), (ada.space, "e")))
    assert await search(ada, "second") == ["/e/second.txt"]
    await ada.post("/v1/trash/restore", {"id": other})
    assert await search(ada, "gone") == ["/gone.txt"]


async def test_nobody_finds_what_somebody_else_has(ada: Device, eve: Device) -> None:
    await ada.accept(create(ada.space, "secret plan.txt", new_id(), b"a secret"))
    await eve.accept(create(eve.space, "public plan.txt", new_id(), b"no such thing"))
    assert await search(eve, "plan") == ["/public plan.txt"]
    assert await search(eve, "secret") == []
    assert await search(eve, under="/") == ["/public plan.txt"]
    assert await search(ada, "secret") == ["/secret plan.txt"]
    for text in (ada.space, f"{ada.space}*", f'"{ada.space}"'):
        assert await search(eve, text) == []


TYPED = [
    *('"', '""', '" OR "', "a*b*", "*", "NEAR(a b)", "space : x", "'; --", "\\", "%", "^a", "-a", "+", "(", "🦊", "\u0000"),
    *("' & 'x", "a:*", "some -- name", "NOT", "AND OR", "\ufffe", "ß İ ﬁ", "a" * 500, " ".join("abcdefghijklmnopqrstuvwxyz")),
]


@pytest.mark.parametrize("q", TYPED)
async def test_whatever_is_typed_is_text(ada: Device, q: str) -> None:
    await ada.accept(create(ada.space, "some name", new_id(), b"some words"))
    ada.world.service.indexing.do_what_is_due()
    response = await ada.send("GET", "/v1/search", params={"q": q, "size_min": 0})
    assert response.status_code == 200, response.text


async def test_what_makes_no_sense_is_refused(ada: Device) -> None:
    for field, value in (
        ("q", "a" * 501),
        ("kind", "planet"),
        ("type", "a/b/c"),
        ("size_min", "-1"),
        ("size_max", "large"),
        ("modified_after", "yesterday"),
        ("under", "relative"),
        ("limit", "0"),
        ("after", "x"),
    ):
        asked: Json = {"q": "a"} | {field: value}
        assert problem(await ada.send("GET", "/v1/search", params=asked), 400, "invalid")["field"] == field
    assert problem(await ada.send("GET", "/v1/search"), 400, "invalid")["field"] == "q"
    problem(await ada.send("GET", "/v1/search", params={"q": "a", "under": "/nowhere"}), 404, "not-found")


async def test_a_service_without_news_has_nothing_to_do(world: World, ada: Device) -> None:
    await ada.accept(create(ada.space, "f", new_id(), b"x"))
    assert await search(ada, "f") == ["/f"]
    world.service.indexing.do_what_is_due()
    assert await search(ada, "f") == ["/f"]
