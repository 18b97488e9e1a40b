"""Notifications: in pages, and as they come."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from typing import Annotated

import anyio
from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from remote.notificationapi import (
    LIST_DEFAULT,
    LIST_MAX,
    WAIT_MAX_SECONDS,
    ChosenPreferences,
    MarkRead,
    Notification,
    NotificationList,
    Preferences,
    Unread,
)
from remote.protocol import ProblemType
from remote.server.devices import Caller
from remote.server.problems import Refused
from remote.server.routes.changes import CLIENT_CLOSED, wait_here
from remote.server.routes.requests import (
    AccountReader,
    AccountWriter,
    answer,
    authenticate,
    describe,
    read_model,
    service_of,
)
from remote.server.streams import ContentResponse
from remote.server.wake import Waiter

router = APIRouter()

NUMBER_MAX = 2**63 - 1
BEAT_SECONDS = 25
"""So often something is sent, at least: else whoever stands between takes the connection for dead."""

Number = Annotated[int, Query(ge=0, le=NUMBER_MAX)]


@router.get("/v1/notifications", **describe(NotificationList))
async def listing(
    request: Request,
    caller: AccountReader,
    unread: bool = False,
    before: Number | None = None,
    after: Number | None = None,
    wait: Annotated[int, Query(ge=0, le=WAIT_MAX_SECONDS)] = 0,
    limit: Annotated[int, Query(ge=1, le=LIST_MAX)] = LIST_DEFAULT,
) -> Response:
    """The newest first; or, after one that is known, the oldest first, waiting for the next if there is none."""
    service = service_of(request)
    if after is None:
        if wait:
            raise Refused(ProblemType.INVALID, "Say after which one to wait for the next.", field="wait")
        look = partial(service.notifications.listing, caller, unread=unread, before=before, limit=limit)
        return answer(await service.in_thread(look))
    if before is not None:
        raise Refused(ProblemType.INVALID, "Go on before one, or after one.", field="before")
    known = await service.in_thread(service.notifications.known, caller, after)
    follow = partial(service.notifications.following, caller, known, unread=unread, limit=limit)
    until = anyio.current_time() + wait
    with service.wake.subscribe(await service.in_thread(service.notifications.topics, caller)) as waiter:
        while True:
            page = await service.in_thread(follow)
            left = until - anyio.current_time()
            if page.notifications or left <= 0 or service.wake.closed:
                return answer(page)
            if not await wait_here(request, waiter, left):
                return Response(status_code=CLIENT_CLOSED)
            await authenticate(request)


@router.get("/v1/notifications/stream", **describe(None))
async def stream(request: Request, caller: AccountReader, after: Number | None = None) -> Response:
    """Server-sent events: each notification as it comes, its number as the event's id. It ends with the access token: begin again
    with the header `Last-Event-ID`."""
    service = service_of(request)
    header = request.headers.get("last-event-id", "")
    if header and not (header.isdecimal() and int(header) <= NUMBER_MAX):
        raise Refused(ProblemType.INVALID, "It is the id of no event.", field="Last-Event-ID")
    known = int(header) if header else after
    if known is None:
        known = NUMBER_MAX  # only what is to come
    known = await service.in_thread(service.notifications.known, caller, known)
    topics = await service.in_thread(service.notifications.topics, caller)
    listener = _Listener(request, caller, known, topics)
    headers = {"content-type": "text/event-stream", "cache-control": "no-store", "x-accel-buffering": "no"}
    return ContentResponse(200, headers, listener.next_events, listener)


@router.post("/v1/notifications/read", **describe(Unread, MarkRead))
async def mark_read(request: Request, caller: AccountWriter) -> Response:
    """Mark some as read, or all up to one."""
    service = service_of(request)
    body = await read_model(request, MarkRead)
    return answer(await service.in_thread(service.notifications.mark_read, caller, body))


@router.get("/v1/notifications/preferences", **describe(ChosenPreferences))
async def preferences(request: Request, caller: AccountReader) -> Response:
    """Of each topic: whether there are any, which are shown at once, and which are in the daily digest."""
    service = service_of(request)
    return answer(await service.in_thread(service.notifications.preferences, caller))


@router.post("/v1/notifications/preferences", **describe(ChosenPreferences, Preferences))
async def choose(request: Request, caller: AccountWriter) -> Response:
    """Change preferences; what is not named stays."""
    service = service_of(request)
    body = await read_model(request, Preferences)
    return answer(await service.in_thread(service.notifications.choose, caller, body))


class _Listener:
    """One who is told of each notification as it comes; entered as long as the answer is under way."""

    def __init__(self, request: Request, caller: Caller, known: int, topics: tuple[bytes, ...]) -> None:
        self._request = request
        self._service = service_of(request)
        self._caller = caller
        self._known = known
        self._topics = topics
        self._waiter: Waiter | None = None
        self._began = False
        self._held = ExitStack()

    def __enter__(self) -> None:
        with ExitStack() as held:
            held.enter_context(self._service.listeners.one(self._caller.account))
            self._waiter = held.enter_context(self._service.wake.subscribe(self._topics))
            self._held = held.pop_all()

    def __exit__(self, *_: object) -> None:
        self._held.close()

    async def next_events(self) -> bytes | None:
        """Events, or a comment where there are none: at once at the beginning, then every while. None: this was the last."""
        service = self._service
        assert self._waiter is not None
        if self._began:
            await self._waiter.wait(BEAT_SECONDS)  # and look, whether it was woken or not: a wake-up may be lost
            if service.wake.closed or not await self._is_let():
                return None
        self._began = True
        follow = partial(service.notifications.following, self._caller, self._known, unread=False, limit=LIST_MAX)
        found = (await service.in_thread(follow)).notifications
        if not found:
            return b": nothing new\n\n"
        self._known = found[-1].id
        if len(found) == LIST_MAX:
            self._waiter.wake()
        return b"".join(_event(each) for each in found)

    async def _is_let(self) -> bool:
        try:
            await authenticate(self._request)
        except Refused:
            return False
        return True


def _event(notification: Notification) -> bytes:
    return b"id: %d\nevent: notification\ndata: %s\n\n" % (notification.id, notification.model_dump_json().encode())
