"""What a file may be called: the rule that client and service both enforce (the service on requests, the client on the feed)."""

from __future__ import annotations

MAX_NAME_BYTES = 255
MAX_TARGET_BYTES = 4095


class BadName(ValueError):
    """A name that no directory may hold: empty, `.`, `..`, with `/` or NUL, over 255 bytes, or not UTF-8."""


def check_name(name: str) -> str:
    """Return `name` if a directory entry may be called so, else raise `BadName`."""
    if name in ("", ".", ".."):
        raise BadName(f"{name!r} is not a file name")
    if "/" in name or "\0" in name:
        raise BadName(f"{name!r} contains a slash or a NUL")
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise BadName(f"{name!r} is not valid Unicode") from None
    if size > MAX_NAME_BYTES:
        raise BadName(f"a name of {size} bytes; {MAX_NAME_BYTES} are allowed")
    return name
