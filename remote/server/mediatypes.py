"""What a file's name says of its type, and how a browser may be given it so that it never runs as a page of the service. Pure."""

from __future__ import annotations

import mimetypes
from urllib.parse import quote

OTHER = "application/octet-stream"
_KNOWN = mimetypes.MimeTypes()
"""Python's own table: what is installed on the machine would make the answer depend on it."""
_SHOWN = {
    "application/pdf",
    *(f"image/{kind}" for kind in ("png", "jpeg", "gif", "webp", "avif", "bmp", "vnd.microsoft.icon")),
    *(f"audio/{kind}" for kind in ("mpeg", "ogg", "wav", "x-wav", "aac", "flac", "mp4", "webm")),
    *(f"video/{kind}" for kind in ("mp4", "webm", "ogg", "quicktime")),
    "text/plain",
}
"""No markup and no script in any of them."""


def media_type(name: str) -> str:
    """`text/html` for `page.html`: what it is, not what a browser may be told."""
    found, encoding = _KNOWN.guess_type(f"./{name}")  # a path, so that no name is taken for a URL
    return found if found is not None and encoding is None else OTHER


def extensions_of(kind: str) -> frozenset[str]:
    """What the names of files of a media type end with, without the dot; `image/*` is all of them."""
    main, _, sub = kind.lower().partition("/")
    known = _KNOWN.types_map[True]
    fitting = (dotted for dotted, each in known.items() if each == kind.lower() or (sub == "*" and each.startswith(f"{main}/")))
    return frozenset(dotted.removeprefix(".") for dotted in fitting)


def served_as(name: str, *, inline: bool) -> dict[str, str]:
    """Headers of an answer that is the file's bytes."""
    kind = media_type(name)
    shown = kind in _SHOWN
    told = "text/plain; charset=utf-8" if kind == "text/plain" else kind if shown else OTHER
    return _headers(name, told, "inline" if inline and shown else "attachment")


def as_attachment(name: str, kind: str) -> dict[str, str]:
    """Headers of an answer that is to be saved under this name."""
    return _headers(name, kind, "attachment")


def _headers(name: str, kind: str, how: str) -> dict[str, str]:
    return {
        "content-type": kind,
        "content-disposition": f"{how}; filename=\"{_plain(name)}\"; filename*=UTF-8''{quote(name, safe='')}",
        "x-content-type-options": "nosniff",
        "content-security-policy": "sandbox; default-src 'none'",
    }


def _plain(name: str) -> str:
    """For clients that do not know `filename*` (RFC 6266)."""
    return "".join(each if each.isascii() and each.isprintable() and each not in '"\\%/' else "_" for each in name)
