"""`aloft notifications`, as a person types it, and the stream that browsers read."""

from __future__ import annotations

import json
import threading

import httpx
import pytest


@pytest.fixture
def conflict(ada, tmp_path):
    """Makes a conflicted copy."""
    made = iter(range(2, 1000))

    def make():
        (tmp_path / "file").write_text("x")
        assert ada("put", str(tmp_path / "file"), f"/f (conflicted copy, laptop, 2026-11-20, {next(made)})").code == 0

    return make


def test_they_are_listed_and_marked_as_read(ada, conflict):
    assert ada("notifications").out == "there is nothing new\n"
    for _ in range(3):
        conflict()
    found = ada("notifications", "list", "--json").data
    assert ([each["id"] for each in found["notifications"]], found["unread"]) == ([3, 2, 1], 3)
    assert "Two devices changed one file" in ada("notifications").out
    assert ada("notifications", "read", "2").out == "2 unread\n"
    assert [each["id"] for each in ada("notifications", "list", "--unread", "--json").data["notifications"]] == [3, 1]
    assert ada("notifications", "read", "--all").out == "0 unread\n"
    assert ada("notifications", "read").code == 2


def test_what_one_wants_to_hear_of(ada, conflict):
    assert "conflict" in ada("notifications", "topics").out
    assert ada("notifications", "choose", "conflict", "--off", "--json").data["topics"]["conflict"]["kept"] is False
    conflict()
    assert ada("notifications", "--json").data["notifications"] == []
    assert ada("notifications", "digest", "on").out == "The daily digest is on.\n"
    assert ada("notifications", "digest", "perhaps").code == 2
    assert ada("notifications", "choose", "weather", "--on").code == 2


def test_the_stream_brings_each_as_it_comes_and_goes_on_after_one(ada, service, conflict):
    token = ada("token", "create", "t", "--scope", "account:read").out.strip()
    conflict()
    headers = {"authorization": f"Bearer {token}", "last-event-id": "0"}
    began = threading.Event()
    events = []

    def listen():
        with httpx.stream("GET", f"{service.url}/v1/notifications/stream", headers=headers, timeout=60) as response:
            assert response.headers["content-type"] == "text/event-stream"
            for line in response.iter_lines():
                began.set()
                events.append(line)
                if sum(each.startswith("id:") for each in events) == 2:
                    return

    listener = threading.Thread(target=listen)
    listener.start()
    assert began.wait(60)
    conflict()
    listener.join(60)
    assert [line for line in events if line.startswith("id:")] == ["id: 1", "id: 2"]
    told = [json.loads(line.removeprefix("data: ")) for line in events if line.startswith("data:")]
    assert all(each["topic"] == "conflict" for each in told)
    bad = httpx.get(f"{service.url}/v1/notifications/stream", headers=headers | {"last-event-id": "x"})
    assert (bad.status_code, bad.json()["field"]) == (400, "Last-Event-ID")
