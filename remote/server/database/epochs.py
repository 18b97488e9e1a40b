"""Statements about epochs: the stretches of the service's history, and at which revision of each space they began."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, insert, select, update

from remote.server.database.schema import epoch_starts, epochs, spaces, upload_objects
from remote.server.database.tree import batches
from remote.server.database.uploads import UploadState


@dataclass(frozen=True, slots=True)
class Began:
    """An epoch, and the revisions at which it began (a space that is not named: at 0)."""

    epoch: str
    revisions: Mapping[bytes, int]


def current(connection: Connection) -> str:
    """The present epoch. There is one as soon as a service has been started."""
    return str(connection.execute(_CURRENT).scalar_one())


def has_begun(connection: Connection) -> bool:
    return connection.execute(_CURRENT).first() is not None


# Built once: every commit and every poll asks, since the service may be one of several processes, and learns of a new one here.
_CURRENT = select(epochs.c.epoch).order_by(epochs.c.serial.desc()).limit(1)


def begin(connection: Connection, epoch: str, now_ns: int) -> None:
    """The epoch begins, at what each space has reached: all are locked."""
    last = connection.execute(select(epochs.c.serial).order_by(epochs.c.serial.desc()).limit(1)).scalar_one_or_none()
    serial = 0 if last is None else last + 1
    connection.execute(insert(epochs).values(serial=serial, epoch=epoch, began_ns=now_ns))
    starts = [{"space_id": space, "serial": serial, "rev": rev} for space, rev in connection.execute(_ALL_SPACES)]
    if starts:
        connection.execute(insert(epoch_starts), starts)


_ALL_SPACES = select(spaces.c.id, spaces.c.rev).order_by(spaces.c.id).with_for_update(key_share=True)


def history(connection: Connection, of: Collection[bytes]) -> list[Began]:
    """All epochs in their order, with where they began in these spaces."""
    revisions: defaultdict[int, dict[bytes, int]] = defaultdict(dict)
    for some in batches(of):
        query = select(epoch_starts.c.serial, epoch_starts.c.space_id, epoch_starts.c.rev)
        for serial, space, rev in connection.execute(query.where(epoch_starts.c.space_id.in_(some))):
            revisions[serial][space] = rev
    found = connection.execute(select(epochs.c.serial, epochs.c.epoch).order_by(epochs.c.serial))
    return [Began(epoch, revisions[serial]) for serial, epoch in found]


def doubt_uploads(connection: Connection) -> None:
    """What was found in the store before may not be there now: it is asked again."""
    stored = upload_objects.c.state == UploadState.STORED
    connection.execute(update(upload_objects).where(stored).values(state=int(UploadState.PLANNED)))
