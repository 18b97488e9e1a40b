"""Search: what is found, by whom, and what never is."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest

from remote.server.database import fulltext_sqlite
from remote.server.housekeeping import Stopped
from remote.server.indexing import Indexing
from tests.support.wire import Device, Json, World, create, entry, file_row, mkdir, move, new_id, new_row, problem, remove


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


async def test_typos_in_a_name_are_forgiven_after_all_others(ada: Device) -> None:
    for name in ("Report.pdf", "reprot", "Holiday photos", "invoice 2024.txt", "kitten.jpg"):
        await ada.accept(create(ada.space, name, new_id(), b"x"))
    await ada.accept(create(ada.space, "notes", new_id(), b"the report"))
    assert await search(ada, "report") == ["/Report.pdf", "/notes", "/reprot"], "names, contents, and what is nearly so"
    for typed, name in (
        ("reoprt", "/Report.pdf"),
        ("holidya", "/Holiday photos"),
        ("hollidays", "/Holiday photos"),
        ("phtos", "/Holiday photos"),
        ("invoise 2024", "/invoice 2024.txt"),
        ("mitten", "/kitten.jpg"),
        ("kittem", "/kitten.jpg"),
    ):
        assert name in await search(ada, typed), typed
    for typed in ("rep0rt", "invoice 2025", "kat", "mittem"):
        assert not {"/invoice 2024.txt", "/kitten.jpg", "/Report.pdf"} & set(await search(ada, typed)), typed


async def test_what_a_hit_has_to_be(ada: Device) -> None:
    deep, inner = new_id(), new_id()
    await ada.accept(mkdir(ada.space, "deep", deep), mkdir(deep, "inner", inner))
    files = {"a.PDF": (deep, 10, 1000), "b.pdf": (inner, 200, 2000), "c.png": (ada.space, 300, 3000), "pdf": (ada.space, 5, 4000)}
    for name, (parent, size, time_ns) in files.items():
        row = file_row(new_id(), b"x" * size, mtime_ns=time_ns)
        await ada.accept({"entries": [entry(parent, name, None, row["id"])], "inodes": [row]})
    link = new_row(new_id(), "symlink", full={"target": "a.PDF"}, mtime_ns=5000)
    await ada.accept({"entries": [entry(ada.space, "link.pdf", None, link["id"])], "inodes": [link]})
    assert await search(ada, type="pdf") == ["/deep/inner/b.pdf", "/deep/a.PDF"], "the latest first, and no symlink"
    assert await search(ada, type="application/pdf") == await search(ada, type=".pdf") == await search(ada, type="pdf")
    assert await search(ada, type="image/*") == ["/c.png"]
    assert await search(ada, type="no/type") == []
    assert await search(ada, kind="symlink") == ["/link.pdf"]
    assert sorted(await search(ada, kind="directory")) == ["/deep", "/deep/inner"]
    assert await search(ada, "pdf", size_min=11) == ["/deep/inner/b.pdf"]
    assert await search(ada, size_min=200, size_max=200) == ["/deep/inner/b.pdf"]
    assert await search(ada, size_max=9) == ["/pdf"]
    assert await search(ada, modified_after=2000, modified_before=3000) == ["/c.png", "/deep/inner/b.pdf"]
    assert sorted(await search(ada, "pdf", under="/deep")) == ["/deep/a.PDF", "/deep/inner/b.pdf"]
    assert await search(ada, "pdf", under="/deep/inner/") == ["/deep/inner/b.pdf"]
    assert await search(ada, under="/deep", kind="file", size_max=100) == ["/deep/a.PDF"]
    assert await search(ada, "pdf", under="/") == await search(ada, "pdf")
    assert await search(ada, under="/c.png") == []


async def test_hits_come_in_pages(ada: Device) -> None:
    await ada.accept(*(create(ada.space, f"page {number}", new_id(), b"page") for number in range(25)))
    every = await search(ada, "page", limit=100)
    assert len(every) == 25
    after, pages = 0, []
    while True:
        page = await ada.get("/v1/search", params={"q": "page", "limit": 10, "after": after})
        pages.append([hit["path"] for hit in page["hits"]])
        if page["next"] is None:
            break
        after = page["next"]
    assert [len(page) for page in pages] == [10, 10, 5]
    assert [path for page in pages for path in page] == every
    assert (await ada.get("/v1/search", params={"q": "page", "after": 1000}))["hits"] == []


async def test_a_name_of_two_is_found_as_both(ada: Device) -> None:
    inode = new_id()
    await ada.accept(create(ada.space, "one name", inode, b"the content"))
    await ada.accept({"entries": [entry(ada.space, "another", None, inode)]})
    assert await search(ada, "one") == ["/one name"]
    assert sorted(await search(ada, "content")) == ["/another", "/one name"]


async def test_many_changes_are_followed_in_steps(ada: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("remote.server.indexing.STEP", 3)
    inodes = [new_id() for _ in range(20)]
    await ada.accept(*(create(ada.space, f"f {number}", id_, b"x") for number, id_ in enumerate(inodes)))
    assert len(await search(ada, "f")) == 20
    await ada.accept(*(move(id_, (ada.space, f"f {n}"), (ada.space, f"g {n}")) for n, id_ in enumerate(inodes)))
    assert await search(ada, "f") == []
    assert len(await search(ada, "g")) == 20


async def test_an_index_that_was_stopped_anywhere_goes_on(world: World, ada: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("remote.server.indexing.STEP", 2)
    indexing = Indexing(world.service.database, world.service.file_downloads, world.clock)
    await ada.accept(*(create(ada.space, f"f {number}", new_id(), b"words") for number in range(6)))
    for steps in range(20):
        left = [steps]

        def proceed(left: list[int] = left) -> None:
            if left[0] == 0:
                raise Stopped
            left[0] -= 1

        with suppress(Stopped):
            indexing.run(proceed)
    assert len(await search(ada, "words")) == len(await search(ada, "f")) == 6


async def test_a_query_that_takes_too_long_is_given_up(ada: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    await ada.accept(*(create(ada.space, f"{number} name", new_id(), b"x") for number in range(500)))
    assert len(await search(ada, "name", limit=100)) == 100
    with monkeypatch.context() as patched:
        patched.setattr(fulltext_sqlite, "_CHECK_EVERY", 1)
        patched.setattr("remote.server.search.QUERY_SECONDS", 0.001)
        response = await ada.send("GET", "/v1/search", params={"q": "name"})
        assert response.headers.get("retry-after") == "5"
        problem(response, 503, "unavailable")
    assert len(await search(ada, "name", limit=100)) == 100, "the connection is as good as before"
