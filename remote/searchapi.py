"""The wire for search. As `protocol`.

    GET    /v1/search?q=&kind=&type=&size_min=&size_max=&modified_after=&modified_before=&under=&limit=&after=   -> SearchPage

`q`: words, all of which the name has, or all of which the content has. Capitals and accents do not matter. In a name a word may
stand anywhere; in a content it is a word, or the beginning of one if it ends with `*`, or is the last of `q`. What stands between
double quotes is looked for as it is. A name that differs from the words by a letter or two is found, too, after all others.

`type` is a media type (`application/pdf`, `image/*`) or what a name ends with (`pdf`). Sizes (of files) and times are inclusive;
`under` is a folder. Without `q`, one of the others has to be given; what was modified last comes first then.

Hits are files and folders as they are now. The index follows some seconds after a change.
"""

from __future__ import annotations

from typing import Literal

from remote.protocol import Answer, Count, Hash, Id, Kind, Nanoseconds

QUERY_MAX = 500
"""Characters."""
LIMIT_DEFAULT, LIMIT_MAX = 50, 100
HITS_MAX = 1000
"""Of one query, over all pages."""


class Snippet(Answer):
    """Some of a content, as plain text."""

    text: str
    marks: list[tuple[int, int]]
    """The words that were looked for: [start, end), in characters (Unicode code points) of `text`."""


class SearchHit(Answer):
    path: str
    id: Id
    kind: Kind
    size: Count
    version: Hash | None
    """Of a file: names its content."""
    content_type: str | None
    """Of a file, by its name."""
    mtime_ns: Nanoseconds
    matched: list[Literal["name", "content"]]
    """Empty if no words were given."""
    snippet: Snippet | None
    """Null: the content did not match."""


class SearchPage(Answer):
    """The best hits first. `next`: what to give as `after` to go on; null: this was the last page."""

    hits: list[SearchHit]
    next: str | None = None
    up_to_date: bool
    """Whether the index knows all that was there when it was asked."""
