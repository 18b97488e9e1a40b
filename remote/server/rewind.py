"""Rewind: a folder, or everything, as it was at a time. Blocking.

What names held is written down with each commit (`namespace`), what files held are their versions, and what was deleted is in the
trash. Each request is one edit of as much as one may be, made from the tree as it is and as it was: nothing is kept between two,
so whoever was interrupted asks again. An edit itself, it is undone by a rewind to the moment before it.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from sqlalchemy import Connection

from remote.fileapi import RewindRequest, RewindWhat, Rewound
from remote.protocol import Kind, ProblemType
from remote.server.database import collection as mark_rows
from remote.server.database import formernames as rows
from remote.server.database import tree as tree_rows
from remote.server.database.engine import Database
from remote.server.devices import Caller
from remote.server.edits import Changes
from remote.server.files import Done, open_path
from remote.server.namespace import CLOCK_STEP_NS, Edit, Namespace
from remote.server.past import Past
from remote.server.paths import find, reach, split_path
from remote.server.problems import Refused
from remote.server.rewindplan import DRY_RUN, EDIT, Limits, RewindPlan
from remote.server.tree import Tree


class Rewind:
    def __init__(
        self, database: Database, namespace: Namespace, clock: Callable[[], int], random: Callable[[int], bytes]
    ) -> None:
        self._database = database
        self._namespace = namespace
        self._clock = clock
        self._random = random

    def rewind(self, caller: Caller, request: RewindRequest) -> Done[Rewound]:
        names = split_path(request.path)
        if request.dry_run:
            with self._database.read() as connection:
                tree, inner = open_path(connection, caller, names, enter=True)
                _, answer = self._plan(connection, tree, inner, request.to_ns, DRY_RUN)
                return Done(answer, tree.root)
        with self._database.read() as connection:
            found = reach(connection, caller, names, enter=True)

        def make(connection: Connection, tree: Tree) -> Edit[Rewound]:
            plan, answer = self._plan(connection, tree, found.names, request.to_ns, EDIT)
            changes = Changes(self._clock(), self._random)
            plan.write(changes)
            group = changes.group()
            if group is None:
                return Edit(None, lambda: answer)
            return Edit(group, lambda: answer.model_copy(update={"undo_ns": tree_rows.last_change(connection, tree.root) - 1}))

        edited = self._namespace.edit(caller, found.space, make, prefix=found.prefix, gives_back=True)
        return Done(edited, found.space)

    def _plan(
        self, connection: Connection, tree: Tree, names: tuple[str, ...], to_ns: int, limits: Limits
    ) -> tuple[RewindPlan, Rewound]:
        top, row = find(tree, names)
        if row.kind is not Kind.DIRECTORY:
            raise Refused(
                ProblemType.INVALID, f"{top.path} is no folder: a file has versions, one of which can be restored.", field="path"
            )
        self._require_known(connection, tree.root, to_ns)
        past = Past(connection, tree, to_ns, top)
        if row.created_ns > to_ns or not (top.is_root or past.homes(row.id)):
            raise Refused(
                ProblemType.INVALID, f"{top.path} was not there at that time: rewind the folder above it.", field="to_ns"
            )
        since_rev = mark_rows.revision_at(connection, tree.root, to_ns - CLOCK_STEP_NS)
        plan = RewindPlan(connection, tree, past, top, to_ns, since_rev, limits)
        plan.run()
        of = plan.counts.of
        answer = Rewound(
            id=row.id,
            path=top.path,
            to_ns=to_ns,
            restored=of[RewindWhat.RESTORED],
            moved=of[RewindWhat.MOVED],
            removed=of[RewindWhat.REMOVED],
            contents=of[RewindWhat.CONTENT],
            left=of[RewindWhat.LEFT],
            gone=of[RewindWhat.GONE],
            changes=plan.counts.paths,
            complete=plan.complete,
            undo_ns=None,
        )
        return plan, answer

    def _require_known(self, connection: Connection, space: bytes, to_ns: int) -> None:
        earliest = rows.since(connection, space)
        if to_ns < earliest:
            date = datetime.fromtimestamp(-(-earliest // 10**9), UTC).isoformat().replace("+00:00", "Z")
            raise Refused(ProblemType.INVALID, f"What was before {date} is not known any more.", field="to_ns")
        if to_ns > max(self._clock(), tree_rows.last_change(connection, space)):
            raise Refused(ProblemType.INVALID, "That time has not come yet.", field="to_ns")
