"""The text of a content, as far as it can be read. Blocking.

Plain text is decoded here. What takes a library (PDF, office documents) is read in a child process (`extractor`) that has nothing
of the service: no environment, no connection, no right to open anything, and only so much memory and time. If it dies of a
document, that document has no text, and nothing else happens.
"""

from __future__ import annotations

import codecs
import re
import subprocess
import sys
import threading
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import IO, Literal

from remote.server.mediatypes import media_type

TEXT_MAX = 2**19
"""Characters of one content that are in the index."""
TEXT_BYTES_MAX = 2**20
"""Of a plain text that are looked at."""
DOCUMENT_MAX = 32 * 2**20
"""Larger documents are not read."""
SECONDS = 30.0
"""By the clock on the wall; the child has its own limit on the processor's time."""

Kind = Literal["pdf", "office"]
Read = Callable[[int], bytes]
"""So many bytes from the beginning, or all there are."""

_MAGIC_WITHIN = 1024
"""Where readers of PDF look for its beginning."""
_OFFICE = {"docx", "docm", "dotx", "xlsx", "xlsm", "pptx", "pptm", "ppsx", "odt", "ods", "odp", "ott"}
_NO_TEXT = ("image/", "audio/", "video/", "font/")
_OUTPUT_MAX = 4 * TEXT_MAX
_ROOT = str(Path(__file__).resolve().parents[2])
_BOOT = "import sys; sys.path.insert(0, sys.argv[1]); from remote.server.extractor import main; main()"
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]+")
_BINARY = bytes({*range(8), *range(14, 27), *range(28, 32)})
_BOMS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))


def may_have_text(name: str, size: int) -> bool:
    """Whether it is worth a look."""
    return size > 0 and not media_type(name).startswith(_NO_TEXT)


def is_document(name: str) -> bool:
    """Whether the name decides what a content is taken for."""
    return name.lower().rpartition(".")[2] in _OFFICE


def text_of(name: str, size: int, read: Read) -> str | None:
    """In the normal form C, without control characters; None: there is none. `OSError` if no process can be started."""
    data = read(TEXT_BYTES_MAX)
    kind = _kind_of(name, data)
    if kind is None:
        text = _decoded(data)
    elif size > DOCUMENT_MAX:
        return None
    else:
        text = _by_child(kind, data if len(data) == size else read(size))
    if text is None or not text.strip():
        return None
    return unicodedata.normalize("NFC", _CONTROLS.sub(" ", text[:TEXT_MAX]))[:TEXT_MAX]


def _kind_of(name: str, data: bytes) -> Kind | None:
    if b"%PDF-" in data[:_MAGIC_WITHIN]:
        return "pdf"
    return "office" if data.startswith(b"PK\3\4") and is_document(name) else None


def _decoded(data: bytes) -> str | None:
    """UTF-8, or UTF-16 if it says so; else the usual code page of one byte for each character, if nothing speaks against it."""
    for bom, encoding in _BOMS:
        if data.startswith(bom):
            return codecs.getincrementaldecoder(encoding)("replace").decode(data[len(bom) :])
    if data.translate(None, _BINARY) != data:
        return None
    try:
        return codecs.getincrementaldecoder("utf-8")().decode(data, len(data) < TEXT_BYTES_MAX)  # a letter may be cut
    except UnicodeDecodeError:
        return data.decode("cp1252", "replace")


def _by_child(kind: Kind, data: bytes) -> str | None:
    """What it wrote before it ended, however it did."""
    with subprocess.Popen(
        [sys.executable, "-I", "-c", _BOOT, _ROOT, kind],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env={}, cwd="/", close_fds=True,
    ) as child:  # fmt: skip
        assert child.stdin is not None
        assert child.stdout is not None
        too_late = threading.Timer(SECONDS, child.kill)
        too_late.start()
        try:
            _feed(child.stdin, data)
            written = child.stdout.read(_OUTPUT_MAX)
        finally:
            too_late.cancel()
            child.kill()
    return written.decode(errors="replace") or None


def _feed(stdin: IO[bytes], data: bytes) -> None:
    try:
        with stdin:
            stdin.write(data)
    except BrokenPipeError:
        return  # it has ended before it read all
