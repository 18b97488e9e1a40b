"""Several processes of the service on one database: what two of them do at the same moment."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import httpx
import jwt
import pytest

from remote.crashpoints import CRASH_AT
from remote.server.config import ServerConfig
from remote.server.service import rotate_keys
from tests.support.devices import Home, log_in, register, until
from tests.support.postgresql import Cluster
from tests.support.service import RunningService, start_service
from tests.support.waiting import PATIENCE, wait_until
from tests.support.wire import PASSWORD, Json, create, new_id, write

T = TypeVar("T")
QUOTA = 1_000_000
DEVICES_PER_PROCESS, COMMITS = 2, 12


@pytest.fixture(scope="module")
def url(postgresql: Cluster) -> Iterator[str]:
    url = postgresql.new_database()
    yield url
    postgresql.drop_database(url)


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory, url: str) -> Iterator[list[RunningService]]:
    """Two processes; they share the folder of the objects, too."""
    data: Path = tmp_path_factory.mktemp("service") / "data"
    with start_service(data, database=url, quota=QUOTA) as one, start_service(data, database=url, quota=QUOTA) as two:
        yield [one, two]


class Client:
    """A device of an account, which asks one of the processes."""

    def __init__(self, service: RunningService, email: str) -> None:
        self.http = httpx.Client(base_url=service.url, timeout=2 * PATIENCE, trust_env=False)
        self.email = email
        self.replica = new_id()
        self.number = 0
        self.epoch = ""

    def register(self, **more: str) -> httpx.Response:
        return self.http.post("/v1/accounts", json={"email": self.email, "password": PASSWORD, **more})

    def try_login(self) -> httpx.Response:
        device = {"installation": self.replica, "name": "here"}
        return self.http.post("/v1/sessions", json={"email": self.email, "password": PASSWORD, "device": device})

    def login(self) -> Json:
        login: Json = ok(self.try_login())
        self.space = login["account"]["space"]
        self.device = login["device"]["id"]
        self.http.headers["Authorization"] = f"Bearer {login['tokens']['access_token']}"
        self.epoch = self.changes("")["epoch"]
        return login

    def refresh(self, token: str) -> httpx.Response:
        return self.http.post("/v1/tokens", json={"refresh_token": token})

    def changes(self, cursor: str, **query: int) -> Json:
        return ok(self.http.get("/v1/changes", params={"cursor": cursor, **query}))

    def try_commit(self, *groups: Json, number: int) -> httpx.Response:
        body = {"number": number, "replica": self.replica, "epoch": self.epoch, "groups": groups}
        return self.http.post(f"/v1/spaces/{self.space}/commit", json=body)

    def commit(self, *groups: Json) -> Json:
        self.number += 1
        return ok(self.try_commit(*groups, number=self.number))

    def close(self) -> None:
        self.http.close()


@pytest.fixture
def client(services: list[RunningService]) -> Iterator[Callable[..., Client]]:
    """A device that asks the process of this number; `email`: of this account."""
    clients: list[Client] = []

    def make(process: int, email: str, *, known: bool = True) -> Client:
        client = Client(services[process % len(services)], email)
        clients.append(client)
        if known:
            client.register()
            client.login()
        return client

    yield make
    for client in clients:
        client.close()


def ok(response: httpx.Response) -> Json:
    assert response.is_success, f"{response.status_code} {response.text}"
    answer: Json = response.json()
    return answer


def at_once(works: list[Callable[[], T]]) -> list[T]:
    """What each of the works returned; they began at the same moment."""
    together = threading.Barrier(len(works))
    results: dict[int, T] = {}

    def do(number: int, work: Callable[[], T]) -> None:
        together.wait(PATIENCE)
        results[number] = work()

    threads = [threading.Thread(target=do, args=each) for each in enumerate(works)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(2 * PATIENCE)
    return [results[number] for number in range(len(works))]


def statuses(responses: list[httpx.Response]) -> list[int]:
    return sorted(response.status_code for response in responses)


class Follower:
    """Follows the feed, page by page, in a thread; `rows` in the order in which they came."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._cursor = client.changes("")["cursor"]
        self.rows: list[Json] = []
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._follow)
        self._thread.start()

    def _follow(self) -> None:
        while True:
            last = self._enough.is_set()
            page = self._client.changes(self._cursor, wait=0 if last else 1, limit=7)
            self._cursor = page["cursor"]
            for changed in page["spaces"]:
                self.rows += sorted([*changed["inodes"], *changed["entries"]], key=lambda row: int(row["rev"]))
            if last and not page["has_more"]:
                return

    def finish(self) -> list[Json]:
        """All that was committed before."""
        self._enough.set()
        self._thread.join(2 * PATIENCE)
        return self.rows


