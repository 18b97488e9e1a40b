"""The service as an application and as a process: wiring, problem documents, start and stop."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from http import HTTPStatus
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Mount

from remote import accountapi, fileapi, historyapi, linkapi, notificationapi, protocol, searchapi, sharingapi, syncapi
from remote.memory import give_back_freed_memory
from remote.protocol import ProblemType
from remote.server.config import ServerConfig
from remote.server.contentorigin import ContentHost
from remote.server.cors import SharedWith
from remote.server.logs import loggable_path
from remote.server.patience import Patience
from remote.server.problems import Refused, invalid_field, problem_response
from remote.server.requestlog import RequestLog
from remote.server.routes import (
    accounts,
    audit,
    changes,
    filedownloads,
    files,
    fileuploads,
    notifications,
    publiclinks,
    recovery,
    search,
    shares,
    spaces,
    sync,
    tiers,
    trash,
)
from remote.server.routes.requests import describe, service_of
from remote.server.service import Service, open_service
from remote.server.threads import Runner

log = logging.getLogger("aloft.server")

ROUTES = (
    accounts,
    recovery,
    audit,
    tiers,
    spaces,
    changes,
    files,
    fileuploads,
    filedownloads,
    trash,
    publiclinks,
    shares,
    sync,
    notifications,
    search,
)
WIRE = (protocol, accountapi, fileapi, historyapi, linkapi, sharingapi, syncapi, notificationapi, searchapi)
"""Where the models are that routes read and write."""
LISTEN_BACKLOG = 2048
STOP_SECONDS = 20
"""How long requests may go on after the service was told to stop."""
RETRY_AFTER_SECONDS = 5


def create_app(
    config: ServerConfig,
    *,
    clock: Callable[[], int] = time.time_ns,
    random: Callable[[int], bytes] = os.urandom,
    in_thread: Runner | None = None,
    in_password_thread: Runner | None = None,
) -> FastAPI:
    """The service on `config.data`, opened and migrated. `app.state.service.close()` (or the lifespan's end) closes it.

    `DataFolderError` if the folder cannot be used. A test may own the clock (nanoseconds since 1970), randomness and threads.
    """
    service = open_service(config, clock=clock, random=random, in_thread=in_thread, in_password_thread=in_password_thread)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        keeping_house = asyncio.gather(service.housekeeping.run(), service.indexing.run())
        yield
        service.housekeeping.stop()
        service.indexing.stop()
        await keeping_house
        service.close()

    app = FastAPI(title="Aloft", version="1", lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.service = service
    for module in ROUTES:
        app.include_router(module.router)
    app.add_api_route("/healthz", _health, methods=["GET"], response_class=Response)
    app.add_api_route("/readyz", _readiness, **describe(None))
    if service.objects is not None:
        app.router.routes.append(Mount("/objects", service.objects))
    app.add_exception_handler(Refused, _on_refused)
    app.add_exception_handler(RequestValidationError, _on_invalid_query)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(SQLAlchemyError, _on_database_error)
    app.add_exception_handler(Exception, _on_failure)
    app.add_middleware(Patience, seconds=config.patience_seconds)
    if config.cors.origins:
        app.add_middleware(SharedWith, origins=config.cors.origins)
    if config.content_origin is not None:
        app.add_middleware(ContentHost, origin=config.content_origin)
    app.add_middleware(RequestLog, metrics=service.metrics)
    app.openapi = lambda: _describe(app)  # type: ignore[method-assign]
    return app


def run(config: ServerConfig, *, on_ready: Callable[[str], None] | None = None) -> None:
    """Serve until SIGTERM or SIGINT. `on_ready` gets the address once connections are accepted.

    `DataFolderError`; `CannotListen`; `OSError` for a certificate or key that cannot be read.
    """
    give_back_freed_memory()
    app = create_app(config)
    service: Service = app.state.service
    try:
        with _listen(config.host, config.port) as listener, _metrics(config, service):
            server = _Server(_uvicorn_config(app, config), service, on_ready)
            asyncio.run(server.serve(sockets=[listener]))
    finally:
        service.close()


@contextmanager
def _metrics(config: ServerConfig, service: Service) -> Iterator[None]:
    if config.metrics_port is None:
        yield
        return
    try:
        server = service.metrics.serve(config.metrics_host, config.metrics_port)
    except OSError as error:
        where = f"{config.metrics_host} port {config.metrics_port}"
        raise CannotListen(f"cannot listen on {where} for metrics: {error.strerror}") from error
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()


class CannotListen(OSError):
    """The address cannot be had; the text says why."""


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        # asyncio turns Nagle's algorithm off only where it sees this protocol number: else every small answer takes 40 ms.
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(LISTEN_BACKLOG)
        except BaseException:
            listener.close()
            raise
        return listener
    except socket.gaierror as error:
        raise CannotListen(f"cannot listen on {host}: {error.strerror}") from error
    except OSError as error:
        raise CannotListen(f"cannot listen on {host} port {port}: {os.strerror(error.errno or 0)}") from error


def _uvicorn_config(app: FastAPI, config: ServerConfig) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        ssl_certfile=str(config.tls_cert) if config.tls_cert else None,
        ssl_keyfile=str(config.tls_key) if config.tls_key else None,
        log_config=None,
        access_log=False,  # it would write query strings: see RequestLog
        proxy_headers=bool(config.trusted_proxies),
        forwarded_allow_ips=list(config.trusted_proxies),
        server_header=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=STOP_SECONDS,
        h11_max_incomplete_event_size=128 * 1024,
    )


class _Server(uvicorn.Server):
    """Says where it listens, wakes the waiting before it waits for them, and ends quietly on a signal."""

    def __init__(self, config: uvicorn.Config, service: Service, on_ready: Callable[[str], None] | None) -> None:
        super().__init__(config)
        self._service = service
        self._on_ready = on_ready

    async def startup(self, sockets: list[Any] | None = None) -> None:
        await super().startup(sockets=sockets)
        if self._on_ready is not None and self.started:
            host, port = self.servers[0].sockets[0].getsockname()[:2]
            scheme = "https" if self.config.is_ssl else "http"
            url = f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
            log.info("listening on %s", url)
            self._on_ready(url)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """As uvicorn's, but a signal that was obeyed is not raised again: the process ends by returning."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    async def shutdown(self, sockets: list[Any] | None = None) -> None:
        self._service.wake.close()
        await super().shutdown(sockets=sockets)


# --------------------------------------------------------------------------------------------------------------- errors


async def _on_refused(_request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return problem_response(error)


async def _on_invalid_query(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    return problem_response(invalid_field({**first, "loc": first["loc"][1:]}))  # without "query" or "body" before the field


async def _on_http_exception(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    type_ = ProblemType.NOT_FOUND if error.status_code == HTTPStatus.NOT_FOUND else ProblemType.INVALID
    return problem_response(Refused(type_, HTTPStatus(error.status_code).phrase, status=error.status_code))


async def _on_database_error(request: Request, error: Exception) -> Response:
    """A full disk, or a database that is away, passes; anything else is a fault of ours."""
    service: Service = request.app.state.service
    if isinstance(error, SQLAlchemyError) and service.database.is_away(error):
        log.error("the database failed: %s", error.orig if isinstance(error, DBAPIError) else error)
        return problem_response(
            Refused(ProblemType.UNAVAILABLE, "The database does not answer.", retry_after_seconds=RETRY_AFTER_SECONDS)
        )
    return await _on_failure(request, error)


async def _on_failure(request: Request, error: Exception) -> Response:
    log.error("%s %s failed", request.method, loggable_path(request.url.path), exc_info=error)
    return problem_response(Refused(ProblemType.INTERNAL, "This is a fault of the service; its log says more."))


# ------------------------------------------------------------------------------------------------------------ the rest


async def _health() -> Response:
    """Whether the service answers."""
    return Response(b'{"status":"ok"}', media_type="application/json", headers={"cache-control": "no-store"})


async def _readiness(request: Request) -> Response:
    """Whether the service can do its work: its database and its object store answer. Else 503, which says what does not."""
    service = service_of(request)
    await service.in_store_thread(service.readiness.require)
    return Response(b'{"status":"ready"}', media_type="application/json", headers={"cache-control": "no-store"})


def _describe(app: FastAPI) -> dict[str, Any]:
    """OpenAPI, with the protocol's models: routes read and write them past FastAPI, which so does not know them."""
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title,
            version=app.version,
            routes=app.routes,
            description="\n".join(module.__doc__ or "" for module in WIRE),
        )
        kinds = (protocol.Request, protocol.Answer)
        named = {name: each for module in WIRE for name, each in vars(module).items()}.values()
        models = [each for each in named if isinstance(each, type) and issubclass(each, kinds) and each not in kinds]
        _, definitions = models_json_schema(
            [(model, "validation") for model in models], ref_template="#/components/schemas/{model}"
        )
        document.setdefault("components", {}).setdefault("schemas", {}).update(definitions.get("$defs", {}))
        app.openapi_schema = document
    return app.openapi_schema
