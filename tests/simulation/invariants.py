"""What must be true of a simulation, beside what `ledger` says of each commit: always, when it is quiet, and after healing.

Everything is read from the rows themselves, next to the drives and the service, so that nothing here believes what they say of
themselves; only contents are read through the drives, since that is what a person does. What is wrong goes to the ledger.

After healing (`check_healed`) all devices and the service hold the same tree: names, kinds, attributes, and the bytes that each
drive reads; every content that a drive promised is in a version on the service, unless somebody who saw it deleted it or wrote
over it before it went up; what the service ever had is still there; no file has a name of a copy where only one device was
used. These faults weaken it, each by what is named and by nothing else:

- *a crash before `close` returned*: of what was written since the last promise, any state may be there, or a mixture of them,
  byte by byte, in the place of the last promised content, which counts as overwritten (`history.Unfinished`);
- *a device's home restored from a backup*: contents that this device wrote after the backup, and that never went to the
  service, are lost; copies of contents that came back with it need no cause; merges may change a single device's tree;
- *the service restored from a backup*: contents that it had, and has no more, may be lost, and copies of or beside them need no
  cause; what it never had must come; from then on devices may bring back inodes that they did nothing to, and names beside those
  that the service has (a rename that it forgot leaves both); merges may change a single device's tree.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

import trio

from cache.drive import Drive
from cache.recovery import LOST
from cache.store.schema import ROOT
from cache.store.tree import SAME_AS_BASE
from remote.copynames import read_copy_name
from tests.simulation.ledger import Ledger
from tests.simulation.served import Key

ROUNDS = 14
"""So many rounds of healing a run may need until it is quiet."""
_PATIENCE = 120.0


# ---------------------------------------------------------------------------------------------------------------- always


def check_local(ledger: Ledger, device: str) -> None:
    """The device's local state is a tree. After every operation and every merge."""
    for rule, statement in _LOCAL.items():
        found = ledger.replica(device).execute(statement).fetchone()
        if found is not None:
            ledger.fail(f"on {device}, {rule}: {found}")


# ------------------------------------------------------------------------------------------------------------------ quiet


def unquiet(ledger: Ledger, device: str) -> list[str]:
    """What still has to be exchanged between the device and the service, an unfinished upload among it; [] if nothing."""
    sql = ledger.replica(device)
    found = [what for what, statement in _UNQUIET.items() if sql.execute(statement).fetchone() is not None]
    revision = ledger.served.current_revision()
    if sql.execute("SELECT snapshot FROM space").fetchone()[0] < revision:
        found.append("the service knows more")
    return found


def check_quiet(ledger: Ledger, devices: Iterable[str]) -> None:
    """To be asked after `ROUNDS` rounds of healing."""
    for device in devices:
        left = unquiet(ledger, device)
        if left:
            ledger.fail(f"{device} is not quiet after {ROUNDS} rounds: {', '.join(left)}")


# ----------------------------------------------------------------------------------------------------------- after healing


async def check_healed(ledger: Ledger, drives: dict[str, Drive], *, collected: bool = False) -> None:
    """Everything that must be true when all devices are online and quiet, and no file is open."""
    ledger.served.reload()
    for fault in ledger.served.tree.faults():
        ledger.fail(f"the service holds no tree: {fault}")
    check_service(ledger)
    check_contents(ledger, collected=collected)
    if ledger.single is not None:
        for _, name in ledger.served.tree.entries:
            if read_copy_name(name):
                ledger.fail(f"only {ledger.single} was used, and there is a copy: {name!r}")
    for device, drive in drives.items():
        check_local(ledger, device)
        check_same_tree(ledger, device)
        await check_read_back(ledger, device, drive)
        report = await drive.fsck(repair=False)
        for problem in report.problems:
            ledger.fail(f"fsck of {device}: {problem.rule}: {problem.detail}")


def check_contents(ledger: Ledger, *, collected: bool) -> None:
    """Nothing that was promised is lost, and nothing that the service had. `collected`: it may have dropped what was deleted."""
    served, history = ledger.served, ledger.history
    found = {ledger.content(manifest) for manifests in served.versions().values() for manifest in manifests}
    found |= {ledger.content(row.manifest_id) for row in served.tree.rows.values() if row.manifest_id is not None}
    for id_ in history.lost(found):
        ledger.fail(f"lost: {ledger.name(id_)}, written by {', '.join(sorted(history.contents[id_].writers))}")
    for id_ in ledger.on_service - found:
        written = history.contents[id_]
        if not written.forgiven and not (collected and written.deleted):
            ledger.fail(f"the service had {ledger.name(id_)}, and has it no more")


