"""What the service is told at its start. Values only: files, variables and options are read by `settings`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import ConfigDict

GIB = 2**30


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """Everything that can be chosen. Only `data`, the folder that holds the database, the objects and the keys, must be."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    data: Path
    database: str | None = None
    """`postgresql+psycopg://user@host/name`; None: SQLite, in the data folder."""
    host: str = "127.0.0.1"
    port: int = 8427
    """0: any free port."""
    tls_cert: Path | None = None
    tls_key: Path | None = None
    public_url: str | None = None
    """The base of presigned URLs; None: the address by which the request came."""
    registration: Literal["open", "invite", "closed"] = "open"
    quota_bytes: int = 100 * GIB
    """Of a new account."""
    max_devices: int = 5
    """Active devices of one account."""
    password_memory_kib: int = 64 * 1024
    """argon2id's memory cost; only tests have a reason to lower it."""
    patience_seconds: float = 60.0
    """With a caller who sends nothing in the middle of a body, or does not take the answer."""

    def __post_init__(self) -> None:
        """`ValueError`, in words for the person who chose."""
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key go together: both, or none")
        if self.public_url is not None and urlsplit(self.public_url).scheme not in ("http", "https"):
            raise ValueError(f"the public URL {self.public_url!r} does not begin with http:// or https://")
        if self.database is not None and urlsplit(self.database).scheme not in ("postgresql", "postgresql+psycopg"):
            raise ValueError("the database is none of PostgreSQL: its URL does not begin with postgresql+psycopg://")
