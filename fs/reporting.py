"""Telling the service what this device has yet to send, so that another one, or a browser, can show it. Nothing depends on it."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING

import trio

from cache.model import Connection
from remote.api import Forbidden, NotThere, RemoteError
from remote.fileapi import PATH_MAX
from remote.syncapi import DeviceReport, ReportedFile

if TYPE_CHECKING:
    from cache.drive import Drive
    from remote.syncs import Syncs

log = logging.getLogger("fs.reporting")

EVERY_SECONDS = 5.0
LAST_SECONDS = 2.0
"""How long an unmount may take for it."""
FILES = 20
_ERROR_MAX = 500
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]+")


class Reporting:
    """Sends a report whenever it differs from the last that arrived; one that fails is made anew at the next turn."""

    def __init__(self, drive: Drive, syncs: Syncs) -> None:
        self._drive = drive
        self._syncs = syncs
        self._told: DeviceReport | None = None

    async def run(self) -> None:
        """Until it is cancelled, or the service turns out not to take reports."""
        while True:
            if not await self._tell():
                return
            await trio.sleep(EVERY_SECONDS)

    async def tell_the_end(self) -> None:
        with trio.move_on_after(LAST_SECONDS):
            await self._tell()

    async def _tell(self) -> bool:
        if self._drive.connection.state is not Connection.ONLINE:
            return True
        report = self._report()
        if report == self._told:
            return True
        try:
            await self._syncs.report(report)
        except (NotThere, Forbidden):
            return False
        except RemoteError as error:
            log.debug("the service was not told what waits: %s", error)
        else:
            self._told = report
        return True

    def _report(self) -> DeviceReport:
        queue = self._drive.queue(FILES)
        first = [
            ReportedFile(path=f"/{file.path}", size=file.size, error=_one_line(file.error))
            for file in queue.first
            if 0 < len(file.path.encode()) < PATH_MAX
        ]
        return DeviceReport(files=queue.files, bytes=queue.bytes, changes=queue.changes, first=first)


def _one_line(error: str | None) -> str | None:
    return None if error is None else _CONTROLS.sub(" ", error)[:_ERROR_MAX]
