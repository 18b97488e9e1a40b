"""What lives of simulated devices have shown, each as small as it could be made. The names say what was wrong."""

from __future__ import annotations

import trio

from cache.store.schema import ROOT
from tests.simulation.device import Device
from tests.simulation.operations import Person
from tests.simulation.world import World, stage

A, B, FOLDER = 0, 1, 3
"""The places of names in `operations.NAMES`."""


async def do(person: Person, kind: str, a: int = 0, b: int = 0, c: int = 1) -> None:
    await person.perform(kind, a, b, c)


def names(device: Device) -> list[str]:
    return [listed.name for listed in device.drive.replica.list_entries(ROOT, 0, 100)]


async def content(device: Device, name: str) -> bytes:
    file = device.drive.files.open(device.drive.replica.lookup(ROOT, name).ino, writable=False)
    try:
        return await file.read(0, file.size)
    finally:
        file.release()


def test_what_is_written_through_a_handle_after_another_device_deleted_the_file_is_kept() -> None:
    """It went with the handle, as if the file had been deleted where it was written."""

    async def play(world: World) -> None:
        ada, bob = world.people
        await do(ada, "create", b=A)
        await world.settle()
        await do(ada, "open_file")
        await do(bob, "unlink")
        await world.settle()
        await do(ada, "write_open")
        await do(ada, "close_open")
        await world.settle()
        assert names(world.devices[1]) == ["a"]
        assert b"2 by ada" in await content(world.devices[1], "a")

    stage(play)


def test_what_is_written_after_the_file_was_replaced_elsewhere_is_kept_beside_it() -> None:
    async def play(world: World) -> None:
        ada, bob = world.people
        await do(ada, "create", b=A)
        await world.settle()
        await do(ada, "open_file")
        await do(bob, "save_by_rename")
        await world.settle()
        await do(ada, "write_open")
        await do(ada, "close_open")
        await world.settle()
        assert len(names(world.devices[1])) == 2

    stage(play)


def test_a_file_that_was_deleted_while_it_was_written_does_not_come_back_when_another_device_writes_it() -> None:
    """The merge replaced the content of the nameless file, and what its handle had went to a new file of its own."""

    async def play(world: World) -> None:
        ada, bob = world.people
        await do(ada, "create", b=A)
        await world.settle()
        world.devices[0].set_cable(False)
        await do(ada, "open_file")
        await do(ada, "write_open")
        await do(ada, "unlink")
        await do(ada, "write_open")
        await do(bob, "overwrite")
        await world.settle_for(3.0)
        world.devices[0].set_cable(True)
        await world.settle()
        await do(ada, "write_open")
        await do(ada, "close_open")
        await world.settle()
        assert names(world.devices[0]) == ["a"]
        assert b"by bob" in await content(world.devices[0], "a")

    stage(play)


def test_nothing_is_forgotten_that_the_feed_may_still_name() -> None:
    """A name was gone here as there, so the inode was forgotten; then the feed brought its other name, and no description."""

    async def play(world: World) -> None:
        ada, bob = world.people
        await do(ada, "create", b=A)
        await world.settle()
        world.devices[0].wire.set_gates(push=True, pull=False)
        await do(bob, "mkdir", b=FOLDER)  # answers the poll that is under way
        await world.settle_for(3.0)
        await do(bob, "link", c=B)
        await do(bob, "unlink")
        await world.settle_for(3.0)
        await do(ada, "unlink")
        await world.settle_for(60.0)
        world.devices[0].wire.set_gates(push=True, pull=True)
        await world.settle()
        assert names(world.devices[0]) == ["d", "b"]

    stage(play)


def test_a_name_whose_tombstone_was_collected_is_taken_away_once() -> None:
    """The service said of it, rightly, that it is as asked, and knew no revision: the device told it again without end."""

    async def play(world: World) -> None:
        ada, bob = world.people
        await do(ada, "create", b=A)
        await do(ada, "create", b=B)
        await world.settle()
        world.devices[0].wire.set_gates(push=True, pull=False)
        await do(bob, "mkdir", b=FOLDER)  # answers the poll that is under way
        await world.settle_for(3.0)
        await do(bob, "unlink")
        await world.settle_for(3.0)
        world.backend.collect()
        world.ledger.service_collected()
        await do(ada, "unlink")
        await world.settle_for(10.0)
        world.ledger.raise_if_wrong()
        world.devices[0].wire.set_gates(push=True, pull=True)
        await world.settle()
        assert names(world.devices[0]) == ["b", "d"]

    stage(play)


