"""Statements for the metrics: a few counts, each from an index or a small table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, func, select

from remote.server.database.schema import accounts, dead_objects, devices, jobs
from remote.server.database.scrub import count_damaged


@dataclass(frozen=True, slots=True)
class State:
    accounts: int
    devices: int
    used_bytes: int
    dead_objects: int
    damaged_objects: int
    jobs: Mapping[str, int]
    """When each was last done; those that never were are left out."""


def state(connection: Connection) -> State:
    open_accounts, used = connection.execute(
        select(func.count(), func.coalesce(func.sum(accounts.c.used_bytes), 0)).where(accounts.c.closed_ns.is_(None))
    ).one()
    active = connection.execute(select(func.count()).select_from(devices).where(devices.c.removed_ns.is_(None))).scalar_one()
    dead = connection.execute(select(func.count()).select_from(dead_objects)).scalar_one()
    done = connection.execute(select(jobs.c.name, jobs.c.done_ns).where(jobs.c.done_ns > 0)).all()
    return State(
        int(open_accounts), int(active), int(used), int(dead), count_damaged(connection), {row.name: row.done_ns for row in done}
    )


def answers(connection: Connection) -> None:
    """The database does."""
    connection.execute(select(1)).scalar_one()
