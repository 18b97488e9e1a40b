"""The wire for accounts: who they are, their devices, tokens, tiers and log. As `protocol`.

    POST   /v1/accounts                        RegisterRequest   -> Account
    POST   /v1/sessions                        LoginRequest      -> Login            (also: the sixth device, 409 TooManyDevices)
    DELETE /v1/sessions/current                                  -> 204
    POST   /v1/tokens                          RefreshRequest    -> Tokens
    POST   /v1/sessions/token                  TokenLogin        -> NewPersonalToken (no device: for what uses the API only)
    GET    /v1/account                                           -> AccountInfo
    PATCH  /v1/account                         AccountChange     -> AccountInfo
    POST   /v1/account/password                PasswordChange    -> 204
    POST   /v1/account/close                   AccountClosing    -> 204
    POST   /v1/password/forgotten              ForgottenPassword -> 204              (whether there is such an account or not)
    POST   /v1/password/new                    NewPassword       -> 204
    GET    /v1/audit?before=&limit=                              -> AuditPage        (what was done with the account)
    GET    /v1/personal-tokens                                   -> PersonalTokenList
    POST   /v1/personal-tokens                 TokenRequest      -> NewPersonalToken
    DELETE /v1/personal-tokens/{token}                           -> 204
    GET    /v1/users/tier                                        -> AccountTier
    POST   /v1/users/tier                      ChooseTier        -> AccountTier      (409: too small for what is stored)
    GET    /v1/devices                                           -> DeviceList
    DELETE /v1/devices?keep_current=                             -> 204
    DELETE /v1/devices/{device}                                  -> 204

A token may do what its scopes say, a device everything.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, Field

from remote.protocol import Answer, Count, Device, Id, Nanoseconds, Request, Seconds, Token


def _check_time_zone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError("it is not the name of a time zone, like Europe/Berlin") from None
    return value


ChosenPassword = Annotated[str, Field(min_length=8, max_length=1024)]
GivenPassword = Annotated[str, Field(max_length=1024)]
GivenEmail = Annotated[str, Field(max_length=254)]
AccountName = Annotated[str, Field(max_length=200)]


class RegisterRequest(Request):
    email: Annotated[str, Field(min_length=3, max_length=254, pattern=r"^[^@\s]+@[^@\s]+$")]
    password: ChosenPassword
    name: AccountName = ""
    invitation: Annotated[str, Field(max_length=200)] | None = None


class Account(Answer):
    id: Id
    email: str
    name: str
    space: Id
    """The account's personal space."""


class DeviceLogin(Request):
    installation: Id
    """Made once per home: logging in again from the same home is the same device."""
    name: Annotated[str, Field(min_length=1, max_length=100)]


class LoginRequest(Request):
    email: GivenEmail
    password: GivenPassword
    device: DeviceLogin
    replace: Id | None = None
    """Log this device out to make room, when all slots are taken."""


class RefreshRequest(Request):
    refresh_token: Annotated[str, Field(min_length=1, max_length=500)]


class Scope(StrEnum):
    """What a caller may do. A device may do everything; a personal access token what it was made for."""

    FILES_READ = "files:read"
    FILES_WRITE = "files:write"
    ACCOUNT_READ = "account:read"
    ACCOUNT_WRITE = "account:write"


class Tokens(Answer):
    access_token: Token
    expires_in: Seconds
    """Until the access token expires."""
    refresh_token: Token


class DeviceList(Answer):
    devices: list[Device]
    limit: int


class Login(Answer):
    account: Account
    device: Device
    tokens: Tokens


class Traffic(Answer):
    """Object bodies that the service itself carried for this account since it started (embedded store only)."""

    received_bytes: Count
    received_objects: Count
    sent_bytes: Count
    sent_objects: Count


class Settings(Answer):
    """What an account has chosen. It has these from its registration on, with these values."""

    language: str = "en"
    """A language tag (BCP 47)."""
    time_zone: str = "UTC"
    """A name of the IANA database."""


