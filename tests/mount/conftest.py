"""Real mounts: see `tests.support.mount_fixtures`."""

from __future__ import annotations

from tests.support.mount_fixtures import device, devices, folder, fuse, mount, service, shared_service

__all__ = ["device", "devices", "folder", "fuse", "mount", "service", "shared_service"]
