"""The tables. What each column means stands here, beside it; how they came about is in `migrations/`.

Every row of a space carries `space_id` first in its primary key: the space is the unit of consistency. Ids are the 16 raw
bytes of the protocol, hashes 32, times nanoseconds since 1970, sizes bytes. Replaced contents and nameless inodes stay as
versions and in the trash until they expire; old tombstones of names are collected (`collection`).
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Dialect,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.dialects import postgresql

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


class Raw(LargeBinary):
    """Bytes that go to the driver as they are: wrapping each value is a tenth of the time that a commit takes."""

    cache_ok = True

    def bind_processor(self, dialect: Dialect) -> None:
        return None


ID = Raw(16)
HASH = Raw(32)
BYTES = Raw()
EXACT_TEXT = Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")
"""Text that is compared and ordered by its bytes."""

NUMBER = BigInteger().with_variant(Integer(), "sqlite")
"""Counted by the database, which SQLite does for this type only."""

keys = Table(
    "keys",
    metadata,
    Column("name", Text, primary_key=True),  # what it is for: "tokens" (and tickets), "objects" (links of the embedded store)
    Column("kid", Text, primary_key=True),  # 16 hex digits, random; stands in what the key signs
    Column("secret", HASH, nullable=False),  # 32 random bytes
    Column("created_ns", BigInteger, nullable=False, server_default="0"),
    Column("retired_ns", BigInteger),  # from when on it signs no more, perhaps in the future; null: the newest
)

epochs = Table(
    "epochs",
    metadata,
    Column("serial", Integer, primary_key=True, autoincrement=False),  # the present one has the highest
    Column("epoch", Text, nullable=False, unique=True),  # 32 hex digits; the first is made with the database
    Column("began_ns", BigInteger, nullable=False),
)

epoch_starts = Table(
    "epoch_starts",
    metadata,
    Column("space_id", ID, ForeignKey("spaces.id"), primary_key=True),
    Column("serial", Integer, ForeignKey("epochs.serial"), primary_key=True),
    Column("rev", BigInteger, nullable=False),  # the space's revision when the epoch began; no row: 0
)

accounts = Table(
    "accounts",
    metadata,
    Column("id", ID, primary_key=True),
    Column("email", Text, nullable=False),  # as it was given
    Column("email_key", EXACT_TEXT, nullable=False, unique=True),  # normalised: what log-in looks for
    Column("name", Text, nullable=False),
    Column("password_hash", Text, nullable=False),
    Column("personal_space", ID, nullable=False),
    Column("tier", Text, nullable=False, server_default="free"),  # 'free', 'plus', 'pro'
    Column("own_quota_bytes", BigInteger),  # kept from before the account chose a tier; null: the tier's
    Column("used_bytes", BigInteger, nullable=False),  # stored objects and manifests of the spaces that it owns
    Column("next_generation", BigInteger, nullable=False, server_default="0"),  # of its keys, no row knows the generations below
    Column("created_ns", BigInteger, nullable=False),
    Column("last_login_ns", BigInteger),  # null: never
    Column("settings", Text, nullable=False, server_default="{}"),  # JSON: those of `Settings` that are not as by default
    Column("closed_ns", BigInteger),  # not null: nobody reaches it any more, its address is free; a later job removes the rest
)

invitations = Table(
    "invitations",
    metadata,
    Column("code_hash", HASH, primary_key=True),  # SHA-256 of the code
    Column("created_ns", BigInteger, nullable=False),
    Column("used_by", ID, ForeignKey("accounts.id")),
)

devices = Table(
    "devices",
    metadata,
    Column("account_id", ID, ForeignKey("accounts.id"), primary_key=True),
    Column("id", ID, primary_key=True),
    Column("installation", ID, nullable=False),  # the home that logged in: the same home is the same device
    Column("name", Text, nullable=False),
    Column("created_ns", BigInteger, nullable=False),
    Column("last_seen_ns", BigInteger, nullable=False),
    Column("removed_ns", BigInteger),  # null: active
    Column("session", ID, nullable=False),  # changes at each log-in, and when the tokens are revoked
    Column("confirmed", BigInteger, nullable=False),  # serial of the newest refresh token that is known to have arrived
    UniqueConstraint("account_id", "installation"),
)

device_positions = Table(
    "device_positions",
    metadata,
    Column("account_id", ID, primary_key=True),
    Column("device_id", ID, primary_key=True),
    Column("space_id", ID, ForeignKey("spaces.id"), primary_key=True),
    Column("rev", BigInteger, nullable=False),  # the device has all up to it
    Column("noted_ns", BigInteger, nullable=False),
    ForeignKeyConstraint(["account_id", "device_id"], ["devices.account_id", "devices.id"]),
)

device_reports = Table(
    "device_reports",
    metadata,
    Column("account_id", ID, primary_key=True),
    Column("device_id", ID, primary_key=True),
    Column("body", Text, nullable=False),  # a `DeviceReport`
    Column("reported_ns", BigInteger, nullable=False),
    ForeignKeyConstraint(["account_id", "device_id"], ["devices.account_id", "devices.id"]),
)

mailboxes = Table(
    "mailboxes",
    metadata,
    Column("account_id", ID, ForeignKey("accounts.id"), primary_key=True),
    Column("numbered", BigInteger, nullable=False),  # the number of its last notification
    Column("preferences", Text, nullable=False),  # a `Preferences`, of what was chosen
    Column("digest", Boolean, nullable=False),
    Column("digested", BigInteger, nullable=False),  # all up to this number were in a digest, or too old for one
    Column("digested_ns", BigInteger, nullable=False),
)

notifications = Table(
    "notifications",
    metadata,
    Column("account_id", ID, ForeignKey("accounts.id"), primary_key=True),
    Column("number", BigInteger, primary_key=True),
    Column("topic", Text, nullable=False),
    Column("priority", Text, nullable=False),
    Column("at_ns", BigInteger, nullable=False),
    Column("text", Text, nullable=False),
    Column("path", Text),
    Column("inode", ID),
    Column("device_id", ID),
    Column("read_ns", BigInteger),  # null: unread
    Index(None, "at_ns"),
    sqlite_with_rowid=False,
)

refresh_tokens = Table(
    "refresh_tokens",
    metadata,
    Column("device_id", ID, primary_key=True),
    Column("serial", BigInteger, primary_key=True),
    Column("account_id", ID, nullable=False),
    Column("token_hash", HASH, nullable=False, unique=True),
    Column("retired", Boolean, nullable=False),  # another one has arrived since; used again, it is a copy
    ForeignKeyConstraint(["account_id", "device_id"], ["devices.account_id", "devices.id"]),
)

personal_tokens = Table(
    "personal_tokens",
    metadata,
    Column("account_id", ID, ForeignKey("accounts.id"), primary_key=True),
    Column("id", ID, primary_key=True),  # what versions name as their device
    Column("token_hash", HASH, nullable=False, unique=True),  # SHA-256 of the token
    Column("name", Text, nullable=False),
    Column("scopes", Text, nullable=False),  # with spaces between them
    Column("created_ns", BigInteger, nullable=False),
    Column("expires_ns", BigInteger),  # null: never
    Column("last_used_ns", BigInteger),  # not exact; null: never
    Column("revoked_ns", BigInteger),  # null: good until it expires
)

public_links = Table(
    "public_links",
    metadata,
    Column("account_id", ID, ForeignKey("accounts.id"), primary_key=True),  # who made it
    Column("id", ID, primary_key=True),
    Column("token_hash", HASH, nullable=False, unique=True),  # SHA-256 of the token in its address
    Column("space_id", ID, ForeignKey("spaces.id"), nullable=False),
    Column("inode", ID, nullable=False),  # what it leads to, whatever that is called
    Column("password_hash", Text),  # argon2id; null: it has none
    Column("created_ns", BigInteger, nullable=False),
    Column("expires_ns", BigInteger),  # null: never
    Column("downloads", BigInteger, nullable=False),
    Column("downloads_max", BigInteger),  # null: no limit
    Column("last_used_ns", BigInteger),  # null: never
    Index(None, "space_id", "inode"),
)

password_codes = Table(
    "password_codes",
    metadata,
    Column("code_hash", HASH, primary_key=True),  # SHA-256 of a code by which a forgotten password is replaced, once
    Column("account_id", ID, ForeignKey("accounts.id"), nullable=False, index=True),
    Column("expires_ns", BigInteger, nullable=False),
)

rate_limits = Table(
    "rate_limits",
    metadata,
    Column("key", HASH, primary_key=True),  # SHA-256 of what is limited
    Column("empty_ns", BigInteger, nullable=False, index=True),  # when the bucket has run empty; a row of the past is none
)

audit = Table(
    "audit",
    metadata,
    Column("at_ns", BigInteger, primary_key=True),
    Column("id", ID, primary_key=True),  # random: of two at one time it tells which
    Column("account_id", ID),  # whose; null: nobody's that is known
    Column("caller_id", ID),  # the device or the personal access token; null: nobody was logged in
    Column("address", Text, nullable=False),  # from where; "administrator": by a command on the service's machine
    Column("action", Text, nullable=False),  # an `Action`
    Column("subject", Text, nullable=False),  # what it was done to, if that is not the account: mostly an id, in hexadecimal
    Column("result", Text, nullable=False),  # "done", or the `ProblemType` by which it was refused
    Column("request_id", Text, nullable=False),  # as in the log and in the answer; empty for a command
    Index(None, "account_id", "at_ns"),
)
"""Rows are added, and never changed or removed: triggers hold everybody to that."""

spaces = Table(
    "spaces",
    metadata,
    Column("id", ID, primary_key=True),  # also the id of its root folder
    Column("owner", ID, ForeignKey("accounts.id"), nullable=False, index=True),
    Column("kind", Text, nullable=False),  # 'personal', 'shared'
    Column("rev", BigInteger, nullable=False),
    Column("created_ns", BigInteger, nullable=False),
    Column(
        "changed_ns", BigInteger, nullable=False, server_default="0"
    ),  # time of the last commit; 0: none since there are these
    Column("names_since_ns", BigInteger, nullable=False, server_default="0"),  # what the tree was at any time since is known
    Column("collected", BigInteger, nullable=False, server_default="0"),  # tombstones of revisions up to this may be gone
    Column(
        "unswept", BigInteger, nullable=False, server_default="0"
    ),  # steps that removed manifests since its objects were swept
)

revision_marks = Table(
    "revision_marks",
    metadata,
    Column("space_id", ID, ForeignKey("spaces.id"), primary_key=True),
    Column("noted_ns", BigInteger, primary_key=True),
    Column("rev", BigInteger, nullable=False),  # what the space had reached then
)

members = Table(
    "members",
    metadata,
    Column("space_id", ID, ForeignKey("spaces.id"), primary_key=True),
    Column("account_id", ID, ForeignKey("accounts.id"), primary_key=True),
    Column("role", Text, nullable=False),  # a `Role`
    Column("mount", ID),  # the inode in the member's personal space by which a shared space is reached; null: a personal space
    Column("since_ns", BigInteger),  # null: from the beginning
    Column("told", BigInteger),  # up to this revision the member heard of changes by others; null: of none
    Index(None, "account_id"),
)

share_invitations = Table(
    "share_invitations",
    metadata,
    Column("space_id", ID, ForeignKey("spaces.id"), primary_key=True),
    Column("email_key", EXACT_TEXT, primary_key=True),  # the address in its normal form
    Column("email", Text, nullable=False),  # as it was written
    Column("account_id", ID, ForeignKey("accounts.id"), index=True),  # who had it then; null: nobody, which nobody is told
    Column("role", Text, nullable=False),
    Column("created_ns", BigInteger, nullable=False),
)

inodes = Table(
    "inodes",
    metadata,
    Column("space_id", ID, ForeignKey("spaces.id"), primary_key=True),
    Column("id", ID, primary_key=True),
    Column("rev", BigInteger, nullable=False),
    Column("kind", Text, nullable=False),
    Column("mode", Integer, nullable=False),
    Column("uid", BigInteger),  # null: the account itself
    Column("gid", BigInteger),
    Column("mtime_ns", BigInteger, nullable=False),
    Column("xattrs", BYTES),  # null: none; else JSON, name to base64
    Column("target", Text),
    Column("device_number", BigInteger),  # as a signed number
    Column("manifest_id", HASH),
    Column("size", BigInteger),
    Column("sha256", HASH),
    Column("content_rev", BigInteger, nullable=False),
    Column("created_ns", BigInteger, nullable=False),
    Index(None, "space_id", "rev", "id"),
    sqlite_with_rowid=False,
)

entries = Table(
    "entries",
    metadata,
    Column("space_id", ID, ForeignKey("spaces.id"), primary_key=True),
    Column("parent", ID, primary_key=True),
    Column("name", EXACT_TEXT, primary_key=True),
    Column("inode", ID),  # null: a tombstone
    Column("rev", BigInteger, nullable=False),
    Index(None, "space_id", "rev", "parent", "name"),
    Index(None, "space_id", "inode"),
    sqlite_with_rowid=False,
)

former_names = Table(
    "former_names",
    metadata,
    Column("space_id", ID, ForeignKey("spaces.id"), primary_key=True),
    Column("parent", ID, primary_key=True),
    Column("name", EXACT_TEXT, primary_key=True),
    Column("rev", BigInteger, primary_key=True),  # of the commit that changed what the name holds
    Column("changed_ns", BigInteger, nullable=False),  # its time
    Column("inode", ID),  # what the name held before; null: nothing
    Column("inode_created_ns", BigInteger),  # when that was made: its row may have gone
    Index(None, "space_id", "changed_ns", "parent", "name", "rev"),
    Index(None, "space_id", "inode", "inode_created_ns", "changed_ns"),  # all that is asked, or SQLite would not take it
    sqlite_with_rowid=False,
)
"""A name that got an inode made in the same commit, and held nothing before, has no row: the inode's own time says it."""

