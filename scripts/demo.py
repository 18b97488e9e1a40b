"""`scripts/demo`: a service, an account and a mounted folder to play with. With `--check`, the play is unattended."""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import signal
import sys
from pathlib import Path
from types import FrameType

from demo_check import check
from playground import ALOFT, EMAIL, Device, Failed, Service

DEMO = Path(__file__).resolve().parent.parent / ".demo"

WELCOME = """
  Your drive is {point}

  Try, in another terminal:

    cp -r /usr/share/doc/python3* {point}/     copy something in: it is there at once, and goes up in the background
    {aloft} status                             what waits, what goes up, how fast
    {aloft} sync                               returns when everything is on the service
    {aloft} offline                            pull the plug; work on; then
    {aloft} online

  A second device, with a home of its own:

    export ALOFT_HOME={second} ALOFT_PASSWORD={password}
    {program} login --server {url} --email {email} --device second
    mkdir -p {second_point} && {program} mount {second_point}

  Ctrl-C unmounts and stops everything. Nothing is lost: the next scripts/demo goes on from here. (Data: {folder})
"""


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/demo", description=__doc__)
    parser.add_argument("--check", action="store_true", help="do it all unattended; exit with 0 only if everything held")
    arguments = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    if not Path("/dev/fuse").exists():
        print("scripts/demo: this kernel offers no FUSE (/dev/fuse is missing), so nothing can be mounted", file=sys.stderr)
        return 1
    DEMO.mkdir(exist_ok=True)
    try:
        if arguments.check:
            return check(DEMO)
        play()
    except Failed as failure:
        print(f"scripts/demo: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def play() -> None:
    """Until Ctrl-C."""
    with contextlib.ExitStack() as stack:
        _be_alone(stack)
        service = Service(DEMO / "service")
        stack.callback(service.stop)
        device = Device(service, "demo", DEMO / "home", DEMO / "Aloft")
        stack.callback(device.clear_away)
        device.clear_away()
        if device.run("whoami", may_fail=True).returncode != 0:
            _enter(device)
        device.mount()
        _say_what_to_try(service, device)
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()
        print("\nUploading what is not on the service yet, then unmounting (Ctrl-C again: without waiting)")
        with contextlib.suppress(KeyboardInterrupt):
            device.umount()


def _be_alone(stack: contextlib.ExitStack) -> None:
    """One demo at a time: a second one would take the folder away from the first."""
    lock = stack.enter_context((DEMO / "lock").open("w"))
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Failed("another scripts/demo is running in this checkout") from None


def _enter(device: Device) -> None:
    """The account is made once; a service that had to take another port is met again by logging in there."""
    try:
        device.log_in()
    except Failed:
        device.register()


def _say_what_to_try(service: Service, device: Device) -> None:
    print(
        WELCOME.format(
            point=device.point,
            aloft=f"ALOFT_HOME={device.home} {ALOFT}",
            program=ALOFT,
            second=DEMO / "second-home",
            second_point=DEMO / "Second",
            url=service.url,
            email=EMAIL,
            password=service.password,
            folder=DEMO,
        )
    )


if __name__ == "__main__":
    sys.exit(main())