def test_commits_that_meet_lose_nothing_and_the_feed_is_complete_and_in_order(client: Callable[..., Client]) -> None:
    """Each device makes files of its own, tries to make those that the others make too, and writes to one that all write."""
    first = client(0, "ada@example.org")
    shared = new_id()
    first.commit(create(first.space, "shared", shared, b"first"))
    devices = [first, *(client(number, "ada@example.org") for number in range(1, 2 * DEVICES_PER_PROCESS))]
    follower = Follower(client(1, "ada@example.org"))

    def work(device: Client) -> list[Json]:
        answers = []
        for n in range(COMMITS):
            own, same = new_id(), new_id()
            groups = [
                create(device.space, f"{device.device} {n}", own, own.encode()),
                create(device.space, f"same {n}", same, same.encode()),
                write(shared, new_id().encode(), base=2),
            ]
            answers.append(device.commit(*groups))
        return answers

    answers = [answer for some in at_once([partial(work, device) for device in devices]) for answer in some]
    outcomes = [outcome for answer in answers for outcome in answer["outcomes"]]
    accepted = [outcome for outcome in outcomes if outcome["result"] == "ok"]
    revisions = sorted({rev for outcome in accepted for rev in (*outcome["entries"], *(row["rev"] for row in outcome["inodes"]))})
    count = len(devices) * COMMITS
    assert len(accepted) == count + COMMITS + 1, "all own files, each common one once, one write"
    assert revisions == list(range(3, 3 + len(accepted))), "no number twice, and none left out"
    assert {outcome["result"] for outcome in outcomes} == {"ok", "conflict"}
    rows = follower.finish()
    assert all(one["rev"] <= two["rev"] for one, two in pairwise(rows))
    assert {row["rev"] for row in rows} == set(revisions)
    listed = first.changes("", limit=5000)["spaces"][0]
    assert {row["rev"] for row in (*listed["entries"], *listed["inodes"])} - {1, 2} == set(revisions)
    assert {row["name"] for row in rows if "name" in row} == {row["name"] for row in listed["entries"]} - {"shared"}


def test_a_commit_that_is_sent_twice_at_once_is_applied_once(client: Callable[..., Client]) -> None:
    one = client(0, "twice@example.org")
    other = client(1, "twice@example.org", known=False)
    other.space, other.epoch, other.replica = one.space, one.epoch, one.replica
    other.http.headers["Authorization"] = one.http.headers["Authorization"]
    for number in range(1, 6):
        group = create(one.space, f"f{number}", new_id(), b"content")
        answers = at_once([partial(each.try_commit, group, number=number) for each in (one, other, one)])
        assert statuses(answers) == [200] * 3
        assert len({answer.content for answer in answers}) == 1
        assert answers[0].json()["revision"] == 1 + number


