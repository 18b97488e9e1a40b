"""Links to read objects by, and manifests: only what contents of a space name, and only for its members. Blocking."""

from __future__ import annotations

from collections.abc import Sequence

from remote.protocol import DownloadPlan, ManifestsAnswer, ProblemType, WantedManifest
from remote.server.access import member_of
from remote.server.database import contents as rows
from remote.server.database.engine import Database
from remote.server.devices import Caller
from remote.server.objects.store import LinkBase, ObjectStore, object_key
from remote.server.problems import Refused, not_found

MANIFESTS_BYTES_MAX = 64 * 2**20
"""Of one answer; the client asks for fewer at a time."""


class Downloads:
    def __init__(self, database: Database, store: ObjectStore, link_seconds: int) -> None:
        self._database = database
        self._store = store
        self._link_seconds = link_seconds

    def plan(self, caller: Caller, space: bytes, wanted: Sequence[bytes], base: LinkBase) -> DownloadPlan:
        """`Refused` (not found) if any of the objects is not one that a content of the space names."""
        with self._database.read() as connection:
            owner = member_of(connection, caller, space).owner
            named = rows.named_objects(connection, space, set(wanted))
            stored = rows.stored_objects(connection, owner, named)
        unknown = [id_.hex() for id_ in wanted if id_ not in stored]
        if unknown:
            raise not_found(f"This space has no object {unknown[0]}.")
        seconds = self._link_seconds
        links = [self._store.sign_get(base, object_key(owner, id_, stored[id_].generation), id_, seconds) for id_ in wanted]
        return DownloadPlan(links=links, expires_in=seconds)

    def manifests(self, caller: Caller, space: bytes, wanted: Sequence[WantedManifest]) -> ManifestsAnswer:
        with self._database.read() as connection:
            member_of(connection, caller, space)
            pairs = {(each.inode, each.manifest_id) for each in wanted}
            lengths = rows.manifest_lengths(connection, space, pairs)
            if len(pairs) > 1 and sum(lengths.values()) > MANIFESTS_BYTES_MAX:
                raise Refused(ProblemType.TOO_LARGE, "These manifests are too long for one answer; ask for fewer at a time.")
            bodies = rows.manifest_bodies(connection, space, {manifest_id for _, manifest_id in lengths})
        return ManifestsAnswer(
            manifests=[bodies.get(each.manifest_id) if (each.inode, each.manifest_id) in lengths else None for each in wanted]
        )
