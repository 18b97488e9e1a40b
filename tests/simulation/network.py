"""The network of one device: the client's interface to the service, with every way in which requests go wrong.

What a device asks is serialized, carried, parsed and served by the real service's modules, and the answer goes the same way back,
so the wire's types are exercised; HTTP itself, tokens and passwords are left out. A `Fault` that was armed meets the next request
of its class. A request that is under way when the cable is pulled, or when the service dies, may have been applied or not.
"""

from __future__ import annotations

import hashlib
import random
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar
from urllib.parse import urlsplit

import trio
from pydantic import ValidationError
from starlette.responses import Response

from remote.accountapi import AccountInfo, DeviceList
from remote.api import Overloaded, StoreUnavailable, Unreachable
from remote.historyapi import TrashPage, VersionsPage
from remote.problems import error_from_answer, error_from_store, error_from_validation, wrong_bytes
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
    UploadPlan,
    UploadRequest,
    WantedManifest,
)
from remote.server.devices import Caller
from remote.server.objects.store import LinkBase
from remote.server.problems import Refused, from_validation, problem_response
from remote.server.routes.accounts import _account_info
from remote.server.service import Service
from tests.simulation.serving import BASE, Backend

A = TypeVar("A", bound=Answer)
HOST = urlsplit(BASE).netloc
PIECE = 2 * 1024
TIMEOUT = 8.0
"""Seconds after which a device gives a request up that nobody answers."""


AT_ONCE_MAX = 400
"""So many requests a device may make in one instant of virtual time."""


class Fault(StrEnum):
    """What may happen to one request."""

    LOST = "request lost"
    UNANSWERED = "answer lost"
    LATE = "answered late"
    TWICE = "delivered twice"
    AGAIN = "delivered again later"
    CUT = "cut in the body"
    CORRUPT = "body corrupted"
    BUSY = "asked for patience"


class Class(StrEnum):
    """Which requests a fault may be armed for."""

    COMMIT = "commit"
    CHANGES = "changes"
    PLAN = "plan"
    PUT = "put"
    GET = "get"
    OTHER = "other"


CLASSES: Mapping[Fault, tuple[Class, ...]] = {
    Fault.LOST: tuple(Class),
    Fault.UNANSWERED: tuple(Class),
    Fault.LATE: tuple(Class),
    Fault.TWICE: (Class.COMMIT, Class.COMMIT, Class.PLAN, Class.PUT),
    Fault.AGAIN: (Class.COMMIT, Class.COMMIT, Class.COMMIT, Class.PUT),
    Fault.CUT: (Class.PUT, Class.GET),
    Fault.CORRUPT: (Class.GET,),
    Fault.BUSY: tuple(Class),
}


@dataclass(slots=True)
class Gates:
    """What a device may do while the order of healing is owned: others wait, they do not fail."""

    push: bool = True
    pull: bool = True