@pytest.mark.parametrize("point", ["service.commit.recorded", "service.commit.committed"])
def test_a_process_that_is_killed_in_a_commit_leaves_it_whole_or_undone(
    client: Callable[..., Client], url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    """The other process knows which of the two, and is not kept waiting."""
    one = client(0, f"{point}@example.org")
    monkeypatch.setenv(CRASH_AT, point)
    with start_service(tmp_path / "data", database=url) as dying:
        group = create(one.space, "f", new_id(), b"content")
        commit = {"number": 1, "replica": one.replica, "epoch": one.epoch, "groups": [group]}
        with pytest.raises(httpx.TransportError):
            one.http.post(f"{dying.url}/v1/spaces/{one.space}/commit", json=commit)
    answer = ok(one.try_commit(group, number=1))
    assert (answer["revision"], answer["outcomes"][0]["entries"]) == (2, [2])
    assert one.changes("")["spaces"][0]["revision"] == 2


def test_of_those_who_register_one_address_at_once_one_does(client: Callable[..., Client]) -> None:
    clients = [client(n, ("New@example.org", "new@EXAMPLE.org")[n % 2], known=False) for n in range(4)]
    assert statuses(at_once([each.register for each in clients])) == [201, 409, 409, 409]


def test_of_those_who_log_in_at_once_only_as_many_as_there_may_be(client: Callable[..., Client]) -> None:
    client(0, "five@example.org")
    clients = [client(n, "five@example.org", known=False) for n in range(8)]
    assert statuses(at_once([each.try_login for each in clients])) == [200] * 4 + [409] * 4


def test_one_installation_that_logs_in_twice_at_once_is_one_device_with_one_session(client: Callable[..., Client]) -> None:
    clients = [client(n, "one@example.org", known=False) for n in range(2)]
    clients[0].register()
    clients[1].replica = clients[0].replica
    logins = [ok(response) for response in at_once([each.try_login for each in clients])]
    assert len({login["device"]["id"] for login in logins}) == 1
    refreshed = [clients[0].refresh(login["tokens"]["refresh_token"]) for login in logins]
    assert statuses(refreshed) == [200, 401], "the later log-in ended the earlier one"


def test_a_token_that_is_refreshed_twice_at_once_stays_good_until_a_new_one_arrives(client: Callable[..., Client]) -> None:
    one, other = client(0, "token@example.org", known=False), client(1, "token@example.org", known=False)
    one.register()
    old = one.login()["tokens"]["refresh_token"]
    fresh = [ok(answer) for answer in at_once([partial(each.refresh, old) for each in (one, other, one, other)])]
    assert len({tokens["refresh_token"] for tokens in fresh}) == 4
    ok(other.refresh(fresh[0]["refresh_token"]))
    assert one.refresh(old).status_code == 401, "it was used again after a newer one had arrived"
    assert other.refresh(fresh[1]["refresh_token"]).status_code == 401, "so all of them are revoked"


def test_a_device_that_is_removed_by_one_process_is_refused_by_the_other(client: Callable[..., Client]) -> None:
    one, other = client(0, "gone@example.org"), client(1, "gone@example.org")
    assert one.http.delete(f"/v1/devices/{other.device}").status_code == 204
    assert other.http.get("/v1/changes").status_code == 401


def test_a_key_that_replaces_another_at_once_is_good_in_both_and_the_old_one_in_none(
    client: Callable[..., Client], url: str
) -> None:
    clients = [client(n, "key@example.org", known=False) for n in range(2)]
    clients[0].register()
    tokens = [each.login()["tokens"] for each in clients]
    (rotation,) = rotate_keys(ServerConfig(Path("/nonexistent"), database=url), ["tokens"], at_once=True)
    for number, each in enumerate(clients):

        def signs_with_the_new_key(each: Client = each, number: int = number) -> bool:
            tokens[number] = ok(each.refresh(tokens[number]["refresh_token"]))
            return bool(jwt.get_unverified_header(tokens[number]["access_token"])["kid"] == rotation.kid)

        wait_until(signs_with_the_new_key)
        for process in clients:
            header = {"Authorization": f"Bearer {tokens[number]['access_token']}"}
            assert process.http.get("/v1/account", headers=header).status_code == 200
    for each in clients:
        wait_until(lambda each=each: each.http.get("/v1/account").status_code == 401)  # type: ignore[misc]


def test_of_two_who_want_the_last_room_at_once_one_gets_it(client: Callable[..., Client]) -> None:
    devices = [client(n, "room@example.org") for n in range(4)]

    def plan(device: Client) -> httpx.Response:
        wanted = {"id": hashlib.sha256(device.device.encode()).hexdigest(), "length": QUOTA * 2 // 3}
        return device.http.post(f"/v1/spaces/{device.space}/uploads", json={"objects": [wanted]})

    assert statuses(at_once([partial(plan, device) for device in devices])) == [200, 507, 507, 507]


async def test_two_drives_on_two_processes_have_the_same_files(tmp_path: Path, services: list[RunningService]) -> None:
    """From the application's write to the other drive's read, with objects and without."""
    email = await register(services[0].url)
    homes = [
        Home(tmp_path / name, service.url, await log_in(service.url, email, name))
        for name, service in zip(("desk", "laptop"), services, strict=True)
    ]
    async with homes[0].started() as desk, homes[1].started() as laptop:
        desk.make_folder("folder")
        await desk.write("folder/small", b"small")
        await desk.write("folder/large", b"large" * 20_000)
        await desk.sync()
        await until(lambda: laptop.node("folder/large") and laptop.node("folder/small"))
        assert await laptop.read("folder/large") == b"large" * 20_000
        await laptop.write("folder/small", b"from the other", 0)
        laptop.rename("folder/large", "moved")
        await laptop.sync()
        await until(lambda: set(desk.tree()) == set(laptop.tree()) == {"folder", "folder/small", "moved"})
        assert await desk.contents() == await laptop.contents()
        assert await desk.read("folder/small") == b"from the other"