def test_a_name_that_was_removed_is_told_though_a_page_ended_in_the_middle_of_its_revision() -> None:
    """The tombstone was collected between the two pages, and the cursor between them counted as having told of it."""

    async def play(world: World) -> None:
        _, bob = world.people
        wire = world.devices[0].wire
        wire.page_limit = 1
        await do(bob, "create", b=B)
        await world.settle()
        await trio.sleep(1.0)  # ada waits for news again
        wire.set_gates(push=True, pull=False)
        await do(bob, "rename", c=A)  # answers the poll that is under way
        await world.settle_for(3.0)
        world.backend.collect()
        world.ledger.service_collected()
        wire.set_gates(push=True, pull=True)
        await world.settle()
        assert names(world.devices[0]) == ["a"]

    stage(play)


def test_what_is_written_through_an_old_handle_is_not_taken_for_what_the_file_holds() -> None:
    """The ledger did: what a person had written into the file, and then deleted with it, counted as lost."""

    async def play(world: World) -> None:
        ada, bob = world.people
        await do(ada, "create", b=A)
        await world.settle()
        await do(ada, "open_file")
        await do(bob, "overwrite")
        await world.settle()
        world.devices[0].set_cable(False)
        await do(ada, "overwrite")
        await do(ada, "write_open")
        await do(ada, "unlink")
        assert len(names(world.devices[0])) == 1

    stage(play)


def test_a_folder_that_was_removed_does_not_come_back_empty_for_a_move_that_is_undone() -> None:
    """The merge revived it for what had been moved into it, and then undid the move, which closed a cycle."""

    async def play(world: World) -> None:
        ada, bob = world.people
        await do(ada, "mkdir", b=A)
        await do(ada, "mkdir", a=1, b=B)
        await do(ada, "mkdir", b=FOLDER)
        await world.settle()
        world.devices[1].set_cable(False)
        await do(bob, "move", a=2, b=2)  # /d into /a/b
        await do(ada, "rmdir")  # /a/b
        await do(ada, "move", a=0, b=2)  # /a into /d
        await world.settle_for(3.0)
        world.devices[1].set_cable(True)
        await world.settle()
        folder = world.devices[1].drive.replica.lookup(ROOT, "d").ino
        (moved,) = world.devices[1].drive.replica.list_entries(folder, 0, 10)
        assert moved.name == "a"
        assert not world.devices[1].drive.replica.list_entries(moved.node.ino, 0, 10)

    stage(play)


def test_a_folder_that_a_restored_home_still_has_to_send_may_come_back() -> None:
    """The ledger took only files that were made on a device for something that was done there."""

    async def play(world: World) -> None:
        ada, bob = world.people
        home = world.devices[0]
        home.set_cable(False)
        await do(ada, "mkdir", b=FOLDER)
        home.back_up()
        home.set_cable(True)
        await world.settle()
        await do(ada, "create", b=A)
        await world.settle()
        await do(bob, "rmdir")
        await world.settle()
        await home.crash()
        home.restore()
        await home.start()
        await world.settle_for(3.0)
        home.drive.reconnect(go_on=True)
        await world.settle()
        assert sorted(names(world.devices[1])) == ["a", "d"]

    stage(play)


def test_an_edit_does_not_replace_what_a_nameless_file_held_when_that_is_named_again() -> None:
    """The merge that kept the edit, since the file had no name on the service, took the content there for one that had been
    seen (seed 14140)."""

    async def play(world: World) -> None:
        ada, bob, cyd = world.people
        await do(ada, "create", b=A)
        await world.settle()
        world.devices[0].set_cable(False)
        await do(ada, "overwrite")
        await do(bob, "overwrite")
        await world.settle_for(5.0)
        world.devices[1].set_cable(False)
        await do(bob, "rename", c=B)
        await do(cyd, "unlink")
        await world.settle_for(5.0)
        world.devices[0].wire.set_gates(push=False, pull=True)
        world.devices[0].set_cable(True)  # ada's edit meets a file without a name
        await world.settle_for(5.0)
        world.devices[1].set_cable(True)  # and bob names it again
        await world.settle_for(5.0)
        world.devices[0].wire.set_gates(push=True, pull=True)
        await world.settle()
        assert len(names(world.devices[2])) == 2
        assert b"by bob" in await content(world.devices[2], "b")

    stage(play, devices=3)


