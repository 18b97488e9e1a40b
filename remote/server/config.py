"""What the service is told at its start. Values only: whoever starts it (a command, a test) reads files and options."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

GIB = 2**30


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """Everything that can be chosen. Only `data`, the folder that holds the database, the objects and the keys, must be."""

    data: Path
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