class Wire:
    """`remote.api.Service` for one life of one device's process. `happened` hears of each fault that met a request,
    `committed` of each commit that changed the service."""

    def __init__(
        self,
        name: str,
        backend: Backend,
        caller: Caller,
        seed: str,
        nursery: trio.Nursery,
        trace: Callable[[str], None],
        happened: Callable[[Fault], None],
        committed: Callable[[str], None],
        endless: Callable[[str], None],
    ) -> None:
        self.name = name
        self.latency = 0.0
        """Seconds that a way takes at most."""
        self.page_limit: int | None = None
        """So many rows a page at most."""
        self.cable = True
        self.dead = False
        """The process is no more: what it sent may arrive, what it is answered does not."""
        self.waiting = 0
        """Long polls that wait for news, and requests that wait at a gate."""
        self.begun = 0
        """Requests so far, of all kinds."""
        self._backend = backend
        self._caller = caller
        self._random = random.Random(f"network {seed}")
        self._nursery = nursery
        self._trace = trace
        self._happened = happened
        self._committed = committed
        self._armed: dict[Class, deque[Fault]] = {each: deque() for each in Class}
        self._endless = endless
        self._instant = (0.0, 0)
        self._under_way: dict[int, trio.CancelScope] = {}
        self._nothing_new = ("", 0)
        """After this cursor there was nothing when the service had changed so often, so nobody needs to look again."""
        self._gates = Gates()
        self._gates_changed = trio.Event()
        self.on_event: Callable[[], None] = lambda: None
        """Called at every step of a request: where a process may die."""

    # ------------------------------------------------------------------------------------------------ for the simulation

    def arm(self, fault: Fault, class_: Class) -> None:
        self._armed[class_].append(fault)

    def disarm(self) -> None:
        for armed in self._armed.values():
            armed.clear()

    def set_cable(self, plugged: bool) -> None:
        self.cable = plugged
        if not plugged:
            self.break_all()

    def break_all(self) -> None:
        """Every request that is under way ends without an answer."""
        for scope in list(self._under_way.values()):
            scope.cancel()

    def set_gates(self, *, push: bool, pull: bool) -> None:
        self._gates = Gates(push, pull)
        self._gates_changed.set()
        self._gates_changed = trio.Event()

    @property
    def busy(self) -> bool:
        """Whether a request is under way that does not only wait for news or for its turn."""
        return len(self._under_way) > self.waiting

    # ------------------------------------------------------------------------------------------------------- the interface

    async def commit(self, space: bytes, body: bytes) -> CommitAnswer:
        async def serve(service: Service) -> bytes:
            try:
                committed = service.namespace.commit(self._caller, space, body)
            except ValidationError as error:
                raise from_validation(error) from error
            if committed.changed:
                self._backend.changes += 1
                self._committed(self.name)
                service.wake.notify(space)
            return committed.answer

        return await self._call(CommitAnswer, Class.COMMIT, serve)

    async def changes(self, cursor: str, *, wait_seconds: int, limit: int, removed: bool = False) -> ChangesPage:
        rows = limit if self.page_limit is None else self._random.randint(1, self.page_limit)

        seen = 0

        async def serve(service: Service) -> bytes:
            nonlocal seen
            until = trio.current_time() + wait_seconds
            with service.wake.subscribe([self._backend.space]) as waiter:
                while True:
                    is_last = trio.current_time() >= until or service.wake.closed
                    if is_last or self._nothing_new != (cursor, self._backend.changes):
                        seen = self._backend.changes
                        page = service.feed.page(self._caller, cursor, rows, removed=removed)
                        if page.worth_sending or is_last:
                            return page.answer
                        self._nothing_new = (cursor, seen)
                    self.waiting += 1
                    try:
                        await waiter.wait(until - trio.current_time())
                    finally:
                        self.waiting -= 1

        page = await self._call(ChangesPage, Class.CHANGES, serve)
        if not page.has_more:
            self._nothing_new = (page.cursor, seen)
        return page

    async def folder(self, space: bytes, inode: bytes, *, after: str, limit: int) -> FolderPage:
        async def serve(service: Service) -> bytes:
            return service.feed.folder(self._caller, space, inode, after, min(limit, self.page_limit or limit))

        return await self._call(FolderPage, Class.OTHER, serve)

    async def manifests(self, space: bytes, wanted: Sequence[WantedManifest]) -> ManifestsAnswer:
        body = ManifestsRequest(wanted=list(wanted)).model_dump_json()

        async def serve(service: Service) -> bytes:
            asked = ManifestsRequest.model_validate_json(body).wanted
            return service.downloads.manifests(self._caller, space, asked).model_dump_json().encode()

        return await self._call(ManifestsAnswer, Class.OTHER, serve)

    async def plan_uploads(self, space: bytes, objects: Sequence[ObjectToUpload], file: FileToUpload | None = None) -> UploadPlan:
        body = UploadRequest(objects=list(objects), file=file).model_dump_json()

        async def serve(service: Service) -> bytes:
            asked = UploadRequest.model_validate_json(body)
            return service.uploads.plan(self._caller, space, asked.objects, LinkBase(BASE), asked.file).model_dump_json().encode()

        return await self._call(UploadPlan, Class.PLAN, serve)

    async def plan_downloads(self, space: bytes, objects: Sequence[bytes]) -> DownloadPlan:
        body = DownloadRequest(objects=list(objects)).model_dump_json()

        async def serve(service: Service) -> bytes:
            asked = DownloadRequest.model_validate_json(body).objects
            return service.downloads.plan(self._caller, space, asked, LinkBase(BASE)).model_dump_json().encode()

        return await self._call(DownloadPlan, Class.PLAN, serve)

    async def versions(self, space: bytes, inode: bytes, *, before: int | None, limit: int) -> VersionsPage:
        async def serve(service: Service) -> bytes:
            return service.history.versions(self._caller, space, inode, before, limit).model_dump_json().encode()

        return await self._call(VersionsPage, Class.OTHER, serve)

    async def trash(self, space: bytes, folder: bytes | None, *, after: str | None, limit: int) -> TrashPage:
        async def serve(service: Service) -> bytes:
            return service.history.trash(self._caller, space, folder, after, limit).model_dump_json().encode()

        return await self._call(TrashPage, Class.OTHER, serve)

    async def account(self) -> AccountInfo:
        async def serve(service: Service) -> bytes:
            return _account_info(service, self._caller).model_dump_json().encode()

        return await self._call(AccountInfo, Class.OTHER, serve)

    async def devices(self) -> DeviceList:
        async def serve(service: Service) -> bytes:
            return service.devices.listing(self._caller).model_dump_json().encode()

        return await self._call(DeviceList, Class.OTHER, serve)

    async def remove_device(self, device: bytes) -> None:
        raise NotImplementedError

    async def put_object(self, link: Link, body: bytes) -> None:
        async def serve(service: Service, cut: bool) -> Exchanged:
            return await _exchange(service, "PUT", link, bytes(body), self._cut_at(len(body)) if cut else None)

        answer = await self._reach_store(Class.PUT, serve)
        if answer.status not in (200, 201, 204):
            raise error_from_store(answer.status, answer.headers, answer.body, HOST)

    async def get_object(self, link: Link, length: int) -> bytearray:
        async def serve(service: Service, cut: bool) -> Exchanged:
            return await _exchange(service, "GET", link, b"", self._cut_at(length) if cut else None)

        answer = await self._reach_store(Class.GET, serve)
        if answer.status != 200:
            raise error_from_store(answer.status, answer.headers, answer.body, HOST)
        if len(answer.body) != length:
            raise wrong_bytes(HOST, f"that is not {length} bytes long")
        if hashlib.sha256(answer.body).digest() != link.id:
            raise wrong_bytes(HOST, "whose bytes do not have the hash that is its name")
        return bytearray(answer.body)

    async def _reach_store(self, class_: Class, serve: Serve) -> Exchanged:
        try:
            return await self._carry(class_, serve)
        except Unreachable as error:  # which says nothing of the service
            raise StoreUnavailable(str(error)) from error
        except Overloaded as error:
            raise StoreUnavailable(str(error), error.retry_after) from error

    def _cut_at(self, length: int) -> int:
        return self._random.randrange(length)

    # ------------------------------------------------------------------------------------------------------- one request

    async def _call(self, answer: type[A], class_: Class, serve: Callable[[Service], Awaitable[bytes]]) -> A:
        async def exchange(service: Service, cut: bool) -> Exchanged:
            try:
                return Exchanged(200, {}, await serve(service))
            except Refused as refused:
                response = problem_response(refused)
                return Exchanged.of(response)

        got = await self._carry(class_, exchange)
        if got.status != 200:
            raise error_from_answer(got.status, got.headers, got.body, HOST, now=0.0)
        try:
            return answer.model_validate_json(got.body)
        except ValidationError as error:
            raise error_from_validation(error, HOST) from error

    async def _carry(self, class_: Class, serve: Serve) -> Exchanged:
        """One request and its answer, there and back. `Unreachable` for everything that goes wrong between."""
        self.begun += 1
        await self._breathe()
        number, scope = self.begun, trio.CancelScope()
        self._under_way[number] = scope
        try:
            with scope:
                await self._pass_gate(class_)
                return await self._travel(class_, number, serve)
        finally:
            del self._under_way[number]
        self._trace(f"{self.name} {class_} {number} broke")
        raise Unreachable(f"the connection to {HOST} broke")

    async def _breathe(self) -> None:
        """Whoever asks without end in one instant is stopped, since time would never go on."""
        now = trio.current_time()
        at, count = self._instant
        self._instant = (now, count + 1 if at == now else 1)
        if count == AT_ONCE_MAX:
            self._endless(f"{self.name} asks for something again and again, without a pause")
        if count >= AT_ONCE_MAX:
            await trio.sleep(1.0)

    async def _pass_gate(self, class_: Class) -> None:
        while not (self._gates.push if class_ is Class.COMMIT else self._gates.pull if class_ is Class.CHANGES else True):
            self.waiting += 1
            try:
                await self._gates_changed.wait()
            finally:
                self.waiting -= 1

    async def _travel(self, class_: Class, number: int, serve: Serve) -> Exchanged:
        fault = self._armed[class_].popleft() if self._armed[class_] else None
        self._trace(f"{self.name} {class_} {number}{f' ({fault})' if fault else ''}")
        if fault is not None:
            self._happened(fault)
        await self._way()
        if fault is Fault.LOST:
            await self._nobody_answers()
        if fault is Fault.BUSY:
            raise Overloaded(f"{HOST} answered with status 503", self._random.choice((None, 0.5, 3.0)))
        if fault is Fault.TWICE:
            await self._serve(serve, False)
        if fault is Fault.AGAIN:
            self._nursery.start_soon(self._deliver_again, class_, serve)
        answer = await self._serve(serve, fault is Fault.CUT)
        self._trace(f"{self.name} {class_} {number} -> {answer.said()}")
        await self._way()
        if fault is Fault.UNANSWERED:
            await self._nobody_answers()
        if fault is Fault.LATE:
            await trio.sleep(self._random.uniform(0.5, TIMEOUT))
        if fault is Fault.CORRUPT and answer.body:
            at = self._random.randrange(len(answer.body))
            answer.body = answer.body[:at] + bytes([answer.body[at] ^ 1]) + answer.body[at + 1 :]
        return answer

    async def _way(self) -> None:
        """One way through the network."""
        self.on_event()
        if not self.cable:
            raise Unreachable(f"cannot connect to {HOST}")
        await trio.lowlevel.checkpoint()
        if self.latency:
            await trio.sleep(self._random.uniform(0.0, self.latency))
        if self.dead:
            await trio.sleep_forever()

    async def _nobody_answers(self) -> None:
        await trio.sleep(TIMEOUT)
        raise Unreachable(f"{HOST} does not answer in time")

    async def _serve(self, serve: Serve, cut: bool) -> Exchanged:
        service, generation = self._backend.service, self._backend.generation
        if service is None:
            raise Unreachable(f"cannot connect to {HOST}")
        answer = await serve(service, cut)
        self._backend.on_served()
        if self._backend.generation != generation or self._backend.service is None or answer.status == 0:
            raise Unreachable(f"the connection to {HOST} broke")
        return answer

    async def _deliver_again(self, class_: Class, serve: Serve) -> None:
        """The same bytes once more, later, whoever sent them; nobody hears the answer."""
        await trio.sleep(self._random.choice((0.0, 0.3, 3.0, 20.0)))
        if self._backend.service is not None:
            answer = await serve(self._backend.service, False)
            self._trace(f"{self.name} {class_} again -> {answer.said()}")


