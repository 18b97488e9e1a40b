"""Upload sessions: which objects are missing, room for them, links to send them by, and whether they came. Blocking.

An object counts as present for a caller only if a space that the caller may read names it, or the caller uploaded it in an open
session. Whatever else the owner's spaces hold, the caller is told to upload it, to a key (a generation) of its own: so an
object that is found under that key proves that the caller had the bytes, and not only their hash.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from sqlalchemy import Connection

from remote.crashpoints import crash_point
from remote.manifest import OBJECT_STORED_MAX
from remote.protocol import FileToUpload, Link, ObjectToUpload, ProblemType, UploadPlan
from remote.server import filelimits
from remote.server.access import writer_of
from remote.server.config import TierConfig
from remote.server.database import contents as content_rows
from remote.server.database import uploads as rows
from remote.server.database.engine import Database
from remote.server.database.uploads import Upload, UploadState
from remote.server.devices import Caller
from remote.server.objects.store import LinkBase, ObjectStore, Stored, StoreUnavailable, object_key
from remote.server.problems import Refused
from remote.server.quota import SESSION_NS, TierOf, load_budget

STORE_RETRY_SECONDS = 10


class Uploads:
    def __init__(
        self,
        database: Database,
        store: ObjectStore,
        tier_of: TierOf,
        link_seconds: int,
        clock: Callable[[], int],
        random: Callable[[int], bytes],
    ) -> None:
        self._database = database
        self._store = store
        self._tier_of = tier_of
        self.link_seconds = link_seconds
        """How long a link is good."""
        self._clock = clock
        self._random = random

    def plan(
        self, caller: Caller, space: bytes, wanted: Sequence[ObjectToUpload], base: LinkBase, file: FileToUpload | None = None
    ) -> UploadPlan:
        """Reserve room for what is missing, and a link for each; `Refused` (as of `reserve`) before any byte is sent."""
        lengths = _lengths(wanted)
        with self._database.read() as connection:
            owner = writer_of(connection, caller, space).owner
            uploads = rows.find_uploads(connection, caller.account, owner, lengths, self._since())
        proven = self.ask_store(owner, _flat(uploads))
        with self._database.write() as connection:
            owner = writer_of(connection, caller, space).owner
            missing = self.reserve(connection, caller, space, owner, lengths, proven, file)
            crash_point("service.plan.reserving")
        crash_point("service.plan.reserved")
        sums = {each.id: each.md5 for each in wanted}
        unsigned = [upload.object_id for upload in missing if self._store.needs_md5 and sums[upload.object_id] is None]
        links = [self._link(base, owner, each, sums[each.object_id]) for each in missing if each.object_id not in unsigned]
        return UploadPlan(missing=links, unsigned=unsigned, expires_in=self.link_seconds)

    def find(self, connection: Connection, account: bytes, owner: bytes, ids: Collection[bytes]) -> dict[bytes, list[Upload]]:
        """What the account has in its open sessions of this owner's spaces."""
        return rows.find_uploads(connection, account, owner, ids, self._since()) if ids else {}

    def ask_store(self, owner: bytes, uploads: Iterable[Upload]) -> set[tuple[bytes, int]]:
        """The (object id, generation) of those that are in the store, whole: the store itself is asked, once for each."""
        known, unknown = set(), {}
        for upload in uploads:
            if upload.state is UploadState.STORED:
                known.add((upload.object_id, upload.generation))
            elif upload.state is UploadState.PLANNED:
                unknown[object_key(owner, upload.object_id, upload.generation)] = upload
        if unknown:
            for key, stored in self._stat(list(unknown)).items():
                upload = unknown[key]
                if stored.length == upload.length and stored.sha256 in (None, upload.object_id):
                    known.add((upload.object_id, upload.generation))
        return known

    def etag(self, owner: bytes, upload: Upload) -> str | None:
        """What the store calls the stored bytes; None if they are not there, or it has no name for them."""
        key = object_key(owner, upload.object_id, upload.generation)
        stored = self._stat([key]).get(key)
        return None if stored is None else stored.etag

    def _stat(self, keys: Sequence[str]) -> Mapping[str, Stored]:
        try:
            return self._store.stat(keys)
        except StoreUnavailable as error:
            raise Refused(ProblemType.UNAVAILABLE, str(error), retry_after_seconds=STORE_RETRY_SECONDS) from error

    def reserve(
        self,
        connection: Connection,
        caller: Caller,
        space: bytes,
        owner: bytes,
        lengths: Mapping[bytes, int],
        proven: Collection[tuple[bytes, int]],
        file: FileToUpload | None,
    ) -> list[Upload]:
        """The uploads that have to be sent, written down and reserved. Locks the owner's account.

        `Refused`: quota; too large and content type if they are for a file that the owner's tier does not take.
        """
        now = self._clock()
        budget = load_budget(connection, self._tier_of, owner, now)
        if file is not None:
            _require_taken(file, budget.tier)
        readable = content_rows.readable_objects(connection, caller.account, owner, lengths)
        known = rows.find_uploads(connection, caller.account, owner, lengths, self._since())
        arrived = [u for u in _flat(known) if u.state is UploadState.PLANNED and (u.object_id, u.generation) in proven]
        rows.set_uploads(connection, [replace(upload, state=UploadState.STORED) for upload in arrived])
        absent = [
            id_
            for id_ in lengths
            if id_ not in readable and not any((id_, upload.generation) in proven for upload in known.get(id_, ()))
        ]
        session = rows.open_session(connection, space, caller.account, self._since())
        if session is None and absent:
            session = self._random(16)
            rows.add_session(connection, space, session, caller.account, owner, now)
            crash_point("service.plan.session-begun")
        elif session is not None:
            rows.use_session(connection, space, session, now)
        if session is None:
            return []
        again = {upload.object_id: upload for upload in _flat(known) if (upload.space, upload.session) == (space, session)}
        changed = [replace(again[id_], length=lengths[id_], state=UploadState.PLANNED) for id_ in absent if id_ in again]
        generations = rows.next_generations(connection, owner, [id_ for id_ in absent if id_ not in again])
        new = [
            Upload(space, session, id_, generation, lengths[id_], UploadState.PLANNED) for id_, generation in generations.items()
        ]
        budget.require(sum(upload.length - again[upload.object_id].length for upload in changed) + sum(u.length for u in new))
        rows.set_uploads(connection, changed)
        rows.add_uploads(connection, owner, new)
        planned = {upload.object_id: upload for upload in (*changed, *new)}
        return [planned[id_] for id_ in absent]

    def _link(self, base: LinkBase, owner: bytes, upload: Upload, md5: bytes | None) -> Link:
        key = object_key(owner, upload.object_id, upload.generation)
        return self._store.sign_put(base, key, upload.object_id, upload.length, self.link_seconds, md5)

    def _since(self) -> int:
        return self._clock() - SESSION_NS


def _lengths(wanted: Sequence[ObjectToUpload]) -> dict[bytes, int]:
    lengths: dict[bytes, int] = {}
    for index, each in enumerate(wanted):
        if each.length > OBJECT_STORED_MAX:
            raise Refused(ProblemType.INVALID, f"No object is longer than {OBJECT_STORED_MAX}.", field=f"objects.{index}.length")
        if lengths.setdefault(each.id, each.length) != each.length:
            raise Refused(ProblemType.INVALID, "One object cannot have two lengths.", field=f"objects.{index}.length")
    return lengths


def _require_taken(file: FileToUpload, tier: TierConfig) -> None:
    large = filelimits.too_large(tier, file.size)
    if large is not None:
        raise Refused(ProblemType.TOO_LARGE, f"{large}.", field="file.size")
    wrong = filelimits.wrong_type(tier, filelimits.types_of([file.name], file.content_type))
    if wrong is not None:
        raise Refused(ProblemType.CONTENT_TYPE, f"{wrong}.", field="file.name")


def _flat(uploads: Mapping[bytes, list[Upload]]) -> list[Upload]:
    return [upload for some in uploads.values() for upload in some]
