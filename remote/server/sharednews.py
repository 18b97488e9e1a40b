"""Tells members of shared folders what others changed in them: of all that is new in a while at once. Blocking.

A job looks for shared spaces that went on since a member was last told, and counts the files whose content is another one by
then, and not by that member's own devices. What is told, and that it was, is one transaction for each member.
"""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import Connection

from remote.notificationapi import Topic
from remote.server.database import accounts as account_rows
from remote.server.database import sharing as rows
from remote.server.database import tree as tree_rows
from remote.server.database.engine import Database
from remote.server.database.sharing import Behind
from remote.server.news import News, post
from remote.server.paths import place_of, prefix_of
from remote.server.tree import Tree

COUNTED_MAX = 1000
"""Files of one notification; of more it says so."""


def tell_members(database: Database, clock: Callable[[], int], proceed: Callable[[], None] = lambda: None) -> int:
    """How many notifications there were."""
    with database.read() as connection:
        waiting = rows.behind(connection)
    count = 0
    for member in waiting:
        proceed()
        with database.write() as connection:
            count += _tell(connection, member, clock())
    return count


def _tell(connection: Connection, member: Behind, now_ns: int) -> bool:
    if not account_rows.lock(connection, member.account):
        return False
    if account_rows.membership(connection, member.space, member.account) is None:
        return False
    reached = tree_rows.revision(connection, member.space)
    found = rows.changed_by_others(connection, member, COUNTED_MAX + 1)
    rows.set_told(connection, member.space, member.account, reached)
    if not found:
        return False
    where = prefix_of(connection, member.account, member.space)
    if len(found) == 1:
        place = place_of(Tree(connection, member.space, where), found[0])
        path = where if place is None else place.path
        news = News(Topic.SHARED_FILES, f"{path} was changed by another member.", path=path, inode=found[0])
    else:
        many = f"More than {COUNTED_MAX}" if len(found) > COUNTED_MAX else str(len(found))
        news = News(Topic.SHARED_FILES, f"{many} files in {where} were changed by other members.", path=where)
    post(connection, member.account, [news], now_ns)
    return True
