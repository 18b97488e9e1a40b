"""Statements about public links. What is revoked, or leads to nothing any more, is removed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from sqlalchemy import ColumnElement, Connection, Row, delete, exists, insert, or_, select, update

from remote.server.database.schema import inodes
from remote.server.database.schema import public_links as links


@dataclass(frozen=True, slots=True)
class PublicLinkRow:
    account_id: bytes
    id: bytes
    token_hash: bytes
    space_id: bytes
    inode: bytes
    password_hash: str | None
    created_ns: int
    expires_ns: int | None
    downloads: int
    downloads_max: int | None
    last_used_ns: int | None

    @property
    def is_used_up(self) -> bool:
        return self.downloads_max is not None and self.downloads >= self.downloads_max


def add(connection: Connection, link: PublicLinkRow) -> None:
    connection.execute(insert(links).values(asdict(link)))


def find(connection: Connection, token_hash: bytes, now_ns: int) -> PublicLinkRow | None:
    """The link, if it has not expired; it may be used up."""
    row = connection.execute(select(links).where(_alive(now_ns), links.c.token_hash == token_hash)).one_or_none()
    return None if row is None else _link(row)


def good(connection: Connection, account: bytes, now_ns: int) -> Sequence[PublicLinkRow]:
    here = _alive(now_ns) & _more() & (links.c.account_id == account)
    query = select(links).where(here).order_by(links.c.created_ns, links.c.id)
    return [_link(row) for row in connection.execute(query)]


def count_download(connection: Connection, link: PublicLinkRow, now_ns: int) -> bool:
    """Whether there was one left."""
    here = _alive(now_ns) & _more() & (links.c.account_id == link.account_id) & (links.c.id == link.id)
    counted = update(links).where(here).values(downloads=links.c.downloads + 1, last_used_ns=now_ns)
    return connection.execute(counted).rowcount == 1


def revoke(connection: Connection, account: bytes, link: bytes) -> bool:
    """Whether there was one."""
    return connection.execute(delete(links).where(links.c.account_id == account, links.c.id == link)).rowcount == 1


def forget_dead(connection: Connection, account: bytes, before_ns: int) -> None:
    """Those of the account that expired before then, and those whose file or folder is gone for good."""
    there = exists().where(inodes.c.space_id == links.c.space_id, inodes.c.id == links.c.inode)
    connection.execute(delete(links).where(links.c.account_id == account, ~_alive(before_ns) | ~there))


def _alive(now_ns: int) -> ColumnElement[bool]:
    return or_(links.c.expires_ns.is_(None), links.c.expires_ns > now_ns)


def _more() -> ColumnElement[bool]:
    return or_(links.c.downloads_max.is_(None), links.c.downloads < links.c.downloads_max)


def _link(row: Row[tuple[object, ...]]) -> PublicLinkRow:
    return PublicLinkRow(**row._mapping)
