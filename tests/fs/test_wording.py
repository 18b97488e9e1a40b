from __future__ import annotations

import pytest

from fs.cli.wording import describe_queue, human_size, parse_size


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
