"""What the service is told at its start. Values only: files, variables and options are read by `settings`."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from email.utils import parseaddr
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import BeforeValidator, ConfigDict
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from remote.accountapi import TierName

GIB = 2**30
TIB = 2**40
_PREFIX = re.compile(r"([A-Za-z0-9._-]+/)*")
_ORIGIN = re.compile(r"https?://(?:[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?|\[[0-9a-f:.]+\])(?::[1-9][0-9]{0,4})?")
_THIS_MACHINE = ("localhost", "127.0.0.1", "::1")
_CONTENT_TYPES = re.compile(r"\*/\*|[a-z0-9!#$&^_.+-]+/(\*|[a-z0-9!#$&^_.+-]+)")


def _split(value: object) -> object:
    """A list as a variable says it."""
    return [each.strip() for each in value.split(",")] if isinstance(value, str) else value


@dataclass(frozen=True, slots=True)
class S3Config:
    """An object store that speaks S3. Only the bucket, which must exist, has no default."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    bucket: str
    endpoint: str | None = None
    """The store's address for the service; None: that of AWS in `region`."""
    public_endpoint: str | None = None
    """Its address for clients, which links begin with; None: the same."""
    region: str = "us-east-1"
    prefix: str = ""
    """Before every key: empty, or ends with a slash."""
    credentials_file: Path | None = None
    """In the format of AWS's own tools; None: their environment variables and files, or the machine's role."""
    profile: str = "default"
    """The section of that file."""
    addressing: Literal["auto", "path", "virtual"] = "auto"
    """Where the bucket's name goes: into the path, or before the host. auto: as boto3 finds right for the endpoint."""
    ca: Path | None = None
    """PEM file of authorities that the service trusts when it asks the store; None: the usual ones."""
    timeout_seconds: float = 8.0
    """How long the store may be silent before the service takes it for unreachable; it asks up to three times."""
    content_md5: bool = False
    """Sign the MD5, too: for a store that compares a body with nothing else."""
    sse: Literal["AES256", "aws:kms"] | None = None
    """Encryption at rest that the store is asked for with each object; None: what the bucket does by itself."""
    sse_kms_key: str | None = None

    def __post_init__(self) -> None:
        """`ValueError`, in words for the person who chose."""
        if not self.bucket:
            raise ValueError("the S3 object store needs a bucket")
        if _PREFIX.fullmatch(self.prefix) is None:
            raise ValueError(f"the S3 prefix {self.prefix!r} does not consist of names with a slash after each, like a/b/")
        for url in (self.endpoint, self.public_endpoint):
            if url is not None and urlsplit(url).scheme not in ("http", "https"):
                raise ValueError(f"the S3 endpoint {url!r} does not begin with http:// or https://")
        if self.sse_kms_key is not None and self.sse != "aws:kms":
            raise ValueError("a KMS key is for the S3 encryption aws:kms only")


@dataclass(frozen=True, slots=True)
class CorsConfig:
    """Pages of other origins, which may use the API in a browser."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    origins: Annotated[tuple[str, ...], BeforeValidator(_split)] = ()
    """`https://app.example.org`, as browsers write it; none: no page of another origin reads an answer."""

    def __post_init__(self) -> None:
        """`ValueError`, in words for the person who chose."""
        for origin in self.origins:
            require_origin("cors.origins", origin)


@dataclass(frozen=True, slots=True)
class ObjectsConfig:
    """Of the embedded object store."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    folders: Annotated[tuple[Path, ...], BeforeValidator(_split)] = ()
    """Where objects are kept, best each on a disk of its own; none: in the data folder."""
    copies: int = 1
    """Of each object, in as many of the folders."""
    encrypt: bool = True
    """What is stored from now on."""
    master_key: Path | None = None
    """The file of the key that opens encrypted objects; None: `master.key` in the data folder."""
    bind_address: bool = False
    """A link is good only from the address from which it was asked for."""

    def __post_init__(self) -> None:
        """`ValueError`, in words for the person who chose."""
        if not 1 <= self.copies <= max(1, len(self.folders)):
            raise ValueError(f"objects.copies: {self.copies} copies need as many folders, and there are {len(self.folders) or 1}")
        if len({folder.absolute() for folder in self.folders}) < len(self.folders):
            raise ValueError("objects.folders names a folder twice")


