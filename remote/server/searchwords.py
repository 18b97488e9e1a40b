"""What is looked for: a query taken apart, text made comparable, names that nearly fit, snippets. Pure."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

TERMS_MAX = 16
WORD_MAX = 100
"""Longer words are not in the index of contents."""
TYPO_MIN = 4
"""Shorter words are looked for as they are; so are those with a digit, which mean another thing with another one."""
_TWO_TYPOS_MIN = 8
_TERM = re.compile(r'"([^"]*)(?:"|$)|([^\s"]+)')
_WORD = re.compile(r"[^\W_]+")


class _Folding(dict[int, int]):
    """A letter to the one that stands for it: small, without accents. Always one for one, so that places stay."""

    def __missing__(self, code: int) -> int:
        apart = unicodedata.normalize("NFD", chr(code))
        small = (apart[0] if all(map(unicodedata.combining, apart[1:])) else chr(code)).lower()
        self[code] = ord(small) if len(small) == 1 else code
        return self[code]


_FOLDING = _Folding()


def fold(text: str) -> str:
    """As long as `text`, which is in the normal form C."""
    return text.lower() if text.isascii() else text.translate(_FOLDING)


def fold_name(name: str) -> str:
    return fold(unicodedata.normalize("NFC", name))


def words_of(folded: str) -> list[str]:
    return _WORD.findall(folded)


@dataclass(frozen=True, slots=True)
class Term:
    """Something that has to be there, folded."""

    text: str
    words: tuple[str, ...]
    """In a content they follow each other."""
    is_prefix: bool
    """The last word may go on."""


def parse(query: str) -> tuple[Term, ...]:
    """The first `TERMS_MAX`."""
    found = []
    matches = list(_TERM.finditer(query.replace("\0", " ")))
    for match in matches:
        quoted, plain = match.groups()
        text = fold_name(" ".join(quoted.split()) if plain is None else plain.rstrip("*") or plain)
        is_prefix = plain is not None and (plain.endswith("*") or match is matches[-1])
        if text:
            found.append(Term(text, tuple(words_of(text)), is_prefix))
    return tuple(found[:TERMS_MAX])


# ------------------------------------------------------------------------------------------------------------ contents

SNIPPET_BEFORE, SNIPPET_AFTER = 60, 160
"""Characters around the first word that was found."""
_WINDOW = 2**16


def snippet(body: str, terms: Sequence[Term]) -> tuple[str, list[tuple[int, int]]]:
    """Some of the text around the first of the words, and where words are in it: [start, end) of each."""
    pattern = re.compile("|".join(_pattern(term) for term in terms if term.words))
    at = _first(body, pattern)
    start, end = max(0, at - SNIPPET_BEFORE), at + SNIPPET_AFTER
    if start > 0:
        start = body.find(" ", start, at) + 1 or start
    if end < len(body):
        end = max(body.rfind(" ", at + 1, end), at + SNIPPET_BEFORE)
    shown = " ".join(body[start:end].split())
    return shown, [match.span() for match in pattern.finditer(fold(shown))]


def _pattern(term: Term) -> str:
    return r"(?<![^\W_])" + r"[\W_]+".join(map(re.escape, term.words)) + ("" if term.is_prefix else r"(?![^\W_])")


def _first(body: str, pattern: re.Pattern[str]) -> int:
    """Where the first match begins; 0 if there is none. The text is folded piece by piece, as far as that."""
    for start in range(0, len(body), _WINDOW):
        match = pattern.search(fold(body[start : start + _WINDOW + WORD_MAX]))
        if match is not None:
            return start + match.start()
    return 0


# --------------------------------------------------------------------------------------------------------------- names


class Fit(IntEnum):
    """How well a name fits, the best first."""

    WHOLE = 0
    BEGINNING = 1
    WORDS = 2
    INSIDE = 3
    NEARLY = 4


def fit(name: str, terms: Sequence[Term]) -> Fit | None:
    """Of a folded name; None: it does not."""
    if not all(term.text in name for term in terms):
        return Fit.NEARLY if all(term.text in name or _resembles(term.text, name) for term in terms) else None
    if len(terms) == 1 and terms[0].text in (name, name.rpartition(".")[0]):
        return Fit.WHOLE
    if name.startswith(terms[0].text):
        return Fit.BEGINNING
    words = words_of(name)
    return Fit.WORDS if all(any(word.startswith(term.text) for word in words) for term in terms) else Fit.INSIDE


def _resembles(wanted: str, name: str) -> bool:
    """Whether a word of the name differs by one letter that is wrong, missing, too many, or swapped; by two if it is long."""
    if len(wanted) < TYPO_MIN or not wanted.isalpha():
        return False
    allowed = 2 if len(wanted) >= _TWO_TYPOS_MIN else 1
    return any(abs(len(word) - len(wanted)) <= allowed and _distance(wanted, word) <= allowed for word in words_of(name))


def _distance(one: str, other: str) -> int:
    """Optimal string alignment (Damerau-Levenshtein with no letter moved twice)."""
    before: list[int] = []
    last = list(range(len(other) + 1))
    for i, a in enumerate(one, start=1):
        row = [i]
        for j, b in enumerate(other, start=1):
            cost = min(last[j] + 1, row[j - 1] + 1, last[j - 1] + (a != b))
            if i > 1 and j > 1 and a == other[j - 2] and one[i - 2] == b:
                cost = min(cost, before[j - 2] + 1)
            row.append(cost)
        before, last = last, row
    return last[-1]
