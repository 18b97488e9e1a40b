"""`aloft serve --check`: configuration, database, object store, clock and TLS, each tried out. Changes nothing that it finds.

It may run beside the service that it is about.
"""

from __future__ import annotations

import ipaddress
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import anyio
import httpx

from remote.server.certificate import examine_certificate
from remote.server.config import S3Config, ServerConfig
from remote.server.database.examine import examine_postgresql, examine_sqlite
from remote.server.findings import Finding, failed, warning, well
from remote.server.folder import DataFolderError
from remote.server.keys import Key
from remote.server.objects.endpoint import ObjectEndpoint
from remote.server.objects.opening import open_local, what_lacks
from remote.server.objects.probe import SUBJECT as STORE
from remote.server.objects.probe import Answer, Probe
from remote.server.objects.store import BadStoreSettings, StoreUnavailable

SEND_SECONDS = 30.0


def examine(config: ServerConfig) -> Iterator[Finding]:
    """Findings, as they are made."""
    yield from _configuration(config)
    yield from examine_sqlite(config.data) if config.database is None else examine_postgresql(config.database)
    yield from _embedded_store(config) if config.s3 is None else _s3_store(config.s3)
    if config.tls_cert is not None and config.tls_key is not None:
        host = urlsplit(config.public_url).hostname if config.public_url else None
        yield from examine_certificate(config.tls_cert, config.tls_key, host)


def _configuration(config: ServerConfig) -> Iterator[Finding]:
    complaints = [*_addresses(config), *_secrets(config)]
    yield from complaints or [well("configuration", "it is complete")]


def _addresses(config: ServerConfig) -> Iterator[Finding]:
    reached = config.public_url or f"{'https' if config.tls_cert else 'http'}://{config.host}"
    if not _is_private_enough(reached):
        mend = "give it a certificate (tls_cert, tls_key), or put it behind a proxy that has one, and set public_url"
        yield warning("configuration", f"clients would reach the service by {reached}, and they refuse http://", mend)
    store = config.s3.public_endpoint or config.s3.endpoint if config.s3 is not None else None
    if store is not None and not _is_private_enough(store):
        mend = "give the address of the store that begins with https:// (endpoint or public_endpoint in [s3])"
        yield failed("configuration", f"links to objects would begin with {store}, and clients refuse http://", mend)


def _secrets(config: ServerConfig) -> Iterator[Finding]:
    files = (config.tls_key, config.s3.credentials_file if config.s3 is not None else None)
    for file in files:
        if file is None:
            continue
        try:
            is_open = file.stat().st_mode & 0o077
        except OSError as error:
            yield failed("configuration", f"{file} cannot be read: {error.strerror}", "name a file that the service may read")
            continue
        if is_open:
            yield warning("configuration", f"{file} is a secret that others may read", f"chmod 600 {file}")


def _is_private_enough(url: str) -> bool:
    """As clients see it: TLS, or this machine itself."""
    parts = urlsplit(url)
    if parts.scheme == "https" or parts.hostname == "localhost":
        return True
    try:
        return ipaddress.ip_address(parts.hostname or "").is_loopback
    except ValueError:
        return False


# ---------------------------------------------------------------------------------------------------------------- stores


def _s3_store(config: S3Config) -> Iterator[Finding]:
    from remote.server.objects.s3 import S3Store  # see `service`

    try:
        store = S3Store(config)
    except BadStoreSettings as error:
        yield failed(STORE, str(error), "mend the table [s3] of the configuration")
        return
    verify = str(config.ca) if config.ca is not None else True
    try:
        with httpx.Client(verify=verify, timeout=SEND_SECONDS) as client:
            yield from Probe(store, "", partial(_send, client.request), os.urandom).run()
    finally:
        store.close()


def _embedded_store(config: ServerConfig) -> Iterator[Finding]:
    """Tried out in a folder of its own on the same disk: the real ones belong to the service that may be running, and are only
    looked at."""
    try:
        lacking = list(what_lacks(config))
    except DataFolderError as error:
        lacking = [str(error)]
    for says in lacking:
        yield failed(STORE, says, "mount the disk, put the master key back, or mend objects.folders")
    place = next(path for path in (config.data, *config.data.absolute().parents) if path.is_dir())
    try:
        folder = Path(tempfile.mkdtemp(prefix=".aloft-check-", dir=place))
    except OSError as error:
        yield failed(STORE, f"nothing can be written in {place}: {error.strerror}", "make the data folder writable for this user")
        return
    try:
        store = open_local(ServerConfig(folder), Key("check", os.urandom(32)), time.time_ns, os.urandom)
        endpoint = ObjectEndpoint(store)

        def request(method: str, url: str, **rest: object) -> httpx.Response:
            return anyio.run(partial(_over_asgi, endpoint, method, url, rest))

        yield from Probe(store, "http://check.invalid", partial(_send, request), os.urandom).run()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def _over_asgi(endpoint: ObjectEndpoint, method: str, url: str, rest: Mapping[str, object]) -> httpx.Response:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=endpoint)) as client:
        return await client.request(method, url, **rest)  # type: ignore[arg-type]


def _send(request: Callable[..., httpx.Response], method: str, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
    try:
        response = request(method, url, headers=headers, content=body or None)
    except httpx.HTTPError as error:
        raise StoreUnavailable(f"no answer to {method} at the address that links have") from error
    return Answer(response.status_code, response.headers, response.content)
