"""A database that an older Aloft filled is used by this one as if it had always been its own."""

from __future__ import annotations

from collections.abc import Callable

from tests.server.test_files import tree_of
from tests.server.test_sharing import BOB
from tests.server.test_trash import revision, unlink
from tests.support.schemas import differences, go_back_to_0015
from tests.support.wire import Device, World, create, mkdir, new_id, write


async def test_what_was_filled_before_rewind_and_sharing_is_rewound_and_shared(open_world: Callable[..., World]) -> None:
    first = open_world()
    ada = await first.device()
    plans, file = new_id(), new_id()
    await ada.accept(mkdir(ada.space, "plans", plans), create(plans, "a.txt", file, b"alpha"))
    await ada.accept(create(plans, "gone.txt", gone := new_id(), b"gone"))
    await unlink(ada, plans, "gone.txt", gone)
    before = await tree_of(ada)
    with first.service.database.write() as connection:
        go_back_to_0015(connection)
    await first.close()

    world = open_world()
    with world.service.database.read() as connection:
        assert differences(connection) == []
    again = Device(world, ada.account, ada.device, ada.tokens, ada.installation)
    assert await tree_of(again) == before, "the key is the same: so are the log-ins"
    world.clock.advance(60)
    then = world.clock()
    world.clock.advance(60)
    await again.accept(write(file, b"second", await revision(again, file)))
    done = await again.post("/v1/files/rewind", {"path": "/plans", "to_ns": then})
    assert (done["contents"], await tree_of(again)) == (1, before)
    await world.register(BOB)
    bob = await world.device(BOB)
    made = await again.post("/v1/shares", {"path": "/plans", "email": BOB, "role": "viewer"})
    await bob.post("/v1/invitations/accept", {"space": made["space"]})
    assert (await bob.send("GET", "/v1/files/content", params={"path": "/plans/a.txt"})).text == "alpha"
