"""Search in contents: what is read of a file, by whom it is found, and what no document can do to the service."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from remote.server import extraction
from remote.server.garbage import CLOSED_NS, Garbage
from remote.server.objects.store import StoreUnavailable
from tests.support.wire import PASSWORD, Device, Json, World, create, new_id, remove, write

DAY = 24 * 3600


HOSTNAME = Path("/etc/hostname").read_text().strip()
ROOT = str(Path(__file__).resolve().parents[2])


async def find(device: Device, q: str, **more: Any) -> list[Json]:
    """The hits, when the index has followed."""
    device.world.service.indexing.do_what_is_due()
    page = await device.get("/v1/search", params={"q": q, **more})
    assert page["up_to_date"]
    hits: list[Json] = page["hits"]
    return hits


async def found(device: Device, q: str, **more: Any) -> list[str]:
    return [hit["path"] for hit in await find(device, q, **more)]


async def put(device: Device, name: str, body: bytes) -> str:
    """A new file in the root folder."""
    inode = new_id()
    if len(body) <= 4096:
        await device.accept(create(device.space, name, inode, body))
    else:
        await device.store(device.space, name, inode, *(body[at : at + 2**20] for at in range(0, len(body), 2**20)))
    return inode


def marked(snippet: Json) -> list[str]:
    return [snippet["text"][start:end] for start, end in snippet["marks"]]


def rows(world: World) -> dict[str, int]:
    tables = ("search_names", "search_name_index", "search_contents", "search_text_index")
    with world.service.database.read() as connection:
        return {name: connection.execute(text(f"SELECT count(*) FROM {name}")).scalar_one() for name in tables}


# ----------------------------------------------------------------------------------------------------------------- text


async def test_words_of_a_content_are_found_with_a_snippet(ada: Device) -> None:
    body = "Nothing here. " * 2000 + "The <b>Quick</b>\nbrown FÓX jumps,\tover it all. " + "More of that. " * 500
    await put(ada, "story.txt", body.encode())
    (hit,) = await find(ada, "quick fox")
    assert (hit["path"], hit["matched"], hit["content_type"]) == ("/story.txt", ["content"], "text/plain")
    assert "The <b>Quick</b> brown FÓX jumps, over it all." in hit["snippet"]["text"], "plain text, as it is"
    assert marked(hit["snippet"]) == ["Quick", "FÓX"]
    assert len(hit["snippet"]["text"]) < 300
    assert marked((await find(ada, '"brown fox"'))[0]["snippet"]) == ["brown FÓX"]
    assert await found(ada, '"fox brown"') == []
    assert marked((await find(ada, "jum"))[0]["snippet"]) == ["jum"], "the last word may go on"
    assert await found(ada, "jum fox") == []
    assert marked((await find(ada, "jum* fox"))[0]["snippet"]) == ["FÓX", "jum"]
    assert await found(ada, "umps") == [], "in a content a word begins at its beginning"
    assert await found(ada, "quick nowhere") == []


async def test_a_hit_by_name_comes_before_one_by_content(ada: Device) -> None:
    await put(ada, "one.txt", b"about whales, and again whales")
    await put(ada, "whales.txt", b"nothing of them")
    await put(ada, "all whales.txt", b"whales")
    hits = await find(ada, "whales")
    assert [(hit["path"], hit["matched"]) for hit in hits] == [
        ("/whales.txt", ["name"]),
        ("/all whales.txt", ["name", "content"]),
        ("/one.txt", ["content"]),
    ]
    assert [hit["snippet"] is None for hit in hits] == [True, False, False]


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("a.py", "Größe = 1".encode()),
        ("no extension", "Größe".encode()),
        ("bom.txt", b"\xef\xbb\xbf" + "Größe".encode()),
        ("utf16.csv", "\ufeffGröße;1".encode("utf-16-le")),
        ("latin.txt", "Größe der Straße".encode("latin-1")),
        ("apart.txt", "Gro\u0308ße".encode()),
        ("controls.txt", "a\x0c Größe \x1b[0m".encode()),
    ],
)
async def test_text_is_read_however_it_is_written(ada: Device, name: str, body: bytes) -> None:
    await put(ada, name, body)
    (hit,) = await find(ada, "GROSSE".replace("SS", "ß"))
    assert marked(hit["snippet"]) == ["Größe"]


@pytest.mark.parametrize(
    ("name", "body"),
    [("a.txt", b"\0\1\2 word"), ("photo.jpg", b"word"), ("empty.txt", b""), ("a.zip", b"PK\3\4 word \0"), ("b.txt", b"\xff\xfe")],
)
async def test_what_is_no_text_is_found_by_its_name_only(ada: Device, name: str, body: bytes) -> None:
    await put(ada, name, body)
    assert await found(ada, "word") == []
    assert await found(ada, name) == [f"/{name}"]


async def test_a_long_text_is_read_as_far_as_its_limit(ada: Device) -> None:
    words = [f"w{number:06}" for number in range(200_000)]
    await put(ada, "long.txt", " ".join(["first", *words, "last"]).encode())
    assert await found(ada, "first w000017") == ["/long.txt"]
    assert await found(ada, "last") == []


async def test_words_that_no_word_list_holds(ada: Device) -> None:
    await put(ada, "long.txt", (b"a" * 3000 + b" short " + "ж".encode() * 300 + b" ' \\ ''x'' \\' tail"))
    assert await found(ada, "short tail") == ["/long.txt"]


async def test_a_content_is_searched_as_it_is_now(world: World, ada: Device, other: Device) -> None:
    inode = await put(ada, "f.txt", b"before")
    assert await found(ada, "before") == ["/f.txt"]
    await ada.accept(write(inode, b"after", (await ada.listing())[1][inode]["content_rev"]))
    page = await ada.get("/v1/search", params={"q": "before"})
    assert (page["hits"], page["up_to_date"]) == ([], False), "also before the index has followed"
    assert await found(other, "after") == ["/f.txt"]
    assert await found(ada, "before") == []
    await ada.accept(remove(ada.space, "f.txt", inode, seen=(await ada.listing())[1][inode]["content_rev"]))
    assert (await ada.get("/v1/search", params={"q": "after"}))["hits"] == []
    await ada.post("/v1/trash/restore", {"id": inode})
    assert await found(ada, "after") == ["/f.txt"]
    assert rows(world)["search_text_index"] == 1


async def test_nobody_finds_what_is_in_somebody_elses_files(ada: Device, eve: Device) -> None:
    await put(ada, "a.txt", b"my secret is safe")
    await put(eve, "e.txt", b"no secret at all")
    assert await found(ada, "secret") == ["/a.txt"]
    assert await found(eve, "secret") == ["/e.txt"]
    assert await found(eve, "safe") == []
    assert await found(eve, ada.space) == []


async def test_what_is_gone_for_good_leaves_nothing_in_the_index(world: World, ada: Device, eve: Device) -> None:
    inode = await put(ada, "f.txt", b"some words")
    await put(eve, "e.txt", b"other words")
    assert await found(ada, "words") == ["/f.txt"]
    assert set(rows(world).values()) == {2}
    await ada.accept(remove(ada.space, "f.txt", inode, seen=(await ada.listing())[1][inode]["content_rev"]))
    assert await found(ada, "words") == []
    assert rows(world) == {"search_names": 1, "search_name_index": 1, "search_contents": 2, "search_text_index": 2}
    assert (await ada.send("DELETE", "/v1/trash")).is_success
    assert set(rows(world).values()) == {1}
    assert (await eve.send("POST", "/v1/account/close", {"password": PASSWORD})).is_success
    world.clock.advance(CLOSED_NS / 10**9 + 1)
    Garbage(world.service.database, world.service.store, world.clock).collect()
    assert set(rows(world).values()) == {0}


async def test_equal_contents_are_read_once(ada: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    real = extraction.text_of

    def counting(name: str, size: int, read: extraction.Read) -> str | None:
        asked.append(name)
        return real(name, size, read)

    monkeypatch.setattr("remote.server.indexing.text_of", counting)
    for name in ("a", "b", "c"):
        await put(ada, name, b"the same words")
    assert sorted(await found(ada, "words")) == ["/a", "/b", "/c"]
    assert len(asked) == 1


async def test_a_store_that_is_away_delays_contents_only(world: World, ada: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    await put(ada, "f.txt", b"some words, and more of them " * 1000)

    def away(_key: str, _length: int) -> bytes:
        raise StoreUnavailable("the store is away")

    indexing = world.service.indexing
    with monkeypatch.context() as patched:
        patched.setattr(world.service.store, "read", away)
        indexing.do_what_is_due()
        page = await ada.get("/v1/search", params={"q": "f.txt"})
        assert ([hit["path"] for hit in page["hits"]], page["up_to_date"]) == (["/f.txt"], False)
    indexing.do_what_is_due()
    assert not (await ada.get("/v1/search", params={"q": "f"}))["up_to_date"], "it is not asked all the time"
    world.clock.advance(60)
    assert await found(ada, "words") == ["/f.txt"]


async def test_bytes_that_are_wrong_hold_up_nothing(world: World, ada: Device) -> None:
    body = os.urandom(10).hex().encode() * 1000
    await put(ada, "broken.txt", body)
    await put(ada, "good.txt", b"good words")
    for file in world.service.folder.objects.rglob("*.0"):
        file.write_bytes(bytes(file.stat().st_size))
    assert await found(ada, "words") == ["/good.txt"]
    assert await found(ada, "broken") == ["/broken.txt"]


# ------------------------------------------------------------------------------------------------------------ documents


def archive(members: dict[str, str | bytes]) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as zipped:
        for name, body in members.items():
            zipped.writestr(name, body)
    return made.getvalue()


W = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
S = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
A = 'xmlns:a="http://schemas.openxmlformats.org/drawingml/2006/main"'
ODF = (
    'xmlns:office="urn:oasis:names:tc:opendocument:xmlns:office:1.0" xmlns:text="urn:oasis:names:tc:opendocument:xmlns:text:1.0"'
)


def word(paragraphs: str) -> bytes:
    return archive({"[Content_Types].xml": "<Types/>", "word/document.xml": f"<w:document {W}>{paragraphs}</w:document>"})


DOCUMENTS = {
    "a.docx": word("<w:p><w:r><w:t>Rep</w:t><w:t>ort 2024</w:t></w:r></w:p><w:p><w:t>on whales</w:t></w:p>"),
    "a.xlsx": archive(
        {
            "xl/sharedStrings.xml": f"<sst {S}><si><t>Report</t></si><si><t>whales</t></si></sst>",
            "xl/worksheets/sheet1.xml": f'<worksheet {S}><row><c t="s"><v>0</v></c><c><v>2024</v></c></row></worksheet>',
        }
    ),
    "a.pptx": archive({"ppt/slides/slide1.xml": f"<p {A}><a:p><a:t>Report 2024</a:t></a:p><a:p><a:t>whales</a:t></a:p></p>"}),
    "a.odt": archive(
        {"content.xml": f"<x {ODF}><text:h>Report</text:h><text:p>2024 on <text:span>wha</text:span>les</text:p></x>"}
    ),
}


def pdf(*lines: str) -> bytes:
    """One page, as a printer driver would write it."""
    shown = "".join(f"({line}) Tj 0 -20 Td " for line in lines)
    stream = f"BT /F1 12 Tf 50 700 Td {shown}ET".encode()
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 600 800]/Contents 4 0 R/Resources<</Font<</F1 5 0 R>>>>>>",
        b"<</Length %d>>stream\n%s\nendstream" % (len(stream), stream),
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica/Encoding/WinAnsiEncoding>>",
    ]
    return _pdf_of(objects)


def _pdf_of(objects: list[bytes]) -> bytes:
    made, places = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, start=1):
        places.append(len(made))
        made += b"%d 0 obj%s endobj\n" % (number, body)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    end = b"trailer<</Size %d/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF" % (len(objects) + 1, len(made))
    return made + b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1) + table + end


DOCUMENTS["a.pdf"] = pdf("Report 2024", "on whales")


@pytest.mark.parametrize("name", DOCUMENTS)
async def test_documents_are_read(ada: Device, name: str) -> None:
    await put(ada, name, DOCUMENTS[name])
    (hit,) = await find(ada, "whales report 2024")
    assert (hit["path"], hit["matched"]) == (f"/{name}", ["content"])
    assert {each.lower() for each in marked(hit["snippet"])} == {"whales", "report", "2024"}


async def test_what_a_content_is_taken_for_follows_its_name(ada: Device) -> None:
    inode = await put(ada, "a.bin", DOCUMENTS["a.docx"])
    assert await found(ada, "whales") == []
    await ada.post("/v1/files/move", {"source": "/a.bin", "target": "/a.docx"})
    assert [hit["id"] for hit in await find(ada, "whales")] == [inode]


def loops() -> bytes:
    """A page whose content goes round in a circle of forms, in a tree of pages that holds itself."""
    stream = b"/X0 Do " * 1000
    return _pdf_of(
        [
            b"<</Type/Catalog/Pages 2 0 R>>",
            b"<</Type/Pages/Kids[2 0 R 3 0 R]/Count 1000000>>",
            b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 600 800]/Contents 4 0 R/Resources<</XObject<</X0 4 0 R>>>>>>",
            b"<</Type/XObject/Subtype/Form/BBox[0 0 1 1]/Resources<</XObject<</X0 4 0 R>>>>/Length %d>>stream\n%s\nendstream"
            % (len(stream), stream),
        ]
    )


def laughs() -> str:
    """Ten levels of ten: a thousand million laughs."""
    entities = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
    return f'<!DOCTYPE x [<!ENTITY l0 "laugh">{entities}]><w:document {W}><w:t>&l9;</w:t></w:document>'


def outside(file: str) -> str:
    return f'<!DOCTYPE x [<!ENTITY f SYSTEM "file://{file}">]><w:document {W}><w:t>whales &f;</w:t></w:document>'


def flate_bomb() -> bytes:
    stream = zlib.compress(zlib.compress(b"(bomb) Tj " * 10_000_000, 9), 9)
    return _pdf_of(
        [
            b"<</Type/Catalog/Pages 2 0 R>>",
            b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
            b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 600 800]/Contents 4 0 R>>",
            b"<</Filter[/FlateDecode/FlateDecode]/Length %d>>stream\n%s\nendstream" % (len(stream), stream),
        ]
    )


HOSTILE: dict[str, Callable[[], bytes]] = {
    "text bomb.docx": lambda: word(f"<w:t>{'bomb ' * 4_000_000}</w:t>"),
    "space bomb.docx": lambda: archive({"word/document.xml": b"<w:t>" + bytes(100 * 2**20)}),
    "blank bomb.docx": lambda: word(" " * (100 * 2**20)),
    "deep.docx": lambda: word("<w:p>" * 300_000),
    "many.docx": lambda: archive({f"word/header{number}.xml": " " * 10_000 for number in range(5_000)}),
    "laughs.docx": lambda: archive({"word/document.xml": laughs()}),
    "laughs.odt": lambda: archive({"content.xml": laughs()}),
    "outside.docx": lambda: archive({"word/document.xml": outside("/etc/hostname")}),
    "broken.docx": lambda: DOCUMENTS["a.docx"][:-40],
    "loops.pdf": loops,
    "flate bomb.pdf": flate_bomb,
    "broken.pdf": lambda: b"%PDF-1.7\n" + os.urandom(50_000),
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_no_document_harms_the_service_or_other_files(ada: Device, name: str) -> None:
    await put(ada, name, HOSTILE[name]())
    await put(ada, "good.docx", word("<w:t>good words</w:t>"))
    assert await found(ada, "good words") == ["/good.docx"]
    assert await found(ada, f'"{name}"') == [f"/{name}"]
    for word_of_it in ("laugh", "whales", HOSTNAME):
        assert await found(ada, word_of_it, under="/") in ([], [f"/{name}"] if word_of_it in name else [])


async def test_a_document_that_takes_too_long_is_given_up(ada: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(extraction, "SECONDS", 1.0)
        await put(ada, "slow.docx", word(f'<w:p a="{"a" * (50 * 2**20)}"/><w:t>slow words</w:t>'))
        await put(ada, "good.txt", b"good words")
        assert await found(ada, "words") == ["/good.txt"]
    assert await found(ada, "words") == ["/good.txt"], "nor is it tried again"


TRIED = {
    "open('/etc/passwd')": "OSError",
    "open('/tmp/written', 'w')": "OSError",
    "socket.create_connection(('127.0.0.1', 9))": "OSError",
    "socket.socket(socket.AF_UNIX)": "OSError",
    "bytearray(2**30)": "MemoryError",
    "os.pipe()": "OSError",
}


@pytest.mark.parametrize("tried", TRIED)
def test_what_reads_documents_has_no_rights(tried: str) -> None:
    program = (
        "import os, socket, sys; sys.path.insert(0, sys.argv[1])\n"
        "from remote.server.extractor import give_up_rights; give_up_rights()\n"
        f"try: {tried}\n"
        "except Exception as error: print(type(error).__mro__)"
    )
    ran = subprocess.run([sys.executable, "-I", "-c", program, ROOT], capture_output=True, text=True, env={}, check=True)
    assert f"'{TRIED[tried]}'" in ran.stdout, ran.stdout
