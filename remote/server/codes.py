"""Secrets that people and programs carry around: made from randomness, known to the database by their hashes only."""

from __future__ import annotations

import hashlib
from base64 import urlsafe_b64encode
from collections.abc import Callable

CODE_BYTES = 18


def new_code(random: Callable[[int], bytes], length: int = CODE_BYTES) -> str:
    """Of `length` random bytes; fit for an address, a header and a double click."""
    return urlsafe_b64encode(random(length)).decode().rstrip("=")


def code_hash(code: str) -> bytes:
    """SHA-256, which is enough for what nobody can guess. White space around a code is not part of it."""
    return hashlib.sha256(code.strip().encode()).digest()
