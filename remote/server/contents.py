"""The contents of a commit: decoded before the transaction, judged in it, and kept with everything that they are made of."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from sqlalchemy import Connection

from remote.manifest import BadManifest, Encoding, decode_manifest, manifest_id
from remote.protocol import ContentChange, FullRow, Group, InodeChange, Kind
from remote.server.check import NewContent, PreparedGroup
from remote.server.database import contents as rows
from remote.server.database import uploads as upload_rows
from remote.server.database.contents import StoredObject, Version
from remote.server.database.tree import Key
from remote.server.database.uploads import Upload, UploadState
from remote.server.quota import Budget, save_used


class Never(Exception):
    """A group that can never be right; the text says why."""


# ------------------------------------------------------------------------------------------- before the transaction


def prepare(group: Group) -> PreparedGroup:
    """Decode and validate what needs no tree."""
    changes: dict[Key, bytes | None] = {}
    inodes: dict[bytes, InodeChange] = {}
    contents: dict[bytes, NewContent] = {}
    try:
        changes.update(((entry.parent, entry.name), entry.inode) for entry in group.entries)
        if len(changes) != len(group.entries):
            raise Never("an entry is there twice")
        for change in group.inodes:
            if inodes.setdefault(change.id, change) is not change:
                raise Never(f"the inode {change.id.hex()} is there twice")
            if change.full is not None:
                _check_full(change.full)
            if change.content is not None:
                contents[change.id] = _decode(change.content)
    except (Never, BadManifest) as error:
        return PreparedGroup(group, changes, inodes, contents, str(error))
    return PreparedGroup(group, changes, inodes, contents, None)


def _check_full(full: FullRow) -> None:
    is_link, is_device = full.kind in (Kind.SYMLINK, Kind.MOUNT), full.kind in (Kind.CHARACTER, Kind.BLOCK)
    if is_link != (full.target is not None):
        raise Never("a symlink has a target, and nothing else has one")
    if full.target is not None and "\0" in full.target:
        raise Never("the target contains a NUL")
    if full.device_number is not None and not is_device:
        raise Never("only a device node has a device number")


def _decode(change: ContentChange) -> NewContent:
    manifest = decode_manifest(change.manifest)
    if manifest.inline is not None and change.sha256 not in (None, hashlib.sha256(manifest.inline).digest()):
        raise Never("the content does not have the SHA-256 that was sent with it")
    objects: dict[bytes, int] = {}
    for chunk in manifest.chunks:
        if (
            chunk.encoding is not Encoding.ZEROS
            and objects.setdefault(chunk.object_id, chunk.stored_length) != chunk.stored_length
        ):
            raise Never(f"the manifest gives the object {chunk.object_id.hex()} two lengths")
    return NewContent(manifest_id(change.manifest), change.manifest, manifest.size, change.sha256, objects)


# ------------------------------------------------------------------------------------------------ in the transaction


@dataclass(slots=True)
class Needs:
    """What keeping some contents takes; `missing` and `wrong` say why they cannot be kept."""

    manifests: dict[bytes, bytes] = field(default_factory=dict)
    objects: dict[bytes, StoredObject] = field(default_factory=dict)
    names: set[bytes] = field(default_factory=set)
    uploads: list[Upload] = field(default_factory=list)
    missing: set[bytes] = field(default_factory=set)
    wrong: str | None = None

    @property
    def added(self) -> int:
        """Bytes that the owner stores more than before."""
        return sum(len(body) for body in self.manifests.values()) + sum(each.length for each in self.objects.values())

    @property
    def released(self) -> int:
        """Reserved bytes that these contents were reserved for."""
        return sum(upload.length for upload in self.uploads)


class Contents:
    """The manifests and objects of one space, as far as a commit needs them; written at the end."""

    def __init__(
        self,
        connection: Connection,
        space: bytes,
        owner: bytes,
        account: bytes,
        groups: Iterable[PreparedGroup],
        uploads: Mapping[bytes, list[Upload]],
        proven: Collection[tuple[bytes, int]],
        budget: Budget,
    ) -> None:
        """`uploads` are the caller's, read in this transaction; `proven` those that the store was found to hold."""
        self._connection = connection
        self._space = space
        self._owner = owner
        self._budget = budget
        self._added = 0
        all_contents = [content for group in groups for content in group.contents.values()]
        objects = {id_ for content in all_contents for id_ in content.objects}
        self._readable = rows.readable_objects(connection, account, owner, objects) if objects else {}
        self._stored = rows.stored_objects(connection, owner, objects)
        self._named = rows.named_objects(connection, space, objects)
        self._manifests = rows.known_manifests(connection, space, {content.manifest_id for content in all_contents})
        self._uploads = {
            id_: [upload for upload in some if upload.state is not UploadState.SURPLUS and (id_, upload.generation) in proven]
            for id_, some in uploads.items()
        }
        self._new_manifests: dict[bytes, bytes] = {}
        self._new_objects: dict[bytes, StoredObject] = {}
        self._new_names: set[bytes] = set()
        self._used_uploads: list[Upload] = []
        self._new_versions: list[Version] = []

    def judge(self, contents: Sequence[NewContent]) -> Needs:
        needs = Needs()
        for content in contents:
            if content.manifest_id not in self._manifests:
                needs.manifests[content.manifest_id] = content.body
            for id_, length in content.objects.items():
                self._judge_object(id_, length, needs)
        return needs

    def _judge_object(self, id_: bytes, length: int, needs: Needs) -> None:
        uploads = self._uploads.get(id_, [])
        held = self._readable.get(id_)
        if held is None and uploads:
            held = uploads[0].length
        if held is None:
            needs.missing.add(id_)
            return
        if held != length:
            needs.wrong = f"the object {id_.hex()} has {held} bytes, not {length}"
            return
        if id_ not in self._named:
            needs.names.add(id_)
        if id_ not in self._stored and id_ not in needs.objects:
            needs.objects[id_] = StoredObject(id_, uploads[0].generation, length)
        if id_ not in {upload.object_id for upload in needs.uploads}:
            needs.uploads += uploads

    def fits(self, needs: Needs) -> bool:
        return self._budget.fits(needs.added, needs.released)

    def keep(self, needs: Needs) -> None:
        self._budget.spend(needs.added, needs.released)
        self._added += needs.added
        self._new_manifests.update(needs.manifests)
        self._manifests.update(needs.manifests)
        self._new_objects.update(needs.objects)
        self._stored.update(needs.objects)
        self._new_names.update(needs.names)
        self._named.update(needs.names)
        self._readable.update((id_, self._stored[id_].length) for id_ in needs.names)
        self._used_uploads += needs.uploads
        for upload in needs.uploads:
            self._uploads[upload.object_id] = []

    def has_version(self, inode: bytes, manifest: bytes) -> bool:
        if any(version.inode == inode and version.manifest_id == manifest for version in self._new_versions):
            return True
        return rows.has_version(self._connection, self._space, inode, manifest)

    def add_version(self, version: Version) -> None:
        self._new_versions.append(version)

    def flush(self, now_ns: int) -> None:
        """Write what was kept."""
        connection, space = self._connection, self._space
        rows.add_manifests(connection, space, self._new_manifests.items())
        rows.add_objects(connection, self._owner, list(self._new_objects.values()), now_ns)
        rows.name_objects(connection, space, self._new_names)
        rows.add_versions(connection, space, self._new_versions)
        adopted = [upload for upload in self._used_uploads if self._is_adopted(upload)]
        surplus = [upload for upload in self._used_uploads if not self._is_adopted(upload)]
        upload_rows.forget_uploads(connection, adopted)
        upload_rows.set_uploads(connection, [replace(upload, state=UploadState.SURPLUS) for upload in surplus])
        for session in {(upload.space, upload.session) for upload in self._used_uploads}:
            upload_rows.use_session(connection, *session, now_ns)
        save_used(connection, self._owner, self._added)

    def _is_adopted(self, upload: Upload) -> bool:
        return self._stored[upload.object_id].generation == upload.generation
