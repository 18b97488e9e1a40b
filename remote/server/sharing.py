"""Sharing folders with other accounts: who is invited, who is a member in which role, and how a folder becomes a space and back.

A shared folder is a space; in each member's personal space a mount leads to it (`remote.sharingapi`). Membership is what counts:
a mount only shows where the member wants to see the folder. Each request here is one transaction, over all spaces that it
changes, which are locked in the order of their ids. Blocking.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

from sqlalchemy import Connection

from remote.names import free_name
from remote.notificationapi import Topic
from remote.protocol import Attributes, FullRow, Kind, ProblemType
from remote.server import edits
from remote.server.access import member_of
from remote.server.accounts import email_key
from remote.server.database import accounts as account_rows
from remote.server.database import sharing as rows
from remote.server.database import tree as tree_rows
from remote.server.database.engine import Database
from remote.server.database.sharing import InvitationRow, MemberRow, Person
from remote.server.database.tree import InodeRow
from remote.server.database.treecopy import TreeCopy, all_inodes
from remote.server.devices import Caller
from remote.server.edits import Changes
from remote.server.namespace import Edit, Namespace
from remote.server.news import News, post
from remote.server.paths import Place, child, find, home_space, place_of, reach, root, split_path
from remote.server.problems import Refused, not_found
from remote.server.quota import save_used
from remote.server.tree import Tree
from remote.sharingapi import (
    MEMBERS_MAX,
    SHARES_MAX,
    Invitation,
    InvitationList,
    Invited,
    Member,
    MemberRequest,
    Role,
    Share,
    ShareList,
    ShareRequest,
)

ENTRIES_MAX = 50_000
"""In a folder that becomes shared: it is one transaction."""
_MODES = {Role.OWNER: 0o755, Role.EDITOR: 0o755, Role.VIEWER: 0o555}
"""Of a mount: devices see by it whether they may write."""
_NEW_ROLES = {
    Role.EDITOR: "You may change what is in {} now.",
    Role.VIEWER: "You may only look at what is in {} from now on.",
}


@dataclass(frozen=True, slots=True)
class Changed:
    """`topics`: of whom devices should look."""

    share: Share | None
    topics: Collection[bytes]


class Sharing:
    def __init__(
        self, database: Database, namespace: Namespace, clock: Callable[[], int], random: Callable[[int], bytes]
    ) -> None:
        self._database = database
        self._namespace = namespace
        self._clock = clock
        self._random = random

    # ------------------------------------------------------------------------------------------------------- looking

    def shares(self, caller: Caller) -> ShareList:
        with self._database.read() as connection:
            memberships = rows.mounts(connection, caller.account).values()
            return ShareList(shares=[_share(connection, caller, membership) for membership in memberships])

    def invitations(self, caller: Caller) -> InvitationList:
        with self._database.read() as connection:
            found = [_invitation(connection, row) for row in rows.invitations_for(connection, caller.account)]
        return InvitationList(invitations=[each for each in found if each is not None])

    # ------------------------------------------------------------------------------------------------- for the owner

    def share(self, caller: Caller, request: ShareRequest) -> Changed:
        """Invite somebody to a folder, which becomes a shared one if it is none yet."""
        names = split_path(request.path)
        if not names:
            raise Refused(ProblemType.INVALID, "A folder is shared, not everything: name one.", field="path")
        with self._database.write() as connection:
            home = home_space(connection, caller)
            tree_rows.lock_space(connection, home)
            found = reach(connection, caller, names, enter=True)
            if found.space == home:
                membership = self._make(connection, caller, home, names)
            else:
                if found.names:
                    raise Refused(ProblemType.INVALID, f"{found.prefix} is shared already: share all of it.", field="path")
                membership = self._membership(connection, caller, found.space)
                _require_owner(membership)
            self._invite(connection, caller, membership, request)
            topics = (home, membership.space_id, *_accounts(connection, membership.space_id))
            return Changed(_share(connection, caller, membership), topics)

    def set_role(self, caller: Caller, request: ShareRequest) -> Changed:
        with self._database.write() as connection:
            membership = self._owned(connection, caller, request.path)
            member = _find_member(connection, membership.space_id, request.email)
            if member is not None:
                row, person = member
                self._lock(connection, membership.space_id, person.personal_space)
                rows.set_role(connection, row.space_id, row.account_id, request.role)
                self._set_mode(connection, caller, row, person, request.role)
                self._tell(connection, row.account_id, _NEW_ROLES[request.role], row)
            else:
                invited = _find_invitation(connection, membership.space_id, request.email)
                rows.put_invitation(connection, replace(invited, role=request.role))
            return self._changed(connection, caller, membership, () if member is None else (member[1],))

    def remove(self, caller: Caller, request: MemberRequest) -> Changed:
        """A member, or an invitation."""
        with self._database.write() as connection:
            membership = self._owned(connection, caller, request.path)
            member = _find_member(connection, membership.space_id, request.email)
            if member is not None:
                self._tell(connection, member[0].account_id, "{} is not shared with you any more.", member[0])
                self._end(connection, caller, [member])
            else:
                invited = _find_invitation(connection, membership.space_id, request.email)
                rows.remove_invitation(connection, membership.space_id, invited.email_key)
            return self._changed(connection, caller, membership, () if member is None else (member[1],))

    def unshare(self, caller: Caller, path: str) -> Changed:
        """The folder is an ordinary one of the owner's again; all others lose it."""
        with self._database.write() as connection:
            membership = self._owned(connection, caller, path)
            home, space = home_space(connection, caller), membership.space_id
            members = rows.members_of(connection, space)
            self._lock(connection, space, *(person.personal_space for _, person in members))
            others = [(row, person) for row, person in members if row.account_id != caller.account]
            for row, _ in others:
                self._tell(connection, row.account_id, "{} is not shared with you any more.", row)
            self._end(connection, caller, others)

            def make(connection: Connection, tree: Tree) -> Edit[None]:
                place = place_of(tree, _mount_of(membership))
                if place is None:
                    raise not_found("This shared folder has no place any more.")
                ids = {id_: self._random(16) for id_ in all_inodes(connection, space)}
                reached = max(tree_rows.revision(connection, space), tree_rows.revision(connection, home)) + 1
                save_used(connection, caller.account, TreeCopy(space, home, ids, reached).run(connection))
                changes = Changes(self._clock(), self._random)
                changes.name(place, ids[space])
                return Edit(changes.group(), lambda: None, mounts=True, reached=reached)

            self._namespace.edit_within(connection, caller, home, make)
            rows.remove_member(connection, space, caller.account)
            rows.remove_invitations(connection, space)
            topics = {
                home,
                caller.account,
                *(topic for _, person in members for topic in (person.personal_space, person.account)),
            }
            return Changed(None, topics)

    # ----------------------------------------------------------------------------------------------- for the invited

    def accept(self, caller: Caller, space: bytes) -> Changed:
        with self._database.write() as connection:
            home = home_space(connection, caller)
            _invited(connection, space, caller)  # or there may be no such space to lock
            self._lock(connection, space, home)
            invited = _invited(connection, space, caller)  # as it is now that nobody can end it
            if len(rows.mounts(connection, caller.account)) >= SHARES_MAX:
                raise Refused(ProblemType.FORBIDDEN, f"You have {SHARES_MAX} shared folders already: leave one.")
            name = _name_of(connection, space)
            if name is None:
                raise not_found("There is no such invitation.")

            def make(_connection: Connection, tree: Tree) -> Edit[bytes]:
                top = root(tree)
                free = free_name(name, lambda name: tree.entry((tree.root, name)).inode is not None)
                changes = Changes(self._clock(), self._random)
                mount = self._add_mount(changes, space, Role(invited.role))
                changes.name(child(tree, top, free), mount)
                return Edit(changes.group(), lambda: mount, mounts=True)

            mount = self._namespace.edit_within(connection, caller, home, make)
            told = tree_rows.revision(connection, space)
            membership = MemberRow(space, caller.account, invited.role, mount, self._clock(), told)
            rows.add_member(connection, membership)
            rows.remove_invitation(connection, space, invited.email_key)
            joined = f"{account_rows.email_of(connection, caller.account)} accepted your invitation to {{}}."
            self._tell_owner(connection, space, joined)
            return self._changed(connection, caller, membership, ())

    def decline(self, caller: Caller, space: bytes) -> None:
        with self._database.write() as connection:
            invited = _invited(connection, space, caller)
            rows.remove_invitation(connection, space, invited.email_key)
            who = account_rows.email_of(connection, caller.account)
            self._tell_owner(connection, space, f"{who} declined your invitation to {{}}.")

    def leave(self, caller: Caller, path: str) -> Changed:
        with self._database.write() as connection:
            membership = self._shared_at(connection, caller, path)
            if membership.role == Role.OWNER:
                raise Refused(ProblemType.FORBIDDEN, "It is yours: end its sharing instead (unshare).", field="path")
            members = rows.members_of(connection, membership.space_id)
            who = account_rows.email_of(connection, caller.account)
            self._end(connection, caller, [(row, person) for row, person in members if row.account_id == caller.account])
            self._tell_owner(connection, membership.space_id, f"{who} left {{}}.")
            topics = (home_space(connection, caller), caller.account, membership.space_id)
            return Changed(None, topics)

    def close_account(self, connection: Connection, caller: Caller) -> Collection[bytes]:
        """Within the transaction that closes it, before anything of it is gone: nobody keeps a mount that leads to nothing."""
        topics: set[bytes] = set()
        for space in rows.shared_by(connection, caller.account):
            others = [(row, person) for row, person in rows.members_of(connection, space) if row.account_id != caller.account]
            for row, _ in others:
                self._tell(connection, row.account_id, "{} is not shared with you any more.", row)
            self._end(connection, caller, others)
            rows.remove_invitations(connection, space)
            topics.update(topic for _, person in others for topic in (person.personal_space, person.account))
        rows.remove_invitations_for(connection, caller.account)
        return topics

    # -------------------------------------------------------------------------------------------------------- making

    def _make(self, connection: Connection, caller: Caller, home: bytes, names: tuple[str, ...]) -> MemberRow:
        """Let a folder of the caller's become a shared space."""
        if len(rows.mounts(connection, caller.account)) >= SHARES_MAX:
            raise Refused(ProblemType.FORBIDDEN, f"You have {SHARES_MAX} shared folders already: leave one, or unshare one.")
        space = self._random(16)

        def make(connection: Connection, tree: Tree) -> Edit[bytes]:
            place, row = find(tree, names)
            changes = Changes(self._clock(), self._random)
            added = self._copy_into(connection, tree, place, row, space, caller.account, changes)
            save_used(connection, caller.account, added)
            mount = self._add_mount(changes, space, Role.OWNER)
            changes.name(self._place_for(tree, place, row), mount)
            return Edit(changes.group(), lambda: mount, mounts=True)

        mount = self._namespace.edit_within(connection, caller, home, make)
        told = tree_rows.revision(connection, space)
        membership = MemberRow(space, caller.account, Role.OWNER, mount, self._clock(), told)
        rows.add_member(connection, membership)
        return membership

    def _place_for(self, tree: Tree, place: Place, row: InodeRow) -> Place:
        """A folder's mount takes its place; a file's folder stands beside it, because the name says what a file is."""
        if row.kind is Kind.DIRECTORY:
            return place
        folder, wanted = place.key[0], f"{place.name} (shared)"
        name = free_name(wanted, lambda name: tree.entry((folder, name)).inode is not None)
        return Place(f"{place.path.rpartition('/')[0]}/{name}", (folder, name), None, place.above)

    def _copy_into(
        self, connection: Connection, tree: Tree, place: Place, row: InodeRow, space: bytes, owner: bytes, changes: Changes
    ) -> int:
        """Copy what is at the place into the new space, and take the names away that it has here."""
        if row.kind not in (Kind.DIRECTORY, Kind.FILE):
            raise Refused(ProblemType.INVALID, f"{place.path} is neither a folder nor a file.", field="path")
        found: list[Place] = []
        for each in edits.descend(connection, tree, place, ENTRIES_MAX):
            if each.inode is not None and each.inode.kind is Kind.MOUNT:
                raise Refused(ProblemType.INVALID, f"{each.path}, which is in it, is shared already.", field="path")
            found.append(each)
            if len(found) > ENTRIES_MAX:
                text = f"{place.path} holds more than {ENTRIES_MAX} entries: share folders in it instead."
                raise Refused(ProblemType.TOO_LARGE, text, field="path")
        ids = {each.inode.id: self._random(16) for each in found if each.inode is not None}
        if row.kind is Kind.DIRECTORY:
            ids[row.id] = space
        revision = tree_rows.revision(connection, tree.root)
        rows.add_space(connection, space, owner, revision, self._clock())
        if row.kind is not Kind.DIRECTORY:
            self._add_root(connection, space, place, ids[row.id], revision)
        added = TreeCopy(tree.root, space, ids).run(connection)
        folder = place if row.kind is Kind.DIRECTORY else None
        for each in found:
            if each is not folder:
                changes.unname(each, touch=each is place)
        return added

    def _add_root(self, connection: Connection, space: bytes, place: Place, file: bytes, revision: int) -> None:
        """Of a space for one file."""
        now = self._clock()
        attributes = Attributes(mode=edits.FOLDER_MODE, mtime_ns=now)
        folder = InodeRow(space, revision, Kind.DIRECTORY, attributes, None, None, None, None, None, 0, now)
        tree_rows.write_inodes(connection, space, [folder], [])
        tree_rows.write_entries(connection, space, [((space, place.name), tree_rows.Entry(file, revision))], [])

    def _add_mount(self, changes: Changes, space: bytes, role: Role) -> bytes:
        attributes = Attributes(mode=_MODES[role], mtime_ns=self._clock())
        return changes.add(FullRow(kind=Kind.MOUNT, target=space.hex()), attributes)

    def _invite(self, connection: Connection, caller: Caller, membership: MemberRow, request: ShareRequest) -> None:
        space, key = membership.space_id, email_key(request.email)
        if key == email_key(account_rows.email_of(connection, caller.account)):
            raise Refused(ProblemType.INVALID, "That is you: it is yours already.", field="email")
        if _find_member(connection, space, request.email) is not None:
            raise Refused(ProblemType.EXISTS, f"{request.email} is a member already: change the role instead.", field="email")
        if rows.count_members(connection, space) >= MEMBERS_MAX:
            raise Refused(ProblemType.FORBIDDEN, f"A folder is shared with {MEMBERS_MAX - 1} others at most.")
        row = account_rows.by_email(connection, key)
        account = None if row is None else row.id
        known = next((each for each in rows.invitations_of(connection, space) if each.email_key == key), None)
        invited = InvitationRow(space, key, request.email, account, request.role, self._clock())
        rows.put_invitation(connection, invited)
        if account is not None and (known is None or known.role != request.role):  # once is enough
            who, name = account_rows.email_of(connection, caller.account), _name_of(connection, space) or "a folder"
            text = f"{who} shares {name} with you: aloft invitations shows how to accept."
            post(connection, account, [News(Topic.SHARE, text)], self._clock())

    # -------------------------------------------------------------------------------------------------------- ending

    def _end(self, connection: Connection, caller: Caller, members: Sequence[tuple[MemberRow, Person]]) -> None:
        """End these memberships: the mounts go from the members' personal spaces."""
        self._lock(connection, *(person.personal_space for _, person in members), *(row.space_id for row, _ in members))
        for row, person in sorted(members, key=lambda each: each[1].personal_space):

            def make(_connection: Connection, tree: Tree, mount: bytes = _mount_of(row)) -> Edit[None]:
                place = place_of(tree, mount)
                changes = Changes(self._clock(), self._random)
                if place is not None:
                    changes.unname(place)
                return Edit(changes.group(), lambda: None, mounts=True)

            self._namespace.edit_within(connection, replace(caller, account=row.account_id), person.personal_space, make)
            rows.remove_member(connection, row.space_id, row.account_id)

    def _set_mode(self, connection: Connection, caller: Caller, row: MemberRow, person: Person, role: Role) -> None:
        def make(_connection: Connection, tree: Tree) -> Edit[None]:
            changes = Changes(self._clock(), self._random)
            changes.change(_mount_of(row), Attributes(mode=_MODES[role]))
            return Edit(changes.group(), lambda: None, mounts=True)

        self._namespace.edit_within(connection, replace(caller, account=row.account_id), person.personal_space, make)

    # ------------------------------------------------------------------------------------------------------- looking

    def _lock(self, connection: Connection, *spaces: bytes) -> None:
        for space in sorted(set(spaces)):
            tree_rows.lock_space(connection, space)

    def _changed(self, connection: Connection, caller: Caller, membership: MemberRow, others: Sequence[Person]) -> Changed:
        people = (topic for person in others for topic in (person.personal_space, person.account))
        topics = {home_space(connection, caller), caller.account, *people, *_accounts(connection, membership.space_id)}
        return Changed(_share(connection, caller, membership), topics)

    def _membership(self, connection: Connection, caller: Caller, space: bytes) -> MemberRow:
        return next(row for row in rows.mounts(connection, caller.account).values() if row.space_id == space)

    def _shared_at(self, connection: Connection, caller: Caller, path: str) -> MemberRow:
        """The caller's membership of the shared folder at the path."""
        found = reach(connection, caller, split_path(path), enter=True)
        if found.space == home_space(connection, caller) or found.names:
            find(Tree(connection, found.space, found.prefix), found.names)
            raise Refused(ProblemType.INVALID, f"{path} is no shared folder: aloft share lists them.", field="path")
        member_of(connection, caller, found.space)
        return self._membership(connection, caller, found.space)

    def _owned(self, connection: Connection, caller: Caller, path: str) -> MemberRow:
        membership = self._shared_at(connection, caller, path)
        _require_owner(membership)
        return membership

    def _tell(self, connection: Connection, account: bytes, text: str, row: MemberRow) -> None:
        """`{}` in the text becomes the path of the folder, as the account sees it."""
        path = _path(connection, row)
        news = News(Topic.SHARE, text.format(path or "a shared folder"), path=path)
        post(connection, account, [news], self._clock())

    def _tell_owner(self, connection: Connection, space: bytes, text: str) -> None:
        owner = next((row for row, _ in rows.members_of(connection, space) if row.role == Role.OWNER), None)
        if owner is not None:
            self._tell(connection, owner.account_id, text, owner)


