"""Any object store that speaks S3, through boto3: AWS, MinIO, Ceph, Swift, R2.

A PUT link signs the exact length and the SHA-256 twice: as the payload's hash (`x-amz-content-sha256`), which is what old stores
check, and as the object's checksum (`x-amz-checksum-sha256`), which new ones check and keep. What a store enforces of that is
found out by `remote.server.examine`, not assumed. Nothing here is asked of the network when the service starts.
"""

from __future__ import annotations

import hashlib
import logging
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import closing
from typing import Any, TypeVar

import boto3
import botocore.session
from botocore.auth import S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from remote.protocol import Link
from remote.server.config import S3Config
from remote.server.objects.store import (
    LISTED,
    BadStoreSettings,
    Checked,
    LinkBase,
    Listed,
    NoSuchObject,
    Stored,
    StoreUnavailable,
)

log = logging.getLogger("aloft.objects")

PARALLEL = 24
"""Questions that are put to the store at one time, by all callers together."""
CONNECT_SECONDS = 3.0
ATTEMPTS = 3
ASK_SECONDS = 25.0
"""For all that one caller wants to know, or to have deleted."""

T = TypeVar("T")


class S3Store:
    """`ObjectStore` on a bucket. `BadStoreSettings`."""

    def __init__(self, config: S3Config) -> None:
        self.needs_md5 = config.content_md5
        self._config = config
        try:
            session = _session(config)
            self._credentials = session.get_credentials()
            if self._credentials is None:
                raise BadStoreSettings("there are no credentials: name a file of them, or set AWS_ACCESS_KEY_ID")
            self._client = _client(session, config, config.endpoint)
            public = _client(session, config, config.public_endpoint) if config.public_endpoint else self._client
            self._public = _address(public, config)
        except (BotoCoreError, ValueError) as error:
            raise BadStoreSettings(f"the object store cannot be used: {error}") from error
        self._sse = _encryption(config)
        self._threads = ThreadPoolExecutor(PARALLEL, thread_name_prefix="s3")

    # ---------------------------------------------------------------------------------------------------------- links

    def sign_put(
        self, base: LinkBase, key: str, object_id: bytes, length: int, expires_in: int, md5: bytes | None = None
    ) -> Link:
        headers = {
            "Content-Length": str(length),
            "x-amz-content-sha256": object_id.hex(),
            "x-amz-checksum-sha256": b64encode(object_id).decode(),
            **self._sse,
        }
        if md5 is not None:
            headers["Content-MD5"] = b64encode(md5).decode()
        return Link(id=object_id, method="PUT", url=self._sign("PUT", key, headers, expires_in), headers=headers)

    def sign_get(self, base: LinkBase, key: str, object_id: bytes, expires_in: int) -> Link:
        return Link(id=object_id, method="GET", url=self._sign("GET", key, {}, expires_in))

    def _sign(self, method: str, key: str, headers: Mapping[str, str], expires_in: int) -> str:
        """By botocore's signer, and not by a client of it: that takes ten times as long, and cannot sign the payload's hash."""
        request = AWSRequest(method=method, url=f"{self._public}{self._config.prefix}{key}", headers=dict(headers))
        assert self._credentials is not None
        S3SigV4QueryAuth(self._credentials.get_frozen_credentials(), "s3", self._config.region, expires_in).add_auth(request)
        return str(request.url)

    # ------------------------------------------------------------------------------------------------------ questions

    def stat(self, keys: Sequence[str]) -> Mapping[str, Stored]:
        found = self._each(self._head, keys)
        return {key: stored for key, stored in found.items() if stored is not None}

    def delete(self, keys: Sequence[str]) -> None:
        # One by one: of deletions in bulk, stores of different age want different checksums.
        self._each(self._delete, keys)

    def read(self, key: str, length: int) -> bytes:
        def get() -> bytes:
            with closing(self._client.get_object(Bucket=self._config.bucket, Key=self._config.prefix + key)["Body"]) as body:
                return bytes(body.read(length))

        try:
            return self._call(get)
        except _NotThere:
            raise NoSuchObject(key) from None

    def check(self, key: str, object_id: bytes, length: int, *, mend: bool) -> Checked:
        """Copies are the store's own business."""
        try:
            body = self.read(key, length)
        except NoSuchObject:
            return Checked("it is not there")
        except StoreUnavailable as error:
            self.stat([key])  # if the store is away, it says so again
            return Checked(f"it cannot be read ({error})")
        is_whole = len(body) == length and hashlib.sha256(body).digest() == object_id
        return Checked(None if is_whole else "its bytes are not those that its name says")

    def replicas(self, keys: Sequence[str]) -> Mapping[str, Sequence[str]]:
        return {}

    def write(self, key: str, object_id: bytes, body: bytes) -> None:
        where = {"Bucket": self._config.bucket, "Key": self._config.prefix + key}
        checked = {"ChecksumSHA256": b64encode(object_id).decode(), **_encryption_arguments(self._config)}
        self._call(lambda: self._client.put_object(Body=body, **where, **checked))

    def listing(self, after: str = "", limit: int = LISTED) -> Sequence[Listed]:
        prefix = self._config.prefix
        where: dict[str, Any] = {"Bucket": self._config.bucket, "MaxKeys": min(limit, LISTED)}
        if prefix:
            where["Prefix"] = prefix
        if after:
            where["StartAfter"] = prefix + after
        found: list[Listed] = []
        while len(found) < limit:
            page = self._call(lambda: self._client.list_objects_v2(**where))
            found += [
                Listed(row["Key"].removeprefix(prefix), row["Size"], int(row["LastModified"].timestamp() * 10**9))
                for row in page.get("Contents", ())
            ]
            if not page.get("IsTruncated"):
                break
            where["StartAfter"] = prefix + found[-1].key
        return found[:limit]

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._client.close()

    def _each(self, ask: Callable[[str], T], keys: Iterable[str]) -> dict[str, T]:
        """`ask` for each of the keys, many at a time; the first that fails ends it for all."""
        futures: dict[Future[T], str] = {self._threads.submit(ask, key): key for key in dict.fromkeys(keys)}
        try:
            done, rest = wait(futures, ASK_SECONDS, FIRST_EXCEPTION)
            if rest and not any(future.exception() for future in done):
                raise StoreUnavailable("the object store does not answer in time")
            return {futures[future]: future.result() for future in done}
        finally:
            for future in futures:
                future.cancel()

    def _head(self, key: str) -> Stored | None:
        where = {"Bucket": self._config.bucket, "Key": self._config.prefix + key, "ChecksumMode": "ENABLED"}
        try:
            answer = self._call(lambda: self._client.head_object(**where))
        except _NotThere:
            return None
        return Stored(answer["ContentLength"], _checksum(answer.get("ChecksumSHA256")), answer.get("ETag", "").strip('"') or None)

    def _delete(self, key: str) -> None:
        try:
            self._call(lambda: self._client.delete_object(Bucket=self._config.bucket, Key=self._config.prefix + key))
        except _NotThere:
            return

    @staticmethod
    def _call(ask: Callable[[], T]) -> T:
        try:
            return ask()
        except ClientError as error:
            code, status = error.response["Error"]["Code"], error.response["ResponseMetadata"]["HTTPStatusCode"]
            if status == 404 and code in ("404", "NoSuchKey"):
                raise _NotThere from error
            log.error("the object store refuses: %s", error)
            raise StoreUnavailable(f"the object store answered {status} ({code})") from error
        except BotoCoreError as error:
            log.error("the object store cannot be reached: %s", error)
            raise StoreUnavailable("the object store does not answer") from error


