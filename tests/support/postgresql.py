"""A PostgreSQL of the tests' own: a cluster in a temporary folder, reached by a socket there, and gone at the end.

It runs as an ordinary user (`postgres`, where the tests run as root, since PostgreSQL refuses root), and dies with the process
that started it. Nothing is synced: tests kill its processes, not the machine.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg

from remote.server.config import ServerConfig
from remote.server.database.opening import open_database

SECONDS = 120.0
SUPERUSER = "postgres"
TEMPLATE = "migrated"
_SHARED_MEMORY = Path("/dev/shm")
_ROOM_NEEDED = 2 * 2**30
_SETTINGS = {
    "listen_addresses": "",
    "fsync": "off",
    "full_page_writes": "off",
    "shared_buffers": "16MB",
    "max_connections": "200",
    "autovacuum": "off",
    "log_statement": "none",
}


class Cluster:
    """A running PostgreSQL. Its log is in `log`."""

    def __init__(self, folder: Path, settings: Mapping[str, str] = _SETTINGS) -> None:
        self.folder = folder
        self._settings = settings
        self._data = folder / "data"
        self.log = folder / "log"
        self._count = count(1)
        self._template_made = False
        self._server: subprocess.Popen[bytes] | None = None

    def create(self) -> None:
        """Text without a collation of its own is ordered as English: what is meant to be ordered by its bytes has to say so."""
        command = [
            str(_program("initdb")), "--auth=trust", "--no-sync", "--no-instructions", f"--username={SUPERUSER}",
            "--encoding=UTF8", "--locale=C.UTF-8", "--locale-provider=icu", "--icu-locale=en-US", str(self._data),
        ]  # fmt: skip
        ran = subprocess.run([*_as_user(), *command], capture_output=True, text=True, cwd="/", check=False)
        if ran.returncode != 0:
            raise RuntimeError(f"initdb failed:\n{ran.stdout}{ran.stderr}")

    def start(self) -> None:
        """It takes connections when this returns."""
        command = [str(_program("postgres")), "-D", str(self._data), "-k", str(self.folder)]
        for name, value in self._settings.items():
            command += ["-c", f"{name}={value}"]
        with self.log.open("ab") as log:
            dying = ["--pdeathsig", "QUIT"]
            self._server = subprocess.Popen(
                [*_as_user(*dying), *command], stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd="/", start_new_session=True
            )
        until = time.monotonic() + SECONDS
        while True:
            try:
                psycopg.connect(self._conninfo("postgres")).close()
                return
            except psycopg.OperationalError:
                if self._server.poll() is not None or time.monotonic() > until:
                    raise RuntimeError(f"PostgreSQL did not start:\n{self.log.read_text()}") from None
                time.sleep(0.02)

    def stop(self, *, kind: signal.Signals = signal.SIGINT) -> None:
        """SIGINT: connections are cut, everything is written. SIGQUIT: as after a crash."""
        if self._server is not None:
            self._server.send_signal(kind)
            self._server.wait(SECONDS)
            self._server = None

    def new_database(self) -> str:
        """The URL of an empty, migrated database."""
        if not self._template_made:
            self._create(TEMPLATE, "template0")
            database = open_database(ServerConfig(Path("/nonexistent"), database=self._url(TEMPLATE)))
            database.migrate()
            database.close()
            self._template_made = True
        return self.copy_database(self._url(TEMPLATE))

    def copy_database(self, url: str) -> str:
        """The URL of a new database that holds what this one does. Whoever is connected to that one has to connect again."""
        name, source = f"test_{os.getpid()}_{next(self._count)}", name_of(url)
        self.execute(f"ALTER DATABASE {source} ALLOW_CONNECTIONS false")
        try:
            self.execute(f"SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity WHERE datname = '{source}'")
            self._create(name, source)
        finally:
            self.execute(f"ALTER DATABASE {source} ALLOW_CONNECTIONS true")
        return self._url(name)

    def replace_database(self, url: str, copy: str) -> None:
        """Let the database hold what `copy` does."""
        self.drop_database(url)
        self._create(name_of(url), name_of(copy))

    def drop_database(self, url: str) -> None:
        self.execute(f"DROP DATABASE IF EXISTS {name_of(url)} WITH (FORCE)")

    def empty_database(self) -> str:
        """The URL of a database that no service has seen."""
        name = f"test_{os.getpid()}_{next(self._count)}"
        self._create(name, "template0")
        return self._url(name)

    def through(self, folder: Path, url: str) -> str:
        """The URL by which the database is reached through a socket in another folder."""
        return url.replace(quote(str(self.folder), safe=""), quote(str(folder), safe=""))

    def execute(self, statement: str, database: str = "postgres") -> list[Any]:
        """As an administrator, on a database of that name."""
        with psycopg.connect(self._conninfo(database), autocommit=True) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def _create(self, name: str, template: str) -> None:
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY")

    def _url(self, name: str) -> str:
        return f"postgresql+psycopg://{SUPERUSER}@/{name}?host={quote(str(self.folder), safe='')}"

    def _conninfo(self, name: str) -> str:
        return f"host={self.folder} user={SUPERUSER} dbname={name}"


@contextmanager
def durable_cluster() -> Iterator[Cluster]:
    """One that syncs what it commits, on a disk, for what is measured."""
    kept = {"fsync": "on", "full_page_writes": "on", "shared_buffers": "256MB", "autovacuum": "on"}
    with _running(Path(tempfile.mkdtemp(prefix="aloft-pg-")), _SETTINGS | kept) as cluster:
        yield cluster


@contextmanager
def running_cluster() -> Iterator[Cluster]:
    roomy = os.access(_SHARED_MEMORY, os.W_OK) and shutil.disk_usage(_SHARED_MEMORY).free > _ROOM_NEEDED
    folder = Path(tempfile.mkdtemp(prefix="aloft-pg-", dir=_SHARED_MEMORY if roomy else None))
    with _running(folder, _SETTINGS) as cluster:
        yield cluster


@contextmanager
def _running(folder: Path, settings: Mapping[str, str]) -> Iterator[Cluster]:
    try:
        if os.geteuid() == 0:
            user = pwd.getpwnam(SUPERUSER)
            os.chown(folder, user.pw_uid, user.pw_gid)
        cluster = Cluster(folder, settings)
        cluster.create()
        cluster.start()
        try:
            yield cluster
        finally:
            cluster.stop(kind=signal.SIGQUIT)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def name_of(url: str) -> str:
    return url.rpartition("/")[2].partition("?")[0]


def _program(name: str) -> Path:
    """Of the newest version that is installed; Debian does not put them into the path."""
    found = shutil.which(name)
    places = [Path(found)] if found else sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=_version)
    if not places:
        raise RuntimeError("PostgreSQL is not installed: scripts/setup --tests")
    return places[-1]


def _version(program: Path) -> int:
    number = program.parts[-3]
    return int(number) if number.isdecimal() else 0


def _as_user(*options: str) -> list[str]:
    who = [f"--reuid={SUPERUSER}", f"--regid={SUPERUSER}", "--init-groups"] if os.geteuid() == 0 else []
    return ["setpriv", *who, *options] if who or options else []
