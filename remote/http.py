"""The real `Service`: a logged-in device's calls over HTTP, and its objects over presigned links.

JSON goes through `calls`, object bytes through `transfer`, tokens come from `tokens`. The access token goes to the
service and nowhere else: objects travel through a transport of their own, which has none.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from types import TracebackType
from typing import Any, TypeVar

import httpx
import trio

from remote.accountapi import AccountInfo, DeviceList
from remote.accounts import Accounts
from remote.api import Nonsense, NotAuthenticated, RemoteError, Service
from remote.calls import Api, Timeouts
from remote.credentials import CredentialStore
from remote.endpoint import BadAddress, Endpoint
from remote.historyapi import TrashPage, VersionsPage
from remote.link import Direction, LinkMeter, RateLimit
from remote.manifest import SIZE_MAX
from remote.problems import error_from_store, store_error_from_transport, wrong_bytes
from remote.protocol import (
    Answer,
    ChangesPage,
    CommitAnswer,
    DownloadPlan,
    DownloadRequest,
    FileToUpload,
    FolderPage,
    Link,
    ManifestsAnswer,
    ManifestsRequest,
    ObjectToUpload,
    Request,
    UploadPlan,
    UploadRequest,
    WantedManifest,
)
from remote.resolver import OwnThreads
from remote.tokens import StoredTokens, TokenSource
from remote.transfer import OBJECT_BODY, OBJECT_LENGTH, OBJECT_SHA256, BodyTransport

A = TypeVar("A", bound=Answer)
R = TypeVar("R")

HASHED_IN_PLACE_MAX = 64 * 1024


@dataclass(frozen=True, slots=True)
class Statistics:
    """What this process exchanged with the service and the object store. Rates: bytes per second; latency: seconds."""

    requests: int
    objects_sent: int
    bytes_sent: int
    objects_received: int
    bytes_received: int
    upload_rate: float | None
    download_rate: float | None
    latency: float | None


class HttpService:
    """See `remote.api.Service`. `aclose` when done. The limits may be changed while transfers run.

    `transport` and `object_transport` take the place of the network in tests.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        tokens: TokenSource,
        *,
        timeouts: Timeouts | None = None,
        upload_limit: RateLimit | None = None,
        download_limit: RateLimit | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        object_transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.endpoint = endpoint
        self.meter = LinkMeter(trio.current_time)
        self.upload_limit = upload_limit or RateLimit()
        self.download_limit = download_limit or RateLimit()
        self._tokens = tokens
        timeouts = timeouts or Timeouts()
        trio.socket.set_custom_hostname_resolver(OwnThreads())
        self._api = Api(endpoint, timeouts=timeouts, transport=transport, answered=self.meter.answered)
        # Long polls have connections of their own, so that they never take one away from a call that somebody waits for.
        self._poll = Api(endpoint, timeouts=timeouts, connections=4, transport=transport)
        # A transport and no client above it: objects need no cookies, redirects or authentication, and it is half the cost.
        self._objects = object_transport or BodyTransport(
            tls=lambda: endpoint.tls, upload_limit=self.upload_limit, download_limit=self.download_limit
        )
        self._object_timeout = timeouts.for_httpx().as_dict()
        self._objects_sent = self._bytes_sent = self._objects_received = self._bytes_received = 0

    async def __aenter__(self) -> HttpService:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        await self._api.aclose()
        await self._poll.aclose()
        await self._objects.aclose()

    def statistics(self) -> Statistics:
        rates = self.meter.rates()
        return Statistics(
            requests=self._api.requests + self._poll.requests,
            objects_sent=self._objects_sent,
            bytes_sent=self._bytes_sent,
            objects_received=self._objects_received,
            bytes_received=self._bytes_received,
            upload_rate=rates.upload,
            download_rate=rates.download,
            latency=rates.latency,
        )

    # ------------------------------------------------------------------------------------------------- changes, both ways

    async def commit(self, space: bytes, body: bytes) -> CommitAnswer:
        return await self.call(CommitAnswer, "POST", f"/v1/spaces/{space.hex()}/commit", body)

    async def changes(self, cursor: str, *, wait_seconds: int, limit: int, removed: bool = False) -> ChangesPage:
        params: dict[str, str | int] = {"cursor": cursor, "limit": limit}
        if removed:
            params["removed"] = "true"

        return await self.wait_for(ChangesPage, "/v1/changes", params, wait_seconds)

    async def wait_for(self, answer: type[A], path: str, params: Mapping[str, str | int], wait_seconds: int) -> A:
        """The answer to a `GET` that may wait for so long until there is something to say."""
        asked = {**params, "wait": wait_seconds}

        async def ask(token: str) -> A:
            return await self._poll.call(answer, "GET", path, params=asked, token=token, wait=float(wait_seconds))

        return await self._authenticated(ask)

    async def folder(self, space: bytes, inode: bytes, *, after: str, limit: int) -> FolderPage:
        params: dict[str, str | int] = {"after": after, "limit": limit}

        async def ask(token: str) -> FolderPage:
            path = f"/v1/spaces/{space.hex()}/folders/{inode.hex()}"
            return await self._api.call(FolderPage, "GET", path, params=params, token=token)

        page = await self._authenticated(ask)
        names = [after, *(entry.name for entry in page.entries)]
        if any(one.encode() >= other.encode() for one, other in pairwise(names)) or page.next not in (None, *names[1:][-1:]):
            raise Nonsense(f"{self.endpoint.host} answered the names of a folder in an order that cannot be")
        return page

    async def manifests(self, space: bytes, wanted: Sequence[WantedManifest]) -> ManifestsAnswer:
        request = ManifestsRequest(wanted=list(wanted))
        answer = await self.call(ManifestsAnswer, "POST", f"/v1/spaces/{space.hex()}/manifests", request)
        if len(answer.manifests) != len(request.wanted):
            raise Nonsense(f"{self.endpoint.host} answered {len(answer.manifests)} manifests for {len(request.wanted)}")
        return answer

    async def versions(self, space: bytes, inode: bytes, *, before: int | None, limit: int) -> VersionsPage:
        params: dict[str, str | int] = {"limit": limit} if before is None else {"limit": limit, "before": before}
        page = await self.call(VersionsPage, "GET", f"/v1/spaces/{space.hex()}/versions/{inode.hex()}", params=params)
        revisions = [SIZE_MAX if before is None else before, *(each.revision for each in page.versions)]
        if any(one <= next_ for one, next_ in pairwise(revisions)) or page.next not in (None, *revisions[1:][-1:]):
            raise Nonsense(f"{self.endpoint.host} answered the versions of a file in an order that cannot be")
        return page

    async def trash(self, space: bytes, folder: bytes | None, *, after: str | None, limit: int) -> TrashPage:
        params: dict[str, str | int] = {"limit": limit}
        params |= {} if folder is None else {"folder": folder.hex()}
        params |= {} if after is None else {"after": after}
        page = await self.call(TrashPage, "GET", f"/v1/spaces/{space.hex()}/trash", params=params)
        if page.next is not None and (not page.entries or page.next == after):
            raise Nonsense(f"{self.endpoint.host} answered a page of the trash that leads nowhere")
        return page

    # ------------------------------------------------------------------------------------------------------------ objects

    async def plan_uploads(self, space: bytes, objects: Sequence[ObjectToUpload], file: FileToUpload | None = None) -> UploadPlan:
        request = UploadRequest(objects=list(objects), file=file)
        plan = await self.call(UploadPlan, "POST", f"/v1/spaces/{space.hex()}/uploads", request)
        asked = {item.id for item in request.objects}
        if any(link.method != "PUT" or link.id not in asked for link in plan.missing) or not asked.issuperset(plan.unsigned):
            raise Nonsense(f"{self.endpoint.host} answered links for objects that were not named")
        return plan

    async def plan_downloads(self, space: bytes, objects: Sequence[bytes]) -> DownloadPlan:
        request = DownloadRequest(objects=list(objects))
        plan = await self.call(DownloadPlan, "POST", f"/v1/spaces/{space.hex()}/downloads", request)
        if [link.id for link in plan.links] != request.objects or any(link.method != "GET" for link in plan.links):
            raise Nonsense(f"{self.endpoint.host} answered links for other objects than were asked")
        return plan

    async def put_object(self, link: Link, body: bytes) -> None:
        request = self._object_request(link, "PUT", body)
        transfer, carried = self.meter.begin(Direction.UP), 0
        try:
            response = await self._exchange(request)
            try:
                if response.status_code not in (200, 201, 204):
                    raise await self._refusal(response, _host(request))
            finally:
                await response.aclose()
            carried = len(body)
        finally:
            self.meter.end(transfer, carried)
        self._objects_sent += 1
        self._bytes_sent += len(body)

    async def get_object(self, link: Link, length: int) -> bytearray:
        request = self._object_request(link, "GET")
        request.extensions[OBJECT_LENGTH] = length
        transfer, carried = self.meter.begin(Direction.DOWN), 0
        try:
            response = await self._exchange(request)
            try:
                if response.status_code != 200:
                    raise await self._refusal(response, _host(request))
                body, digest = await self._body(response, length, _host(request))
            finally:
                await response.aclose()
            carried = len(body)
        finally:
            self.meter.end(transfer, carried)
        if len(body) != length:
            raise wrong_bytes(_host(request), f"that is not {length} bytes long")
        if digest != link.id:
            raise wrong_bytes(_host(request), "whose bytes do not have the hash that is its name")
        self._objects_received += 1
        self._bytes_received += len(body)
        return body

    def _object_request(self, link: Link, method: str, body: bytes | None = None) -> httpx.Request:
        host = self.endpoint.host
        if link.method != method:
            raise Nonsense(f"{host} answered a link to {link.method} where one to {method} is needed")
        try:
            self.endpoint.check_link(link.url)
            headers = httpx.Headers(link.headers)
            headers["user-agent"] = "aloft"
            extensions: dict[str, Any] = {"timeout": self._object_timeout}
            if body is None:
                return httpx.Request(method, link.url, headers=headers, extensions=extensions)
            headers["content-length"] = str(len(body))
            extensions[OBJECT_BODY] = body
            return httpx.Request(method, link.url, headers=headers, content=_pieces(body), extensions=extensions)
        except BadAddress as error:
            raise Nonsense(f"{host} answered a link that is not followed: {error}") from error
        except (httpx.InvalidURL, ValueError) as error:
            raise Nonsense(f"{host} answered a link that is none") from error

    async def _exchange(self, request: httpx.Request) -> httpx.Response:
        try:
            return await self._objects.handle_async_request(request)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise store_error_from_transport(error, _host(request)) from error

    @staticmethod
    async def _refusal(response: httpx.Response, host: str) -> RemoteError:
        try:
            said = await response.aread()
        except httpx.HTTPError:
            said = b""
        return error_from_store(response.status_code, response.headers, said, host)

    async def _body(self, response: httpx.Response, length: int, host: str) -> tuple[bytearray, bytes]:
        """The bytes and their hash, from our own transport or from any other."""
        if OBJECT_BODY in response.extensions:
            return response.extensions[OBJECT_BODY], response.extensions[OBJECT_SHA256]
        body = bytearray()
        try:
            async for piece in response.aiter_raw():  # to the end: generators that are left halfway stay open
                body += piece[: length + 1 - len(body)]
        except httpx.HTTPError as error:
            raise store_error_from_transport(error, host) from error
        if len(body) <= HASHED_IN_PLACE_MAX:
            return body, hashlib.sha256(body).digest()
        return body, await trio.to_thread.run_sync(lambda: hashlib.sha256(body).digest())

    # ------------------------------------------------------------------------------------------------ account and devices

    async def account(self) -> AccountInfo:
        """From now on no upload is faster than this says."""
        info = await self.call(AccountInfo, "GET", "/v1/account")
        self.upload_limit.set_ceiling(info.tier.upload_bytes_per_second if info.tier is not None else None)
        return info

    async def devices(self) -> DeviceList:
        return await self.call(DeviceList, "GET", "/v1/devices")

    async def remove_device(self, device: bytes) -> None:
        await self.send("DELETE", f"/v1/devices/{device.hex()}")

    # -------------------------------------------------------------------------------------------------------------- calls

    async def call(
        self,
        answer: type[A],
        method: str,
        path: str,
        body: Request | bytes | None = None,
        *,
        params: Mapping[str, str | int] | None = None,
    ) -> A:
        """The answer to any request, as this device."""

        async def ask(token: str) -> A:
            return await self._api.call(answer, method, path, body=body, params=params, token=token)

        return await self._authenticated(ask)

    async def send(self, method: str, path: str, body: Request | None = None) -> None:
        """Like `call`, for what has no answer."""

        async def ask(token: str) -> None:
            await self._api.send(method, path, body=body, token=token)

        await self._authenticated(ask)

    async def _authenticated(self, ask: Callable[[str], Awaitable[R]]) -> R:
        """`ask` with an access token, and once more with a new one if the service does not take the first."""
        token = await self._tokens.current()
        try:
            return await ask(token)
        except NotAuthenticated:
            pass
        return await ask(await self._tokens.after_rejection(token))


def open_service(
    store: CredentialStore,
    *,
    timeouts: Timeouts | None = None,
    upload_limit: RateLimit | None = None,
    download_limit: RateLimit | None = None,
) -> HttpService:
    """The service that this home is logged in to. Opens no connection yet. `NotAuthenticated` if it is not."""
    credentials = store.read()
    if credentials is None or credentials.tokens is None:
        raise NotAuthenticated("this device is not logged in: run aloft login")
    endpoint = credentials.endpoint()
    tokens = StoredTokens(store, Accounts(endpoint, timeouts=timeouts).refresh)
    return HttpService(endpoint, tokens, timeouts=timeouts, upload_limit=upload_limit, download_limit=download_limit)


async def _pieces(body: bytes) -> AsyncIterator[bytes]:
    """For a transport that does not know `OBJECT_BODY`."""
    yield bytes(body)


def _host(request: httpx.Request) -> str:
    return request.url.netloc.decode("ascii")


def _conforms(service: HttpService) -> Service:
    """Lets the type checker hold `HttpService` against the interface."""
    return service
