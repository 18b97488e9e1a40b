"""Full text on SQLite: two tables of FTS5. Names are cut into trigrams, contents into words.

The index is one for all spaces, so each row says whose it is in a way that FTS5 can look for: the space's id as a word, and for
trigrams as three characters of a private plane, which are one trigram. Two spaces may have the same three; whoever asks
compares the ids themselves.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

from sqlalchemy import CTE, Connection, Float, Integer, String, TextClause, bindparam, text
from sqlalchemy.exc import OperationalError

from remote.server.database.fulltext import SCORED_MAX, TookTooLong
from remote.server.searchwords import Term, words_of

_PLANE, _PLANE_SIZE = 0xF0000, 0xFFFE
_TRIGRAM = 3
_CHECK_EVERY = 10_000
"""Steps of SQLite's machine."""


class SqliteFullText:
    def add_names(self, connection: Connection, space: bytes, names: Sequence[tuple[int, str]]) -> None:
        rows = [{"id": id_, "space": _mark(space), "folded": folded, "words": _spaced(folded)} for id_, folded in names]
        if rows:
            connection.execute(_ADD_NAME, rows)

    def names_with(self, space: bytes, texts: Collection[str]) -> CTE:
        """Texts of one or two letters have no trigram: then the names themselves are looked through."""
        long = [f"folded : {_quoted(text)}" for text in texts if len(text) >= _TRIGRAM]
        conditions = [f"instr(folded, :short_{number}) > 0" for number in range(len(texts))]
        statement = text(
            "SELECT rowid AS id, length(folded) AS score FROM search_name_index"
            f" WHERE search_name_index MATCH :names_match AND {' AND '.join(conditions)} ORDER BY score, rowid LIMIT {SCORED_MAX}"
        )
        values = {f"short_{number}": each for number, each in enumerate(texts)}
        return _found(statement, "named", names_match=" AND ".join([f"space : {_quoted(_mark(space))}", *long]), **values)

    def names_like(self, space: bytes, texts: Collection[str]) -> CTE:
        """By FTS5's own order: the more trigrams, and the rarer they are, the better."""
        parts = [" OR ".join(f"words : {_quoted(each)}" for each in sorted(_trigrams(_spaced(text)))) for text in texts]
        match = " AND ".join([f"space : {_quoted(_mark(space))}", *(f"({part})" for part in parts if part)])
        statement = text(
            "SELECT rowid AS id, bm25(search_name_index, 0.0, 0.0, 1.0) AS score FROM search_name_index"
            f" WHERE search_name_index MATCH :like_match ORDER BY score, rowid LIMIT {SCORED_MAX}"
        )
        return _found(statement, "alike", like_match=match)

    def add_text(self, connection: Connection, space: bytes, id_: int, body: str) -> None:
        connection.execute(_ADD_TEXT, {"id": id_, "space": space.hex(), "body": body})

    def texts_with(self, space: bytes, terms: Collection[Term]) -> CTE:
        parts = [_quoted(" ".join(term.words)) + (" *" if term.is_prefix else "") for term in terms]
        match = " AND ".join([f"space : {_quoted(space.hex())}", *(f"body : {part}" for part in parts)])
        statement = text(
            "SELECT rowid AS id, bm25(search_text_index, 0.0, 1.0) AS score FROM search_text_index"
            f" WHERE search_text_index MATCH :texts_match ORDER BY score, rowid LIMIT {SCORED_MAX}"
        )
        return _found(statement, "held", texts_match=match)

    def body(self, connection: Connection, id_: int) -> str:
        return str(connection.execute(_BODY, {"id": id_}).scalar_one())

    @contextmanager
    def limited(self, connection: Connection, seconds: float) -> Iterator[None]:
        driver = connection.connection.driver_connection
        assert isinstance(driver, sqlite3.Connection)
        until = time.monotonic() + seconds
        driver.set_progress_handler(lambda: int(time.monotonic() > until), _CHECK_EVERY)
        try:
            yield
        except OperationalError as error:
            if str(error.orig) == "interrupted":
                raise TookTooLong from error
            raise
        finally:
            driver.set_progress_handler(None, 0)


_ADD_NAME = text("INSERT INTO search_name_index (rowid, space, folded, words) VALUES (:id, :space, :folded, :words)")
_ADD_TEXT = text("INSERT INTO search_text_index (rowid, space, body) VALUES (:id, :space, :body)")
_BODY = text("SELECT body FROM search_text_index WHERE rowid = :id")


def _found(statement: TextClause, name: str, **values: str) -> CTE:
    bound = statement.bindparams(*(bindparam(key, value, String) for key, value in values.items()))
    return bound.columns(id=Integer, score=Float).cte(name)


def _quoted(value: str) -> str:
    """A string of FTS5: nothing in it has a meaning."""
    return '"' + value.replace('"', '""') + '"'


def _mark(space: bytes) -> str:
    number, letters = int.from_bytes(space[:6], "big"), []
    for _ in range(_TRIGRAM):
        number, digit = divmod(number, _PLANE_SIZE)
        letters.append(chr(_PLANE + digit))
    return "".join(letters)


def _spaced(folded: str) -> str:
    """Its words, each with a space before and after it, so that beginnings and ends have trigrams of their own."""
    return f" {' '.join(words_of(folded))} "


def _trigrams(spaced: str) -> set[str]:
    return {spaced[at : at + _TRIGRAM] for at in range(len(spaced) - _TRIGRAM + 1)}
