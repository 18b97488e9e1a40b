"""Sharing folders with other accounts."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from remote.server.audit import Action
from remote.server.routes.requests import (
    FilesReader,
    FilesWriter,
    answer,
    audited,
    describe,
    nothing,
    read_model,
    service_of,
)
from remote.server.sharing import Changed
from remote.sharingapi import InvitationAnswer, InvitationList, MemberRequest, Share, SharedPath, ShareList, ShareRequest

router = APIRouter()


@router.get("/v1/shares", **describe(ShareList))
async def shares(request: Request, caller: FilesReader) -> Response:
    """The shared folders that the caller is a member of, each with its members."""
    service = service_of(request)
    return answer(await service.in_thread(service.sharing.shares, caller))


@router.post("/v1/shares", **describe(Share, ShareRequest, status=201))
async def share(request: Request, caller: FilesWriter) -> Response:
    """Invite an account to a folder or a file, which becomes shared by that."""
    service = service_of(request)
    body = await read_model(request, ShareRequest)
    async with audited(request, Action.SHARE, caller, subject=body.email):
        return _answer(request, await service.in_thread(service.sharing.share, caller, body), 201)


@router.post("/v1/shares/role", **describe(Share, ShareRequest))
async def set_role(request: Request, caller: FilesWriter) -> Response:
    """Make a member, or somebody who is invited, an editor or a viewer."""
    service = service_of(request)
    body = await read_model(request, ShareRequest)
    async with audited(request, Action.CHANGE_ROLE, caller, subject=body.email):
        return _answer(request, await service.in_thread(service.sharing.set_role, caller, body))


@router.post("/v1/shares/remove", **describe(Share, MemberRequest))
async def remove(request: Request, caller: FilesWriter) -> Response:
    """End somebody's membership, or invitation."""
    service = service_of(request)
    body = await read_model(request, MemberRequest)
    async with audited(request, Action.REMOVE_MEMBER, caller, subject=body.email):
        return _answer(request, await service.in_thread(service.sharing.remove, caller, body))


@router.post("/v1/shares/leave", **describe(None, SharedPath, status=204))
async def leave(request: Request, caller: FilesWriter) -> Response:
    """End one's own membership."""
    service = service_of(request)
    body = await read_model(request, SharedPath)
    async with audited(request, Action.LEAVE_SHARE, caller):
        return _answer(request, await service.in_thread(service.sharing.leave, caller, body.path))


@router.post("/v1/shares/unshare", **describe(None, SharedPath, status=204))
async def unshare(request: Request, caller: FilesWriter) -> Response:
    """Make a shared folder an ordinary one of its owner's again."""
    service = service_of(request)
    body = await read_model(request, SharedPath)
    async with audited(request, Action.UNSHARE, caller):
        return _answer(request, await service.in_thread(service.sharing.unshare, caller, body.path))


@router.get("/v1/invitations", **describe(InvitationList))
async def invitations(request: Request, caller: FilesReader) -> Response:
    """What others would share with the caller."""
    service = service_of(request)
    return answer(await service.in_thread(service.sharing.invitations, caller))


@router.post("/v1/invitations/accept", **describe(Share, InvitationAnswer))
async def accept(request: Request, caller: FilesWriter) -> Response:
    """The folder then stands among the caller's files."""
    service = service_of(request)
    body = await read_model(request, InvitationAnswer)
    async with audited(request, Action.ACCEPT_SHARE, caller, subject=body.space.hex()):
        return _answer(request, await service.in_thread(service.sharing.accept, caller, body.space))


@router.post("/v1/invitations/decline", **describe(None, InvitationAnswer, status=204))
async def decline(request: Request, caller: FilesWriter) -> Response:
    """The invitation is gone."""
    service = service_of(request)
    body = await read_model(request, InvitationAnswer)
    async with audited(request, Action.DECLINE_SHARE, caller, subject=body.space.hex()):
        await service.in_thread(service.sharing.decline, caller, body.space)
    return nothing()


def _answer(request: Request, changed: Changed, status: int = 200) -> Response:
    for topic in changed.topics:
        service_of(request).wake.notify(topic)
    return nothing() if changed.share is None else answer(changed.share, status)
