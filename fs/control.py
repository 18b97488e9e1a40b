"""The control socket: how the commands talk to the mount process of a home.

One line of JSON asks, lines of JSON answer: any number of `{"progress": …}` and `{"alive": true}`, then one `{"result": …}` or
`{"error": {"kind", "message"}}`. The socket is the owner's alone (0600 in a 0700 home, and the peer's uid is checked).
Its path may be longer than an address of a Unix socket can be, so both sides go there through a descriptor of its folder.

Owns the wire; what the requests mean is `fs.requests`' business.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import struct
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import trio

log = logging.getLogger(__name__)

VERSION = 1
MAX_REQUEST_BYTES = 4 * 2**20
MAX_CONNECTIONS = 32
_REQUEST_SECONDS = 10.0
_SEND_SECONDS = 30.0
_PAUSE_SECONDS = 0.5
_ALIVE_SECONDS = 2.0
_SILENCE_SECONDS = 30.0
"""A mount process that says nothing for so long hangs: it says every two seconds that it is alive."""
_PEER = struct.Struct("3i")  # pid, uid, gid: struct ucred, see unix(7)

Json = dict[str, Any]
Progress = Callable[[Json], Awaitable[None]]
Handler = Callable[[Json, Progress], Awaitable[Json]]


class ControlError(Exception):
    """The mount process cannot do what was asked; the text is fit to show to a person."""

    def __init__(self, message: str, kind: str = "failed") -> None:
        super().__init__(message)
        self.kind = kind


class NoMountProcess(ControlError):
    """Nobody answers at this home's socket."""

    def __init__(self) -> None:
        super().__init__("the drive is not mounted: run `aloft mount DIR`", "not mounted")


# ---------------------------------------------------------------------------------------------------------------- server


class ControlServer:
    """`listen` first (an error there is the caller's), then `run` until cancelled."""

    def __init__(self, path: Path, handlers: Mapping[str, Handler]) -> None:
        self._path = path
        self._handlers = handlers
        self._places = trio.Semaphore(MAX_CONNECTIONS)
        self._serving = 0
        self._idle = trio.Condition()
        self._socket: trio.socket.SocketType | None = None

    def listen(self) -> None:
        """The caller holds the home's mount lock, so a socket that lies there is a dead one."""
        self._path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        before = os.umask(0o177)
        try:
            with _short_address(self._path) as address:
                listener.bind(address)
        finally:
            os.umask(before)
        listener.listen(MAX_CONNECTIONS)
        self._socket = trio.socket.from_stdlib_socket(listener)

    async def run(self) -> None:
        assert self._socket is not None, "listen() comes first"
        try:
            async with trio.open_nursery() as nursery:
                while True:
                    await self._places.acquire()
                    connection = await self._accept()
                    nursery.start_soon(self._serve, trio.SocketStream(connection))
        finally:
            self._socket.close()
            self._path.unlink(missing_ok=True)

    async def drain(self, seconds: float) -> None:
        """Give answers that are on their way a moment to arrive."""
        with trio.move_on_after(seconds):
            async with self._idle:
                while self._serving:
                    await self._idle.wait()

    async def _accept(self) -> trio.socket.SocketType:
        assert self._socket is not None
        while True:
            try:
                connection, _ = await self._socket.accept()
            except OSError as error:  # no descriptors left, or the caller has gone: neither ends the mount
                log.warning("a control connection was not accepted: %s", error)
                await trio.sleep(_PAUSE_SECONDS)
            else:
                return connection

    async def _serve(self, stream: trio.SocketStream) -> None:
        self._serving += 1
        try:
            async with stream:
                if _peer_uid(stream.socket) in (os.geteuid(), 0):
                    await self._answer(stream)
        except Exception as error:
            if not _went_away(error):
                log.exception("a control connection failed")
        finally:
            self._serving -= 1
            self._places.release()
            with trio.CancelScope(shield=True):
                async with self._idle:
                    self._idle.notify_all()

    async def _answer(self, stream: trio.SocketStream) -> None:
        turn = trio.Lock()

        async def send(message: Json) -> None:
            with trio.fail_after(_SEND_SECONDS):
                async with turn:
                    await stream.send_all(json.dumps(message).encode() + b"\n")

        async def say_alive() -> None:
            while True:
                await trio.sleep(_ALIVE_SECONDS)
                await send({"alive": True})

        async with trio.open_nursery() as nursery:
            nursery.start_soon(say_alive)
            answer = await self._outcome(stream, send)
            nursery.cancel_scope.cancel()
        await send(answer)

    async def _outcome(self, stream: trio.SocketStream, send: Callable[[Json], Awaitable[None]]) -> Json:
        try:
            with trio.fail_after(_REQUEST_SECONDS):
                request = json.loads(await _read_line(stream))
            handler = self._handler(request)
            result = await handler(request.get("arguments", {}), lambda progress: send({"progress": progress}))
        except ControlError as error:
            return {"error": {"kind": error.kind, "message": str(error)}}
        except ValueError as error:
            return {"error": {"kind": "invalid", "message": f"not a request: {error}"}}
        except Exception as error:
            if _went_away(error):
                raise
            log.exception("a control request failed")
            return {"error": {"kind": "internal", "message": f"{type(error).__name__}: {error}; see the log"}}
        return {"result": result}

    def _handler(self, request: Any) -> Handler:
        if not isinstance(request, dict) or not isinstance(request.get("arguments", {}), dict):
            raise ValueError("an object is expected")
        if request.get("version") != VERSION:
            raise ControlError("the mount process runs another version of Aloft: unmount and mount again", "version")
        handler = self._handlers.get(str(request.get("command")))
        if handler is None:
            raise ControlError(f"the mount process does not know {request.get('command')!r}", "unknown")
        return handler