class _NotThere(Exception):
    pass


def _session(config: S3Config) -> boto3.Session:
    core = botocore.session.Session(profile=config.profile if config.profile != "default" else None)
    if config.credentials_file is not None:
        core.set_config_variable("credentials_file", str(config.credentials_file))
    return boto3.Session(botocore_session=core)


def _client(session: boto3.Session, config: S3Config, endpoint: str | None) -> Any:
    return session.client(
        "s3",
        region_name=config.region,
        endpoint_url=endpoint,
        verify=str(config.ca) if config.ca is not None else None,
        config=Config(
            signature_version="s3v4",
            connect_timeout=min(CONNECT_SECONDS, config.timeout_seconds),
            read_timeout=config.timeout_seconds,
            max_pool_connections=PARALLEL,
            retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
            s3={"addressing_style": config.addressing},
            # Checksums of the SDK's own choice are new, and stores that do not know them refuse.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )


def _address(client: Any, config: S3Config) -> str:
    """What the address of every object begins with: taken from a link of boto3's, which knows where a bucket is found."""
    link: str = client.generate_presigned_url("get_object", Params={"Bucket": config.bucket, "Key": "k"})
    return link.partition("?")[0].removesuffix("k")


def _encryption(config: S3Config) -> dict[str, str]:
    headers: dict[str, str] = {}
    if config.sse is not None:
        headers["x-amz-server-side-encryption"] = config.sse
    if config.sse_kms_key is not None:
        headers["x-amz-server-side-encryption-aws-kms-key-id"] = config.sse_kms_key
    return headers


def _encryption_arguments(config: S3Config) -> dict[str, str]:
    """The same for a request that the client makes by itself."""
    named = {"ServerSideEncryption": config.sse, "SSEKMSKeyId": config.sse_kms_key}
    return {name: value for name, value in named.items() if value is not None}


def _checksum(said: str | None) -> bytes | None:
    """The SHA-256 of the whole object, if the store keeps one: that of an object in parts is something else."""
    try:
        digest = b64decode(said or "", validate=True)
    except ValueError:
        return None
    return digest if len(digest) == 32 else None
