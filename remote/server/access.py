"""What a caller may do in a space. What one may not see looks like what does not exist."""

from __future__ import annotations

from sqlalchemy import Connection

from remote.protocol import ProblemType
from remote.server.database import accounts as account_rows
from remote.server.database.accounts import Membership
from remote.server.devices import Caller
from remote.server.problems import Refused, not_found


def member_of(connection: Connection, caller: Caller, space: bytes) -> Membership:
    """The caller's membership of the space; `Refused` (not found) if there is none."""
    membership = account_rows.membership(connection, space, caller.account)
    if membership is None:
        raise not_found("There is no such space.")
    return membership


def writer_of(connection: Connection, caller: Caller, space: bytes) -> Membership:
    """The same, of somebody who may change what is in it; `Refused` (forbidden) for a viewer."""
    membership = member_of(connection, caller, space)
    if not membership.may_write:
        raise Refused(ProblemType.FORBIDDEN, "This folder was shared with you to look at it: ask its owner to be made an editor.")
    return membership
