from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from fs.home import HomeBusy, HomeError, home_path, open_home


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_where_the_home_is(tmp_path, monkeypatch):
    assert home_path({"ALOFT_HOME": str(tmp_path)}) == tmp_path
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    assert home_path({"ALOFT_HOME": "~/aloft"}) == tmp_path / "aloft"
    assert home_path({}) == tmp_path / ".local/share/aloft"
    assert home_path({"ALOFT_HOME": ""}) == tmp_path / ".local/share/aloft"


def test_a_new_home_is_for_its_owner_only(tmp_path):
    home = open_home(tmp_path / "a" / "home")
    for path in (home.path, home.run, home.parts().drafts, home.parts().cache):
        assert mode(path) == 0o700
    assert open_home(home.path) == home


def test_an_open_home_is_closed(tmp_path):
    (tmp_path / "home").mkdir(mode=0o755)
    (tmp_path / "home" / "drafts").mkdir()
    (tmp_path / "home" / "drafts").chmod(0o777)
    home = open_home(tmp_path / "home")
    assert mode(home.path) == mode(home.parts().drafts) == 0o700


def test_a_home_of_another_user_is_refused(tmp_path, monkeypatch):
    (tmp_path / "home").mkdir()
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(HomeError, match="another user"):
        open_home(tmp_path / "home")


def test_a_link_to_a_home_of_ones_own_will_do(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "home").symlink_to(tmp_path / "real")
    assert open_home(tmp_path / "home").path == tmp_path / "real"


@pytest.mark.parametrize("folder", ["run", "drafts", "cache"])
def test_links_inside_are_refused(tmp_path, folder):
    (tmp_path / "home").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "home" / folder).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(HomeError, match="symbolic link"):
        open_home(tmp_path / "home")


def test_a_link_of_somebody_else_is_refused(tmp_path, monkeypatch):
    (tmp_path / "real").mkdir()
    (tmp_path / "home").symlink_to(tmp_path / "real")
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(HomeError, match="symbolic link"):
        open_home(tmp_path / "home")


def test_a_file_is_no_home(tmp_path):
    (tmp_path / "home").write_text("")
    with pytest.raises(HomeError):
        open_home(tmp_path / "home")


def test_a_place_where_anybody_may_replace_it_is_refused(tmp_path):
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(HomeError, match="anybody"):
        open_home(tmp_path / "open" / "home")
    (tmp_path / "open").chmod(0o1777)
    open_home(tmp_path / "open" / "home")


def test_a_place_that_cannot_be_used_says_so(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(HomeError, match="ALOFT_HOME"):
        open_home(tmp_path / "file" / "home")


def test_the_installation_stays(tmp_path):
    home = open_home(tmp_path / "home")
    first = home.installation()
    assert len(first) == 16
    assert open_home(home.path).installation() == first
    assert mode(home.installation_file) == 0o600
    assert open_home(tmp_path / "other").installation() != first


def test_a_process_that_was_killed_while_it_made_the_installation_leaves_nothing(tmp_path):
    home = open_home(tmp_path / "home")
    left = home.path / "installation.1.new"
    left.write_text("half")
    known = home.installation()
    left.write_text("the other name of what was made")
    assert home.installation() == known
    assert list(home.path.glob("installation*")) == [home.installation_file]


def test_a_damaged_installation_says_what_to_do(tmp_path):
    home = open_home(tmp_path / "home")
    home.installation_file.write_text("what")
    with pytest.raises(HomeError, match="remove it"):
        home.installation()


def test_one_mount_process_for_a_home(tmp_path):
    home = open_home(tmp_path / "home")
    assert home.mount_process() is None
    with home.locked(Path("/mnt/Aloft")):
        holder = home.mount_process()
        assert holder is not None
        assert (holder.pid, holder.mount_point) == (os.getpid(), "/mnt/Aloft")
        with pytest.raises(HomeBusy, match=r"aloft umount /mnt/Aloft") as caught, home.locked():
            raise AssertionError("two hold the lock")
        assert caught.value.holder == holder
    assert home.mount_process() is None
    with home.locked():
        pass


def test_the_lock_ends_with_its_process(tmp_path):
    home = open_home(tmp_path / "home")
    code = """
import os, sys
from pathlib import Path
from fs.home import open_home
with open_home(Path(sys.argv[1])).locked():
    print("locked", flush=True)
    sys.stdin.read()
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(home.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.stdout.readline() == b"locked\n"
    with pytest.raises(HomeBusy, match=f"process {process.pid}"), home.locked():
        raise AssertionError("two hold the lock")
    process.kill()
    process.communicate(timeout=30)
    with home.locked():
        pass
