"""How a drive is mounted, as the command line says it and the mount process hears it. Imports nothing that takes time."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class MountOptions:
    mount_point: Path
    """A real path, prepared by `mountpoints.prepare_mount_point`."""
    read_only: bool = False
    allow_other: bool = False
    enable_xattr: bool = False


@dataclass(frozen=True, slots=True)
class MountRequest:
    """Everything that the mount process is told. `drive` has the fields of `cache.drive.DriveOptions` by their names: to import
    it costs half a second, which the person would wait for twice."""

    mount: MountOptions
    drive: Mapping[str, Any]

    def to_json(self) -> str:
        return json.dumps({"mount": asdict(self.mount), "drive": dict(self.drive)}, default=os.fspath)

    @classmethod
    def from_json(cls, text: str) -> MountRequest:
        fields = json.loads(text)
        mount, drive = fields["mount"], fields["drive"]
        mount["mount_point"] = Path(mount["mount_point"])
        if drive.get("cache_folder") is not None:
            drive["cache_folder"] = Path(drive["cache_folder"])
        return cls(MountOptions(**mount), drive)
