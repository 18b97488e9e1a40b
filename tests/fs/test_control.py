"""The control socket, with both its sides."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from fs.control import MAX_REQUEST_BYTES, ControlError, ControlServer, Json, NoMountProcess, Progress, call


@asynccontextmanager
async def served(path: Path) -> AsyncIterator[ControlServer]:
    async def echo(arguments: Json, progress: Progress) -> Json:
        return {"heard": arguments}

    async def slow(arguments: Json, progress: Progress) -> Json:
        for step in range(3):
            await progress({"step": step})
        return {}

    async def refuse(arguments: Json, progress: Progress) -> Json:
        raise ControlError("not today", "busy")

    async def fail(arguments: Json, progress: Progress) -> Json:
        raise RuntimeError("a bug")

    async def long(arguments: Json, progress: Progress) -> Json:
        await trio.sleep(1.0)
        return {}

    async def endless(arguments: Json, progress: Progress) -> Json:
        async with trio.open_nursery():
            while True:
                await progress({})

    handlers = {"echo": echo, "slow": slow, "long": long, "endless": endless, "refuse": refuse, "fail": fail}
    server = ControlServer(path, handlers)
    server.listen()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.run)
        yield server
        nursery.cancel_scope.cancel()


@pytest.fixture(params=["short", "long"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    folder = tmp_path if request.param == "short" else tmp_path / ("long" * 50)
    folder.mkdir(exist_ok=True)
    return folder / "control.sock"


async def ask(path: Path, command: str, arguments: Json | None = None, seen: list[Json] | None = None) -> Json:
    return await trio.to_thread.run_sync(
        lambda: call(path, command, arguments, on_progress=None if seen is None else seen.append)
    )


async def test_ask_and_answer(path: Path) -> None:
    async with served(path):
        assert await ask(path, "echo", {"a": [1, "é"]}) == {"heard": {"a": [1, "é"]}}


async def test_progress_comes_before_the_answer(path: Path) -> None:
    seen: list[Json] = []
    async with served(path):
        assert await ask(path, "slow", seen=seen) == {}
    assert seen == [{"step": 0}, {"step": 1}, {"step": 2}]


async def test_refusals_keep_their_words_and_bugs_end_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "control.sock"
    async with served(path):
        with pytest.raises(ControlError, match="not today") as refused:
            await ask(path, "refuse")
        assert refused.value.kind == "busy"
        with pytest.raises(ControlError, match="RuntimeError: a bug"):
            await ask(path, "fail")
        with pytest.raises(ControlError, match="does not know 'nonsense'"):
            await ask(path, "nonsense")
        assert await ask(path, "echo") == {"heard": {}}
    assert "a bug" in caplog.text


async def test_a_process_that_hangs_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fs.control._SILENCE_SECONDS", 0.05)
    path = tmp_path / "control.sock"
    with socket.socket(socket.AF_UNIX) as hanging:
        hanging.bind(os.fspath(path))
        hanging.listen()
        with pytest.raises(ControlError, match="--force"):
            await ask(path, "echo")


async def test_a_caller_that_leaves_is_nothing_to_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "control.sock"
    async with served(path) as server:
        async with await trio.open_unix_socket(path) as stream:
            await stream.send_all(b'{"version": 1, "command": "endless"}\n')
            await stream.receive_some(1)
        await server.drain(10.0)
    assert caplog.text == ""


async def test_a_long_answer_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fs.control._SILENCE_SECONDS", 0.5)
    monkeypatch.setattr("fs.control._ALIVE_SECONDS", 0.01)
    path = tmp_path / "control.sock"
    async with served(path):
        assert await ask(path, "long") == {}


async def test_only_the_owner_may_speak_to_it(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    async with served(path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_nobody_listens(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    with pytest.raises(NoMountProcess):
        call(path, "echo")
    async with served(path):
        pass
    assert not path.exists()
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(os.fspath(path))
    dead.close()
    with pytest.raises(NoMountProcess):
        call(path, "echo")
    async with served(path):
        assert await ask(path, "echo") == {"heard": {}}


@pytest.mark.parametrize(
    "line",
    [b"nonsense\n", b"[]\n", b'{"version": 1, "command": "echo", "arguments": 3}\n', b'{"command": "echo"}\n', b"cut short"],
)
async def test_what_is_not_a_request_is_refused(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "control.sock"
    async with served(path):
        async with await trio.open_unix_socket(path) as stream:
            await stream.send_all(line)
            await trio.to_thread.run_sync(lambda: stream.socket.shutdown(socket.SHUT_WR))
            answer = b"".join([part async for part in stream])
        assert b'"error"' in answer
        assert await ask(path, "echo") == {"heard": {}}


async def test_a_request_without_end_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    async with served(path):
        async with await trio.open_unix_socket(path) as stream:
            with pytest.raises(trio.BrokenResourceError):
                await stream.send_all(b"x" * (MAX_REQUEST_BYTES + 4 * 2**20))
        assert await ask(path, "echo") == {"heard": {}}
