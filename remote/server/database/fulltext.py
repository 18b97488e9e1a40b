"""Full text, which is where the databases differ most: FTS5 in `fulltext_sqlite`, GIN and pg_trgm in `fulltext_postgresql`.

A row of the index has the id of its row in `search_names` or `search_contents`, and goes with it. Text comes folded
(`searchwords`), bodies as they are, in the normal form C. Nothing that a person typed is ever part of a statement.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from sqlalchemy import CTE, Connection

from remote.server.searchwords import Term

SCORED_MAX = 10_000
"""Rows of the index that one query goes on with."""


class TookTooLong(Exception):
    """The query was given up."""


class FullText(Protocol):
    """All find rows `(id, score)`, the lowest score first."""

    def add_names(self, connection: Connection, space: bytes, names: Sequence[tuple[int, str]]) -> None:
        """(id, folded name)."""

    def names_with(self, space: bytes, texts: Collection[str]) -> CTE:
        """Names that hold all of these."""

    def names_like(self, space: bytes, texts: Collection[str]) -> CTE:
        """Names that have some of the letters of these in their order, the most alike first."""

    def add_text(self, connection: Connection, space: bytes, id_: int, body: str) -> None: ...

    def texts_with(self, space: bytes, terms: Collection[Term]) -> CTE:
        """Contents that have all of these. Each term has a word."""

    def body(self, connection: Connection, id_: int) -> str:
        """The text as it was added."""

    def limited(self, connection: Connection, seconds: float) -> AbstractContextManager[None]:
        """`TookTooLong` if what is asked inside takes longer."""


def full_text(connection: Connection) -> FullText:
    """Of the connection's database."""
    if connection.dialect.name == "sqlite":
        from remote.server.database.fulltext_sqlite import SqliteFullText

        return SqliteFullText()
    from remote.server.database.fulltext_postgresql import PostgresFullText

    return PostgresFullText()
