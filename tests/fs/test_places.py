"""Mount point, home and cache keep out of each other."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from fs.home import Home
from fs.places import PlaceError, check_places, prepare_cache


@pytest.mark.parametrize(
    ("mount_point", "cache"),
    [
        ("home", None),
        ("home/mount", None),
        (".", None),
        ("mount", "mount"),
        ("mount", "mount/cache"),
        ("a/mount", "a"),
        ("mount", "home"),
        ("mount", "home/drafts"),
        ("mount", "."),
        ("link/mount", None),
        ("home/../home/x", None),
    ],
)
def test_nested_places_are_refused(tmp_path: Path, mount_point: str, cache: str | None) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "a").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "home")
    with pytest.raises(PlaceError):
        check_places(Home(tmp_path / "home"), tmp_path / mount_point, None if cache is None else tmp_path / cache)


@pytest.mark.parametrize(
    ("mount_point", "cache"), [("mount", None), ("homely", None), ("mount", "cache"), ("mount", "home/cache")]
)
def test_places_of_their_own(tmp_path: Path, mount_point: str, cache: str | None) -> None:
    check_places(Home(tmp_path / "home"), tmp_path / mount_point, None if cache is None else tmp_path / cache)


def test_the_cache_folder_is_for_its_owner_only(tmp_path: Path) -> None:
    folder = prepare_cache(tmp_path / "deep" / "cache")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    (folder / "chunks").mkdir()
    assert prepare_cache(folder) == folder


def test_a_folder_with_other_things_is_not_made_a_cache(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "thesis.odt").touch()
    with pytest.raises(PlaceError, match=r"thesis\.odt"):
        prepare_cache(tmp_path)
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_somebody_else_s_folder_is_not_made_a_cache(tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    folder.mkdir()
    os.chown(folder, 65534, 65534)
    with pytest.raises(PlaceError, match="another user"):
        prepare_cache(folder)