class SettingsChange(Request):
    """Those that are named; null: as they were at the registration."""

    language: Annotated[str, Field(max_length=35, pattern=r"^[a-z]{2,3}(-[A-Za-z0-9]{2,8})*$")] | None = None
    time_zone: Annotated[str, Field(min_length=1, max_length=64), AfterValidator(_check_time_zone)] | None = None


class TierName(StrEnum):
    FREE = "free"
    PLUS = "plus"
    PRO = "pro"


class Tier(Answer):
    """What an account of this tier may store, and for how long; null: without a limit."""

    name: str
    """A `TierName`."""
    quota_bytes: Count
    largest_file_bytes: Count | None = None
    content_types: list[str] = Field(default_factory=lambda: ["*/*"])
    """What files may be: media types, `image/*` for all of a kind."""
    kept_days: Count
    """How long former versions and what was deleted are kept."""
    upload_bytes_per_second: Annotated[int, Field(ge=1)] | None = None
    """How fast each device may upload; devices keep to it."""


class AccountInfo(Answer):
    account: Account
    device: Device | None
    """Who asks; null: a personal access token does."""
    created_ns: Nanoseconds = 0
    last_login_ns: Nanoseconds | None = None
    """Of any device, or with e-mail and password for a token."""
    settings: Settings = Settings()
    quota_bytes: Count
    used_bytes: Count
    tier: Tier | None = None
    traffic: Traffic | None = None


class AccountChange(Request):
    """What is named is changed."""

    name: AccountName | None = None
    settings: SettingsChange | None = None


class PasswordChange(Request):
    password: GivenPassword
    """The present one."""
    new_password: ChosenPassword
    log_out_others: bool = False
    """End all devices and personal access tokens but the one that asks."""


class AccountClosing(Request):
    password: GivenPassword


class ForgottenPassword(Request):
    email: GivenEmail


class NewPassword(Request):
    code: Annotated[str, Field(min_length=1, max_length=200)]
    """From the e-mail, or from the service's administrator; good once, for half an hour."""
    new_password: ChosenPassword


class PersonalToken(Answer):
    id: Id
    name: str
    scopes: list[Scope]
    created_ns: Nanoseconds
    expires_ns: Nanoseconds | None
    """Null: never."""
    last_used_ns: Nanoseconds | None
    """To ten minutes; null: never."""


class PersonalTokenList(Answer):
    """Those that are good: neither revoked nor expired."""

    tokens: list[PersonalToken]
    limit: int


class TokenRequest(Request):
    name: Annotated[str, Field(min_length=1, max_length=100)]
    """What it is for."""
    scopes: Annotated[frozenset[Scope], Field(min_length=1)]
    expires_in_days: Annotated[int, Field(ge=1, le=3660)] | None = 90
    """Null: it never expires."""


class TokenLogin(TokenRequest):
    email: GivenEmail
    password: GivenPassword


class NewPersonalToken(Answer):
    personal_token: PersonalToken
    token: Token
    """For the header `Authorization: Bearer …`. Nobody can tell it again."""


class AuditEvent(Answer):
    at_ns: Nanoseconds
    action: str
    """What was done, or tried: `device.login`, `password.change` …"""
    result: str
    """`done`, or the type of the problem by which it was refused."""
    account: Id | None
    email: str
    """The account's."""
    caller: Id | None
    """The device or personal access token; null: nobody was logged in."""
    caller_name: str
    address: str
    """From where."""
    subject: str
    """What it was done to, if that is not the account: mostly an id."""
    request_id: str
    """As in the header `X-Request-Id` of the answer."""


class AuditPage(Answer):
    """The newest first. `next`: the point to go on before; null: these were the first that there were."""

    events: list[AuditEvent]
    next: str | None


class ChooseTier(Request):
    tier: TierName


class AccountTier(Answer):
    tier: str
    """A `TierName`: that of the account."""
    quota_bytes: Count
    """The tier's, unless the account has kept one of its own from before it chose."""
    used_bytes: Count
    """Stored objects and manifests."""
    reserved_bytes: Count
    """What uploads under way have announced."""
    tiers: list[Tier]
    """All that there are, the smallest first."""
