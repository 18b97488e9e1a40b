"""Calls about notifications: the other side of `remote.notificationapi`."""

from __future__ import annotations

from collections.abc import Sequence

from remote.http import HttpService
from remote.notificationapi import LIST_MAX, ChosenPreferences, MarkRead, NotificationList, Preferences, Unread

WAIT_SECONDS = 50


class Notices:
    """May raise any `RemoteError`."""

    def __init__(self, service: HttpService) -> None:
        self._service = service

    async def newest(self, limit: int, *, unread: bool = False) -> NotificationList:
        """The newest first; `limit`: as many as there are, at most `LIST_MAX`."""
        params: dict[str, str | int] = {"limit": min(limit, LIST_MAX), "unread": "true" if unread else "false"}
        return await self._service.call(NotificationList, "GET", "/v1/notifications", params=params)

    async def next(self, after: int) -> NotificationList:
        """Those after one, the oldest first; waits for one for `WAIT_SECONDS`."""
        return await self._service.wait_for(NotificationList, "/v1/notifications", {"after": after}, WAIT_SECONDS)

    async def mark_read(self, ids: Sequence[int] = (), up_to: int = 0) -> Unread:
        return await self._service.call(Unread, "POST", "/v1/notifications/read", MarkRead(ids=list(ids), up_to=up_to))

    async def preferences(self) -> ChosenPreferences:
        return await self._service.call(ChosenPreferences, "GET", "/v1/notifications/preferences")

    async def choose(self, preferences: Preferences) -> ChosenPreferences:
        """What is not named stays."""
        return await self._service.call(ChosenPreferences, "POST", "/v1/notifications/preferences", preferences)
