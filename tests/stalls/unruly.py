"""The command `aloft` with one rule of the design switched off, for tests that see what the rule is for.

`python -m tests.stalls.unruly RULE mount DIR --foreground …` from the root of the checkout. Each rule's absence is a patch of
the one place that keeps it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pyfuse3

import fs.mountpoints
from cache.connection import Connection
from cache.drive import Drive
from cache.files import File
from cache.model import Change
from fs import mount
from fs.cli.main import run
from fs.errors import guarded
from fs.invalidation import Invalidator, InvalidAttributes, InvalidEntry, RealKernel, notices
from fs.mount import Mount
from fs.operations import Operations
from fs.reads import Reads


def kernel_limits_stay() -> None:
    """12 background requests, as the kernel has it, and nothing instead."""
    mount.raise_limits = lambda device: True


def kernel_limits_cannot_be_raised() -> None:
    """Not a rule switched off, but a machine without fusectl: the rule is that few READs may wait then."""
    mount.raise_limits = lambda device: False


def any_number_of_reads_waits() -> None:
    kernel_limits_cannot_be_raised()
    Reads.limit = lambda self, limit: None  # type: ignore[method-assign]


def few_tasks() -> None:
    mount.MAX_TASKS = 99


def offline_is_not_known() -> None:
    Connection.online = property(lambda self: True)  # type: ignore[assignment,method-assign]
    Drive.set_offline = lambda self, offline: self.connection.set_offline(offline)  # type: ignore[method-assign]


def _reading_first(name: str) -> None:
    """Let a handler of an open file fetch something before it does its work."""
    original = getattr(Operations, name)

    @guarded
    async def handler(self: Any, fh: int, *rest: Any) -> Any:
        file: File = self._handles.file(fh).file
        await file.read(file.size - 1, 1)
        return await original(self, fh, *rest)

    setattr(Operations, name, handler)


def open_waits() -> None:
    original = Operations.open

    @guarded
    async def handler(self: Any, inode: int, flags: int, ctx: Any) -> Any:
        info = await original(self, inode, flags, ctx)
        await self._handles.file(info.fh).file.read(0, 1)
        return info

    Operations.open = handler  # type: ignore[method-assign]


def close_waits() -> None:
    _reading_first("flush")


def fsync_waits() -> None:
    _reading_first("fsync")


def data_is_invalidated() -> None:
    def invalidate(self: Any, number: int) -> None:
        pyfuse3.invalidate_inode(number, attr_only=False)

    RealKernel.invalidate_attributes = invalidate  # type: ignore[method-assign]


def notices_are_sent_by_the_loop() -> None:
    def tell(self: Any, changes: Iterable[Change]) -> None:
        for notice in notices(changes, self._inodes):
            try:
                if isinstance(notice, InvalidEntry):
                    self._kernel.invalidate_entry(notice.parent, notice.name)
                elif isinstance(notice, InvalidAttributes):
                    self._kernel.invalidate_attributes(notice.number)
            except OSError:
                pass

    Invalidator.tell = tell  # type: ignore[method-assign]


def terminate_comes_first() -> None:
    async def unmount(self: Any) -> None:
        await self._usable.wait()
        if not self._ended.is_set():
            pyfuse3.terminate()

    Mount.unmount = unmount  # type: ignore[method-assign]


def the_loop_ends_with_the_unmounting() -> None:
    original = Mount.unmount

    async def unmount(self: Any) -> None:
        await original(self)
        if not self._ended.is_set():
            pyfuse3.terminate()

    Mount.unmount = unmount  # type: ignore[method-assign]


def mount_points_are_not_prepared() -> None:
    """So mounts stack."""
    fs.mountpoints.prepare_mount_point = lambda path: Path(path).absolute()  # type: ignore[assignment]


def any_mount_is_cleared() -> None:
    """Whatever is there is taken away, and not only what is dead."""

    def prepare(path: Path) -> Path:
        while fs.mountpoints.mounted_at(path.absolute()):
            fs.mountpoints.unmount(path, lazily=True)
        return path.absolute()

    fs.mountpoints.prepare_mount_point = prepare


RULES: dict[str, Callable[[], None]] = {
    rule.__name__: rule
    for rule in (
        kernel_limits_stay,
        kernel_limits_cannot_be_raised,
        any_number_of_reads_waits,
        few_tasks,
        offline_is_not_known,
        open_waits,
        close_waits,
        fsync_waits,
        data_is_invalidated,
        notices_are_sent_by_the_loop,
        terminate_comes_first,
        the_loop_ends_with_the_unmounting,
        mount_points_are_not_prepared,
        any_mount_is_cleared,
    )
}


def main() -> int:
    RULES[sys.argv[1]]()
    return run(sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main())
