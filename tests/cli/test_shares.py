"""`aloft share`, `aloft unshare` and `aloft invitations`, as people type them."""

from __future__ import annotations

import pytest


@pytest.fixture
def bob(aloft, service, email, tmp_path):
    """Another account's commands, in a home of its own."""
    home = tmp_path / "bob"
    address = f"bob-{email}"
    assert aloft("register", "--server", service.url, "--email", address, home=home).code == 0

    def command(*arguments):
        return aloft(*arguments, home=home)

    command.email = address
    return command


def test_a_folder_is_shared_and_left(ada, bob, put, email):
    assert ada("mkdir", "/plans").code == 0
    put("/plans/a.txt", "alpha")
    assert ada("share", "plans", bob.email).out == f"Invited {bob.email} to /plans as editor.\n"
    assert "editor, invited" in ada("share").out
    assert "plans" in bob("invitations").out
    assert bob("invitations", "accept").out == "It is at /plans; you are its editor.\n"
    assert bob("ls", "/plans").out.strip().endswith("a.txt")
    assert ada("share", "/plans", bob.email, "--viewer").out == f"{bob.email} is viewer of /plans.\n"
    refused = bob("rm", "/plans/a.txt")
    assert (refused.code, "ask its owner" in refused.err) == (1, True)
    members = ada("share", "/plans", "--json").data["shares"][0]["members"]
    assert [(each["email"], each["role"]) for each in members] == [(email, "owner"), (bob.email, "viewer")]
    assert bob("unshare", "/plans", "--yes").out == "You left /plans.\n"
    assert bob("ls", "/plans").code != 0
    assert ada("unshare", "/plans", "--yes").out == "/plans is yours alone.\n"
    assert ada("unshare", "/plans", "--yes").code == 2
    assert ada("ls", "/plans").out.strip().endswith("a.txt")


def test_a_member_is_removed_and_an_invitation_declined(ada, bob, put):
    put("/f", "x")
    assert ada("share", "/f", bob.email).out == f"Invited {bob.email} to /f (shared) as editor.\n"
    assert bob("invitations", "decline", "f (shared)").code == 0
    assert bob("invitations", "accept").code == 2
    assert ada("share", "/f (shared)", bob.email).code == 0
    assert bob("invitations", "accept", "--json").data["path"] == "/f (shared)"
    assert ada("unshare", "/f (shared)", bob.email).code == 0
    assert bob("share", "--json").data["shares"] == []
    assert "bob" in ada("notifications").out
