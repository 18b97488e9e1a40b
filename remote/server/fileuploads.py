"""Uploads of plain clients: which chunks of a file are missing, and the file published when none is. Blocking.

Chunks travel and are verified as those of devices (`uploads`): they are objects of the account's upload session, with room
reserved for all of them before the first is sent. What a plain client adds is known here: the path, and the manifest of the
whole, so that an upload is found again by path and fingerprint, after a crash and on another machine.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from sqlalchemy import Connection

from remote.fileapi import (
    LINKS_MAX,
    MAX_OPEN_UPLOADS,
    BeginUpload,
    ChunkReport,
    CompleteUpload,
    FileInfo,
    FileUpload,
    FileUploadList,
    OnConflict,
    UploadedChunk,
    UploadHead,
)
from remote.manifest import BadManifest, ChunkRef, Encoding, Manifest, Split, decode_manifest
from remote.notificationapi import Priority, Topic
from remote.protocol import Attributes, ContentChange, FileToUpload, FullRow, Kind, Link, ObjectToUpload, ProblemType, UploadPlan
from remote.server.access import writer_of
from remote.server.database import contents as content_rows
from remote.server.database import fileuploads as rows
from remote.server.database.engine import Database
from remote.server.database.fileuploads import FileUploadRow
from remote.server.database.uploads import Upload, UploadState
from remote.server.devices import Caller
from remote.server.edits import FILE_MODE, Changes, resolve_conflict
from remote.server.files import Condition, Done, file_info
from remote.server.namespace import Edit, Namespace
from remote.server.news import News, post
from remote.server.objects.store import LinkBase
from remote.server.paths import locate, place_of, reach, split_new_path, split_path
from remote.server.problems import Refused, not_found
from remote.server.quota import SESSION_NS
from remote.server.tree import Tree
from remote.server.uploads import Uploads

ASKED_PLANS = 8
"""How many plans of `LINKS_MAX` chunks one request makes, at most, in search of missing ones."""
LISTED_MAX = 100


class FileUploads:
    def __init__(
        self,
        database: Database,
        uploads: Uploads,
        namespace: Namespace,
        clock: Callable[[], int],
        random: Callable[[int], bytes],
    ) -> None:
        self._database = database
        self._uploads = uploads
        self._namespace = namespace
        self._clock = clock
        self._random = random

    def begin(self, caller: Caller, request: BeginUpload, condition: Condition, base: LinkBase) -> Done[FileUpload]:
        """Reserve room for what is missing; `Refused` (quota, exists) before any byte is sent. Complete at once if nothing is."""
        names = split_new_path(request.path)
        manifest = _manifest(request)
        with self._database.read() as connection:
            found = reach(connection, caller, names)
            space, tree = found.space, Tree(connection, found.space, found.prefix)
            writer_of(connection, caller, space)
            resolve_conflict(tree, locate(tree, found.names), request.on_conflict, is_file=True)
            same = rows.find_content(connection, space, request.fingerprint, request.size)
        row = self._record(caller, space, request, manifest.encode() if same is None else same)
        if same is None:
            state = self.state(caller, row.id, base)
            if state.missing_chunks:
                return Done(state, space)
        return self.complete(caller, row.id, CompleteUpload(on_conflict=request.on_conflict), condition)

    def _record(self, caller: Caller, space: bytes, request: BeginUpload, manifest: bytes) -> FileUploadRow:
        """The upload's row, written, with room for what is not known to be there."""
        now = self._clock()
        lengths = _stored_lengths(decode_manifest(manifest))
        with self._database.write() as connection:
            owner = writer_of(connection, caller, space).owner
            known = self._uploads.find(connection, caller.account, owner, lengths)
            file = FileToUpload(name=split_path(request.path)[-1], size=request.size, content_type=request.type)
            self._uploads.reserve(connection, caller, space, owner, lengths, _confirmed(known), file)
            rows.forget_unused(connection, caller.account, now - SESSION_NS)
            row = rows.find_open(connection, space, caller.account, request.path, request.fingerprint, request.size)
            if row is None and rows.count(connection, caller.account) >= MAX_OPEN_UPLOADS:
                raise Refused(
                    ProblemType.RATE_LIMITED,
                    f"{MAX_OPEN_UPLOADS} uploads are open: complete or delete some.",
                    retry_after_seconds=60,
                )
            fresh = FileUploadRow(
                space_id=space,
                id=self._random(16) if row is None else row.id,
                account_id=caller.account,
                path=request.path,
                size=request.size,
                sha256=request.fingerprint,
                type=request.type,
                mtime_ns=request.mtime_ns,
                on_conflict=request.on_conflict,
                manifest=manifest,
                inode=None,
                created_ns=now if row is None else row.created_ns,
                last_used_ns=now,
            )
            (rows.add if row is None else rows.put)(connection, fresh)
        return fresh

    def in_progress(self, caller: Caller, fingerprint: bytes | None) -> FileUploadList:
        with self._database.read() as connection:
            found = rows.all_open(connection, caller.account, fingerprint, LISTED_MAX)
        return FileUploadList(uploads=[_head(row) for row in found])

    def state(self, caller: Caller, id_: bytes, base: LinkBase) -> FileUpload:
        """What is missing, by what the object store says."""
        row = self._row(caller, id_)
        if row.inode is not None:
            return self._completed(row)
        links: list[Link] = []
        unsigned: list[bytes] = []
        unknown, confirmed = self._unknown(caller, row), 0
        for some in _batches(unknown):
            plan = self._uploads.plan(caller, row.space_id, some, base)
            confirmed += len(some) - len(plan.missing) - len(plan.unsigned)
            links += plan.missing
            unsigned += plan.unsigned
            if len(links) + len(unsigned) >= LINKS_MAX:
                break
        self._touch(row)
        return FileUpload(
            **_head(row).model_dump(),
            missing_chunks=len(unknown) - confirmed,
            missing=links[:LINKS_MAX],
            unsigned=unsigned[:LINKS_MAX],
            expires_in=self._uploads.link_seconds,
        )

    def chunk(self, caller: Caller, id_: bytes, chunk: bytes, md5: bytes | None, base: LinkBase) -> UploadedChunk:
        """Whether the object store has it; else a fresh link."""
        return self._chunk(self._plan_one(caller, self._row(caller, id_), chunk, md5, base), chunk)

    def report(self, caller: Caller, id_: bytes, chunk: bytes, report: ChunkReport, base: LinkBase) -> UploadedChunk:
        """As `chunk`; the ETag that the client was given must be that of the object store."""
        row = self._row(caller, id_)
        if report.status == "uploaded" and report.etag is not None:
            self._check_etag(caller, row, chunk, report.etag)
        return self._chunk(self._plan_one(caller, row, chunk, None, base), chunk)

    def complete(self, caller: Caller, id_: bytes, request: CompleteUpload, condition: Condition) -> Done[FileUpload]:
        """Publish the file. `Refused` (incomplete): with chunks that are missing. May be repeated."""
        row = self._row(caller, id_)
        if row.inode is None:
            self._require_all(caller, row)
        names = split_new_path(request.path or row.path)
        path = f"/{'/'.join(names)}"
        with self._database.read() as connection:
            found = reach(connection, caller, names)
        if found.space != row.space_id and row.inode is None:
            text = "What it was uploaded for is another folder by now, shared or not shared any more: upload it again."
            raise Refused(ProblemType.INVALID, text, field="path")

        def make(connection: Connection, tree: Tree) -> Edit[FileUpload]:
            now = rows.find(connection, caller.account, id_)
            if now is None:
                raise not_found("There is no such upload.")
            if now.inode is not None:
                return Edit(None, lambda: self._complete_answer(now, _info(tree, now.inode)))
            changes = Changes(self._clock(), self._random)
            inode = self._publish(tree, changes, now, found.names, request.on_conflict or now.on_conflict, condition)
            done = replace(now, inode=inode, last_used_ns=self._clock())
            rows.put(connection, done)
            news = News(Topic.UPLOAD_COMPLETED, f"{path} was uploaded.", Priority.LOW, path, inode, caller.device)
            post(connection, caller.account, [news], self._clock())
            return Edit(changes.group(), lambda: self._complete_answer(done, _info(tree, inode)))

        objects = _stored_lengths(decode_manifest(row.manifest))
        return Done(self._namespace.edit(caller, row.space_id, make, objects, found.prefix), row.space_id)

    def forget(self, caller: Caller, id_: bytes) -> None:
        """The room that was reserved is free a day after the last use of any upload."""
        with self._database.write() as connection:
            if not rows.forget(connection, caller.account, id_):
                raise not_found("There is no such upload.")

    def _publish(
        self,
        tree: Tree,
        changes: Changes,
        row: FileUploadRow,
        names: tuple[str, ...],
        on_conflict: OnConflict,
        condition: Condition,
    ) -> bytes:
        """Put the file into the tree; its inode."""
        target = locate(tree, names)
        condition.require(target.inode)
        target = resolve_conflict(tree, target, on_conflict, is_file=True)
        mtime_ns = row.mtime_ns if row.mtime_ns is not None else self._clock()
        old = target.inode
        content = ContentChange(
            manifest=row.manifest, sha256=row.sha256, base=0 if old is None else old.content_rev, content_type=row.type
        )
        if old is not None:  # the same inode, so that its history goes on
            changes.write(old, content, mtime_ns)
            return old.id
        inode = changes.add(FullRow(kind=Kind.FILE), Attributes(mode=FILE_MODE, mtime_ns=mtime_ns), content)
        changes.name(target, inode)
        return inode

    def _require_all(self, caller: Caller, row: FileUploadRow) -> None:
        missing: list[bytes] = []
        unknown = self._unknown(caller, row)
        for some in _batches(unknown):
            plan = self._uploads.plan(caller, row.space_id, some, LinkBase(""))
            missing += [link.id for link in plan.missing] + plan.unsigned
            if len(missing) >= LINKS_MAX:
                break
        if missing or len(unknown) > ASKED_PLANS * LINKS_MAX:
            raise Refused(
                ProblemType.INCOMPLETE,
                "Not all chunks are known to be in the object store: ask for the upload, and send what is missing.",
                missing=missing[:LINKS_MAX],
            )

    def _unknown(self, caller: Caller, row: FileUploadRow) -> list[ObjectToUpload]:
        """Its chunks that nothing here proves to be in the object store."""
        lengths = _stored_lengths(decode_manifest(row.manifest))
        with self._database.read() as connection:
            owner = writer_of(connection, caller, row.space_id).owner
            readable = content_rows.readable_objects(connection, caller.account, owner, lengths)
            confirmed = {id_ for id_, _ in _confirmed(self._uploads.find(connection, caller.account, owner, lengths))}
        return [
            ObjectToUpload.model_construct(id=id_, length=length, md5=None)
            for id_, length in lengths.items()
            if id_ not in readable and id_ not in confirmed
        ]

    def _plan_one(self, caller: Caller, row: FileUploadRow, chunk: bytes, md5: bytes | None, base: LinkBase) -> UploadPlan:
        lengths = _stored_lengths(decode_manifest(row.manifest))
        if row.inode is not None or chunk not in lengths:
            raise not_found("There is no such chunk in an upload that is open.")
        return self._uploads.plan(caller, row.space_id, [ObjectToUpload(id=chunk, length=lengths[chunk], md5=md5)], base)

    def _chunk(self, plan: UploadPlan, chunk: bytes) -> UploadedChunk:
        there = not plan.missing and not plan.unsigned
        link = plan.missing[0] if plan.missing else None
        return UploadedChunk(id=chunk, state="uploaded" if there else "missing", link=link, expires_in=self._uploads.link_seconds)

    def _check_etag(self, caller: Caller, row: FileUploadRow, chunk: bytes, etag: str) -> None:
        with self._database.read() as connection:
            owner = writer_of(connection, caller, row.space_id).owner
            uploads = self._uploads.find(connection, caller.account, owner, [chunk]).get(chunk, [])
        said = [found for upload in uploads if (found := self._uploads.etag(owner, upload)) is not None]
        if said and etag.strip('"') not in said:
            raise Refused(ProblemType.INVALID, "The object store has another ETag: send the chunk again.", field="etag")

    def _row(self, caller: Caller, id_: bytes) -> FileUploadRow:
        with self._database.read() as connection:
            row = rows.find(connection, caller.account, id_)
        if row is None:
            raise not_found("There is no such upload.")
        return row

    def _touch(self, row: FileUploadRow) -> None:
        with self._database.write() as connection:
            rows.used(connection, row.space_id, row.id, self._clock())

    def _completed(self, row: FileUploadRow) -> FileUpload:
        with self._database.read() as connection:
            return self._complete_answer(row, _info(Tree(connection, row.space_id), row.inode))

    def _complete_answer(self, row: FileUploadRow, info: FileInfo | None) -> FileUpload:
        return FileUpload(**_head(row).model_dump(), missing_chunks=0, expires_in=self._uploads.link_seconds, file=info)