commits = Table(
    "commits",
    metadata,
    Column("space_id", ID, ForeignKey("spaces.id"), primary_key=True),
    Column("device_id", ID, primary_key=True),
    Column("replica_id", ID, primary_key=True),  # each replica of a device counts for itself
    Column("number", BigInteger, nullable=False),  # of the last commit
    Column("body_hash", HASH, nullable=False),  # SHA-256 of what was sent
    Column("answer", BYTES, nullable=False),  # exactly what was answered
)

manifests = Table(
    "manifests",
    metadata,
    Column("space_id", ID, ForeignKey("spaces.id"), primary_key=True),
    Column("id", HASH, primary_key=True),
    Column("length", Integer, nullable=False),
    Column("body", BYTES, nullable=False),
)

versions = Table(
    "versions",
    metadata,
    Column("space_id", ID, ForeignKey("spaces.id"), primary_key=True),
    Column("inode", ID, primary_key=True),
    Column("content_rev", BigInteger, primary_key=True),
    Column("manifest_id", HASH, primary_key=True),  # two of one revision: equal content, chunked differently by two devices
    Column("size", BigInteger, nullable=False),
    Column("sha256", HASH),
    Column("mtime_ns", BigInteger, nullable=False),
    Column("device_id", ID, nullable=False),
    Column("created_ns", BigInteger, nullable=False),
    Index(None, "space_id", "inode", "manifest_id"),
    Index(None, "space_id", "sha256"),
    sqlite_with_rowid=False,
)

