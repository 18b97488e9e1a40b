"""Full text on PostgreSQL: names by pg_trgm, contents by `tsvector`. Both have GIN indexes.

The words of a vector and their places are made here, not by a parser that depends on the database's locale. It holds the space's
id as a word, too: the index is one for all.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from psycopg.errors import QueryCanceled
from sqlalchemy import CTE, Connection, Float, Integer, LargeBinary, String, TextClause, bindparam, text
from sqlalchemy.exc import OperationalError

from remote.server.database.fulltext import SCORED_MAX, TookTooLong
from remote.server.database.postgresql import STATEMENT_SECONDS
from remote.server.searchwords import WORD_MAX, Term, fold, words_of

_ALIKE = 0.25
"""As `word_similarity` counts: low, so that a short word with two letters swapped is among them."""
_VECTOR_MAX = 1_000_000
"""PostgreSQL takes 2**20 bytes of words and places."""
_PLACE_MAX, _PLACES_MAX = 16_383, 255
"""The last place that a vector knows, and how many of one word."""
_WORD_BYTES, _PLACE_BYTES = 8, 2
"""At most, beside the letters."""


class PostgresFullText:
    def add_names(self, connection: Connection, space: bytes, names: Sequence[tuple[int, str]]) -> None:
        rows = [{"id": id_, "space": space, "folded": folded} for id_, folded in names]
        if rows:
            connection.execute(_ADD_NAME, rows)

    def names_with(self, space: bytes, texts: Collection[str]) -> CTE:
        patterns = {f"pattern_{number}": f"%{_escaped(each)}%" for number, each in enumerate(texts)}
        conditions = " AND ".join(f"folded LIKE :{key}" for key in patterns)
        statement = text(
            "SELECT id, length(folded) AS score FROM search_name_index"
            f" WHERE space_id = :named_space AND {conditions} ORDER BY score, id LIMIT {SCORED_MAX}"
        )
        return _found(statement, "named", named_space=space, **patterns)

    def names_like(self, space: bytes, texts: Collection[str]) -> CTE:
        values = {f"like_{number}": each for number, each in enumerate(texts)}
        conditions = " AND ".join(f":{key} <% folded" for key in values)
        alike = " + ".join(f"word_similarity(:{key}, folded)" for key in values)
        statement = text(
            f"SELECT id, -({alike}) AS score FROM search_name_index"
            f" WHERE space_id = :alike_space AND {conditions} ORDER BY score, id LIMIT {SCORED_MAX}"
        )
        return _found(statement, "alike", alike_space=space, **values)

    def add_text(self, connection: Connection, space: bytes, id_: int, body: str) -> None:
        connection.execute(_ADD_TEXT, {"id": id_, "body": body, "words": _vector(space, body)})

    def texts_with(self, space: bytes, terms: Collection[Term]) -> CTE:
        query = " & ".join([f"'{space.hex()}'", *map(_term, terms)])
        statement = text(
            "SELECT id, -ts_rank_cd(words, CAST(:words_query AS tsquery)) AS score FROM search_text_index"
            f" WHERE words @@ CAST(:words_query AS tsquery) ORDER BY score, id LIMIT {SCORED_MAX}"
        )
        return _found(statement, "held", words_query=query)

    def body(self, connection: Connection, id_: int) -> str:
        return str(connection.execute(_BODY, {"id": id_}).scalar_one())

    @contextmanager
    def limited(self, connection: Connection, seconds: float) -> Iterator[None]:
        """Of each statement: there are few."""
        connection.exec_driver_sql(f"SET LOCAL statement_timeout = {int(seconds * 1000)}")
        connection.exec_driver_sql(f"SET LOCAL pg_trgm.word_similarity_threshold = {_ALIKE}")
        try:
            yield
        except OperationalError as error:
            if isinstance(error.orig, QueryCanceled):
                raise TookTooLong from error
            raise
        connection.exec_driver_sql(f"SET LOCAL statement_timeout = '{STATEMENT_SECONDS}s'")


_ADD_NAME = text("INSERT INTO search_name_index (id, space_id, folded) VALUES (:id, :space, :folded)")
_ADD_TEXT = text("INSERT INTO search_text_index (id, body, words) VALUES (:id, :body, CAST(:words AS tsvector))")
_BODY = text("SELECT body FROM search_text_index WHERE id = :id")


def _found(statement: TextClause, name: str, **values: Any) -> CTE:
    kinds = {key: LargeBinary() if isinstance(value, bytes) else String() for key, value in values.items()}
    bound = statement.bindparams(*(bindparam(key, value, kinds[key]) for key, value in values.items()))
    return bound.columns(id=Integer, score=Float).cte(name)


def _escaped(value: str) -> str:
    """A pattern of LIKE that means just this."""
    return value.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


def _vector(space: bytes, body: str) -> str:
    """The text of a `tsvector`, as much of the body as fits into one."""
    places: dict[str, list[int]] = {}
    size = 0
    for place, word in enumerate(words_of(fold(body)), start=1):
        if len(word) > WORD_MAX:
            continue
        known = places.get(word)
        if known is None:
            known = places[word] = []
            size += len(word.encode()) + _WORD_BYTES
        if len(known) < _PLACES_MAX:
            known.append(min(place, _PLACE_MAX))
            size += _PLACE_BYTES
        if size > _VECTOR_MAX:
            break
    return " ".join([f"'{space.hex()}'", *(f"'{word}':{','.join(map(str, at))}" for word, at in places.items())])


def _term(term: Term) -> str:
    """Of a `tsquery`. Words are letters and digits, so there is nothing to escape."""
    words = [f"'{word}'" for word in term.words]
    return "(" + " <-> ".join(words) + (":*" if term.is_prefix else "") + ")"