def _manifest(request: BeginUpload) -> Manifest:
    """The planned content; `Refused` (invalid) if it contradicts itself."""
    if request.content is not None and request.chunks:
        raise Refused(ProblemType.INVALID, "A file comes in chunks, or whole.", field="content")
    if not request.chunks:
        content = request.content or b""
        if len(content) != request.size or hashlib.sha256(content).digest() != request.fingerprint:
            raise Refused(ProblemType.INVALID, "The content is not what size and fingerprint say.", field="content")
        return Manifest.from_inline(content)
    split = request.split
    parameters = Split(0, 0, 0) if split is None else Split(split.minimum, split.average, split.maximum)
    refs = [
        ChunkRef.zeros(chunk.size)
        if chunk.id is None
        else ChunkRef.whole(chunk.id, chunk.size, chunk.stored_size or chunk.size, Encoding[chunk.encoding.upper()])
        for chunk in request.chunks
    ]
    try:
        manifest = decode_manifest(Manifest.from_chunks(parameters, tuple(refs)).encode())
    except BadManifest as error:
        raise Refused(ProblemType.INVALID, f"{error}.", field="chunks") from error
    if manifest.size != request.size:
        raise Refused(ProblemType.INVALID, f"The chunks have {manifest.size} bytes together.", field="size")
    if len({(ref.object_id, ref.stored_length) for ref in refs}) != len({ref.object_id for ref in refs}):
        raise Refused(ProblemType.INVALID, "One chunk cannot have two sizes.", field="chunks")
    return manifest


