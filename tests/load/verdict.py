"""What must hold when all is quiet: every side has the same tree and contents, nothing was lost, every check is clean."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path

from remote.server.backupfolder import StoredBackup
from tests.load import ledger

Entry = tuple[str, int, int, int, int, str]
"""Kind, mode, links, size, mtime (of files; nanoseconds), and digest or target."""
_SHOWN = 5


def describe(root: Path) -> dict[str, Entry]:
    found: dict[str, Entry] = {}
    for folder, folders, files in os.walk(root):
        for name in [*folders, *files]:
            path = Path(folder, name)
            found[str(path.relative_to(root))] = _entry(path)
    return found


def _entry(path: Path) -> Entry:
    status = path.lstat()
    mode = stat.S_IMODE(status.st_mode)
    if stat.S_ISDIR(status.st_mode):
        return "folder", mode, 0, 0, 0, ""
    if stat.S_ISLNK(status.st_mode):
        return "link", mode, status.st_nlink, 0, 0, os.readlink(path)
    if not stat.S_ISREG(status.st_mode):
        return "node", mode, status.st_nlink, 0, 0, ""
    return "file", mode, status.st_nlink, status.st_size, status.st_mtime_ns, _digest(path)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def differences(name: str, other: str, one: Mapping[str, Entry], two: Mapping[str, Entry]) -> list[str]:
    paths = sorted(path for path in one.keys() | two.keys() if one.get(path) != two.get(path))
    shown = [f"{path}: {one.get(path)} on {name}, {two.get(path)} on {other}" for path in paths[:_SHOWN]]
    return [*shown, f"… and {len(paths) - _SHOWN} more"] if len(paths) > _SHOWN else shown


def of_shared(folder: Path, ledgers: Sequence[Path]) -> list[str]:
    lines = [ledger.read(path) for path in ledgers]
    found = {path.name: ledger.token_of(path.read_bytes()) for path in folder.iterdir()}
    missing = ledger.lost(lines, [token for token in found.values() if token is not None])
    broken = ledger.torn(lines, found)
    wrong = [f"the content {token} was closed, is nowhere, and nobody who saw it wrote over it" for token in missing[:_SHOWN]]
    return wrong + [f"{name} in the shared folder holds a content that nobody closed" for name in broken[:_SHOWN]]


def of_service(data: Path) -> list[str]:
    """The service is stopped: its database is sound, and each object has the content that its name says."""
    wrong = []
    for database in data.glob("*.db"):
        sql = sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True)
        verdict = sql.execute("PRAGMA integrity_check").fetchone()[0]
        sql.close()
        if verdict != "ok":
            wrong.append(f"{database.name}: {verdict}")
    return wrong + [f"the object {path} has another content than its name says" for path in _wrong_objects(data)]


def _wrong_objects(data: Path) -> list[Path]:
    stored = StoredBackup(data)
    wrong = []
    for path in (data / "objects").glob("*/*/*.*"):
        body = stored.read(f"{path.parent.parent.name}/{path.name}", 2**30)
        if body is None or hashlib.sha256(body).hexdigest() != path.name.partition(".")[0]:
            wrong.append(path)
    return wrong
