"""Search: what is in the caller's tree now and fits. Blocking.

The index gives candidates, the tree says what of them is there, and how it is called. Which of two hits is better is decided
here, the same for both databases; a page is a slice of the whole order, which is short (`HITS_MAX`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from sqlalchemy import Connection

from remote.protocol import Kind, ProblemType
from remote.searchapi import HITS_MAX, SearchHit, SearchPage, Snippet
from remote.server.database import search as rows
from remote.server.database.engine import Database
from remote.server.database.fulltext import TookTooLong, full_text
from remote.server.database.search import Criteria, FoundEntry
from remote.server.database.tree import Key
from remote.server.devices import Caller
from remote.server.files import open_path, open_trees
from remote.server.mediatypes import extensions_of, media_type
from remote.server.paths import MAX_DEPTH, find, split_path
from remote.server.problems import Refused
from remote.server.searchwords import Fit, Term, fit, fold_name, parse, snippet
from remote.server.tree import ROOT_KEY, Tree

QUERY_SECONDS = 5.0
ALIKE_ENOUGH = 20
"""With so many hits, names that fit nearly are not looked for."""
RETRY_SECONDS = 5


@dataclass(frozen=True, slots=True)
class Wanted:
    query: str
    kind: Kind | None = None
    type: str | None = None
    size_min: int | None = None
    size_max: int | None = None
    modified_after_ns: int | None = None
    modified_before_ns: int | None = None
    under: str | None = None

    def criteria(self) -> Criteria:
        return Criteria(
            kind=self.kind,
            extensions=None if self.type is None else _extensions(self.type),
            size_min=self.size_min,
            size_max=self.size_max,
            modified_after_ns=self.modified_after_ns,
            modified_before_ns=self.modified_before_ns,
        )


@dataclass(slots=True)
class _Hit:
    entry: FoundEntry
    space: bytes
    rank: int = 0
    """By what it was found: a name, a content, a name that is nearly so."""
    matched: list[Literal["name", "content"]] = field(default_factory=list)
    text: int | None = None


class Search:
    def __init__(self, database: Database) -> None:
        self._database = database

    def page(self, caller: Caller, wanted: Wanted, start: int, limit: int) -> SearchPage:
        """The hits from number `start` on. `Refused`."""
        terms, criteria = parse(wanted.query), wanted.criteria()
        names = None if wanted.under is None else split_path(wanted.under, "under")
        if not terms and criteria == Criteria() and names is None:
            raise Refused(ProblemType.INVALID, "Say what to look for: words, or what it has to be.", field="q")
        with self._database.read() as connection:
            under = None
            if names:
                tree, inner = open_path(connection, caller, names, enter=True)
                trees, under = [tree], find(tree, inner)[1].id
            else:
                trees = list(open_trees(connection, caller))
            try:
                with full_text(connection).limited(connection, QUERY_SECONDS):
                    found = [hit for tree in trees for hit in self._find(connection, tree, terms, criteria, under)]
            except TookTooLong as error:
                text = "That takes too long: look for more, or longer, words."
                raise Refused(ProblemType.UNAVAILABLE, text, retry_after_seconds=RETRY_SECONDS) from error
            found.sort(key=lambda hit: hit.rank)  # stable: what one space has stays in its order
            shown = found[start : start + limit]
            paths: dict[Key, str] = {}
            for tree in trees:
                paths |= _paths(tree, [hit.entry.key for hit in shown if hit.space == tree.root])
            hits = [_public(hit, paths[hit.entry.key], _snippet(connection, hit, terms)) for hit in shown]
            up_to_date = all(rows.is_up_to_date(connection, tree.root) for tree in trees)
        return SearchPage(hits=hits, next=str(start + limit) if len(found) > start + limit else None, up_to_date=up_to_date)

    def _find(
        self, connection: Connection, tree: Tree, terms: Sequence[Term], criteria: Criteria, under: bytes | None
    ) -> list[_Hit]:
        """The best first."""
        text, space = full_text(connection), tree.root
        if not terms:
            return [_Hit(entry, space) for entry in _below(tree, under, rows.find_all(connection, space, criteria, HITS_MAX))]
        hits: dict[Key, _Hit] = {}
        texts = [term.text for term in terms]
        exact = rows.find_names(connection, space, text.names_with(space, texts), criteria, HITS_MAX)
        for entry in _best_names(_below(tree, under, exact), terms):
            hits[entry.key] = _Hit(entry, space, 0, ["name"])
        if all(term.words for term in terms):
            held = rows.find_texts(connection, space, text.texts_with(space, terms), criteria, HITS_MAX)
            for entry in _below(tree, under, held):
                hit = hits.setdefault(entry.key, _Hit(entry, space, 1))
                hit.matched.append("content")
                hit.text = entry.text
        if len(hits) < ALIKE_ENOUGH:
            alike = rows.find_names(connection, space, text.names_like(space, texts), criteria, HITS_MAX)
            for entry in _best_names(_below(tree, under, alike), terms):
                hits.setdefault(entry.key, _Hit(entry, space, 2, ["name"]))
        return list(hits.values())[:HITS_MAX]


def _best_names(found: Sequence[FoundEntry], terms: Sequence[Term]) -> list[FoundEntry]:
    fits: list[tuple[Fit, int, FoundEntry]] = []
    for number, entry in enumerate(found):
        how = fit(fold_name(entry.key[1]), terms)
        if how is not None:
            fits.append((how, number, entry))
    return [entry for _, _, entry in sorted(fits, key=lambda each: each[:2])]


def _below(tree: Tree, folder: bytes | None, found: Sequence[FoundEntry]) -> Sequence[FoundEntry]:
    """Those that are in the folder, or in one in it."""
    if folder is None:
        return found
    _load(tree, [entry.key for entry in found])
    return [entry for entry in found if folder in _above(tree, entry.key)]


def _paths(tree: Tree, keys: Sequence[Key]) -> dict[Key, str]:
    _load(tree, keys)
    paths = {}
    for key in keys:
        names = [key[1], *(min(tree.names(folder))[1] for folder in _above(tree, key) if folder != tree.root)]
        paths[key] = f"{tree.prefix}/{'/'.join(reversed(names))}"
    return paths


def _load(tree: Tree, keys: Sequence[Key]) -> None:
    tree.prefetch([], {parent for parent, _ in keys})


def _above(tree: Tree, key: Key) -> Iterator[bytes]:
    """The folders above, from the nearest one to the root."""
    folder = key[0]
    for _ in range(MAX_DEPTH):
        yield folder
        if folder == tree.root:
            return
        folder = min(tree.names(folder), default=ROOT_KEY)[0]


def _extensions(kind: str) -> frozenset[str]:
    return extensions_of(kind) if "/" in kind else frozenset([fold_name(kind.removeprefix("."))])


def _snippet(connection: Connection, hit: _Hit, terms: Sequence[Term]) -> Snippet | None:
    """Texts are read one by one: they are long."""
    if hit.text is None:
        return None
    text, marks = snippet(full_text(connection).body(connection, hit.text), terms)
    return Snippet(text=text, marks=marks)


def _public(hit: _Hit, path: str, found: Snippet | None) -> SearchHit:
    row = hit.entry.inode
    return SearchHit(
        path=path,
        id=row.id,
        kind=Kind.DIRECTORY if row.kind is Kind.MOUNT else row.kind,
        size=row.size or 0,
        version=row.manifest_id,
        content_type=media_type(hit.entry.key[1]) if row.kind is Kind.FILE else None,
        mtime_ns=row.attributes.mtime_ns,
        matched=hit.matched,
        snippet=found,
    )
