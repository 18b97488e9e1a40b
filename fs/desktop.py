"""Showing notifications on the desktop of this machine, as they come, if it has one. Nothing depends on it."""

from __future__ import annotations

import html
import logging
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from remote.api import Forbidden, NotThere, RemoteError
from remote.notificationapi import Notification, Priority

if TYPE_CHECKING:
    from cache.drive import Drive
    from remote.notices import Notices

log = logging.getLogger("fs.desktop")

PROGRAM = "notify-send"
SHOWING_SECONDS = 10.0
AGAIN_SECONDS = 30.0
EMPTY_SECONDS = 1.0
"""A service that is stopping answers at once."""
_URGENCY = {Priority.LOW: "low", Priority.NORMAL: "normal", Priority.HIGH: "critical"}


class Desktop:
    """Remembers in `file` the number of the last one that was shown: after a crash, one may be shown twice."""

    def __init__(self, drive: Drive, notices: Notices, file: Path) -> None:
        self._drive = drive
        self._notices = notices
        self._file = file

    async def run(self) -> None:
        """Until it is cancelled; not at all where nothing could be shown."""
        program = shutil.which(PROGRAM)
        if program is None or not (os.environ.get("DBUS_SESSION_BUS_ADDRESS") or os.environ.get("DISPLAY")):
            return
        known = self._read()
        while True:
            await self._drive.connection.wait_online()
            try:
                if known is None:
                    known = (await self._notices.newest(1)).latest
                    self._write(known)
                page = await self._notices.next(known)
                known = min(known, page.latest)  # a service that was restored has had fewer
                for notification in page.notifications:
                    await _show(program, notification)
                    known = notification.id
                    self._write(known)
                if not page.notifications:
                    await trio.sleep(EMPTY_SECONDS)
            except (NotThere, Forbidden):
                return
            except RemoteError as error:
                log.debug("nobody knows whether there are notifications: %s", error)
                await trio.sleep(AGAIN_SECONDS)

    def _read(self) -> int | None:
        """None: nothing was shown yet, or nobody knows."""
        try:
            return int(self._file.read_text())
        except (FileNotFoundError, ValueError):
            return None

    def _write(self, number: int) -> None:
        temporary = self._file.with_name(f"{self._file.name}.new")
        try:
            temporary.write_text(f"{number}\n")
            temporary.replace(self._file)
        except OSError as error:
            log.warning("what was shown is not remembered: %s", error)


async def _show(program: str, notification: Notification) -> None:
    if not notification.desktop or notification.read_ns is not None:
        return
    urgency = _URGENCY[notification.priority]
    command = [program, "--app-name=Aloft", f"--urgency={urgency}", "--", "Aloft", html.escape(notification.text, quote=False)]
    with trio.move_on_after(SHOWING_SECONDS):
        done = await trio.run_process(command, check=False, capture_stdout=True, capture_stderr=True)
        if done.returncode != 0:
            log.info("%s ended with %d: %s", PROGRAM, done.returncode, done.stderr.decode(errors="replace").strip())