# ------------------------------------------------------------------------------------------------------- what is exchanged


@dataclass(slots=True)
class Exchanged:
    """An answer as it travels. Status 0: the connection broke before it was complete."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @classmethod
    def of(cls, response: Response) -> Exchanged:
        return cls(response.status_code, response.headers, bytes(response.body))

    def said(self) -> str:
        return f"{self.status} {hashlib.sha256(self.body).hexdigest()[:8]}"


Serve = Callable[[Service, bool], Awaitable[Exchanged]]


async def _exchange(service: Service, method: str, link: Link, body: bytes, cut_at: int | None) -> Exchanged:
    """One request to the object endpoint, as ASGI. Cut at so many bytes of the body, its own or the answer's."""
    address = urlsplit(link.url)
    headers = [(name.lower().encode(), value.encode()) for name, value in link.headers.items()]
    scope: dict[str, Any] = {
        "type": "http",
        "method": method,
        "path": address.path,
        "query_string": address.query.encode(),
        "headers": headers,
    }
    sent = body if cut_at is None else body[:cut_at]
    pieces = deque(sent[at : at + PIECE] for at in range(0, len(sent), PIECE)) or deque([b""])
    status, answered, got = 0, {}, bytearray()
    whole = False

    async def receive() -> dict[str, Any]:
        await trio.lowlevel.checkpoint()
        if not pieces:
            return {"type": "http.disconnect"}
        piece = pieces.popleft()
        more = bool(pieces) or (method == "PUT" and cut_at is not None)
        return {"type": "http.request", "body": piece, "more_body": more}

    async def send(message: dict[str, Any]) -> None:
        nonlocal status, answered, whole
        await trio.lowlevel.checkpoint()
        if message["type"] == "http.response.start":
            status = message["status"]
            answered = {name.decode().lower(): value.decode() for name, value in message["headers"]}
        else:
            got.extend(message.get("body", b""))
            whole = not message.get("more_body", False)

    await service.objects(scope, receive, send)  # type: ignore[arg-type]
    if not whole or (cut_at is not None and method == "GET"):
        return Exchanged(0, {}, b"")
    return Exchanged(status, answered, bytes(got))
