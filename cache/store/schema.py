"""The tables of the replica, and what every column and sentinel means.

Each row has two states: *local* (what the person sees) and *base* (what the service is known to hold). Most rows are
clean, so the base is kept only where it may differ: `entry` and `inode` hold the local state, and a row in `entry_base`
or `inode_base` (a *shadow*) holds the base. No shadow: base and local are equal. So the shadows are exactly the candidates
for a push; whether one is really dirty is decided by value, and a shadow that equals its local row is dropped.

Inodes are known by a local number (`ino`) everywhere on this machine, and by their 128-bit id on the wire; `identity`
translates. A space's root folder has the space's id; the personal space's root is ino 1. The root has no entry and is
always named.
"""

from __future__ import annotations

SCHEMA_VERSION = 3
ROOT = 1
PERSONAL = 1
"""The number of the personal space, whose root folder is `ROOT`."""

TABLES = """
-- Single values: account, epoch, cursor, flags of the guards. Values are JSON.
CREATE TABLE meta (
    key TEXT PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE space (
    number INTEGER PRIMARY KEY,          -- local name of the space; 1: the personal space
    id BLOB NOT NULL UNIQUE,
    root INTEGER NOT NULL,               -- ino of its root folder
    snapshot INTEGER NOT NULL DEFAULT 0, -- the service's revision at the newest staged page
    acknowledged INTEGER NOT NULL DEFAULT 0,  -- the highest revision that an acknowledgement named
    caught_up INTEGER NOT NULL DEFAULT 0,     -- 1: the newest staged page said has_more = false
    listing INTEGER NOT NULL DEFAULT 1,  -- 1: what is staged is a listing from the beginning, which replaces base
    listed INTEGER NOT NULL DEFAULT 0,   -- 1: a listing was merged once, so absence means absence
    total_entries INTEGER NOT NULL DEFAULT 0, -- for the progress of a listing
    commit_number INTEGER NOT NULL DEFAULT 0, -- number of the newest commit that was stored
    commit_body BLOB                     -- the outstanding commit, resent byte for byte; NULL: none
);

CREATE TABLE identity (
    ino INTEGER PRIMARY KEY AUTOINCREMENT,    -- never reused
    id BLOB NOT NULL UNIQUE,
    space INTEGER NOT NULL REFERENCES space (number)
);

-- Local state of every inode that the service or this device knows. nlink = 0: no local name (deleted here and not yet
-- acknowledged, or still open). rev and content_rev are the service's, of the base; 0: the service does not have it.
CREATE TABLE inode (
    ino INTEGER PRIMARY KEY REFERENCES identity (ino),
    kind TEXT NOT NULL,                  -- remote.protocol.Kind
    mode INTEGER NOT NULL,               -- permission bits only, 0..0o7777
    uid INTEGER,                         -- NULL: the account, shown as the mounting user
    gid INTEGER,
    mtime_ns INTEGER NOT NULL,
    ctime_ns INTEGER NOT NULL,           -- of this machine; not synced
    atime_ns INTEGER NOT NULL,           -- of this machine; not synced
    nlink INTEGER NOT NULL,              -- files: local names; folders: 2 + subfolders (0 once removed)
    size INTEGER NOT NULL,               -- as stat shows it, drafts included
    target TEXT,                         -- symlinks; of a mount the id of the shared space that it leads to
    device_number INTEGER,               -- device nodes
    xattrs TEXT,                         -- JSON {name: base64}; NULL: none
    manifest_id BLOB,                    -- files: the content beneath any drafts; NULL: a new file, not closed yet
    manifest_size INTEGER NOT NULL DEFAULT 0, -- bytes in that content
    sha256 BLOB,                         -- of that whole content, where known
    split BLOB,                          -- three u32 (minimum, average, maximum) to keep for this file; NULL: by size
    rev INTEGER NOT NULL DEFAULT 0,
    content_rev INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX inode_mounts ON inode (target) WHERE kind = 'mount';  -- by the shared space that they lead to, in hexadecimal
CREATE INDEX inode_nameless ON inode (ino) WHERE nlink = 0;
CREATE INDEX inode_by_sha256 ON inode (sha256) WHERE sha256 IS NOT NULL;  -- equal content reuses a manifest
CREATE INDEX inode_by_manifest ON inode (manifest_id) WHERE manifest_id IS NOT NULL;  -- whether a manifest is still spoken of

-- Shadow of an inode: the base of its attributes and content. known = 0: the service does not have it (the other columns
-- then mean nothing). kind, target and device number never change.
CREATE TABLE inode_base (
    ino INTEGER PRIMARY KEY,
    known INTEGER NOT NULL,
    mode INTEGER, uid INTEGER, gid INTEGER, mtime_ns INTEGER, xattrs TEXT,
    manifest_id BLOB, manifest_size INTEGER, sha256 BLOB
);

-- Local names. seq is the readdir cookie: it only grows, so one pass over a folder sees each unchanged entry once.
CREATE TABLE entry (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    parent INTEGER NOT NULL,
    name TEXT NOT NULL,
    ino INTEGER NOT NULL,
    rev INTEGER NOT NULL DEFAULT 0,      -- the service's, of the base, if there is no shadow
    UNIQUE (parent, name)
);
CREATE INDEX entry_by_ino ON entry (ino);
CREATE INDEX entry_by_parent ON entry (parent);

-- Shadow of an entry: what the service holds under this name. ino NULL: nothing.
CREATE TABLE entry_base (
    parent INTEGER NOT NULL,
    name TEXT NOT NULL,
    ino INTEGER,
    rev INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (parent, name)
) WITHOUT ROWID;
CREATE INDEX entry_base_by_ino ON entry_base (ino);

-- Pages of the feed that are not merged yet. Of two rows for one key the higher revision stays.
CREATE TABLE staged_entry (
    parent INTEGER NOT NULL,
    name TEXT NOT NULL,
    ino INTEGER,                         -- NULL: a tombstone
    rev INTEGER NOT NULL,
    space INTEGER NOT NULL,
    PRIMARY KEY (parent, name)
) WITHOUT ROWID;
CREATE INDEX staged_entry_by_ino ON staged_entry (ino);
CREATE TABLE staged_inode (
    ino INTEGER PRIMARY KEY,
    space INTEGER NOT NULL,
    rev INTEGER NOT NULL,
    kind TEXT NOT NULL,
    mode INTEGER NOT NULL, uid INTEGER, gid INTEGER, mtime_ns INTEGER NOT NULL, xattrs TEXT,
    target TEXT, device_number INTEGER,
    manifest_id BLOB, manifest_size INTEGER NOT NULL DEFAULT 0, sha256 BLOB,
    content_rev INTEGER NOT NULL DEFAULT 0
);

-- The contents that the outstanding commit sends: which draft each is, so that the answer knows what it acknowledges.
CREATE TABLE outstanding_content (
    ino INTEGER PRIMARY KEY,
    draft INTEGER,                       -- drafts of this inode up to this id are acknowledged with it; NULL: no draft
    manifest_id BLOB NOT NULL,
    manifest_size INTEGER NOT NULL,
    sha256 BLOB
);

-- Content written here and not yet committed. The drafts of one inode lie on top of each other in the order of their
-- ids, the lowest on the inode's manifest; all but the topmost are sealed. Bytes are in drafts/<id> or, if small, in data.
CREATE TABLE draft (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    ino INTEGER NOT NULL,
    sealed INTEGER NOT NULL DEFAULT 0,   -- 1: frozen; writes go to a new draft on top
    size INTEGER NOT NULL,               -- of the whole content as seen through this draft
    floor INTEGER NOT NULL,              -- bytes of the layer below that still show through (lowered by truncation)
    extents BLOB NOT NULL,               -- cache.extents, packed: what this draft holds, as data or as zeros
    data BLOB,                           -- the bytes of a small draft; NULL: they are in the file
    changed_ns INTEGER NOT NULL,
    manifest_id BLOB,                    -- of a sealed draft whose manifest has been computed
    sha256 BLOB,
    complete INTEGER NOT NULL DEFAULT 0, -- 1: the service holds every object of that manifest
    error TEXT,                          -- why the upload does not go on, for `aloft status`
    unsynced TEXT,                       -- id of the boot that wrote bytes into its file which are not synced; NULL: all are
    synced BLOB                          -- what was synced before those (cache.synced.Shown, packed); NULL: nothing
);
CREATE INDEX draft_by_ino ON draft (ino);
CREATE INDEX draft_error ON draft (ino) WHERE error IS NOT NULL;
CREATE INDEX draft_unsynced ON draft (ino) WHERE unsynced IS NOT NULL;
CREATE INDEX draft_complete ON draft (ino) WHERE complete = 1;

-- Contents' manifests, as far as they were needed here. One that no row speaks of any more is dropped (cache.leftovers).
CREATE TABLE manifest (
    id BLOB PRIMARY KEY,
    data BLOB NOT NULL                   -- remote.manifest, encoded
) WITHOUT ROWID;

-- Which slice of which object holds the content with this plaintext SHA-256, so that known content is neither compressed nor
-- sent again. Per space: what one owner's store has says nothing of another's. Only a hint, so that any may be forgotten
-- (cache.leftovers does when there are too many): the service is asked.
CREATE TABLE known_chunk (
    space INTEGER NOT NULL,
    plain_sha256 BLOB NOT NULL,
    object_id BLOB NOT NULL,
    plain_length INTEGER NOT NULL, stored_length INTEGER NOT NULL, encoding INTEGER NOT NULL,
    start INTEGER NOT NULL, length INTEGER NOT NULL,
    PRIMARY KEY (space, plain_sha256)
) WITHOUT ROWID;

-- Files and folders that are kept on this machine; a pinned folder pins what is and what appears below it.
CREATE TABLE pin (
    ino INTEGER PRIMARY KEY
);
"""

UPGRADES = {
    1: """
ALTER TABLE draft ADD COLUMN unsynced TEXT;
ALTER TABLE draft ADD COLUMN synced BLOB;
CREATE INDEX draft_unsynced ON draft (ino) WHERE unsynced IS NOT NULL;
UPDATE space SET commit_body = NULL;
DELETE FROM outstanding_content;
CREATE INDEX inode_by_manifest ON inode (manifest_id) WHERE manifest_id IS NOT NULL;
""",
    2: """
CREATE INDEX inode_mounts ON inode (target) WHERE kind = 'mount';
""",
}
"""By version: what makes the next one of it.

1: A draft does not say what of it was synced; it is believed, as it was. An outstanding commit does not say its epoch and its
replica, so no service takes it any more; what it told is still different from base, and is told again.

2: There were no shared folders.
"""