def check_same_tree(ledger: Ledger, device: str) -> None:
    """The device shows what the service holds: the same names on the same inodes, with the same attributes and contents."""
    tree = ledger.served.tree
    sql = ledger.replica(device)
    entries: dict[Key, bytes] = {(parent, name): inode for parent, name, inode in sql.execute(_ENTRIES)}
    if entries != tree.entries:
        missing = sorted(name for _, name in tree.entries.keys() - entries.keys())
        extra = sorted(name for _, name in entries.keys() - tree.entries.keys())
        other = sorted(key[1] for key in tree.entries.keys() & entries.keys() if tree.entries[key] != entries[key])
        ledger.fail(f"{device} holds another tree than the service: missing {missing}, extra {extra}, other {other}")
    for inode, kind, mode, uid, gid, mtime_ns, xattrs, target, device_number, manifest_id in sql.execute(_INODES):
        row = tree.rows.get(inode)
        if row is None:
            continue  # its name was found extra
        theirs = (row.kind, row.mode, row.uid, row.gid, row.mtime_ns, _xattrs(row.xattrs), row.target, row.device_number)
        mine = (kind, mode, uid, gid, mtime_ns, _xattrs(xattrs), target, device_number)
        if mine != theirs:
            ledger.fail(f"{device} shows {tree.path(inode)!r} as {mine}, the service holds {theirs}")
        if manifest_id != row.manifest_id and not _equal(ledger, manifest_id, row.manifest_id):
            ledger.fail(f"{device} has another content in {tree.path(inode)!r} than the service")


def _equal(ledger: Ledger, mine: bytes | None, theirs: bytes | None) -> bool:
    return mine is not None and theirs is not None and ledger.content(mine) == ledger.content(theirs)


def _xattrs(text: str | bytes | None) -> dict[str, str]:
    found: dict[str, str] = json.loads(text) if text else {}
    return found


async def check_read_back(ledger: Ledger, device: str, drive: Drive) -> None:
    """Every file reads as what the service holds, byte for byte."""
    tree = ledger.served.tree
    files = ledger.replica(device).execute("SELECT DISTINCT i.ino, d.id " + _NAMED_FILES).fetchall()
    for ino, inode in files:
        row = tree.rows.get(inode)
        if row is None or row.manifest_id is None:
            continue
        file = drive.files.open(ino, writable=False)
        try:
            with trio.fail_after(_PATIENCE):
                data = await file.read(0, file.size)
        finally:
            file.release()
        expected = ledger.served.read(row.manifest_id)
        if data != expected:
            ledger.fail(f"{device} reads {ledger.show(data)} in {tree.path(inode)!r}, which holds {ledger.show(expected)}")


def check_service(ledger: Ledger) -> None:
    """The service's rows, held against each other."""
    for rule, found in ledger.served.problems():
        ledger.fail(f"on the service, {rule}: {found}")


_ENTRIES = "SELECT p.id, e.name, c.id FROM entry e JOIN identity p ON p.ino = e.parent JOIN identity c ON c.ino = e.ino"
_INODES = (
    "SELECT d.id, i.kind, i.mode, i.uid, i.gid, i.mtime_ns, i.xattrs, i.target, i.device_number, i.manifest_id "
    "FROM inode i JOIN identity d USING (ino) WHERE EXISTS (SELECT 1 FROM entry e WHERE e.ino = i.ino)"
)
_NAMED_FILES = "FROM entry e JOIN inode i ON i.ino = e.ino JOIN identity d ON d.ino = i.ino WHERE i.kind = 'file' ORDER BY i.ino"
_LOCAL = {
    "a name points at nothing": "SELECT e.name FROM entry e LEFT JOIN inode i USING (ino) WHERE i.ino IS NULL",
    "a name lies in what is no folder": (
        "SELECT e.name FROM entry e LEFT JOIN inode i ON i.ino = e.parent WHERE i.kind IS NOT 'directory'"
    ),
    "a folder has two names": (
        "SELECT min(e.name) FROM entry e JOIN inode i USING (ino) WHERE i.kind = 'directory' GROUP BY i.ino HAVING count(*) > 1"
    ),
    "something cannot be reached": (
        f"WITH RECURSIVE r (ino) AS (VALUES ({ROOT}) UNION SELECT e.ino FROM r JOIN entry e ON e.parent = r.ino) "
        "SELECT name FROM entry WHERE ino NOT IN r"
    ),
    "what was written to a file is not on the disk any more": f"SELECT ino FROM draft WHERE error = '{LOST}'",
    "a file's number of links is wrong": (
        "SELECT i.ino, i.nlink FROM inode i WHERE i.kind <> 'directory' "
        "AND i.nlink <> (SELECT count(*) FROM entry e WHERE e.ino = i.ino)"
    ),
}
_UNQUIET = {
    "a commit is outstanding": "SELECT 1 FROM space WHERE commit_body IS NOT NULL",
    "pages are not merged": "SELECT 1 FROM staged_entry UNION SELECT 1 FROM staged_inode",
    "the listing is not finished": "SELECT 1 FROM space WHERE listing OR NOT listed OR NOT caught_up",
    "names are not sent": "SELECT 1 FROM entry_base b LEFT JOIN entry e USING (parent, name) WHERE b.ino IS NOT e.ino",
    "attributes are not sent": (
        f"SELECT 1 FROM inode_base b JOIN inode i USING (ino) WHERE i.nlink > 0 AND NOT (b.known AND {SAME_AS_BASE})"
    ),
    "contents are not sent": "SELECT 1 FROM draft d JOIN inode i USING (ino) WHERE i.nlink > 0",
}