def _require_owner(membership: MemberRow) -> None:
    if membership.role != Role.OWNER:
        raise Refused(ProblemType.FORBIDDEN, "Only its owner decides with whom it is shared.", field="path")


def _mount_of(row: MemberRow) -> bytes:
    if row.mount is None:
        raise ValueError("a shared space is reached by a mount")
    return row.mount


def _path(connection: Connection, row: MemberRow) -> str | None:
    tree = Tree(connection, account_rows.personal_space(connection, row.account_id))
    place = place_of(tree, _mount_of(row))
    return None if place is None else place.path


def _name_of(connection: Connection, space: bytes) -> str | None:
    """As its owner calls it."""
    for row, _ in rows.members_of(connection, space):
        if row.role == Role.OWNER:
            path = _path(connection, row)
            return None if path is None else path.rpartition("/")[2]
    return None


def _accounts(connection: Connection, space: bytes) -> Sequence[bytes]:
    return [row.account_id for row, _ in rows.members_of(connection, space)]


def _find_member(connection: Connection, space: bytes, email: str) -> tuple[MemberRow, Person] | None:
    """One whose role or membership can change: not the owner."""
    key = email_key(email)
    for row, person in rows.members_of(connection, space):
        if email_key(person.email) == key and row.role != Role.OWNER:
            return row, person
    return None


