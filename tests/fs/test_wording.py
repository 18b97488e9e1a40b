from __future__ import annotations

from datetime import datetime

import pytest

from fs.cli.wording import describe_queue, human_size, parse_duration, parse_size, parse_time


@pytest.mark.parametrize(
    ("text", "size"), [("1", 1), ("10M", 10 * 2**20), ("20G", 20 * 2**30), ("1.5k", 1536), ("2 TiB", 2**41), ("3GB", 3 * 2**30)]
)
def test_sizes_that_people_write(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "0", "-1", "ten", "10X", "1e9", "G"])
def test_what_is_not_a_size(text: str) -> None:
    with pytest.raises(ValueError, match="not a size"):
        parse_size(text)


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (2**30, "1.0 GiB"), (2**50, "1024.0 TiB")]
)
def test_sizes_that_people_read(size: int, text: str) -> None:
    assert human_size(size) == text


def test_a_queue_in_one_line() -> None:
    assert describe_queue({"files": 0, "bytes": 0, "changes": 0}) == "nothing"
    assert describe_queue({"files": 1, "bytes": 1024, "changes": 2}) == "1 file (1.0 KiB) and 2 changes of names or attributes"


def test_times_and_durations_that_people_write() -> None:
    assert parse_time("2026-11-20T15:30:00+00:00") == 1_795_188_600 * 10**9
    assert parse_time("2026-11-20") == int(datetime(2026, 11, 20).astimezone().timestamp()) * 10**9
    for text in ("", "yesterday", "2026-13-01", "0001-01-01x"):
        with pytest.raises(ValueError, match="is not a time"):
            parse_time(text)
    assert [parse_duration(text) for text in ("30m", "12h", "3 d", "2w")] == [
        seconds * 10**9 for seconds in (1800, 43_200, 259_200, 1_209_600)
    ]
    assert [parse_duration(text) for text in ("", "d", "3", "-1d", "3y")] == [None] * 5
