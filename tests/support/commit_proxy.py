"""Stands between a service and PostgreSQL, and cuts a connection at a COMMIT: before the server has it, or before its answer."""

from __future__ import annotations

import select
import socket
import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Literal

SOCKET = ".s.PGSQL.5432"
_COMMIT, _COMMITTED = b"COMMIT\0", b"COMMIT\0"


class CommitProxy:
    """Listens in `folder` for those who want the server whose socket is in `server`."""

    def __init__(self, folder: Path, server: Path) -> None:
        self._server = str(server / SOCKET)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(folder / SOCKET))
        self._listener.listen(100)
        self._lock = threading.Lock()
        self._armed: tuple[bytes, str] | None = None
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self, mark: bytes, when: Literal["before", "after"]) -> None:
        """Cut the next transaction that sends the bytes `mark` before its COMMIT arrives, or after it was applied."""
        with self._lock:
            self._armed = (mark, when)

    @property
    def has_cut(self) -> bool:
        return self._armed is None

    def __enter__(self) -> CommitProxy:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, socket.socket(socket.AF_UNIX) as server, suppress(OSError):
            server.connect(self._server)
            said = b""
            while True:
                ready, _, _ = select.select([client, server], [], [])
                if server in ready:
                    if not (piece := server.recv(2**16)):
                        return
                    client.sendall(piece)
                if client in ready:
                    if not (piece := client.recv(2**16)):
                        return
                    said += piece
                    when = self._takes(said) if _COMMIT in piece else None
                    said = b"" if _COMMIT in piece else said
                    if when == "before":
                        return
                    server.sendall(piece)
                    if when == "after":
                        answer = b""
                        while _COMMITTED not in answer:
                            answer += server.recv(2**16)
                        return

    def _takes(self, said: bytes) -> str | None:
        with self._lock:
            if self._armed is None or self._armed[0] not in said:
                return None
            _, when = self._armed
            self._armed = None
            return when
