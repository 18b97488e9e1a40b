"""Calls about files by path, for what works without a replica: the other side of `remote.fileapi`."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote

from remote.fileapi import (
    BeginUpload,
    ChunkLink,
    CompleteUpload,
    CopyRequest,
    CreateFolder,
    Deleted,
    Emptied,
    Expiry,
    ExpiryList,
    FileDownload,
    FileInfo,
    FileList,
    FileUpload,
    MoveRequest,
    Order,
    Restored,
    RestoreRequest,
    RestoreVersion,
    RewindRequest,
    Rewound,
    SetExpiry,
    Sort,
    TrashEntry,
    TrashList,
    UploadedChunk,
    VersionList,
)
from remote.http import HttpService
from remote.linkapi import LinkRequest, NewPublicLink, PublicLinkList
from remote.protocol import Link
from remote.searchapi import LIMIT_MAX as SEARCH_PAGE
from remote.searchapi import SearchPage
from remote.sharingapi import (
    InvitationAnswer,
    InvitationList,
    MemberRequest,
    Share,
    SharedPath,
    ShareList,
    ShareRequest,
)

_PAGE = 1000


class Files:
    """May raise any `RemoteError`. Chunks are sent and fetched by `service.put_object` and `get_object`."""

    def __init__(self, service: HttpService) -> None:
        self.service = service

    async def metadata(self, path: str) -> FileInfo:
        """`NotThere` if nothing is."""
        return await self.service.call(FileInfo, "GET", "/v1/files/metadata", params={"path": path})

    async def listing(self, path: str, sort: Sort = Sort.NAME, order: Order = Order.ASC) -> list[FileInfo]:
        """All that is in a folder."""
        params: dict[str, str | int] = {"path": path, "sort": sort, "order": order, "limit": _PAGE}
        found: list[FileInfo] = []
        while True:
            page = await self.service.call(FileList, "GET", "/v1/files", params=params)
            found += page.entries
            if page.next is None:
                return found
            params["after"] = page.next

    async def make_folder(self, path: str, *, parents: bool = False) -> FileInfo:
        return await self.service.call(FileInfo, "POST", "/v1/files/folder", CreateFolder(path=path, parents=parents))

    async def move(self, request: MoveRequest) -> FileInfo:
        return await self.service.call(FileInfo, "POST", "/v1/files/move", request)

    async def copy(self, request: CopyRequest) -> FileInfo:
        return await self.service.call(FileInfo, "POST", "/v1/files/copy", request)

    async def delete(self, path: str, *, recursive: bool) -> int:
        """How many entries are gone. A folder that holds too much for one request goes in several."""
        params: dict[str, str | int] = {"path": path}
        if recursive:
            params |= {"recursive": "true", "partial": "true"}
        removed = 0
        while True:
            done = await self.service.call(Deleted, "DELETE", "/v1/files", params=params)
            removed += done.removed
            if done.complete:
                return removed

    # ------------------------------------------------------------------------------------------------ versions and trash

    async def versions(self, path: str) -> VersionList:
        return await self.service.call(VersionList, "GET", "/v1/files/versions", params={"path": path})

    async def restore_version(self, path: str, version: bytes) -> FileInfo:
        body = RestoreVersion(path=path, version=version)
        return await self.service.call(FileInfo, "POST", "/v1/files/versions/restore", body)

    async def rewind(self, path: str, to_ns: int, *, dry_run: bool = False) -> Rewound:
        """One request; until it is complete, there is more to be done."""
        body = RewindRequest(path=path, to_ns=to_ns, dry_run=dry_run)
        return await self.service.call(Rewound, "POST", "/v1/files/rewind", body)

    async def trash(self) -> list[TrashEntry]:
        """All of it, the latest first."""
        params: dict[str, str | int] = {"limit": _PAGE}
        found: list[TrashEntry] = []
        while True:
            page = await self.service.call(TrashList, "GET", "/v1/trash", params=params)
            found += page.entries
            if page.next is None:
                return found
            params["after"] = page.next

    async def restore(self, id_: bytes, target: str | None = None) -> Restored:
        return await self.service.call(Restored, "POST", "/v1/trash/restore", RestoreRequest(id=id_, target=target))

    async def empty_trash(self, id_: bytes | None = None) -> int:
        """How much is gone for good: one entry with what is in it, or all."""
        params = {} if id_ is None else {"id": id_.hex()}
        removed = 0
        while True:
            done = await self.service.call(Emptied, "DELETE", "/v1/trash", params=params)
            removed += done.removed
            if done.complete:
                return removed

    # -------------------------------------------------------------------------------------------------------- expiries

    async def expiries(self, path: str | None = None) -> ExpiryList:
        """All, or that of one file or folder."""
        return await self.service.call(ExpiryList, "GET", "/v1/files/expiry", params={} if path is None else {"path": path})

    async def set_expiry(self, path: str, expires_ns: int) -> Expiry:
        return await self.service.call(Expiry, "POST", "/v1/files/expiry", SetExpiry(path=path, expires_ns=expires_ns))

    async def forget_expiry(self, path: str) -> None:
        """`NotThere` if it has none."""
        await self.service.send("DELETE", f"/v1/files/expiry?path={quote(path)}")

    # -------------------------------------------------------------------------------------------------- public links

    async def make_link(self, request: LinkRequest) -> NewPublicLink:
        return await self.service.call(NewPublicLink, "POST", "/v1/links", request)

    async def links(self, path: str | None = None) -> PublicLinkList:
        """All, or those to what has the path now."""
        return await self.service.call(PublicLinkList, "GET", "/v1/links", params={} if path is None else {"path": path})

    async def revoke_link(self, id_: bytes) -> None:
        await self.service.send("DELETE", f"/v1/links/{id_.hex()}")

    # ----------------------------------------------------------------------------------------------------------- sharing

    async def shares(self) -> ShareList:
        return await self.service.call(ShareList, "GET", "/v1/shares")

    async def share(self, request: ShareRequest) -> Share:
        return await self.service.call(Share, "POST", "/v1/shares", request)

    async def change_role(self, request: ShareRequest) -> Share:
        return await self.service.call(Share, "POST", "/v1/shares/role", request)

    async def remove_member(self, request: MemberRequest) -> Share:
        return await self.service.call(Share, "POST", "/v1/shares/remove", request)

    async def leave_share(self, path: str) -> None:
        await self.service.send("POST", "/v1/shares/leave", SharedPath(path=path))

    async def unshare(self, path: str) -> None:
        await self.service.send("POST", "/v1/shares/unshare", SharedPath(path=path))

    async def invitations(self) -> InvitationList:
        return await self.service.call(InvitationList, "GET", "/v1/invitations")

    async def accept_invitation(self, space: bytes) -> Share:
        return await self.service.call(Share, "POST", "/v1/invitations/accept", InvitationAnswer(space=space))

    async def decline_invitation(self, space: bytes) -> None:
        await self.service.send("POST", "/v1/invitations/decline", InvitationAnswer(space=space))

    # -------------------------------------------------------------------------------------------------------- search

    async def search(self, asked: Mapping[str, str | int], limit: int) -> SearchPage:
        """As many hits as that, if there are; `asked` is the query's parameters."""
        params = {**asked, "limit": min(limit, SEARCH_PAGE)}
        found = await self.service.call(SearchPage, "GET", "/v1/search", params=params)
        while found.next is not None and len(found.hits) < limit:
            page = await self.service.call(SearchPage, "GET", "/v1/search", params={**params, "after": found.next})
            found = page.model_copy(update={"hits": [*found.hits, *page.hits]})
        return found.model_copy(update={"hits": found.hits[:limit]})

    # ------------------------------------------------------------------------------------------------------- uploads

    async def begin_upload(self, request: BeginUpload) -> FileUpload:
        return await self.service.call(FileUpload, "POST", "/v1/files/upload", request)

    async def upload(self, id_: bytes) -> FileUpload:
        return await self.service.call(FileUpload, "GET", f"/v1/files/upload/{id_.hex()}")

    async def upload_link(self, id_: bytes, chunk: bytes, md5: bytes | None = None) -> UploadedChunk:
        path = f"/v1/files/upload/{id_.hex()}/chunks/{chunk.hex()}"
        return await self.service.call(UploadedChunk, "POST", path, ChunkLink(md5=md5))

    async def complete_upload(self, id_: bytes) -> FileUpload:
        return await self.service.call(FileUpload, "POST", f"/v1/files/upload/{id_.hex()}/complete", CompleteUpload())

    # ----------------------------------------------------------------------------------------------------- downloads

    async def download(self, path: str) -> FileDownload:
        """The first page of the newest version."""
        return await self.service.call(FileDownload, "GET", "/v1/files/download", params={"path": path})

    async def download_on(self, id_: bytes, version: bytes, start: int) -> FileDownload:
        """A later page of the version."""
        params: dict[str, str | int] = {"id": id_.hex(), "version": version.hex(), "start": start}
        return await self.service.call(FileDownload, "GET", "/v1/files/download", params=params)

    async def download_link(self, id_: bytes, version: bytes, chunk: bytes) -> Link:
        params = {"id": id_.hex(), "version": version.hex()}
        return await self.service.call(Link, "GET", f"/v1/files/download/chunks/{chunk.hex()}", params=params)