def test_an_old_content_that_comes_back_with_a_name_is_another_one_to_who_edited_the_newest() -> None:
    """The ledger took the copy for one without cause (seed 20343)."""

    async def play(world: World) -> None:
        ada, bob, cyd = world.people
        await do(ada, "create", b=A)
        await world.settle()
        world.devices[1].set_cable(False)
        await do(ada, "overwrite")
        await world.settle_for(5.0)
        world.devices[0].set_cable(False)
        await do(ada, "overwrite")
        await do(bob, "rename", c=B)
        await do(cyd, "unlink")
        await world.settle_for(5.0)
        world.backend.collect()  # bob does not hear of the content that he has not seen
        world.ledger.service_collected()
        world.devices[1].set_cable(True)
        await world.settle_for(15.0)
        world.devices[0].set_cable(True)
        await world.settle()
        assert len(names(world.devices[2])) == 2

    stage(play, devices=3)


def test_a_file_with_two_names_that_two_devices_bring_back_has_two_names_then() -> None:
    """The merge undid one of the names that this device gave to what had none, and let the other stand beside the service's
    two (seed 30819)."""

    async def play(world: World) -> None:
        ada, bob, cyd = world.people
        await do(ada, "create", b=A)
        await do(ada, "link", c=B)
        await world.settle()
        for place, person in ((1, bob), (2, cyd)):
            world.devices[place].set_cable(False)
            await do(person, "overwrite")
        await do(ada, "unlink")
        await do(ada, "unlink")
        await do(ada, "create", b=A)
        await do(ada, "create", b=B)
        await world.settle_for(5.0)
        for device in world.devices[1:]:
            device.wire.set_gates(push=False, pull=True)
            device.set_cable(True)  # an edit beats a deletion: the file is brought back, beside ada's, on both
        await world.settle_for(5.0)
        for device in world.devices[1:]:
            device.wire.set_gates(push=True, pull=True)
            await world.settle_for(5.0)
        await world.settle()
        found = names(world.devices[0])
        assert sum("bob" in name for name in found) == 2
        assert sum("cyd" in name for name in found) == 1

    stage(play, devices=3)


def test_who_waits_to_hear_of_a_conflict_does_not_wait_for_a_future_that_is_lost() -> None:
    """Nothing was sent for a minute after `aloft reconnect` (seed 53941)."""

    async def play(world: World) -> None:
        ada, bob = world.people
        await do(ada, "create", b=A)
        await world.settle()
        world.backend.back_up()
        world.devices[1].wire.set_gates(push=True, pull=False)
        for _ in range(9):  # revisions that the restored service gets to only much later
            await do(ada, "overwrite")
            await world.settle_for(2.0)
        await do(bob, "overwrite")  # it conflicts, and bob waits for what ada did
        await world.settle_for(3.0)
        await world.restore_service()
        world.devices[1].wire.set_gates(push=True, pull=True)
        await world.settle_for(5.0)
        for device in world.devices:
            device.drive.reconnect(go_on=True)
        await world.settle_for(10.0)
        world.devices[1].set_cable(False)
        assert any("bob" in name for name in names(world.devices[0])), "what bob wrote is on the service"

    stage(play)


def test_what_a_refused_commit_held_up_is_merged_at_once() -> None:
    """A commit of a lost epoch was dropped, and the listing that waited for it was merged only with the next page, which comes
    a minute later where nothing happens; until then nothing was sent either (seed 61783)."""

    async def play(world: World) -> None:
        ada, bob = world.people
        await do(ada, "create", b=A)
        await world.settle()
        world.backend.back_up()
        wire = world.devices[1].wire
        wire.set_gates(push=False, pull=False)
        await do(bob, "overwrite")
        await world.settle_for(2.0)  # bob's commit is stored, and waits at the gate
        await world.restore_service()
        await do(ada, "create", b=B)
        await do(ada, "create", b=FOLDER)
        await world.settle_for(3.0)
        await do(ada, "unlink", a=2)
        await world.settle_for(3.0)
        world.collect()  # of what bob has not heard: he has to list anew
        wire.set_gates(push=False, pull=True)
        await world.settle_for(3.0)
        assert names(world.devices[1]) == ["a"], "nothing is merged with a commit outstanding"
        wire.set_gates(push=True, pull=True)
        await world.settle_for(10.0)
        assert names(world.devices[1]) == ["a", "b"]

    stage(play)
