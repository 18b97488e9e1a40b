"""Where a service is, and which addresses a client may talk to at all.

Plain `http://` is for loopback only, unless the person insisted. Knows nothing of requests.
"""

from __future__ import annotations

import ipaddress
import ssl
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

_LOOPBACK_NAMES = ("localhost", "ip6-localhost")


class BadAddress(ValueError):
    """An address that a client does not talk to; the text says what would do."""


@dataclass(frozen=True)
class Endpoint:
    """A service's address: `url` has a scheme and a host, perhaps a port and a path, no slash at the end.

    `ca`: a PEM file of certificate authorities that are trusted besides the system's.
    """

    url: str
    ca: Path | None = None
    insecure: bool = False

    @classmethod
    def parse(cls, text: str, *, ca: Path | None = None, insecure: bool = False) -> Endpoint:
        """The endpoint that a person meant; without a scheme it is `https://`."""
        text = text.strip()
        url = text if "://" in text else f"https://{text}"
        parts = _split(url)
        if parts.query or parts.fragment:
            raise BadAddress(f"the server's address {text} has a query or a fragment; leave it out")
        _check(parts, insecure)
        if ca is not None and not ca.is_file():
            raise BadAddress(f"there is no certificate file {ca}")
        return cls(url.rstrip("/"), ca.absolute() if ca is not None else None, insecure)

    @property
    def host(self) -> str:
        """Host and port, for messages."""
        return urlsplit(self.url).netloc

    def check_link(self, url: str) -> None:
        """`BadAddress` unless object bytes may travel to or from this presigned URL. The text does not show its query."""
        _check(_split(url), self.insecure)

    @cached_property
    def tls(self) -> ssl.SSLContext:
        """The system's authorities and `ca`. The environment's SSL_CERT_FILE and SSL_CERT_DIR count, as for OpenSSL."""
        context = ssl.create_default_context()
        if self.ca is not None:
            try:
                context.load_verify_locations(cafile=str(self.ca))
            except (ssl.SSLError, OSError) as error:
                raise BadAddress(f"{self.ca} is not a file of PEM certificates: {error}") from error
        return context


def is_loopback(host: str) -> bool:
    if host.lower() in _LOOPBACK_NAMES:
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise BadAddress(f"not an address: {error}") from error
    return parts


def _check(parts: SplitResult, insecure: bool) -> None:
    if parts.scheme not in ("http", "https"):
        raise BadAddress(f"{parts.scheme}:// is not a scheme for a server; use https://")
    if not parts.hostname:
        raise BadAddress("the address has no host; use https://HOST")
    if parts.username is not None or parts.password is not None:
        raise BadAddress("an address must not hold a user or a password")
    if parts.scheme == "http" and not insecure and not is_loopback(parts.hostname):
        raise BadAddress(f"http://{parts.hostname} is not encrypted; use https://, or --insecure if you accept that")
