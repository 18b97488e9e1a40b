"""Search in the caller's files."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from remote.manifest import SIZE_MAX
from remote.protocol import Kind
from remote.searchapi import HITS_MAX, LIMIT_DEFAULT, LIMIT_MAX, QUERY_MAX, SearchPage
from remote.server.routes.requests import FilesReader, answer, describe, service_of
from remote.server.search import Wanted

router = APIRouter()

Size = Annotated[int | None, Query(ge=0, le=SIZE_MAX)]
Time = Annotated[int | None, Query(ge=-(2**63), le=2**63 - 1)]


@router.get("/v1/search", **describe(SearchPage))
async def search(
    request: Request,
    caller: FilesReader,
    q: Annotated[str, Query(max_length=QUERY_MAX)] = "",
    kind: Kind | None = None,
    type: Annotated[str | None, Query(pattern=r"^[\w.+*-]{1,60}(/[\w.+*-]{1,60})?$")] = None,
    size_min: Size = None,
    size_max: Size = None,
    modified_after: Time = None,
    modified_before: Time = None,
    under: Annotated[str | None, Query(min_length=1, max_length=16 * 1024)] = None,
    limit: Annotated[int, Query(ge=1, le=LIMIT_MAX)] = LIMIT_DEFAULT,
    after: Annotated[int, Query(ge=0, le=HITS_MAX)] = 0,
) -> Response:
    """Files and folders by their names, types, sizes, dates and contents, the best hits first."""
    service = service_of(request)
    wanted = Wanted(q, kind, type, size_min, size_max, modified_after, modified_before, under)
    return answer(await service.in_thread(service.search.page, caller, wanted, after, limit))
