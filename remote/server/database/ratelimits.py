"""Statements about rate limits: a row for each bucket that is not empty."""

from __future__ import annotations

from sqlalchemy import Connection, case, delete, insert, select, update

from remote.server.database.schema import rate_limits

EMPTIED_AT_ONCE = 20
"""Rows of buckets that have run empty are removed by who comes along, so many at a time."""
SEEN_AT_ONCE = 5
"""Another's row, or what it took out of one, may be seen by the second of two statements only: then both are repeated."""


def pour(connection: Connection, key: bytes, amount_ns: int, size_ns: int, now_ns: int) -> int:
    """Pour into the bucket if that fits, and answer 0; or the nanoseconds until it will fit. The bucket empties by itself,
    a nanosecond in each."""
    empty_ns = case((rate_limits.c.empty_ns > now_ns, rate_limits.c.empty_ns), else_=now_ns)
    fits = (rate_limits.c.key == key) & (rate_limits.c.empty_ns + amount_ns <= now_ns + size_ns)
    for _ in range(SEEN_AT_ONCE):
        if connection.execute(update(rate_limits).where(fits).values(empty_ns=empty_ns + amount_ns)).rowcount:
            return 0
        full = connection.execute(select(rate_limits.c.empty_ns).where(rate_limits.c.key == key)).scalar()
        if full is None:
            connection.execute(insert(rate_limits).values(key=key, empty_ns=now_ns + amount_ns))
            return 0
        wait_ns = int(full) + amount_ns - now_ns - size_ns
        if wait_ns > 0:
            return wait_ns
    return 1


def take_out(connection: Connection, key: bytes, amount_ns: int) -> None:
    connection.execute(update(rate_limits).where(rate_limits.c.key == key).values(empty_ns=rate_limits.c.empty_ns - amount_ns))


def remove_empty(connection: Connection, now_ns: int) -> None:
    """The last statement of a transaction: it waits for nobody's lock, so that nobody can wait in a circle."""
    empty = select(rate_limits.c.key).where(rate_limits.c.empty_ns <= now_ns).limit(EMPTIED_AT_ONCE)
    connection.execute(
        delete(rate_limits).where(rate_limits.c.key.in_(empty.with_for_update(skip_locked=True).scalar_subquery()))
    )
