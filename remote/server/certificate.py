"""Whether a certificate and its key are fit for clients: tried out by a handshake in memory, as a client would do it."""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from remote.server.findings import Finding, failed, warning, well

SUBJECT = "TLS"
SOON_SECONDS = 14 * 86400


def examine_certificate(certificate: Path, key: Path, host: str | None) -> Iterator[Finding]:
    """`host`: the name that clients use, if it is known."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        server.load_cert_chain(certificate, key)
    except OSError as error:  # ssl.SSLError is one, too
        yield failed(
            SUBJECT,
            f"{certificate} and {key} cannot be used: {error}",
            "give the certificate in PEM, and the key that is its own",
        )
        return
    alone = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    alone.check_hostname = False
    alone.load_verify_locations(cafile=certificate)
    alone.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        said = _shake_hands(server, alone, None)
    except ssl.SSLError as error:
        yield failed(SUBJECT, f"no client accepts the certificate: {_reason(error)}", "renew it")
        return
    end = ssl.cert_time_to_seconds(str(said["notAfter"]))
    date = datetime.fromtimestamp(end, UTC).date().isoformat()
    if end - time.time() < SOON_SECONDS:
        yield warning(SUBJECT, f"the certificate ends on {date}", "renew it")
    else:
        yield well(SUBJECT, f"certificate and key fit each other, and are good until {date}")
    try:
        _shake_hands(server, ssl.create_default_context() if host else _any_name(), host)
    except ssl.SSLError as error:
        mend = (
            "give clients its authority (--ca), or take one of a public authority, for the name that clients use, with its chain"
        )
        yield warning(SUBJECT, f"a client on this machine would not trust it: {_reason(error)}", mend)


def _any_name() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    return context


def _shake_hands(server: ssl.SSLContext, client: ssl.SSLContext, host: str | None) -> dict[str, Any]:
    """The certificate as the client sees it, once it is convinced. `ssl.SSLError`."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    mine = client.wrap_bio(to_client, to_server, server_hostname=host)
    its = server.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(10):
        for side in (mine, its):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            if side is mine:
                return mine.getpeercert() or {}
    raise ssl.SSLError("the handshake does not end")


def _reason(error: ssl.SSLError) -> str:
    return error.verify_message if isinstance(error, ssl.SSLCertVerificationError) else str(error.reason or error)