def _went_away(error: BaseException) -> bool:
    """Whether it only says that the other side is gone, or does not read."""
    if isinstance(error, BaseExceptionGroup):
        return all(map(_went_away, error.exceptions))
    return isinstance(error, trio.BrokenResourceError | trio.ClosedResourceError | trio.TooSlowError)


async def _read_line(stream: trio.SocketStream) -> bytes:
    data = bytearray()
    while not data.endswith(b"\n"):
        part = await stream.receive_some(65536)
        if not part:
            raise ValueError("it is cut short")
        data += part
        if len(data) > MAX_REQUEST_BYTES:
            raise ValueError("it is too long")
    return bytes(data)


def _peer_uid(connection: trio.socket.SocketType | socket.socket) -> int:
    _pid, uid, _gid = _PEER.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
    return int(uid)


# ---------------------------------------------------------------------------------------------------------------- client


def call(path: Path, command: str, arguments: Json | None = None, *, on_progress: Callable[[Json], None] | None = None) -> Json:
    """Ask the mount process that listens at `path`; `NoMountProcess` if nobody does, `ControlError` if it refuses."""
    with _connect(path) as connection:
        request = {"version": VERSION, "command": command, "arguments": arguments or {}}
        try:
            connection.sendall(json.dumps(request).encode() + b"\n")
            for line in connection.makefile("rb"):
                answer = json.loads(line)
                if "error" in answer:
                    raise ControlError(answer["error"]["message"], answer["error"]["kind"])
                if "result" in answer:
                    result: Json = answer["result"]
                    return result
                if "progress" in answer and on_progress is not None:
                    on_progress(answer["progress"])
        except TimeoutError:
            raise ControlError("the mount process does not answer: `aloft umount --force DIR` cuts it off", "hangs") from None
        except (BrokenPipeError, ConnectionResetError):
            pass  # it ended
    raise ControlError("the mount process ended before it answered", "ended")


@contextmanager
def _connect(path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(_SILENCE_SECONDS)
        try:
            with _short_address(path) as address:
                connection.connect(address)
        except (FileNotFoundError, ConnectionRefusedError):
            raise NoMountProcess from None
        if _peer_uid(connection) not in (os.geteuid(), 0):
            raise ControlError("the control socket belongs to another user", "refused")
        yield connection


@contextmanager
def _short_address(path: Path) -> Iterator[str]:
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
