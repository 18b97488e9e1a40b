"""The wire for sharing folders with other accounts. As `protocol`.

    GET    /v1/shares                                                -> ShareList
    POST   /v1/shares                                   ShareRequest -> Share       (the first time, the folder becomes a space)
    POST   /v1/shares/role                              ShareRequest -> Share
    POST   /v1/shares/remove                           MemberRequest -> Share       (a member, or an invitation)
    POST   /v1/shares/leave                               SharedPath -> 204         (for members but the owner)
    POST   /v1/shares/unshare                             SharedPath -> 204         (for the owner)
    GET    /v1/invitations                                           -> InvitationList
    POST   /v1/invitations/accept                 InvitationAnswer   -> Share
    POST   /v1/invitations/decline                InvitationAnswer   -> 204

A shared folder is a space of its own. It stays its owner's, whose storage counts. In each member's personal space stands a mount,
which may be moved and renamed there; paths lead through it. What was in the folder before is copied into the new space with its
versions, and no byte is moved; as it was, the folder is in the owner's trash. A single file is shared in a folder of its own,
named after it: programs that save by renaming need one.

A folder within a shared one is not shared again, nor one that has a shared one within it. Whether an address that is invited
belongs to an account is not said.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from remote.fileapi import Path
from remote.protocol import Answer, Id, Nanoseconds, Request

MEMBERS_MAX = 100
"""Of one shared folder, invitations counted."""
SHARES_MAX = 200
"""That one account is a member of."""


class Role(StrEnum):
    OWNER = "owner"
    EDITOR = "editor"
    VIEWER = "viewer"


class SharedPath(Request):
    path: Path


class MemberRequest(SharedPath):
    email: Annotated[str, Field(min_length=3, max_length=254, pattern=r"^[^@\s]+@[^@\s]+$")]


class ShareRequest(MemberRequest):
    role: Literal[Role.EDITOR, Role.VIEWER] = Role.EDITOR


class Member(Answer):
    email: str
    name: str
    role: Role


class Invited(Answer):
    email: str
    role: Role
    created_ns: Nanoseconds


class Share(Answer):
    space: Id
    path: str | None
    """Where it stands in the caller's files."""
    role: Role
    """The caller's."""
    members: list[Member]
    invited: list[Invited]
    """Only the owner sees them."""


class ShareList(Answer):
    shares: list[Share]


class InvitationAnswer(Request):
    space: Id


class Invitation(Answer):
    space: Id
    name: str
    """Of the folder, as its owner calls it."""
    owner_email: str
    owner_name: str
    role: Role
    created_ns: Nanoseconds


class InvitationList(Answer):
    invitations: list[Invitation]
