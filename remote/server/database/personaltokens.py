"""Statements about personal access tokens. A revoked one stays: versions name it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from sqlalchemy import ColumnElement, Connection, Row, insert, or_, select, update

from remote.server.database.schema import personal_tokens as tokens


@dataclass(frozen=True, slots=True)
class PersonalTokenRow:
    account_id: bytes
    id: bytes
    token_hash: bytes
    name: str
    scopes: str
    created_ns: int
    expires_ns: int | None
    last_used_ns: int | None = None
    revoked_ns: int | None = None


def add(connection: Connection, token: PersonalTokenRow) -> None:
    connection.execute(insert(tokens).values(asdict(token)))


def find(connection: Connection, token_hash: bytes, now_ns: int) -> PersonalTokenRow | None:
    """The token, if it is good."""
    row = connection.execute(select(tokens).where(_good(now_ns), tokens.c.token_hash == token_hash)).one_or_none()
    return None if row is None else _token(row)


def good(connection: Connection, account: bytes, now_ns: int) -> Sequence[PersonalTokenRow]:
    query = select(tokens).where(_good(now_ns), tokens.c.account_id == account).order_by(tokens.c.created_ns, tokens.c.id)
    return [_token(row) for row in connection.execute(query)]


def used(connection: Connection, account: bytes, token: bytes, now_ns: int) -> None:
    connection.execute(update(tokens).where(tokens.c.account_id == account, tokens.c.id == token).values(last_used_ns=now_ns))


def revoke(connection: Connection, account: bytes, token: bytes, now_ns: int) -> bool:
    """Whether it was good."""
    here = _good(now_ns) & (tokens.c.account_id == account) & (tokens.c.id == token)
    return connection.execute(update(tokens).where(here).values(revoked_ns=now_ns)).rowcount == 1


def revoke_all(connection: Connection, account: bytes, now_ns: int, *, but: bytes | None = None) -> None:
    here = _good(now_ns) & (tokens.c.account_id == account)
    if but is not None:
        here &= tokens.c.id != but
    connection.execute(update(tokens).where(here).values(revoked_ns=now_ns))


def _good(now_ns: int) -> ColumnElement[bool]:
    return tokens.c.revoked_ns.is_(None) & or_(tokens.c.expires_ns.is_(None), tokens.c.expires_ns > now_ns)


def _token(row: Row[tuple[object, ...]]) -> PersonalTokenRow:
    return PersonalTokenRow(**row._mapping)
