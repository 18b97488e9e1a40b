"""No fault of one request: a service that is killed, a revoked device, clocks that differ, links that expire in the middle."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from tests.faults.pair import arrives, read, sync, wait_for_status
from tests.support.fault_proxy import FaultProxy, Kind, Stall, Where
from tests.support.mounts import Devices, Service
from tests.support.waiting import wait_until

LIBFAKETIME = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))


def clock(offset: str) -> dict[str, str]:
    """The environment of a process whose wall clock is wrong by this much; its monotonic clock is not."""
    assert LIBFAKETIME, "libfaketime is missing: install the package faketime"
    return {"LD_PRELOAD": str(LIBFAKETIME[0]), "FAKETIME": offset, "DONT_FAKE_MONOTONIC": "1", "FAKETIME_DONT_RESET": "1"}


def test_the_service_is_killed_and_started_again_under_load(devices: Devices, service: Service) -> None:
    one, two = devices.add("one"), devices.add("two")
    a, b = one.mount(), two.mount()
    contents: dict[str, bytes] = {}
    go_on = threading.Event()

    def write() -> None:
        number = 0
        while not go_on.is_set() or number < 30:
            name = f"file {number}"
            content = os.urandom((100, 20_000, 300_000)[number % 3])
            (a / name).write_bytes(content)
            contents[name] = content
            number += 1
            go_on.wait(0.05)

    writer = threading.Thread(target=write)
    writer.start()
    for _ in range(2):
        seen = len(contents)
        wait_until(lambda seen=seen: len(contents) > seen + 5)
        service.kill()
        wait_until(lambda seen=seen: len(contents) > seen + 10)
        service.start()
    go_on.set()
    writer.join()
    sync(one)
    sync(two)  # which may not have heard yet that the service is back: what is not here could not be read
    for name, content in contents.items():
        arrives(b / name, content)
    assert sorted(os.listdir(b)) == sorted(contents), "nothing twice, and no copies"


def test_a_device_that_is_revoked_keeps_its_drafts(devices: Devices, service: Service, proxy: FaultProxy) -> None:
    one, two = devices.add("one"), devices.add("two")
    a, b = one.mount(), two.mount()
    (a / "before").write_bytes(b"before")
    arrives(b / "before", b"before")
    proxy.set_store_away(True)
    contents = {"large": os.urandom(200_000), "tiny": b"tiny", "before": b"changed meanwhile"}
    one.aloft("offline")
    for name, content in contents.items():
        (a / name).write_bytes(content)
    (listed,) = [device for device in two.json("devices")["devices"] if device["name"] == "one"]
    two.aloft("devices", "remove", listed["id"])
    proxy.set_store_away(False)
    one.aloft("online")
    wait_for_status(one, "removed from the account")
    assert one.json("status")["drive"]["connection"] == "logged out"
    done = one.run("sync")
    assert done.returncode in (3, 4), done.stdout + done.stderr
    assert {name: read(a / name) for name in contents} == contents
    assert {name: read(b / name) for name in contents} == {"large": None, "tiny": None, "before": b"before"}
    one.login()
    sync(one)
    for name, content in contents.items():
        arrives(b / name, content)
    assert sorted(os.listdir(b)) == sorted(contents)


@pytest.mark.parametrize(("one_s", "two_s"), [("+30h", "-7h")])
def test_clocks_that_differ_by_hours(devices: Devices, service: Service, one_s: str, two_s: str) -> None:
    one, two = devices.add("one", **clock(one_s)), devices.add("two", **clock(two_s))
    a, b = one.mount(), two.mount()
    content = os.urandom(200_000)
    (a / "from one").write_bytes(content)
    (b / "from two").write_bytes(content[::-1])
    for device in (one, two):
        sync(device)
    arrives(b / "from one", content)
    arrives(a / "from two", content[::-1])
    (b / "from one").write_bytes(b"two's")
    sync(two)
    arrives(a / "from one", b"two's")
    (a / "from one").write_bytes(b"one's again")
    sync(one)
    arrives(b / "from one", b"one's again")
    assert sorted(os.listdir(a)) == sorted(os.listdir(b)) == ["from one", "from two"], "no copy without a cause"


def test_a_link_that_expires_in_the_middle(folder: Path, tmp_path: Path) -> None:
    """The service's clock jumps by ten minutes, twice as long as a link is good, while a body is on its way."""
    now = tmp_path / "now"
    now.write_text("+0")
    environment = clock("") | {"FAKETIME_TIMESTAMP_FILE": str(now), "FAKETIME_NO_CACHE": "1"}
    del environment["FAKETIME"]
    with FaultProxy() as proxy:
        prefix = ["env", *(f"{name}={value}" for name, value in environment.items())]
        service = Service(tmp_path, options=["--public-url", proxy.store_url], address=proxy.url, prefix=prefix)
        service.start()
        proxy.upstream = service.port
        devices = Devices(folder, service)
        one, two = devices.add("one"), devices.add("two")
        a, b = one.mount(), two.mount()
        content = os.urandom(300_000)
        with proxy.inject(Stall(Where.REQUEST_BODY, after=100_000), Kind.PUT, times=1) as stall:
            (a / "file").write_bytes(content)
            wait_until(lambda: stall.hits == 1)
            now.write_text("+600")
        sync(one)
        wait_until((b / "file").exists)
        with proxy.inject(Stall(Where.REQUEST_BODY), Kind.GET, times=1) as stall:
            reader = threading.Thread(target=lambda: read(b / "file"))
            reader.start()
            wait_until(lambda: stall.hits == 1)
            now.write_text("+1200")
        reader.join()
        arrives(b / "file", content)
        assert proxy.count(Kind.PUT) == proxy.count(Kind.GET) == 2, "refused once, sent once"
        wrong = devices.finish()
        service.stop()
    assert not wrong, "\n".join(wrong)