trash = Table(
    "trash",
    metadata,
    Column("space_id", ID, ForeignKey("spaces.id"), primary_key=True),
    Column("inode", ID, primary_key=True),  # it has no name any more
    Column("parent", ID, nullable=False),  # the name that it lost last: in this folder, which may be in the trash itself
    Column("name", EXACT_TEXT, nullable=False),
    Column("deleted_ns", BigInteger, nullable=False),
    Column("device_id", ID, nullable=False),  # who removed it
    Index(None, "space_id", "parent"),
    Index(None, "space_id", "deleted_ns"),
    sqlite_with_rowid=False,
)

expiries = Table(
    "expiries",
    metadata,
    Column("space_id", ID, ForeignKey("spaces.id"), primary_key=True),
    Column("inode", ID, primary_key=True),  # goes to the trash then, whatever it is called
    Column("expires_ns", BigInteger, nullable=False),
    Column("account_id", ID, ForeignKey("accounts.id"), nullable=False),  # who chose that
    Column("device_id", ID, nullable=False),
    Column("warned_ns", BigInteger),  # null: nobody was told
    Index(None, "expires_ns"),
)

space_objects = Table(
    "space_objects",
    metadata,
    Column("space_id", ID, ForeignKey("spaces.id"), primary_key=True),
    Column("object_id", HASH, primary_key=True),  # some manifest of the space names it
    sqlite_with_rowid=False,
)

