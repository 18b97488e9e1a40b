"""The child process that reads documents of strangers: bytes from stdin, text to stdout, as it comes. See `extraction`.

It gives up what it does not need before it looks at the first byte: memory and time beyond a limit, files, the network. After the
libraries are loaded it can open nothing any more, a socket no more than a file. What goes wrong ends it; what it wrote by then
counts. It imports nothing of the service.
"""

from __future__ import annotations

import ctypes
import encodings
import importlib
import io
import logging
import pkgutil
import re
import resource
import sys
from collections.abc import Callable
from contextlib import suppress
from types import ModuleType
from typing import IO
from xml.sax.handler import ContentHandler
from xml.sax.xmlreader import AttributesImpl

MEMORY_BYTES = 512 * 2**20
CPU_SECONDS = 10
TEXT_MAX = 2**19
"""Characters that are written."""
MEMBER_MAX = 64 * 2**20
"""Bytes of one member of an archive, unpacked; of all of them twice as many."""
_NEW_USER, _NEW_NETWORK = 0x10000000, 0x40000000
_PIECE = 64 * 1024


class Enough(Exception):
    """There is as much text as is wanted, or more in it than may be."""


class Text:
    """Where it goes; `Enough` when it is full."""

    def __init__(self, out: IO[bytes]) -> None:
        self._out = out
        self._left = TEXT_MAX

    def write(self, text: str) -> None:
        self._out.write(text[: self._left].encode(errors="replace"))
        self._left -= len(text)
        if self._left <= 0:
            raise Enough


def main() -> None:
    _load_all(encodings)
    read = {"pdf": _load_pdf, "office": _load_office}[sys.argv[2]]()
    give_up_rights()
    with sys.stdout.buffer as out:
        text = Text(out)
        try:
            read(sys.stdin.buffer.read(), text)
        except Enough:
            return


def give_up_rights() -> None:
    for limit, value in (
        (resource.RLIMIT_AS, MEMORY_BYTES),
        (resource.RLIMIT_CPU, CPU_SECONDS),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NPROC, 0),
    ):
        resource.setrlimit(limit, (value, value))
    ctypes.CDLL(None).unshare(_NEW_USER | _NEW_NETWORK)  # where the system allows it; what holds everywhere is the next line
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))


def _load_pdf() -> Callable[[bytes, Text], None]:
    import pypdf

    _load_all(pypdf)
    logging.disable()

    def read(data: bytes, text: Text) -> None:
        reader = pypdf.PdfReader(io.BytesIO(data))
        if reader.is_encrypted and not reader.decrypt(""):
            return
        for page in reader.pages:
            text.write(page.extract_text() + "\n")

    return read


def _load_all(package: ModuleType) -> None:
    """Also what would be loaded only when it is first needed, and cannot be then; not what is for other systems, or needs what
    is not there."""
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        with suppress(ImportError):
            importlib.import_module(module.name)


# ---------------------------------------------------------------------------------------------------- office documents

_MEMBERS = re.compile(
    r"word/(document|header\d*|footer\d*|footnotes|endnotes|comments)\.xml"
    r"|xl/(sharedStrings|worksheets/sheet\d+)\.xml"
    r"|ppt/(slides/slide|notesSlides/notesSlide)\d+\.xml"
    r"|content\.xml"
)
_BREAKS = {"p", "h", "si", "row", "br", "tab", "c", "line-break", "table-cell"}


def _load_office() -> Callable[[bytes, Text], None]:
    import zipfile

    from defusedxml import sax  # type: ignore[import-untyped]

    def read(data: bytes, text: Text) -> None:
        left = [2 * MEMBER_MAX]
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for name in sorted(archive.namelist()):
                if _MEMBERS.fullmatch(name) is not None:
                    with archive.open(name) as member:
                        sax.parse(_Limited(member, left), _Words(text, everything=name == "content.xml"), forbid_dtd=True)
                    text.write("\n")

    sax.parseString(b"<a/>", ContentHandler())  # it loads its parser by name, when it first needs it
    return read


class _Limited(io.RawIOBase):
    """A member of an archive, as much of it as is left."""

    def __init__(self, member: IO[bytes], left: list[int]) -> None:
        self._member = member
        self._left = left
        self._own = MEMBER_MAX

    def read(self, size: int = -1) -> bytes:
        piece = self._member.read(_PIECE if size < 0 else min(size, _PIECE))
        self._own -= len(piece)
        self._left[0] -= len(piece)
        if self._own < 0 or self._left[0] < 0:
            raise Enough
        return piece


class _Words(ContentHandler):
    """The text of an XML document: `t` of Microsoft's, and numbers of cells (`v`) that are not places in the shared strings;
    everything of OpenDocument's."""

    def __init__(self, text: Text, *, everything: bool) -> None:
        super().__init__()
        self._text = text
        self._everything = everything
        self._taken = everything
        self._is_place = False

    def startElement(self, name: str, attrs: AttributesImpl) -> None:
        local = name.rpartition(":")[2]
        if local == "c":
            self._is_place = attrs.get("t") == "s"
        self._taken = self._everything or local == "t" or (local == "v" and not self._is_place)

    def endElement(self, name: str) -> None:
        self._taken = self._everything
        if name.rpartition(":")[2] in _BREAKS:
            self._text.write("\n")

    def characters(self, content: str) -> None:
        if self._taken:
            self._text.write(content)
