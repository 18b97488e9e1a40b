"""The wire for public links: a file or folder for whoever has the address, without an account. As `protocol`.

    GET    /v1/links?path=                                           -> PublicLinkList
    POST   /v1/links                                     LinkRequest -> NewPublicLink
    DELETE /v1/links/{link}                                          -> 204
    GET    /link/{token}?ticket=                                     -> the bytes      (Range, If-Range)
    HEAD   /link/{token}?ticket=

A link leads to what it was made for, wherever that is moved and whatever it holds by then; to nothing while that is in the
trash. A folder comes as a zip archive: its files and folders, no symlinks. The password of a link is sent as that of HTTP Basic
authentication, for any user. Where a link has a password or a limit, a `GET` is one download: it answers 303 to an address with a
ticket, which is good for an hour, for the version that the file had, and for as many resumptions as it takes.

Whatever is wrong with a link, its address answers 404: never made, revoked, expired, used up, or what it led to is gone.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from remote.fileapi import Path
from remote.protocol import Answer, Count, Id, Kind, Nanoseconds, Request

PASSWORD_MIN, PASSWORD_MAX = 6, 128
DAYS_DEFAULT, DAYS_MAX = 30, 3660


class LinkRequest(Request):
    path: Path
    expires_in_days: Annotated[int, Field(ge=1, le=DAYS_MAX)] | None = DAYS_DEFAULT
    """Null: it never expires."""
    password: Annotated[str, Field(min_length=PASSWORD_MIN, max_length=PASSWORD_MAX)] | None = None
    downloads_max: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """Null: as many as people like."""


class PublicLink(Answer):
    id: Id
    inode: Id
    path: str | None
    """Where it leads to now; null: to nothing, because that has no name."""
    kind: Kind
    created_ns: Nanoseconds
    expires_ns: Nanoseconds | None
    has_password: bool
    downloads: Count
    """So far. Without a limit, those that began at the beginning."""
    downloads_max: Count | None
    last_used_ns: Nanoseconds | None


class NewPublicLink(Answer):
    link: PublicLink
    url: str
    """Nobody can tell it again."""


class PublicLinkList(Answer):
    """Those of the account that are good, the oldest first: neither revoked, nor expired, nor used up."""

    links: list[PublicLink]
    limit: int