def _invited(connection: Connection, space: bytes, caller: Caller) -> InvitationRow:
    invitation = rows.invitation(connection, space, caller.account)
    if invitation is None:
        raise not_found("There is no such invitation.")
    return invitation


def _find_invitation(connection: Connection, space: bytes, email: str) -> InvitationRow:
    key = email_key(email)
    for row in rows.invitations_of(connection, space):
        if row.email_key == key:
            return row
    raise Refused(ProblemType.NOT_FOUND, f"{email} is neither a member nor invited.", field="email")


def _share(connection: Connection, caller: Caller, membership: MemberRow) -> Share:
    members = rows.members_of(connection, membership.space_id)
    owner = membership.role == Role.OWNER
    invited = rows.invitations_of(connection, membership.space_id) if owner else ()
    role = next((row.role for row, _ in members if row.account_id == caller.account), membership.role)
    return Share(
        space=membership.space_id,
        path=_path(connection, membership),
        role=Role(role),
        members=[Member(email=person.email, name=person.name, role=Role(row.role)) for row, person in members],
        invited=[Invited(email=row.email, role=Role(row.role), created_ns=row.created_ns) for row in invited],
    )


def _invitation(connection: Connection, row: InvitationRow) -> Invitation | None:
    owner = next((person for member, person in rows.members_of(connection, row.space_id) if member.role == Role.OWNER), None)
    name = _name_of(connection, row.space_id)
    if owner is None or name is None:
        return None
    return Invitation(
        space=row.space_id,
        name=name,
        owner_email=owner.email,
        owner_name=owner.name,
        role=Role(row.role),
        created_ns=row.created_ns,
    )
