"""The wire for notifications: what a person should hear of. As `protocol`.

    GET    /v1/notifications?unread=&before=&after=&wait=&limit=     -> NotificationList
    GET    /v1/notifications/stream?after=                           -> server-sent events (Last-Event-ID)
    POST   /v1/notifications/read                        MarkRead    -> Unread
    GET    /v1/notifications/preferences                             -> ChosenPreferences
    POST   /v1/notifications/preferences                 Preferences -> ChosenPreferences (what is not named stays)

Each has a number, one higher than the one before: who was told one twice sees it by that. They are listed from the newest on, in
pages (`before`), or from the oldest on after one that is known (`after`), also waiting for the next (`wait`). They are kept for
90 days, and the last thousand of an account.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from remote.protocol import Answer, Count, Id, Nanoseconds, Request

LIST_DEFAULT, LIST_MAX = 50, 200
KEPT = 1000
KEPT_DAYS = 90
WAIT_MAX_SECONDS = 60


class Topic(StrEnum):
    """What it is about."""

    NEW_DEVICE = "device.new"
    QUOTA = "quota"
    CONFLICT = "conflict"
    SHARE = "share"
    """Invitations to shared folders, what became of them, changed roles, ended sharing."""
    SHARED_FILES = "share.files"
    """What other members changed in a shared folder; told of a few minutes at once."""
    EXPIRY = "expiry"
    """Within a day."""
    UPLOAD_COMPLETED = "upload.completed"
    """By a plain client."""
    UPLOAD_FAILED = "upload.failed"
    """A device reported it; it goes on trying."""


class Priority(StrEnum):
    LOW = "low"
    NORMAL = "normal"
    HIGH = "high"


class Notification(Answer):
    id: Count
    topic: Topic
    priority: Priority
    at_ns: Nanoseconds
    text: str
    """A sentence for the person."""
    path: str | None
    """What it is about, as it was called then."""
    inode: Id | None
    device: Id | None
    read_ns: Nanoseconds | None
    desktop: bool
    """Whether it is to be shown at once, by the devices that can."""


class NotificationList(Answer):
    notifications: list[Notification]
    latest: Count
    """The number of the last one that there was; what to give as `after` to hear of the next."""
    unread: Count
    has_more: bool


class MarkRead(Request):
    ids: Annotated[list[Count], Field(max_length=LIST_MAX)] = Field(default_factory=list)
    up_to: Count = 0
    """This one, and all before it."""


class Unread(Answer):
    unread: Count


class Preference(Request):
    kept: bool | None = None
    """False: there are none of this topic."""
    desktop: bool | None = None
    email: bool | None = None
    """In the daily digest, if that is on."""


class Preferences(Request):
    topics: dict[Topic, Preference] = Field(default_factory=dict)
    digest: bool | None = None
    """An e-mail a day with what is unread, if anything is and the service has a mail server."""


class ChosenPreferences(Answer):
    """Of all topics."""

    topics: dict[Topic, Preference]
    digest: bool
