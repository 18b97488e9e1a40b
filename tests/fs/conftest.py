from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.local_drive import LocalDrive


@pytest.fixture
def drive(tmp_path: Path) -> Iterator[LocalDrive]:
    drive = LocalDrive(tmp_path)
    yield drive
    drive.close()