@dataclass(frozen=True, slots=True)
class SmtpConfig:
    """A server that takes the service's e-mails."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    host: str
    sender: str
    """The address that e-mails come from: `aloft@example.org`, or with a name before it."""
    port: int | None = None
    """None: 465 with `tls`, else 587."""
    tls: Literal["starttls", "tls", "none"] = "starttls"
    user: str | None = None
    password_file: Path | None = None
    """Its first line is the user's password."""
    ca: Path | None = None
    """PEM file of authorities that sign the server's certificate; None: the usual ones."""
    timeout_seconds: float = 10.0
    """How long the server may be silent."""

    def __post_init__(self) -> None:
        """`ValueError`, in words for the person who chose."""
        if not self.host:
            raise ValueError("SMTP needs a host")
        if not parseaddr(self.sender)[1].count("@") == 1:
            raise ValueError(f"the SMTP sender {self.sender!r} is no e-mail address")
        if (self.user is None) != (self.password_file is None):
            raise ValueError("an SMTP user and its password_file go together: both, or none")
        if self.user is not None and self.tls == "none":
            raise ValueError("SMTP with a password needs TLS: everybody on the way could read it")


@dataclass(frozen=True, slots=True)
class TierConfig:
    """What an account of a tier may store, and for how long."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    quota_bytes: int = 100 * GIB
    largest_file_bytes: int | None = None
    """None: any size that fits."""
    content_types: Annotated[tuple[str, ...], BeforeValidator(_split)] = ("*/*",)
    """What files may be: media types, `image/*` for all of a kind."""
    kept_days: int = 30
    """How long former versions and what was deleted are kept; 0: not at all."""
    upload_bytes_per_second: int | None = None
    """How fast a device may upload; None: as fast as it goes."""

    def __post_init__(self) -> None:
        """`ValueError`, in words for the person who chose."""
        for name in ("quota_bytes", "largest_file_bytes", "kept_days"):
            if (getattr(self, name) or 0) < 0:
                raise ValueError(f"{name} must not be negative")
        if self.upload_bytes_per_second is not None and self.upload_bytes_per_second < 1:
            raise ValueError("upload_bytes_per_second must be at least 1; leave it out for no limit")
        if not self.content_types:
            raise ValueError("content_types must name a type, such as image/*; */* allows all")
        for type_ in self.content_types:
            if _CONTENT_TYPES.fullmatch(type_) is None:
                raise ValueError(f"the content type {type_!r} is not like image/png, image/* or */*, in lower case")


@dataclass(frozen=True, slots=True)
class PlusTier(TierConfig):
    quota_bytes: int = TIB
    kept_days: int = 90


@dataclass(frozen=True, slots=True)
class ProTier(TierConfig):
    quota_bytes: int = 10 * TIB
    kept_days: int = 365


@dataclass(frozen=True, slots=True)
class TiersConfig:
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    free: TierConfig = field(default_factory=TierConfig)
    plus: PlusTier = field(default_factory=PlusTier)
    pro: ProTier = field(default_factory=ProTier)


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """Everything that can be chosen. Only `data`, the folder that holds the database and the objects, must be."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    data: Path
    database: str | None = None
    """`postgresql+psycopg://user@host/name`; None: SQLite, in the data folder."""
    host: str = "127.0.0.1"
    port: int = 8427
    """0: any free port."""
    metrics_host: str = "127.0.0.1"
    metrics_port: int | None = None
    """Where Prometheus asks; None: nowhere. 0: any free port."""
    tls_cert: Path | None = None
    tls_key: Path | None = None
    trusted_proxies: Annotated[tuple[str, ...], BeforeValidator(_split)] = ()
    """Addresses or networks of proxies whose `X-Forwarded-For` and `-Proto` say who called, and how."""
    public_url: str | None = None
    """The base of presigned URLs; None: the address by which the request came."""
    content_origin: str | None = None
    """`https://files.example.org`, where contents are served, and nothing else is; None: on every host, beside the API."""
    registration: Literal["open", "invite", "closed"] = "open"
    quota_bytes: int | None = None
    """Of the free tier, before what `tiers` says: as it was set when there were no tiers."""
    max_devices: int = 5
    """Active devices of one account."""
    password_memory_kib: int = 64 * 1024
    """argon2id's memory cost; only tests have a reason to lower it."""
    patience_seconds: float = 60.0
    """With a caller who sends nothing in the middle of a body, or does not take the answer."""
    log_format: Literal["text", "json"] = "text"
    """Of the log on stderr: lines for people, or a JSON object in each."""
    link_seconds: int = 300
    """How long a link to an object is good."""
    objects: ObjectsConfig = field(default_factory=ObjectsConfig)
    s3: S3Config | None = None
    """Where objects are kept; None: in the data folder."""
    cors: CorsConfig = field(default_factory=CorsConfig)
    smtp: SmtpConfig | None = None
    """Who takes e-mails; None: nobody, and a forgotten password is the administrator's business."""
    tiers: TiersConfig = field(default_factory=TiersConfig)

    def tier(self, name: TierName) -> TierConfig:
        tier: TierConfig = getattr(self.tiers, name)
        if name is TierName.FREE and self.quota_bytes is not None:
            return replace(tier, quota_bytes=self.quota_bytes)
        return tier

    @property
    def database_name(self) -> str:
        """For messages: which database it is, without the password."""
        if self.database is None:
            return str(self.data)
        url = make_url(self.database)
        return f"the database {url.database} on {url.host or 'this machine'}"

    def __post_init__(self) -> None:
        """`ValueError`, in words for the person who chose."""
        for proxy in self.trusted_proxies:
            try:
                ip_network(proxy)
            except ValueError:
                raise ValueError(
                    f"trusted_proxies: {proxy!r} is no address like 10.0.0.5, and no network like 10.0.0.0/24"
                ) from None
        if self.content_origin is not None:
            require_origin("content_origin", self.content_origin)
            if self.public_url is None:
                raise ValueError("content_origin needs a public_url, which is the address of everything else")
            if urlsplit(self.public_url).hostname == urlsplit(self.content_origin).hostname:
                raise ValueError(
                    "content_origin must be another host than that of public_url: contents are to be strangers there"
                )
        if self.s3 is not None and (self.objects.folders or self.objects.master_key is not None):
            raise ValueError("objects.folders and objects.master_key are for the embedded object store: leave them out beside s3")
        if self.objects.bind_address and self.s3 is not None:
            raise ValueError(
                "objects.bind_address is for the embedded object store: what an S3 store checks of a link has no place for an "
                "address; leave it out, or let the bucket's own policy name addresses (aws:SourceIp)"
            )
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key go together: both, or none")
        if self.public_url is not None and urlsplit(self.public_url).scheme not in ("http", "https"):
            raise ValueError(f"the public URL {self.public_url!r} does not begin with http:// or https://")
        if self.database is not None and _drivername(self.database) not in ("postgresql", "postgresql+psycopg"):
            raise ValueError("the database's URL must be like postgresql+psycopg://user@host/name")


def require_origin(key: str, text: str) -> None:
    """`ValueError`, unless it is an origin as browsers write one, and its pages cannot be forged by who stands between."""
    wrong = f"{key}: {text!r} is no origin like https://app.example.org"
    if _ORIGIN.fullmatch(text) is None:
        raise ValueError(f"{wrong}: a scheme and a host in lower case, a port if need be, nothing after it, and no *")
    parts = urlsplit(text)
    if parts.port == {"https": 443, "http": 80}[parts.scheme]:
        raise ValueError(f"{wrong}: browsers leave out the usual port")
    if parts.scheme == "http" and parts.hostname not in _THIS_MACHINE:
        raise ValueError(f"{wrong}: http is for this machine only ({', '.join(_THIS_MACHINE)})")


def _drivername(url: str) -> str:
    try:
        return make_url(url).drivername
    except (ArgumentError, ValueError):
        return ""
