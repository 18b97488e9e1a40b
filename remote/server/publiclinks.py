"""Public links: a file or folder for whoever has the address. Blocking.

Each request looks the link up anew, so that one that was revoked ends with the next. Whatever is wrong with it, the answer is the
same: there is nothing. A ticket is what a link with a password or a limit gives for it: it spares the resumptions of one
download the password and the count, and opens nothing that the link itself does not lead to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import jwt
from sqlalchemy import Connection

from remote.linkapi import LinkRequest, NewPublicLink, PublicLink, PublicLinkList
from remote.protocol import Kind, ProblemType
from remote.server.archive import Member, write_zip
from remote.server.codes import code_hash, new_code
from remote.server.database import accounts as account_rows
from remote.server.database import publiclinks as rows
from remote.server.database.engine import Database
from remote.server.database.publiclinks import PublicLinkRow
from remote.server.database.tree import InodeRow
from remote.server.devices import Caller
from remote.server.edits import descend
from remote.server.filedownloads import FileDownloads, Found, content_of
from remote.server.files import open_path, open_trees
from remote.server.keys import Keys
from remote.server.passwords import Passwords
from remote.server.paths import Place, find, place_of, prefix_of, split_path
from remote.server.problems import Refused, not_found
from remote.server.tokens import read_signed, sign, unauthenticated
from remote.server.tree import Tree

LINKS_MAX = 1000
"""Of one account."""
TICKET_SECONDS = 3600
ZIP_ENTRIES_MAX = 10_000
ZIP_BYTES_MAX = 10 * 2**30
"""Before they are compressed."""
_AUDIENCE = "aloft link"
_TICKET_MAX = 1000
_DAY_NS = 24 * 3600 * 10**9
_SHOW_DEAD_NS = 30 * _DAY_NS


@dataclass(frozen=True, slots=True)
class Opened:
    """A link, and what it leads to."""

    link: PublicLinkRow
    owner: bytes
    """Of the space."""
    place: Place
    row: InodeRow
    version: bytes | None
    """Of the file; None: whichever it has."""
    has_ticket: bool

    @property
    def is_folder(self) -> bool:
        return self.row.kind is Kind.DIRECTORY

    @property
    def wants_ticket(self) -> bool:
        return not self.has_ticket and (self.link.password_hash is not None or self.link.downloads_max is not None)


class PublicLinks:
    def __init__(
        self,
        database: Database,
        downloads: FileDownloads,
        passwords: Passwords,
        keys: Keys,
        clock: Callable[[], int],
        random: Callable[[int], bytes],
    ) -> None:
        self._database = database
        self._downloads = downloads
        self._passwords = passwords
        self._tickets = _Tickets(keys, clock)
        self._clock = clock
        self._random = random

    # ------------------------------------------------------------------------------------------ for whoever makes them

    def make(self, caller: Caller, request: LinkRequest, base: str) -> NewPublicLink:
        """With a password this takes the time of a log-in."""
        names = split_path(request.path)
        password_hash = None if request.password is None else self._passwords.hash(request.password)
        token, now = new_code(self._random), self._clock()
        with self._database.write() as connection:
            if not account_rows.lock(connection, caller.account):
                raise unauthenticated("The account was closed.")
            rows.forget_dead(connection, caller.account, now - _SHOW_DEAD_NS)
            if len(rows.good(connection, caller.account, now)) >= LINKS_MAX:
                raise Refused(ProblemType.FORBIDDEN, f"There are {LINKS_MAX} links already: revoke one that is not needed.")
            tree, inner = open_path(connection, caller, names, enter=True)
            place, row = find(tree, inner)
            if place.is_root and not tree.prefix:
                raise Refused(ProblemType.INVALID, "A link leads to a file or a folder, not to everything.", field="path")
            if row.kind is Kind.SYMLINK:
                raise Refused(ProblemType.INVALID, "A symlink leads elsewhere: name the file or folder itself.", field="path")
            link = PublicLinkRow(
                account_id=caller.account,
                id=self._random(16),
                token_hash=code_hash(token),
                space_id=tree.root,
                inode=row.id,
                password_hash=password_hash,
                created_ns=now,
                expires_ns=None if request.expires_in_days is None else now + request.expires_in_days * _DAY_NS,
                downloads=0,
                downloads_max=request.downloads_max,
                last_used_ns=None,
            )
            rows.add(connection, link)
        return NewPublicLink(link=_public(link, place.path, row), url=f"{base}/link/{token}")

    def listing(self, caller: Caller, path: str | None) -> PublicLinkList:
        """All, or those to what has the path now."""
        names = None if path is None else split_path(path)
        with self._database.read() as connection:
            only = None
            if names is not None:
                tree, inner = open_path(connection, caller, names, enter=True)
                only = find(tree, inner)[1].id
            found = [link for link in rows.good(connection, caller.account, self._clock()) if only in (None, link.inode)]
            shown = []
            for tree in open_trees(connection, caller):
                here = [link for link in found if link.space_id == tree.root]
                tree.prefetch([], [link.inode for link in here])
                shown += [_shown(tree, link) for link in here]
        return PublicLinkList(links=[link for link in shown if link is not None], limit=LINKS_MAX)

    def revoke(self, caller: Caller, link: bytes) -> None:
        with self._database.write() as connection:
            if not rows.revoke(connection, caller.account, link):
                raise not_found("There is no such link.")

    # ------------------------------------------------------------------------------------------- for whoever opens them

    def open(self, token: str, ticket: str | None) -> Opened:
        """`Refused` (not found) for all that is wrong with either."""
        of_ticket = None if ticket is None else self._tickets.verify(ticket)
        with self._database.read() as connection:
            link = rows.find(connection, code_hash(token), self._clock())
            if link is None:
                raise _nothing()
            if of_ticket is None:
                if link.is_used_up:
                    raise _nothing()
                return self._lead(connection, link, None, has_ticket=False)
            if of_ticket.link != link.id:
                raise _nothing()
            return self._lead(connection, link, of_ticket.version, has_ticket=True)

    def require_password(self, opened: Opened, password: str | None) -> None:
        """`Refused` (unauthenticated). Takes the time of a log-in."""
        if opened.link.password_hash is not None and not self._passwords.fits(password or "", opened.link.password_hash):
            raise Refused(
                ProblemType.UNAUTHENTICATED,
                "This link has a password: send it as that of any user (curl -u :PASSWORD).",
                headers={"www-authenticate": 'Basic realm="Aloft link", charset="UTF-8"'},
            )

    def admit(self, opened: Opened) -> str:
        """Count a download, and give the ticket for it; `Refused` (not found) if there was none left."""
        self.count(opened)
        version = None if opened.is_folder else opened.row.manifest_id
        return self._tickets.issue(opened.link.id, version)

    def count(self, opened: Opened) -> None:
        with self._database.write() as connection:
            if not rows.count_download(connection, opened.link, self._clock()):
                raise _nothing()

    def content(self, opened: Opened) -> Found:
        """The file."""
        with self._database.read() as connection:
            space, place = opened.link.space_id, opened.place
            return content_of(connection, space, opened.owner, place.path, opened.row, opened.version)

    def archive(self, opened: Opened) -> Iterator[bytes]:
        """The folder as a zip archive, made while it is read; `Refused` (too large) before anything is."""
        with self._database.read() as connection:
            members = list(self._members(connection, opened))
        return write_zip(self._with_content(opened, member) for member in members)

    def _lead(self, connection: Connection, link: PublicLinkRow, version: bytes | None, *, has_ticket: bool) -> Opened:
        membership = account_rows.membership(connection, link.space_id, link.account_id)
        tree = _tree_of(connection, link)
        place = None if membership is None else place_of(tree, link.inode)
        if membership is None or place is None or place.inode is None:
            raise _nothing()
        return Opened(link, membership.owner, place, place.inode, version, has_ticket)

    def _members(self, connection: Connection, opened: Opened) -> Iterator[tuple[str, InodeRow]]:
        """(path in the archive, inode) of the folder and all below it, but symlinks."""
        tree, size, above = _tree_of(connection, opened.link), 0, len(opened.place.path) - len(opened.place.name)
        for number, place in enumerate(descend(connection, tree, opened.place, ZIP_ENTRIES_MAX), start=1):
            row = place.inode
            if row is None or row.kind is Kind.SYMLINK:
                continue
            size += row.size or 0
            if number > ZIP_ENTRIES_MAX or size > ZIP_BYTES_MAX:
                raise Refused(
                    ProblemType.TOO_LARGE,
                    f"The folder holds more than {ZIP_ENTRIES_MAX} entries or {ZIP_BYTES_MAX // 2**30} GiB: "
                    "ask for links to parts of it.",
                )
            yield place.path[above:], row

    def _with_content(self, opened: Opened, member: tuple[str, InodeRow]) -> Member:
        path, row = member
        is_folder = row.kind is Kind.DIRECTORY
        return Member(path, is_folder, row.attributes.mode, row.attributes.mtime_ns, () if is_folder else self._read(opened, row))

    def _read(self, opened: Opened, row: InodeRow) -> Iterator[bytes]:
        with self._database.read() as connection:
            found = content_of(connection, opened.link.space_id, opened.owner, None, row, None)
        if found.manifest.inline is not None:
            yield found.manifest.inline
            return
        for piece in self._downloads.pieces(found, 0, found.size):
            yield self._downloads.read(piece)


@dataclass(frozen=True, slots=True)
class _Ticket:
    link: bytes
    version: bytes | None


class _Tickets:
    """Signed as access tokens are, with their key, but for another audience: neither passes for the other."""

    def __init__(self, keys: Keys, clock: Callable[[], int]) -> None:
        self._keys = keys
        self._clock = clock

    def issue(self, link: bytes, version: bytes | None) -> str:
        payload = {
            "aud": _AUDIENCE,
            "sub": link.hex(),
            "ver": None if version is None else version.hex(),
            "exp": self._clock() // 10**9 + TICKET_SECONDS,
        }
        return sign(payload, self._keys)

    def verify(self, ticket: str) -> _Ticket:
        """`Refused` (not found) if it is forged, or has expired."""
        try:
            if len(ticket) > _TICKET_MAX:
                raise _nothing()
            payload = read_signed(ticket, self._keys, _AUDIENCE, ("sub", "exp"))
            version, expires = payload.get("ver"), int(payload["exp"])
            known = _Ticket(bytes.fromhex(payload["sub"]), None if version is None else bytes.fromhex(version))
        except (jwt.InvalidTokenError, ValueError, TypeError) as error:
            raise _nothing() from error
        if self._clock() // 10**9 >= expires:
            raise _nothing()
        return known


def _tree_of(connection: Connection, link: PublicLinkRow) -> Tree:
    """As whoever made the link sees it."""
    return Tree(connection, link.space_id, prefix_of(connection, link.account_id, link.space_id))


def _nothing() -> Refused:
    return not_found("This link leads to nothing: it was revoked, has expired, or never was one.")


def _shown(tree: Tree, link: PublicLinkRow) -> PublicLink | None:
    row = tree.inode(link.inode)
    if row is None:
        return None
    place = place_of(tree, link.inode)
    return _public(link, None if place is None else place.path, row)


def _public(link: PublicLinkRow, path: str | None, row: InodeRow) -> PublicLink:
    return PublicLink(
        id=link.id,
        inode=link.inode,
        path=path,
        kind=row.kind,
        created_ns=link.created_ns,
        expires_ns=link.expires_ns,
        has_password=link.password_hash is not None,
        downloads=link.downloads,
        downloads_max=link.downloads_max,
        last_used_ns=link.last_used_ns,
    )
