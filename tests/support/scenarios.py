"""Random lives of a few devices and one service, and what must never happen in them (the invariants of sync.md).

A scenario is data: steps of (what, device, three integers modulo what exists), so that leaving steps out gives a smaller one.
Every content is a number (the `size` of a `Content`); 0 and 1 stand for bytes that several devices write independently.
"""

from __future__ import annotations

import copy
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

from cache.merge import Content, Fate, Key, State
from remote.protocol import Kind
from tests.support.reference_service import Id, ReferenceService, Row, Watch, check_tree, names_of
from tests.support.replicas import ROOT, Replica, Tree, sealed_content, state_of, sync

Step = tuple[str, int, int, int, int]
FIRST_TRACKED = 10
ROUNDS = 14


class Broken(AssertionError):
    """An invariant does not hold."""


@dataclass
class Scenario:
    devices: int
    only: str | None
    """The one device that a person uses, if it is only one."""
    healing: int
    steps: list[Step]


class World(Watch):
    def __init__(self, devices: int, only: str | None) -> None:
        self.service = ReferenceService(ROOT, self)
        self.count = ROOT
        self.contents = FIRST_TRACKED - 1
        self.ticks = 0
        self.parent: dict[int, int] = {}  # content -> the content that its writer saw
        self.closed: set[int] = set()
        self.excused: set[int] = set()  # overwritten or deleted by somebody who had seen it
        self.linked: set[int] = set()
        self.touched: set[tuple[str, int]] = set()  # (device, inode) with a fresh operation
        self.last_seen: dict[tuple[str, int], int] = {}  # (device, inode) -> the content when its last name was removed
        self.rules: Counter[str] = Counter()
        self.only = only
        self.replicas = [Replica(device, self.new_ino) for device in "ABC"[:devices]]
        self.late: dict[str, tuple[int, list[object]]] = {}
        self.answers: dict[str, tuple[int, object] | None] = {}
        self.pages: dict[str, object] = {}
        self.rounds = 0

    def new_ino(self) -> int:
        self.count += 1
        return self.count

    def new_content(self, saw: int | None, choice: int) -> Content:
        if choice % 5 == 0:
            return Content(None, choice // 5 % 2)
        self.contents += 1
        if saw is not None:
            self.parent[self.contents] = saw
        self.closed.add(self.contents)
        return Content(None, self.contents)

    def descends(self, content: int, from_content: int, through_shared: bool) -> bool:
        walked: int | None = content
        while walked is not None:
            if walked == from_content:
                return True
            if walked < FIRST_TRACKED:
                return through_shared
            walked = self.parent.get(walked)
        return False

    # ------------------------------------------------------------------------------------ what the service must not do

    def overwritten(self, device: Id, ino: Id, old: Content, new: Content) -> None:
        if min(old.size, new.size) >= FIRST_TRACKED and not self.descends(new.size, old.size, True):
            raise Broken(f"{device} overwrote {old.size} with {new.size} without having seen it")

    def lost_last_name(self, device: Id, ino: Id, row: Row) -> None:
        if row.kind is not Kind.FILE or row.content.size < FIRST_TRACKED:
            return
        seen = self.last_seen.get((str(device), ino))  # type: ignore[arg-type]
        if seen is None or not self.descends(seen, row.content.size, True):
            raise Broken(f"{device} deleted {row.content.size}, but saw {seen}")

    def revived(self, device: Id, ino: Id, row: Row) -> None:
        if row.kind is Kind.FILE and (device, ino) not in self.touched:
            raise Broken(f"{device} revived {ino}, though nobody there touched it")

    # ------------------------------------------------------------------------------------------------- merging, checked

    def merge(self, replica: Replica) -> None:
        if not replica.may_merge():
            return
        base, local = replica.base, replica.local
        for ino in list(base.states):
            if local.names(ino) == base.names(ino) and ino in local.states and local.states[ino].same_content(base.states[ino]):
                self.touched.discard((replica.device, ino))
        before = visible(local)
        others = [copy.copy(replica), copy.copy(replica)]
        merged = replica.merge()
        for other, contacts in zip(others, (others[0].all_dirty(), others[1].everything()), strict=True):
            other.new_ino = iter(range(10**6, 2 * 10**6)).__next__
            other.merge(contacts)
            if shape(other.local) != shape(replica.local):
                raise Broken("deciding more inodes than those that meet gave another result")
        self.rules.update(merged.rules)
        for ino, fate in merged.fates.items():
            if fate is Fate.COPY:
                self.check_copy(replica, local.states[ino], replica.base.states[ino])
        check_tree(replica.local.entries, replica.local.is_folder, ROOT)
        if self.only == replica.device and visible(replica.local) != before:
            raise Broken("a merge changed the tree of the only device in use")

    def check_copy(self, replica: Replica, mine: State, theirs: State) -> None:
        assert mine.content is not None
        assert theirs.content is not None
        one, two = mine.content.size, theirs.content.size
        if mine.content.manifest_id is not None and one == two:
            raise Broken(f"{replica.device} made a copy of {one}, which is {two}")
        if min(one, two) >= FIRST_TRACKED and (self.descends(one, two, False) or self.descends(two, one, False)):
            raise Broken(f"{replica.device} made a copy without cause: {one} and {two}")

    # ------------------------------------------------------------------------------------------------------------ steps

    def step(self, step: Step) -> None:
        what, index, a, b, c = step
        replica = self.replicas[index]
        if what in NETWORK:
            NETWORK[what](self, replica, a)
            return
        before = names_of(replica.local.entries)
        OPERATIONS[what](self, replica, a, b, c)
        replica.changed()
        check_tree(replica.local.entries, replica.local.is_folder, ROOT)
        after = names_of(replica.local.entries)
        for ino in before.keys() | after.keys():
            if before.get(ino) != after.get(ino) or what == "write":
                self.touched.add((replica.device, ino))

    def start_push(self, replica: Replica, _: int = 0) -> None:
        replica.start_push()

    def deliver(self, replica: Replica, _: int = 0) -> None:
        if replica.outstanding:
            number, groups = replica.outstanding
            outcome = self.service.commit(replica.device, number, copy.deepcopy(groups))
            self.answers[replica.device] = (number, outcome)
            self.late[replica.device] = copy.deepcopy((number, groups))  # type: ignore[assignment]

    def answer(self, replica: Replica, _: int = 0) -> None:
        answer = self.answers.pop(replica.device, None)
        if answer is not None:
            replica.record(*answer)  # type: ignore[arg-type]
            self.merge(replica)

    def lose(self, replica: Replica, _: int = 0) -> None:
        self.deliver(replica)
        self.answers.pop(replica.device, None)
        self.pages.pop(replica.device, None)

    def ask(self, replica: Replica, a: int) -> None:
        self.pages[replica.device] = self.service.feed(replica.cursor, 1 + a % 3)

    def receive(self, replica: Replica, _: int = 0) -> None:
        page = self.pages.pop(replica.device, None)
        if page is not None:
            replica.stage(page)  # type: ignore[arg-type]
            self.merge(replica)

    def seal(self, replica: Replica, _: int = 0) -> None:
        for ino, state in replica.local.states.items():
            if state.content is not None:
                replica.local.states[ino] = replace(state, content=sealed_content(state.content, replica.device))

    def upload(self, replica: Replica, _: int = 0) -> None:
        replica.upload()

    def repeat(self, replica: Replica, _: int = 0) -> None:
        if replica.device in self.late:
            number, groups = self.late[replica.device]
            self.service.commit(replica.device, number, copy.deepcopy(groups))  # type: ignore[arg-type]

    def collect(self, _: Replica, __: int = 0) -> None:
        self.service.collect()

    def sync(self, replica: Replica, _: int = 0) -> None:
        replica.upload()
        for _ in range(2):
            self.start_push(replica)
            self.deliver(replica)
            self.answer(replica)
            self.pull(replica)

    def pull(self, replica: Replica, _: int = 0) -> None:
        for _ in range(200):
            self.ask(replica, 1)
            self.receive(replica)
            if replica.caught_up:
                return

    # ---------------------------------------------------------------------------------------------------------- healing

    def heal(self, seed: int) -> None:
        """Undisturbed rounds, in one of three orders, until every side is quiet."""
        chance = random.Random(seed)
        order = chance.randrange(3)
        deliver_and_answer: list[Callable[[Replica], None]] = [self.deliver, self.answer]
        phases: list[list[Callable[[Replica], None]]] = [
            [[self.sync]],
            [deliver_and_answer, [self.pull], [self.start_push], [self.deliver], [self.answer]],
            [[self.start_push], deliver_and_answer, [self.pull]],
        ][order]
        for self.rounds in range(1, ROUNDS + 1):
            replicas = chance.sample(self.replicas, len(self.replicas))
            for replica in replicas:
                replica.upload()
            for phase in phases:
                for replica in replicas:
                    for action in phase:
                        action(replica)
            if all(self.is_quiet(replica) for replica in replicas):
                return
        raise Broken("not quiet: " + "; ".join(f"{r.device} {r.outstanding} {r.groups()}" for r in self.replicas))

    def is_quiet(self, replica: Replica) -> bool:
        staged = replica.staged_entries or replica.staged_rows
        return not replica.waits() and not staged and replica.cursor == self.service.revision

    def check_final(self) -> None:
        live = {key: ino for key, (ino, _) in self.service.entries.items() if ino is not None}
        for replica in self.replicas:
            if replica.local.entries != live:
                raise Broken(f"{replica.device} has another tree than the service")
            for ino in [ROOT, *live.values()]:
                mine, row = replica.local.states[ino], self.service.rows[ino]
                if not mine.same_content(state_of(row)) or any(
                    getattr(mine, name) != value for name, value in row.attributes.items()
                ):
                    raise Broken(f"{replica.device} has {mine} for {ino}, the service {row}")
        kept = {content.size for contents in self.service.contents.values() for content in contents if content is not None}
        if lost := self.closed - self.excused - kept:
            raise Broken(f"the contents {lost} are nowhere")
        for ino, names in names_of(live).items():
            if len(names) > 1 and ino not in self.linked:
                raise Broken(f"{ino} has two names, and nobody linked it")
        if self.only and any("conflicted" in name for _, name in live):
            raise Broken("a conflicted copy, with one device in use")


def visible(tree: Tree) -> object:
    return dict(tree.entries), {ino: seen(tree.states[ino]) for ino in [ROOT, *tree.entries.values()]}


def seen(state: State) -> object:
    """What a person can see of it."""
    return state.kind, state.mode, state.mtime_ns, None if state.content is None else state.content.size


def shape(tree: Tree) -> object:
    """The tree without the numbers of new inodes."""
    return {key: seen(tree.states[ino]) for key, ino in tree.entries.items()}


# ------------------------------------------------------------------------------------------------- what a person does

NAMES = ["a", "b", "c.txt", "long" * 60 + ".txt"]


def folders(replica: Replica) -> list[int]:
    return [ROOT, *sorted({ino for ino in replica.local.entries.values() if replica.local.is_folder(ino)})]


def ancestors(replica: Replica, folder: int) -> list[int]:
    walked = [folder]
    while folder != ROOT:
        folder = min(replica.local.names(folder))[0]
        walked.append(folder)
    return walked


def pick(choices: list, number: int):  # type: ignore[no-untyped-def, type-arg]
    return choices[number % len(choices)] if choices else None


def keys(replica: Replica, kind: Kind | None = None) -> list[Key]:
    entries = replica.local.entries
    return sorted(key for key, ino in entries.items() if kind is None or replica.local.states[ino].kind is kind)


def note_if_nameless(world: World, replica: Replica, ino: int | None) -> None:
    if ino is None or ino in replica.local.entries.values():
        return
    content = replica.local.states[ino].content
    if content is not None:
        world.excused.add(content.size)
        world.last_seen[replica.device, ino] = content.size


def place(world: World, replica: Replica, key: Key, ino: int) -> None:
    old = replica.local.entries.get(key)
    replica.local.entries[key] = ino
    if old != ino:
        note_if_nameless(world, replica, old)


def make(world: World, replica: Replica, kind: Kind, key: Key, content: Content | None) -> None:
    ino = world.new_ino()
    world.ticks += 1
    replica.local.states[ino] = State(kind, mtime_ns=world.ticks, content=content)
    place(world, replica, key, ino)


def create(world: World, replica: Replica, a: int, b: int, c: int) -> None:
    key = (pick(folders(replica), a), pick(NAMES, b))
    if key not in replica.local.entries:
        make(world, replica, Kind.FILE, key, world.new_content(None, c))


def make_folder(world: World, replica: Replica, a: int, b: int, c: int) -> None:
    key = (pick(folders(replica), a), pick(NAMES, b))
    if key not in replica.local.entries:
        make(world, replica, Kind.DIRECTORY, key, None)


def save_by_rename(world: World, replica: Replica, a: int, b: int, c: int) -> None:
    key = pick(keys(replica, Kind.FILE), a)
    if key is not None:
        old = replica.local.states[replica.local.entries[key]].content
        assert old is not None
        make(world, replica, Kind.FILE, key, world.new_content(old.size, c))


def write(world: World, replica: Replica, a: int, b: int, c: int) -> None:
    key = pick(keys(replica, Kind.FILE), a)
    if key is not None:
        ino = replica.local.entries[key]
        old = replica.local.states[ino].content
        assert old is not None
        world.excused.add(old.size)
        world.ticks += 1
        new = world.new_content(old.size, c)
        replica.local.states[ino] = replace(replica.local.states[ino], content=new, mtime_ns=world.ticks)


def rename(world: World, replica: Replica, a: int, b: int, c: int) -> None:
    source, entries = pick(keys(replica), a), replica.local.entries
    target = (pick(folders(replica), b), pick(NAMES, c))
    if source is None or source == target:
        return
    ino, replaced = entries[source], entries.get(target)
    is_folder = replica.local.is_folder(ino)
    if ino == replaced or (is_folder and ino in ancestors(replica, target[0])):
        return
    if replaced is not None and (replica.local.is_folder(replaced) != is_folder or any(k[0] == replaced for k in entries)):
        return
    del entries[source]
    place(world, replica, target, ino)


def exchange(world: World, replica: Replica, a: int, b: int, c: int) -> None:
    one, two, entries = pick(keys(replica), a), pick(keys(replica), b), replica.local.entries
    if one is None or one == two:
        return
    for ino, parent in ((entries[one], two[0]), (entries[two], one[0])):
        if replica.local.is_folder(ino) and ino in ancestors(replica, parent):
            return
    entries[one], entries[two] = entries[two], entries[one]


def link(world: World, replica: Replica, a: int, b: int, c: int) -> None:
    key, target = pick(keys(replica, Kind.FILE), a), (pick(folders(replica), b), pick(NAMES, c))
    if key is not None and target not in replica.local.entries:
        replica.local.entries[target] = replica.local.entries[key]
        world.linked.add(replica.local.entries[key])


def unlink(world: World, replica: Replica, a: int, b: int, c: int) -> None:
    key = pick(keys(replica, Kind.FILE), a)
    if key is not None:
        note_if_nameless(world, replica, replica.local.entries.pop(key))


def remove_tree(world: World, replica: Replica, a: int, b: int, c: int) -> None:
    key = pick(keys(replica, Kind.DIRECTORY), a)
    if key is not None:
        remove_below(world, replica, replica.local.entries[key])
        del replica.local.entries[key]


def remove_below(world: World, replica: Replica, folder: int) -> None:
    entries = replica.local.entries
    for key in [key for key in entries if key[0] == folder]:
        if replica.local.is_folder(entries[key]):
            remove_below(world, replica, entries[key])
        note_if_nameless(world, replica, entries.pop(key))


def remove_folder(world: World, replica: Replica, a: int, b: int, c: int) -> None:
    key = pick(keys(replica, Kind.DIRECTORY), a)
    if key is not None and not any(other[0] == replica.local.entries[key] for other in replica.local.entries):
        del replica.local.entries[key]


def set_attribute(world: World, replica: Replica, a: int, b: int, c: int) -> None:
    key = pick(keys(replica), a)
    if key is not None:
        world.ticks += 1
        ino = replica.local.entries[key]
        change = {"mode": world.ticks % 0o1000} if b % 2 else {"mtime_ns": world.ticks}
        replica.local.states[ino] = replace(replica.local.states[ino], **change)  # type: ignore[arg-type]


NETWORK: dict[str, Callable[[World, Replica, int], None]] = {
    "start_push": World.start_push,
    "deliver": World.deliver,
    "answer": World.answer,
    "lose": World.lose,
    "ask": World.ask,
    "receive": World.receive,
    "seal": World.seal,
    "upload": World.upload,
    "repeat": World.repeat,
    "collect": World.collect,
    "sync": World.sync,
    "pull": World.pull,
}
OPERATIONS: dict[str, Callable[[World, Replica, int, int, int], None]] = {
    operation.__name__: operation
    for operation in (
        create, make_folder, save_by_rename, write, rename, exchange, link, unlink, remove_tree, remove_folder, set_attribute,
    )
}  # fmt: skip

# -------------------------------------------------------------------------------------------------------- the generator

ALL = (
    ["create", "make_folder"] * 4 + ["write"] * 5 + ["save_by_rename", "exchange", "link", "set_attribute"] * 2
    + ["rename"] * 7 + ["unlink"] * 3 + ["remove_folder", "remove_tree", "remove_tree"]
)  # fmt: skip
TREE = ["make_folder", "rename", "rename", "rename", "exchange", "remove_folder", "remove_tree", "create"]
FILE = ["write", "write", "save_by_rename", "rename", "link", "unlink", "create", "set_attribute"]
TRAFFIC = ["start_push", "deliver", "answer"] * 5 + ["lose"] * 2 + ["ask", "receive"] * 6 + ["upload"] * 4 + ["repeat", "seal"]
PHASED, FINE, DEEP = 0, 1_000_000, 2_000_000
"""Where the seeds of the three families begin."""


class Generator:
    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.chance = random.Random(seed)
        self.steps: list[Step] = []

    def add(self, what: str, device: int) -> None:
        self.steps.append((what, device, *(self.chance.randrange(1000) for _ in range(3))))  # type: ignore[arg-type]

    def add_some(self, family: list[str], device: int, count: int) -> None:
        for _ in range(count):
            self.add(self.chance.choice(family), device)

    def scenario(self) -> Scenario:
        family = self.deep if self.seed >= DEEP else self.fine if self.seed >= FINE else self.phased
        devices, only = family()
        return Scenario(devices, only, self.chance.randrange(1 << 30), self.steps)

    def phased(self) -> tuple[int, str | None]:
        """From a shared tree, phases in which everyone works offline, each followed by a storm of messages."""
        chance = self.chance
        devices = chance.choice([2, 2, 2, 3])
        only = "A" if chance.random() < 0.2 else None
        collects, traffic = chance.random() < 0.3, chance.choice([0.1, 0.3, 0.5, 0.7])
        if chance.random() < 0.8:
            first = ["create", "make_folder"]
            self.add_some([*first, *first, "link", "rename"] if chance.random() < 0.3 else first, 0, chance.choice([2, 4, 7]))
            for device in [*range(devices), *range(devices)]:
                self.add("sync", device)
        for _ in range(chance.choice([1, 1, 2, 3, 5])):
            for device in range(1 if only else devices):
                self.add_some(chance.choice([ALL, ALL, TREE, FILE]), device, chance.choice([0, 1, 1, 2, 2, 3, 5]))
            for _ in range(chance.choice([0, 2, 6, 12])):
                device = chance.randrange(devices)
                if chance.random() < traffic:
                    self.add(chance.choice([*TRAFFIC, "sync", "sync", "sync"]), device)
                elif collects and chance.random() < 0.1:
                    self.add("collect", 0)
                else:
                    self.add(chance.choice(ALL), 0 if only else device)
        return devices, only

    def fine(self) -> tuple[int, str | None]:
        """Few files, operations and messages finely interleaved, uploads late."""
        chance = self.chance
        self.add_some(["make_folder", "create"], 0, chance.choice([1, 2, 3]))
        self.add("sync", 0)
        self.add("sync", 1)
        for _ in range(chance.choice([12, 20, 30])):
            messages = chance.random() < 0.65
            family = [*TRAFFIC, *["receive"] * 4] if messages else [*FILE, *TREE, *["set_attribute", "write"] * 3]
            self.add(chance.choice(family), chance.randrange(2))
        return 2, None

    def deep(self) -> tuple[int, str | None]:
        """Deep trees, many moves and exchanges offline."""
        chance = self.chance
        self.add_some(["make_folder", "make_folder", "make_folder", "create"], 0, chance.choice([5, 8, 10]))
        self.add("sync", 0)
        self.add("sync", 1)
        only = "A" if chance.random() < 0.5 else None
        for device in [0] if only else [0, 1]:
            self.add_some([*TREE, *["exchange"] * 3], device, chance.choice([4, 8, 14]))
        for _ in range(6):
            self.add(chance.choice([*TRAFFIC, "sync", "sync", "sync"]), chance.randrange(2))
        return 2, only


def _steps(text: str) -> list[Step]:
    """`what device a b c`, separated by commas; numbers that are left out are 0."""
    steps: list[Step] = []
    for words in (part.split() for part in text.split(",")):
        numbers = [int(word) for word in words[1:]] + [0] * (5 - len(words))
        for what in ("start_push", "deliver", "answer") if words[0] == "push" else (words[0],):
            steps.append((what, *numbers))  # type: ignore[arg-type]
    return steps


DIRECTED = {
    "a content after attributes that were acknowledged": Scenario(
        2,
        None,
        3,
        _steps(
            "create 0 0 0 1, sync 0, sync 1, write 1 0 0 1, upload 1, push 1, "
            "write 0 0 0 1, set_attribute 0 0 1, push 0, upload 0, push 0"
        ),
    ),
    "a page from before a commit that was answered since": Scenario(
        2,
        None,
        3,
        _steps(
            "make_folder 0 0 0, make_folder 0 0 1, sync 0, sync 1, rename 0 0 2 0, push 0, ask 1 1, "
            "rename 0 1 0 0, push 0, rename 1 1 1 1, push 1, receive 1"
        ),
    ),
}
"""What random seeds hardly ever find."""


def live_through(scenario: Scenario) -> World:
    """Run `scenario`; raises what is `Broken`."""
    world = World(scenario.devices, scenario.only)
    for step in scenario.steps:
        world.step(step)
    world.heal(scenario.healing)
    world.check_final()
    return world


def failure(scenario: Scenario) -> str | None:
    try:
        live_through(scenario)
    except Exception as error:  # noqa: BLE001 - whatever goes wrong is the finding
        return f"{type(error).__name__}: {error}"
    return None


def shrunk(scenario: Scenario) -> Scenario:
    """The scenario without the steps that its failure does not need."""
    steps, again = scenario.steps, True
    while again:
        again = False
        for size in (8, 4, 2, 1):
            start = 0
            while start < len(steps):
                fewer = steps[:start] + steps[start + size :]
                if failure(replace(scenario, steps=fewer)):
                    steps, again = fewer, True
                else:
                    start += size
    return replace(scenario, steps=steps)


__all__ = [
    "DEEP",
    "DIRECTED",
    "FINE",
    "PHASED",
    "Broken",
    "Generator",
    "Scenario",
    "World",
    "failure",
    "live_through",
    "shrunk",
    "sync",
]
