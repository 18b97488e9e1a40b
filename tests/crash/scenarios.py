"""Which scenario passes which point."""

from __future__ import annotations

from remote.crashpoints import CLIENT_POINTS
from tests.crash.apart_scenarios import BeginningAnEpoch, Collecting, Ended, Reconnecting, Rewrapping, Spreading, Sweeping
from tests.crash.command_scenarios import AnotherAccount, LoggingIn, LoggingOut, Refreshing, Registering
from tests.crash.device_scenarios import Anew, Conflict, Many, Overdue, Reading, Restart, Squashing, Writing
from tests.crash.scenario import Scenario
from tests.crash.service_scenarios import Serving, ServingAgain, ServingCommands, Starting

_BY_POINT: dict[str, type[Scenario]] = {
    "upload.squashed": Squashing,
    "upload.squash-saved": Squashing,
    "upload.doubted": Overdue,
    "checkpoint.moving": Many,
    "checkpoint.moved": Many,
    "account.registered": Registering,
    "logout.told": LoggingOut,
    "credentials.written": LoggingIn,
    "credentials.replaced": LoggingIn,
    "listing.shown": Anew,
    "service.plan.session-begun": ServingAgain,
    "service.object.copied": Spreading,
}
_BY_AREA: dict[str, type[Scenario]] = {
    "page": Reading,
    "merge": Conflict,
    "files": Conflict,
    "kernel": Reading,
    "download": Reading,
    "chunk": Reading,
    "pin": Reading,
    "replica": Anew,
    "recovery": Restart,
    "reconnect": Reconnecting,
    "share": Ended,
    "installation": Registering,
    "login": LoggingIn,
    "token": Refreshing,
    "set-aside": AnotherAccount,
    "service.account": ServingCommands,
    "service.login": ServingCommands,
    "service.tokens": ServingCommands,
    "service.device": ServingCommands,
    "service.start": Starting,
    "service.collect": Collecting,
    "service.garbage": Sweeping,
    "service.epoch": BeginningAnEpoch,
    "service.rewrap": Rewrapping,
}


def scenario_of(point: str) -> type[Scenario]:
    """The one that passes a point."""
    area = point.rpartition(".")[0]
    usual = Writing if point in CLIENT_POINTS else Serving
    return _BY_POINT.get(point) or _BY_AREA.get(area) or usual
