"""Statements of the scrubber: the objects in their order, how far it is, and what it found damaged."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import Connection, bindparam, delete, func, insert, select, tuple_, update

from remote.server.database.schema import damaged_objects, objects, scrub_position


@dataclass(frozen=True, slots=True)
class Position:
    """The last object that was looked at; empty: none."""

    owner: bytes = b""
    object_id: bytes = b""


@dataclass(frozen=True, slots=True)
class ScrubbedObject:
    owner: bytes
    object_id: bytes
    generation: int
    length: int


def count(connection: Connection) -> int:
    return int(connection.execute(select(func.count()).select_from(objects)).scalar_one())


def after(connection: Connection, at: Position, limit: int) -> list[ScrubbedObject]:
    query = select(objects.c.owner, objects.c.object_id, objects.c.generation, objects.c.length)
    if at.owner:
        query = query.where(tuple_(objects.c.owner, objects.c.object_id) > tuple_(at.owner, at.object_id))
    rows = connection.execute(query.order_by(objects.c.owner, objects.c.object_id).limit(limit))
    return [ScrubbedObject(row.owner, row.object_id, row.generation, row.length) for row in rows]


def has(connection: Connection, each: ScrubbedObject) -> bool:
    """Whether this stored copy is the one that downloads use."""
    here = (objects.c.owner == each.owner) & (objects.c.object_id == each.object_id)
    found = connection.execute(select(objects.c.generation).where(here)).scalar_one_or_none()
    return found == each.generation


def position(connection: Connection) -> Position:
    row = connection.execute(select(scrub_position)).one_or_none()
    return Position() if row is None else Position(row.owner, row.object_id)


def put_position(connection: Connection, at: Position) -> None:
    connection.execute(delete(scrub_position))
    if at.owner:
        connection.execute(insert(scrub_position).values(owner=at.owner, object_id=at.object_id))


def note_damage(connection: Connection, each: ScrubbedObject, why: str, now_ns: int) -> None:
    here = (damaged_objects.c.owner == each.owner) & (damaged_objects.c.object_id == each.object_id)
    values = {"generation": each.generation, "length": each.length, "why": why}
    if connection.execute(update(damaged_objects).where(here).values(**values)).rowcount == 0:
        row = {"owner": each.owner, "object_id": each.object_id, "found_ns": now_ns, **values}
        connection.execute(insert(damaged_objects).values(row))


def forget_damage(connection: Connection, good: Collection[ScrubbedObject]) -> None:
    """They are good; and what is no object any more is none that is damaged."""
    if good and count_damaged(connection):
        here = (damaged_objects.c.owner == bindparam("of")) & (damaged_objects.c.object_id == bindparam("the_id"))
        connection.execute(delete(damaged_objects).where(here), [{"of": each.owner, "the_id": each.object_id} for each in good])
    alive = (objects.c.owner == damaged_objects.c.owner) & (objects.c.object_id == damaged_objects.c.object_id)
    connection.execute(delete(damaged_objects).where(~select(objects.c.owner).where(alive).exists()))


def count_damaged(connection: Connection) -> int:
    return int(connection.execute(select(func.count()).select_from(damaged_objects)).scalar_one())
