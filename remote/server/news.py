"""What a person should hear of, written down in the transaction of what happened: so none is lost, and none tells what did not
happen. Blocking."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from remote.notificationapi import KEPT, Preference, Preferences, Priority, Topic
from remote.server.database import accounts as account_rows
from remote.server.database import notifications as rows

QUOTA_STEPS = (80, 95, 100)
"""Percent."""

_DEFAULT = {
    Topic.NEW_DEVICE: Preference(kept=True, desktop=True, email=True),
    Topic.QUOTA: Preference(kept=True, desktop=True, email=True),
    Topic.CONFLICT: Preference(kept=True, desktop=True, email=True),
    Topic.SHARE: Preference(kept=True, desktop=True, email=True),
    Topic.SHARED_FILES: Preference(kept=True, desktop=True, email=False),
    Topic.EXPIRY: Preference(kept=True, desktop=True, email=True),
    Topic.UPLOAD_COMPLETED: Preference(kept=False, desktop=False, email=False),
    Topic.UPLOAD_FAILED: Preference(kept=True, desktop=True, email=True),
}


@dataclass(frozen=True, slots=True)
class News:
    """What somebody should hear of."""

    topic: Topic
    text: str
    priority: Priority = Priority.NORMAL
    path: str | None = None
    inode: bytes | None = None
    device: bytes | None = None


def post(connection: Connection, account: bytes, news: Sequence[News], now_ns: int) -> None:
    """Tell an account, in the caller's transaction. Locks the account: whoever has a space or a device to lock does it before."""
    if not news or not account_rows.lock(connection, account):
        return
    box = rows.mailbox(connection, account)
    chosen = chosen_preferences(box.preferences)
    wanted = [each for each in news if chosen[each.topic].kept]
    if not wanted:
        return
    rows.add(
        connection,
        [
            {
                "account_id": account,
                "number": number,
                "topic": each.topic,
                "priority": each.priority,
                "at_ns": now_ns,
                "text": each.text,
                "path": each.path,
                "inode": each.inode,
                "device_id": each.device,
                "read_ns": None,
            }
            for number, each in enumerate(wanted, start=box.numbered + 1)
        ],
    )
    numbered = box.numbered + len(wanted)
    rows.put_mailbox(connection, account, numbered=numbered)
    rows.forget_up_to(connection, account, numbered - KEPT)


def quota_news(quota: int, before: int, after: int) -> list[News]:
    """If the use of a quota went over a step: which is said once, for the highest."""
    passed = [step for step in QUOTA_STEPS if before * 100 < quota * step <= after * 100]
    if not passed:
        return []
    step = passed[-1]
    full = "All of your storage is used: nothing more can be stored."
    text = full if step == QUOTA_STEPS[-1] else f"{step} % of your storage is used: aloft tier shows how much there is."
    return [News(Topic.QUOTA, text, Priority.NORMAL if step == QUOTA_STEPS[0] else Priority.HIGH)]


def chosen_preferences(stored: str) -> dict[Topic, Preference]:
    return merge_preferences(_DEFAULT, Preferences.model_validate_json(stored))


def merge_preferences(known: dict[Topic, Preference], new: Preferences) -> dict[Topic, Preference]:
    """What is not named stays."""
    changes = {topic: preference.model_dump(exclude_none=True) for topic, preference in new.topics.items()}
    return {topic: preference.model_copy(update=changes.get(topic, {})) for topic, preference in known.items()}
