"""How far each device is: what it has of its spaces, as its polls tell, and what it has yet to send, as it reports. Blocking."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from remote.notificationapi import Topic
from remote.protocol import ProblemType
from remote.server.cursor import BadCursor, Cursor, decode
from remote.server.database import accounts as account_rows
from remote.server.database import devices as device_rows
from remote.server.database import devicesync as rows
from remote.server.database import epochs
from remote.server.database import fileuploads as upload_rows
from remote.server.database.devices import DeviceRow
from remote.server.database.devicesync import DeviceProgress
from remote.server.database.engine import Database
from remote.server.database.tree import InodeRow, revision
from remote.server.devices import Caller
from remote.server.filedownloads import Wanted
from remote.server.files import file_info, open_tree
from remote.server.news import News, post
from remote.server.paths import Place, find, place_of, split_path
from remote.server.problems import Refused, not_found, require_printable
from remote.server.tree import Tree
from remote.syncapi import DeviceReport, DeviceSync, PendingFile, ReportedFile, SyncState, SyncStatus

log = logging.getLogger("aloft.server")

NOTE_EVERY_NS = 5 * 10**9
NOTE_BUSY_EVERY_NS = 30 * 10**9
"""While a device is behind, and asks for page after page."""
_REMEMBERED = 10_000


class DeviceSyncs:
    def __init__(self, database: Database, clock: Callable[[], int]) -> None:
        self._database = database
        self._clock = clock
        self._noted: OrderedDict[bytes, tuple[str, int]] = OrderedDict()

    def is_due(self, caller: Caller, cursor: str, *, caught_up: bool) -> bool:
        """Whether the device's cursor is worth a write now. On the event loop; says so once."""
        now = self._clock()
        known, at_ns = self._noted.get(caller.device, ("", 0))
        if cursor in ("", known) or now - at_ns < (NOTE_EVERY_NS if caught_up else NOTE_BUSY_EVERY_NS):
            return False
        self._noted[caller.device] = (cursor, now)
        self._noted.move_to_end(caller.device)
        if len(self._noted) > _REMEMBERED:
            self._noted.popitem(last=False)
        return True

    def due_in(self, caller: Caller, cursor: str) -> float | None:
        """Seconds until the cursor of a device that waits is worth a write; None: it was written, or is worth none."""
        known, at_ns = self._noted.get(caller.device, ("", 0))
        return None if cursor in ("", known) else max(at_ns + NOTE_EVERY_NS - self._clock(), 0) / 10**9

    def note(self, caller: Caller, cursor: str) -> None:
        """The device has all before its cursor. Of personal access tokens nothing is noted."""
        try:
            known = decode(cursor)
        except BadCursor:
            return  # the request that brought it was refused
        try:
            with self._database.write() as connection:
                self._note(connection, caller, known)
        except SQLAlchemyError as error:  # a full disk, say: the device is to hear of changes all the same
            log.warning("where a device stands could not be noted: %s", error)

    def _note(self, connection: Connection, caller: Caller, known: Cursor) -> None:
        device = device_rows.find(connection, caller.account, caller.device, lock=True)
        if device is None or known.epoch.hex() != epochs.current(connection):
            return
        spaces = {membership.space for membership in account_rows.memberships(connection, caller.account)}
        revisions = {space: at.told_until for space, at in known.positions.items() if space in spaces}
        rows.note_positions(connection, caller.account, caller.device, revisions, self._clock())

    def report(self, caller: Caller, report: DeviceReport) -> None:
        """What does not go up, and did when it reported before, is news."""
        for file in report.first:
            split_path(file.path, "first")
            require_printable(file.error or "", "first")
        with self._database.write() as connection:
            account_rows.lock(connection, caller.account)
            device = device_rows.find(connection, caller.account, caller.device, lock=True)
            if device is None:
                raise Refused(ProblemType.FORBIDDEN, "Only a device reports what it has yet to send.")
            before = rows.report_of(connection, caller.account, caller.device)
            rows.put_report(connection, caller.account, caller.device, report.model_dump_json(), self._clock())
            known = set() if before is None else _failing(DeviceReport.model_validate_json(before))
            failed = [file for file in report.first if file.error is not None and file.path not in known]
            post(connection, caller.account, [_failure(device, file) for file in failed], self._clock())

    def status(self, caller: Caller, wanted: Wanted | None) -> SyncStatus:
        """`wanted`: a file or folder, for whose state to look on each device, too."""
        with self._database.read() as connection:
            tree = open_tree(connection, caller)
            place, row = (None, None) if wanted is None else _find(tree, wanted)
            asked = None if row is None else _Asked(place, _latest(tree, row))
            now = revision(connection, tree.root)
            found = rows.progress(connection, caller.account, tree.root)
            uploads = upload_rows.count_open(connection, caller.account)
        return SyncStatus(
            revision=now,
            file=None if place is None or row is None else file_info(place, row),
            devices=[_device(caller, each, now, asked) for each in found],
            uploads=uploads,
        )