objects = Table(
    "objects",
    metadata,
    Column("owner", ID, ForeignKey("accounts.id"), primary_key=True),
    Column("object_id", HASH, primary_key=True),
    Column("generation", BigInteger, nullable=False),  # of the stored copy that downloads use
    Column("length", BigInteger, nullable=False),  # stored bytes
    Column("created_ns", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

dead_objects = Table(
    "dead_objects",
    metadata,
    Column("owner", ID, ForeignKey("accounts.id"), primary_key=True),
    Column("object_id", HASH, primary_key=True),
    Column("generation", BigInteger, primary_key=True),
    Column("length", BigInteger, nullable=False),
    Column("since_ns", BigInteger, nullable=False),  # nothing leads to this stored copy any more; deleted after a grace
    Index(None, "since_ns"),
    sqlite_with_rowid=False,
)

scrub_position = Table(
    "scrub_position",
    metadata,
    Column("owner", ID, primary_key=True),  # one row at most: the last object that was looked at
    Column("object_id", HASH, nullable=False),
)

damaged_objects = Table(
    "damaged_objects",
    metadata,
    Column("owner", ID, ForeignKey("accounts.id"), primary_key=True),
    Column("object_id", HASH, primary_key=True),
    Column("generation", BigInteger, nullable=False),
    Column("length", BigInteger, nullable=False),
    Column("why", Text, nullable=False),
    Column("found_ns", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

jobs = Table(
    "jobs",
    metadata,
    Column("name", Text, primary_key=True),
    Column("holder", ID),  # the process that does it now; null: none
    Column("until_ns", BigInteger, nullable=False),  # how long the holder may take before others take it for dead
    Column("done_ns", BigInteger, nullable=False),  # when it was last done to its end; 0: never
)

upload_sessions = Table(
    "upload_sessions",
    metadata,
    Column("space_id", ID, ForeignKey("spaces.id"), primary_key=True),
    Column("id", ID, primary_key=True),
    Column("account_id", ID, ForeignKey("accounts.id"), nullable=False),  # who uploads
    Column("owner", ID, ForeignKey("accounts.id"), nullable=False),  # whose quota it is
    Column("last_used_ns", BigInteger, nullable=False),
    Index(None, "owner", "last_used_ns"),
)

upload_objects = Table(
    "upload_objects",
    metadata,
    Column("space_id", ID, primary_key=True),
    Column("session_id", ID, primary_key=True),
    Column("object_id", HASH, primary_key=True),
    Column("owner", ID, nullable=False),
    Column("generation", BigInteger, nullable=False),  # the key is this caller's own until the object is committed
    Column("length", BigInteger, nullable=False),
    Column("state", Integer, nullable=False),  # UploadState
    ForeignKeyConstraint(["space_id", "session_id"], ["upload_sessions.space_id", "upload_sessions.id"]),
    Index(None, "owner", "object_id"),
    sqlite_with_rowid=False,
)

file_uploads = Table(
    "file_uploads",
    metadata,
    Column("space_id", ID, ForeignKey("spaces.id"), primary_key=True),
    Column("id", ID, primary_key=True),
    Column("account_id", ID, ForeignKey("accounts.id"), nullable=False),  # who uploads; the chunks are in its upload session
    Column("path", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("sha256", HASH, nullable=False),  # of the whole file: its fingerprint
    Column("type", Text),
    Column("mtime_ns", BigInteger),  # null: when it is complete
    Column("on_conflict", Text, nullable=False),
    Column("manifest", BYTES, nullable=False),  # the planned content
    Column("inode", ID),  # null: not complete; else the file that it became
    Column("created_ns", BigInteger, nullable=False),
    Column("last_used_ns", BigInteger, nullable=False),
    Index(None, "account_id", "last_used_ns"),
)

search_state = Table(
    "search_state",
    metadata,
    Column("space_id", ID, ForeignKey("spaces.id"), primary_key=True),
    Column("indexed_rev", BigInteger, nullable=False),  # the index knows all changes up to this one
)

search_names = Table(
    "search_names",
    metadata,
    Column("id", NUMBER, primary_key=True),  # also in `search_name_index`, which differs between the databases
    Column("space_id", ID, nullable=False),
    Column("parent", ID, nullable=False),
    Column("name", EXACT_TEXT, nullable=False),
    Column("extension", EXACT_TEXT, nullable=False),  # in small letters, without its dot; empty: it has none
    ForeignKeyConstraint(
        ["space_id", "parent", "name"], ["entries.space_id", "entries.parent", "entries.name"], ondelete="CASCADE"
    ),
    UniqueConstraint("space_id", "parent", "name"),
)

search_contents = Table(
    "search_contents",
    metadata,
    Column("id", NUMBER, primary_key=True),  # also in `search_text_index`
    Column("space_id", ID, nullable=False),
    Column("inode", ID, nullable=False),
    Column("manifest_id", HASH, nullable=False),  # of which content the text is
    Column("state", Integer, nullable=False),  # a `TextState`
    ForeignKeyConstraint(["space_id", "inode"], ["inodes.space_id", "inodes.id"], ondelete="CASCADE"),
    UniqueConstraint("space_id", "inode"),
    Index(None, "state", "space_id", "id"),
    Index(None, "manifest_id", "space_id"),  # not the other way round: for the inodes of a space it would be taken instead
)
