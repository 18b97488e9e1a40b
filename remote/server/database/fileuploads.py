"""Statements about uploads of plain clients: the planned content, and what became of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection, Row, delete, func, insert, select, update

from remote.fileapi import OnConflict
from remote.server.database.schema import file_uploads, manifests, versions


@dataclass(frozen=True, slots=True)
class FileUploadRow:
    space_id: bytes
    id: bytes
    account_id: bytes
    path: str
    size: int
    sha256: bytes
    type: str | None
    mtime_ns: int | None
    on_conflict: OnConflict
    manifest: bytes
    inode: bytes | None
    created_ns: int
    last_used_ns: int


def find(connection: Connection, account: bytes, id_: bytes) -> FileUploadRow | None:
    mine = (file_uploads.c.account_id == account) & (file_uploads.c.id == id_)
    row = connection.execute(select(file_uploads).where(mine)).one_or_none()
    return None if row is None else _row(row)


def find_open(connection: Connection, space: bytes, account: bytes, path: str, sha256: bytes, size: int) -> FileUploadRow | None:
    """The upload of this content to this path that is in progress."""
    query = select(file_uploads).where(
        file_uploads.c.space_id == space,
        file_uploads.c.account_id == account,
        file_uploads.c.path == path,
        file_uploads.c.sha256 == sha256,
        file_uploads.c.size == size,
        file_uploads.c.inode.is_(None),
    )
    row = connection.execute(query.limit(1)).one_or_none()
    return None if row is None else _row(row)


def all_open(connection: Connection, account: bytes, sha256: bytes | None, limit: int) -> Sequence[FileUploadRow]:
    """The account's uploads in progress, the last used ones first."""
    query = select(file_uploads).where(file_uploads.c.account_id == account, file_uploads.c.inode.is_(None))
    if sha256 is not None:
        query = query.where(file_uploads.c.sha256 == sha256)
    rows = connection.execute(query.order_by(file_uploads.c.last_used_ns.desc(), file_uploads.c.id).limit(limit))
    return [_row(row) for row in rows]


def count(connection: Connection, account: bytes) -> int:
    query = select(func.count()).select_from(file_uploads).where(file_uploads.c.account_id == account)
    return int(connection.execute(query).scalar_one())


def count_open(connection: Connection, account: bytes) -> int:
    """Those in progress."""
    query = select(func.count()).select_from(file_uploads)
    return int(connection.execute(query.where(file_uploads.c.account_id == account, file_uploads.c.inode.is_(None))).scalar_one())


def forget_unused(connection: Connection, account: bytes, since_ns: int) -> None:
    """Those that were last used before `since_ns`."""
    old = (file_uploads.c.account_id == account) & (file_uploads.c.last_used_ns < since_ns)
    connection.execute(delete(file_uploads).where(old))


def forget(connection: Connection, account: bytes, id_: bytes) -> bool:
    """Whether it was there."""
    mine = (file_uploads.c.account_id == account) & (file_uploads.c.id == id_)
    return connection.execute(delete(file_uploads).where(mine)).rowcount > 0


def add(connection: Connection, row: FileUploadRow) -> None:
    connection.execute(insert(file_uploads).values(**asdict(row)))


def put(connection: Connection, row: FileUploadRow) -> None:
    """Write all that may have changed of a row that is there."""
    here = (file_uploads.c.space_id == row.space_id) & (file_uploads.c.id == row.id)
    connection.execute(update(file_uploads).where(here).values(**asdict(row)))


def used(connection: Connection, space: bytes, id_: bytes, now_ns: int) -> None:
    here = (file_uploads.c.space_id == space) & (file_uploads.c.id == id_)
    connection.execute(update(file_uploads).where(here).values(last_used_ns=now_ns))


def find_content(connection: Connection, space: bytes, sha256: bytes, size: int) -> bytes | None:
    """The manifest of a content that some file of the space has or had."""
    query = (
        select(manifests.c.body)
        .join_from(
            versions, manifests, (manifests.c.space_id == versions.c.space_id) & (manifests.c.id == versions.c.manifest_id)
        )
        .where(versions.c.space_id == space, versions.c.sha256 == sha256, versions.c.size == size)
        .limit(1)
    )
    found: bytes | None = connection.execute(query).scalar_one_or_none()
    return found


def _row(row: Row[Any]) -> FileUploadRow:
    fields = row._asdict()
    return FileUploadRow(**{**fields, "on_conflict": OnConflict(row.on_conflict)})
