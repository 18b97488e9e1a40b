"""Whether an object store does what the service relies on: tried out with small objects, which are deleted again.

Only what was refused counts as checked. What a store says of itself is not asked for.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

from remote.protocol import Link
from remote.server.findings import Finding, failed, warning, well
from remote.server.objects.store import LinkBase, ObjectStore, StoreError, StoreUnavailable, object_key

SUBJECT = "object store"
OWNER = bytes(16)
"""Of no account."""
EXPIRY_SECONDS = 30.0
"""How long a store gets to notice that a link of one second is over."""
SKEW_SECONDS = 60.0
_CODE = re.compile(rb"<Code>\s*([A-Za-z0-9]{1,64})\s*</Code>")


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    def __str__(self) -> str:
        code = _CODE.search(self.body)
        return f"{self.status} ({code.group(1).decode()})" if code else str(self.status)

    @property
    def refused(self) -> bool:
        return 400 <= self.status < 500


Send = Callable[[str, str, Mapping[str, str], bytes], Answer]
"""(method, address, headers, body) → the answer; `StoreUnavailable` if there is none."""


class Probe:
    """One trial of a store. `base`: see `ObjectStore.sign_put`."""

    def __init__(
        self,
        store: ObjectStore,
        base: str,
        send: Send,
        random: Callable[[int], bytes],
        expiry_seconds: float = EXPIRY_SECONDS,
    ) -> None:
        self._store = store
        self._base = LinkBase(base)
        self._send = send
        self._expiry_seconds = expiry_seconds
        self._body = random(1000)
        self._id = hashlib.sha256(self._body).digest()
        self._md5 = hashlib.md5(self._body, usedforsecurity=False).digest()
        self._wrong = bytes(byte ^ 1 for byte in self._body)
        self._keys: list[str] = []

    def run(self) -> Iterator[Finding]:
        """Findings, as they are made."""
        try:
            self._store.listing(limit=1)
            yield from self._try_all()
        except StoreError as error:
            yield failed(SUBJECT, _with_cause(error), "see that it runs, and that its address, bucket and credentials are right")
        finally:
            self._clean_up()

    def _try_all(self) -> Iterator[Finding]:
        key, link = self._put_link()
        arrived = self._put(link, self._body)
        if arrived.status not in (200, 201, 204):
            yield failed(
                SUBJECT,
                f"it refuses an object by a link that was signed for it: {arrived}",
                "see that the region is the store's own, and that the credentials may write to the bucket",
            )
            return
        yield from self._clock(arrived)
        yield self._found(key)
        yield from self._readable(key)
        yield self._wrong_body()
        yield self._refuses("a body that is too short", self._put(self._put_link()[1], self._body[:-1]), _MEND_LENGTH)
        yield self._refuses("a body that is too long", self._put(self._put_link()[1], self._body + b"x"), _MEND_LENGTH)
        yield self._expiry()
        yield self._nothing_else_came(key)
        yield self._deletes(key)

    def _put_link(self, expires_in: int = 300, *, with_md5: bool = False) -> tuple[str, Link]:
        """To a key of its own for each trial."""
        md5 = self._md5 if with_md5 or self._store.needs_md5 else None
        key = object_key(OWNER, self._id, time.time_ns() // 1000)
        self._keys.append(key)
        return key, self._store.sign_put(self._base, key, self._id, len(self._body), expires_in, md5)

    def _put(self, link: Link, body: bytes) -> Answer:
        return self._send("PUT", link.url, link.headers | {"Content-Length": str(len(body))}, body)

    def _get_url(self, key: str) -> str:
        return self._store.sign_get(self._base, key, self._id, 300).url

    def _clock(self, answer: Answer) -> Iterator[Finding]:
        try:
            there = parsedate_to_datetime(answer.headers.get("date", "")).timestamp()
        except ValueError:
            return
        ahead = time.time() - there
        if abs(ahead) > SKEW_SECONDS:
            behind = "ahead of" if ahead > 0 else "behind"
            mend = "set both clocks by NTP: links carry times, and a store refuses those that are minutes off"
            yield failed("clock", f"this machine's clock is {abs(ahead):.0f} s {behind} that of the object store", mend)
        else:
            yield well("clock", "it agrees with that of the object store")

    def _found(self, key: str) -> Finding:
        stored = self._store.stat([key]).get(key)
        if stored is None or stored.length != len(self._body) or stored.sha256 not in (None, self._id):
            return failed(SUBJECT, "it does not know the size of an object that it has taken", "use a store that is consistent")
        kept = "and keeps its SHA-256" if stored.sha256 is not None else "and keeps no SHA-256 of its own"
        return well(SUBJECT, f"it takes an object by a signed link, knows its size {kept}")

    def _readable(self, key: str) -> Iterator[Finding]:
        got = self._send("GET", self._get_url(key), {}, b"")
        if (got.status, got.body) == (200, self._body):
            yield well(SUBJECT, "it gives the object back by a signed link")
        else:
            yield failed(SUBJECT, f"it does not give the object back: {got}", "see that the credentials may read from the bucket")
        unsigned = self._send("GET", self._get_url(key).partition("?")[0], {}, b"")
        mend = "make the bucket private: now whoever knows or guesses a key reads it"
        yield self._refuses("who has no link", unsigned, mend)

    def _wrong_body(self) -> Finding:
        answer = self._put(self._put_link()[1], self._wrong)
        if not answer.refused and self._put(self._put_link(with_md5=True)[1], self._wrong).refused:
            says = f"it does not refuse a wrong body: it answered {answer}; but it does where the MD5 is signed"
            return failed(SUBJECT, says, "set content_md5 = true in [s3]")
        return self._refuses("a wrong body", answer, _MEND_SUMS)

    def _expiry(self) -> Finding:
        _, link = self._put_link(expires_in=1)
        until = time.monotonic() + self._expiry_seconds
        time.sleep(1)
        while not (answer := self._put(link, self._body)).refused and time.monotonic() < until:
            time.sleep(0.2)
        return self._refuses("a link that has expired", answer, "use a store that honours X-Amz-Expires, and see to its clock")

    def _refuses(self, what: str, answer: Answer, mend: str) -> Finding:
        if answer.refused:
            return well(SUBJECT, f"it refuses {what}: {answer}")
        return failed(SUBJECT, f"it does not refuse {what}: it answered {answer}", mend)

    def _nothing_else_came(self, key: str) -> Finding:
        # The last key is that of the link that expired: it was good for a second.
        left = self._store.stat([other for other in self._keys[:-1] if other != key])
        if left:
            return failed(SUBJECT, "it keeps what it has refused", "use a store that takes an object whole or not at all")
        return well(SUBJECT, "it keeps nothing of what it has refused")

    def _deletes(self, key: str) -> Finding:
        self._store.delete([key])
        if key in self._store.stat([key]):
            mend = "see that the credentials may delete, and that nothing locks objects in the bucket"
            return warning(SUBJECT, "an object that was deleted is still there", mend)
        return well(SUBJECT, "it deletes objects")

    def _clean_up(self) -> None:
        try:
            self._store.delete(self._keys)
        except StoreUnavailable:
            return


_MEND_SUMS = (
    "use a store that compares bodies with x-amz-content-sha256 or x-amz-checksum-sha256: without it a broken or a malicious "
    "device stores bytes under the name of others"
)
_MEND_LENGTH = "use a store that honours signed headers: without it a quota can be exceeded"


def _with_cause(error: StoreError) -> str:
    cause = error.__cause__
    return f"{error}: {cause}" if cause is not None else str(error)