def _failing(report: DeviceReport) -> set[str]:
    return {file.path for file in report.first if file.error is not None}


def _failure(device: DeviceRow, file: ReportedFile) -> News:
    text = f"{device.name} cannot send {file.path}: {file.error}"
    return News(Topic.UPLOAD_FAILED, text, path=file.path, device=device.id)


class _Asked:
    def __init__(self, place: Place | None, rev: int) -> None:
        self.path = None if place is None else place.path
        self.rev = rev


def _find(tree: Tree, wanted: Wanted) -> tuple[Place | None, InodeRow]:
    """What is asked for, in the personal space."""
    if (wanted.path is None) == (wanted.id is None):
        raise Refused(ProblemType.INVALID, "Give a path or an id.", field="path")
    if wanted.path is not None:
        return find(tree, split_path(wanted.path))
    assert wanted.id is not None
    row = tree.inode(wanted.id)
    if row is None:
        raise not_found("There is no such file.")
    return place_of(tree, row.id), row


def _latest(tree: Tree, row: InodeRow) -> int:
    """The revision in which something of it, or one of its names, last changed."""
    return max((row.rev, *(tree.entry(key).rev for key in tree.names(row.id) if key[0])))


def _device(caller: Caller, device: DeviceProgress, now: int, asked: _Asked | None) -> DeviceSync:
    report = None if device.report is None else DeviceReport.model_validate_json(device.report)
    lag = None if device.rev is None else max(now - device.rev, 0)
    first: Sequence[ReportedFile] = () if report is None else report.first
    pending = [PendingFile(path=each.path, size=each.size, state=_state_of(each), error=each.error) for each in first]
    waiting = report is not None and (report.files > 0 or report.changes > 0)
    return DeviceSync(
        device=device.id,
        name=device.name,
        current=device.id == caller.device,
        last_seen_ns=device.last_seen_ns,
        revision=device.rev,
        lag=lag,
        last_synced_ns=device.noted_ns,
        state=_overall(pending, behind=lag != 0 or waiting),
        waiting_files=0 if report is None else report.files,
        waiting_bytes=0 if report is None else report.bytes,
        waiting_changes=0 if report is None else report.changes,
        reported_ns=device.reported_ns,
        pending=pending,
        file=None if asked is None else _state_of_file(asked, device.rev, pending),
    )


def _state_of(file: ReportedFile) -> SyncState:
    return SyncState.IN_PROGRESS if file.error is None else SyncState.FAILED


def _overall(pending: Sequence[PendingFile], *, behind: bool) -> SyncState:
    if any(file.state is SyncState.FAILED for file in pending):
        return SyncState.FAILED
    return SyncState.IN_PROGRESS if behind else SyncState.COMPLETED


def _state_of_file(asked: _Asked, rev: int | None, pending: Sequence[PendingFile]) -> SyncState:
    for file in pending:
        if file.path == asked.path:
            return file.state
    return SyncState.COMPLETED if rev is not None and rev >= asked.rev else SyncState.IN_PROGRESS