def _stored_lengths(manifest: Manifest) -> dict[bytes, int]:
    """Of its objects, in their order."""
    return {ref.object_id: ref.stored_length for ref in manifest.chunks if ref.encoding is not Encoding.ZEROS}


def _confirmed(uploads: Mapping[bytes, list[Upload]]) -> set[tuple[bytes, int]]:
    """Those that the object store said it has."""
    return {
        (upload.object_id, upload.generation)
        for some in uploads.values()
        for upload in some
        if upload.state is UploadState.STORED
    }


def _batches(objects: list[ObjectToUpload]) -> Iterator[list[ObjectToUpload]]:
    for at in range(0, min(len(objects), ASKED_PLANS * LINKS_MAX), LINKS_MAX):
        yield objects[at : at + LINKS_MAX]


def _head(row: FileUploadRow) -> UploadHead:
    return UploadHead(
        id=row.id,
        path=row.path,
        size=row.size,
        fingerprint=row.sha256,
        type=row.type,
        state="open" if row.inode is None else "complete",
        chunks=len(_stored_lengths(decode_manifest(row.manifest))),
        created_ns=row.created_ns,
    )


def _info(tree: Tree, inode: bytes | None) -> FileInfo | None:
    place = None if inode is None else place_of(tree, inode)
    return None if place is None or place.inode is None else file_info(place, place.inode)
