"""The change feed, and waiting for it."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import anyio
from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from remote.protocol import ChangesPage
from remote.server.cursor import CURSOR_MAX
from remote.server.devices import Caller
from remote.server.feed import LIMIT_DEFAULT, LIMIT_MAX
from remote.server.routes.requests import FilesReader, authenticate, describe, json_answer, service_of
from remote.server.service import Service
from remote.server.wake import Waiter

WAIT_MAX_SECONDS = 60
CLIENT_CLOSED = 499
"""For the log; nobody reads this answer."""

router = APIRouter()


@router.get("/v1/changes", **describe(ChangesPage))
async def changes(
    request: Request,
    caller: FilesReader,
    cursor: Annotated[str, Query(max_length=CURSOR_MAX)] = "",
    wait: Annotated[int, Query(ge=0, le=WAIT_MAX_SECONDS)] = 0,
    limit: Annotated[int, Query(ge=1, le=LIMIT_MAX)] = LIMIT_DEFAULT,
    removed: bool = False,
) -> Response:
    """The next rows after the cursor (none: a full listing), waiting for some if there are none."""
    service = service_of(request)
    look = partial(service.feed.page, caller, cursor, limit, removed=removed)
    page = await service.in_thread(look)
    if page.worth_sending or wait == 0:
        await _note(service, caller, cursor, caught_up=not page.worth_sending)
        return json_answer(page.answer)
    until = anyio.current_time() + wait
    with service.polls.one(caller.account), service.wake.subscribe(page.topics) as waiter:
        while True:  # look again after subscribing: a commit may have come in between
            page = await service.in_thread(look)
            left = until - anyio.current_time()
            if page.worth_sending or left <= 0 or service.wake.closed:
                if page.worth_sending and waiter.woken is not None:
                    service.metrics.fed(waiter.woken)
                return json_answer(page.answer)
            await _note(service, caller, cursor, caught_up=True)
            due_in = service.device_syncs.due_in(caller, cursor)
            if not await wait_here(request, waiter, left if due_in is None else min(left, due_in)):
                return Response(status_code=CLIENT_CLOSED)
            await authenticate(request)  # the device may have been removed meanwhile


async def _note(service: Service, caller: Caller, cursor: str, *, caught_up: bool) -> None:
    if service.device_syncs.is_due(caller, cursor, caught_up=caught_up):
        await service.in_thread(service.device_syncs.note, caller, cursor)


async def wait_here(request: Request, waiter: Waiter, seconds: float) -> bool:
    """Wait for news, for `seconds` at most; False as soon as the caller has gone away."""
    here = True
    async with anyio.create_task_group() as tasks:

        async def watch() -> None:
            nonlocal here
            while (await request.receive())["type"] != "http.disconnect":
                continue
            here = False
            tasks.cancel_scope.cancel()

        tasks.start_soon(watch)
        await waiter.wait(seconds)
        tasks.cancel_scope.cancel()
    return here
