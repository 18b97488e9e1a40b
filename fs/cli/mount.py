"""`aloft mount` and `aloft umount`: the folder comes and goes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fs.cli.asking import ask, ask_with_progress
from fs.cli.output import ExitCode, JsonOption, emit, fail, note
from fs.cli.wording import describe_queue, human_size, parse_size

if TYPE_CHECKING:
    from fs.control import Json
    from fs.home import Home
    from fs.options import MountRequest

PANEL = "Drive"


def _size(text: str) -> int:
    try:
        return parse_size(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


MountPoint = Annotated[Path, typer.Argument(metavar="DIR", help="An empty folder; made if it is missing.", show_default=False)]
Rate = Annotated[int | None, typer.Option(metavar="R", parser=_size, help="Bytes per second, such as 10M.")]


def add_to(app: typer.Typer) -> None:
    app.command("mount", rich_help_panel=PANEL)(mount)
    app.command("umount", rich_help_panel=PANEL)(umount)


def mount(
    directory: MountPoint,
    foreground: Annotated[bool, typer.Option("--foreground", help="Stay here until unmounted; Ctrl-C unmounts.")] = False,
    cache_size: Annotated[int, typer.Option(metavar="SIZE", parser=_size, help="Keep the chunk cache below this.")] = "20G",  # type: ignore[assignment]
    cache_dir: Annotated[
        Path | None, typer.Option(metavar="D", help="Keep the chunk cache here (default: in the home).", show_default=False)
    ] = None,
    read_only: Annotated[bool, typer.Option("--read-only", help="Nothing can be changed through this mount.")] = False,
    allow_other: Annotated[bool, typer.Option("--allow-other", help="Other users may enter.")] = False,
    enable_xattr: Annotated[bool, typer.Option("--enable-xattr", help="Extended attributes; small writes get slower.")] = False,
    offline: Annotated[bool, typer.Option("--offline", help="Begin without the network, until `aloft online`.")] = False,
    max_uploads: Annotated[int, typer.Option(metavar="N", min=1, max=64, help="Transfers up at once, at most.")] = 8,
    max_downloads: Annotated[int, typer.Option(metavar="N", min=1, max=64, help="Transfers down at once, at most.")] = 8,
    upload_limit: Rate = None,
    download_limit: Rate = None,
    io_timeout: Annotated[float, typer.Option(metavar="S", min=0.1, help="A read waits so long for the network.")] = 30.0,
    upload_delay: Annotated[
        float, typer.Option(metavar="S", min=0.0, help="Seconds of quiet after the last close before a file goes up.")
    ] = 0.5,
    json: JsonOption = False,
) -> None:
    """Show the drive as a folder. Returns when it is usable; it then runs in the background."""
    from fs.background import MountFailed, start_in_background
    from fs.home import HomeBusy, open_home
    from fs.mountpoints import MountPointError, check_fuse, prepare_mount_point
    from fs.options import MountOptions, MountRequest
    from fs.places import PlaceError, check_places, prepare_cache

    home = open_home()
    holder = home.mount_process()
    if holder is not None:
        raise HomeBusy(holder)
    try:
        check_fuse(allow_other=allow_other)
        check_places(home, directory, cache_dir)
        point = prepare_mount_point(directory)
        cache_folder = None if cache_dir is None else prepare_cache(cache_dir)
    except (PlaceError, MountPointError) as error:
        fail(str(error))
    request = MountRequest(
        MountOptions(point, read_only=read_only, allow_other=allow_other, enable_xattr=enable_xattr),
        {
            "cache_size": cache_size,
            "cache_folder": cache_folder,
            "io_timeout": io_timeout,
            "upload_delay": upload_delay,
            "max_uploads": max_uploads,
            "max_downloads": max_downloads,
            "upload_limit": upload_limit,
            "download_limit": download_limit,
            "read_only": read_only,
            "offline": offline,
        },
    )

    def say(pid: int) -> None:
        data: dict[str, Any] = {"mount_point": point, "pid": pid, "log": home.log}
        emit(data, f"The drive is mounted at {point}" + ("; Ctrl-C unmounts it" if foreground else ""), json)

    try:
        if foreground:
            _run_here(home, request, say)
        else:
            say(start_in_background(home, request))
    except MountFailed as error:
        fail(str(error), ExitCode.NOT_LOGGED_IN if error.kind == "not logged in" else ExitCode.FAILED)


def _run_here(home: Home, request: MountRequest, say: Callable[[int], None]) -> None:
    import logging
    import os
    import sys

    from fs.daemon import run_here

    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(message)s", stream=sys.stderr)

    def ready() -> None:
        say(os.getpid())
        sys.stdout.flush()

    run_here(home, request, ready)


def umount(
    directory: MountPoint,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Do not wait for uploads: they go on at the next mount.")] = False,
    timeout: Annotated[
        float | None, typer.Option(metavar="S", min=0.0, help="Wait so long for uploads, also while offline.", show_default=False)
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="For a mount that hangs: cut it off. What programs have not written out yet is lost.")
    ] = False,
    json: JsonOption = False,
) -> int:
    """Bring everything to the server, then take the folder away. Says what exists only here, if something does."""
    from fs.home import open_home
    from fs.mountpoints import MountPointError, is_dead, mounted_at, unmount

    home = open_home()
    try:
        if force:
            _abort(directory)
            emit({"mount_point": directory, "aborted": True}, f"{directory} was cut off", json)
            return ExitCode.OK
        was_dead = False
        while is_dead(directory):  # mounts stack
            unmount(directory, lazily=True)
            was_dead = True
        if was_dead:
            note(f"the process behind {directory} was gone already")
            emit({"mount_point": directory, "dead": True}, f"{directory} is unmounted", json)
            return ExitCode.OK
        point = directory.resolve()
        on_top = mounted_at(point)[-1:]
        if not on_top or not on_top[0].is_aloft:
            fail(f"no Aloft drive is mounted at {point}", ExitCode.NOT_MOUNTED)
        mounted = ask(home, "status")["mount"]["point"] if home.mount_process() is not None else None
        if mounted is None or Path(mounted) != point:
            fail(f"{point} belongs to another home: set ALOFT_HOME to that one, and run `aloft umount` again")
        result = _umount(home, wait=not no_wait, timeout=timeout, json=json)
    except MountPointError as error:
        fail(str(error))
    return _say_what_is_left(point, result, json=json)


def _abort(directory: Path) -> None:
    import os

    from fs.mountpoints import abort, mounted_at, unmount

    point = Path(os.path.abspath(directory))
    candidates = [mounted for mounted in mounted_at(point) if mounted.is_aloft]
    if not candidates:
        fail(f"nothing of Aloft is mounted at {point}", ExitCode.NOT_MOUNTED)
    abort(candidates[-1])
    unmount(point, lazily=True)


def _umount(home: Home, *, wait: bool, timeout: float | None, json: bool) -> Json:
    result = ask_with_progress(home, "umount", {"wait": wait, "timeout": timeout}, json=json)
    if not result["busy"]:
        _wait_for_the_end(home)
    return result


def _wait_for_the_end(home: Home) -> None:
    """The process has answered and is about to go: the next `aloft mount` must find the home free."""
    import time

    patience = time.monotonic() + 10.0
    while home.mount_process() is not None and time.monotonic() < patience:
        time.sleep(0.02)


def _say_what_is_left(point: Path, result: Json, *, json: bool) -> int:
    queue = result["queue"]
    left = queue["files"] or queue["changes"]
    lines = [f"{point} is unmounted"]
    if result["busy"]:
        lines = [f"{point} is out of sight, but programs still have files of it open: the drive ends with the last of them"]
    if left:
        lines.append(f"Only on this device: {describe_queue(queue)}. They go up at the next `aloft mount`.")
        lines += [f"  {queued['path']} ({human_size(queued['size'])})" for queued in queue["first"]]
    elif not result["busy"]:
        lines[0] += "; everything is on the server"
    emit({"mount_point": point, **result}, "\n".join(lines), json)
    return ExitCode.NOT_SAFE if left or result["busy"] else ExitCode.OK
