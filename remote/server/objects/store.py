"""The interface of an object store.

A store keeps bytes under keys (`owner/object-id.generation`, all hex). Objects never change: a second PUT of a key brings the
same bytes, because the SHA-256 is part of its signature. The service signs and asks; it reads only for those who have one URL.
`objects/local.py` is the embedded store, `objects/s3.py` any that speaks S3; `tests/contract` holds all of them to this.

    StoreError
    ├── StoreUnavailable    try again later
    └── NoSuchObject        the key is not there
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from remote.protocol import Link

LISTED = 1000


class StoreError(Exception):
    pass


class StoreUnavailable(StoreError):
    """The store does not answer, or has no room."""


class NoSuchObject(StoreError):
    pass


class BadStoreSettings(ValueError):
    """The store cannot be meant so; the text says what to do."""


@dataclass(frozen=True, slots=True)
class Stored:
    """What the store itself says about an object."""

    length: int
    sha256: bytes | None
    """None: this store keeps no such sum, and checked it when the object came."""
    etag: str | None = None
    """As the store answers it to a PUT, without quotes."""


@dataclass(frozen=True, slots=True)
class Listed:
    """What a listing says about an object."""

    key: str
    length: int
    modified_ns: int
    """When it came, by the store's clock: nanoseconds since 1970."""


@dataclass(frozen=True, slots=True)
class Checked:
    """What `ObjectStore.check` found of an object."""

    wrong: str | None = None
    """None: it is there, all of it."""
    lacking: int = 0
    """Good copies that lack, as the store is to keep more."""
    surplus: int = 0
    """Copies that lie where they do not belong (any more)."""
    mended: bool = False
    """So there is neither of both now."""


@dataclass(frozen=True, slots=True)
class LinkBase:
    """For whom a link is."""

    url: str
    """By which the caller reaches the service."""
    address: str | None = None
    """From where the caller comes: the link is good from there only; None: from everywhere."""


def object_key(owner: bytes, object_id: bytes, generation: int) -> str:
    return f"{owner.hex()}/{object_id.hex()}.{generation}"


class ObjectStore(Protocol):
    """Every method may be repeated. `sign_…` compute only; the others block, and belong in a worker thread."""

    needs_md5: bool
    """Whether links to PUT must sign the MD5."""

    def sign_put(
        self, base: LinkBase, key: str, object_id: bytes, length: int, expires_in: int, md5: bytes | None = None
    ) -> Link:
        """A link that stores exactly these bytes: this key, length and SHA-256 (and MD5), for `expires_in` seconds.

        A store with an address of its own ignores `base`.
        """

    def sign_get(self, base: LinkBase, key: str, object_id: bytes, expires_in: int) -> Link: ...

    def stat(self, keys: Sequence[str]) -> Mapping[str, Stored]:
        """Those of the keys that are there, whole and durable. `StoreUnavailable`."""

    def read(self, key: str, length: int) -> bytes:
        """The stored bytes, which are `length`: others are not read further. `NoSuchObject`, `StoreUnavailable`."""

    def write(self, key: str, object_id: bytes, body: bytes) -> None:
        """Store these bytes, whose SHA-256 is `object_id`, in the place of whatever is there. `StoreUnavailable`."""

    def delete(self, keys: Sequence[str]) -> None:
        """They are gone; also those that were not there. `StoreUnavailable`: some of them may be left."""

    def listing(self, after: str = "", limit: int = LISTED) -> Sequence[Listed]:
        """At most `limit` objects, in the order of keys, from the first that comes after `after`; whatever else lies there,
        too. Less than `limit`: that was the end. `StoreUnavailable`."""

    def check(self, key: str, object_id: bytes, length: int, *, mend: bool) -> Checked:
        """Read all copies of an object that is to have this SHA-256 and length.

        `mend`: where some are good, put them where others lack or are damaged. `StoreUnavailable`.
        """

    def replicas(self, keys: Sequence[str]) -> Mapping[str, Sequence[str]]:
        """The places that hold a copy, by the names that the store has for them; empty: the store does not say.
        `StoreUnavailable`."""

    def close(self) -> None:
        """Let go of connections and threads."""
