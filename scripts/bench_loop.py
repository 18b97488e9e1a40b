"""`scripts/bench loop`: for how long the mount's event loop is held, and what `stat` takes meanwhile, while much is going on."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bench_parts import BLOCK, MIB, fresh_stat, read, write
from playground import Device, Failed, Service, wait_until

PROBE = Path(__file__).with_name("loop_probe.py")
SETTLE_SECONDS = 1800.0
SHOWN = 4


class Probed:
    """A mounted device whose loop is watched."""

    def __init__(self, device: Device, folder: Path) -> None:
        self.device = device
        self.point = device.point
        self._steps = folder / f"{device.name}.steps"
        self._steps.touch()
        self._seen = 0
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Probed:
        command = [sys.executable, str(PROBE), str(self._steps), "mount", str(self.point), "--foreground"]
        process = subprocess.Popen(
            command, env=self.device.environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True
        )
        self._stack.callback(process.wait)
        self._stack.callback(self.device.run, "umount", str(self.point), "--no-wait", may_fail=True)
        wait_until(self.device.is_mounted, f"{self.point} is mounted")
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def settle(self) -> None:
        self.device.run("confirm-deletes")
        self.device.run("sync", "--timeout", str(SETTLE_SECONDS), seconds=SETTLE_SECONDS + 30)

    def new_steps(self) -> list[dict[str, Any]]:
        lines = self._steps.read_text().splitlines()
        self._seen, new = len(lines), lines[self._seen :]
        return [json.loads(line) for line in new]


def measured(name: str, drive: Probed, work: Callable[[], object]) -> None:
    """Do the work, and print what the loop and `stat` said meanwhile."""
    drive.new_steps()
    known = drive.point / "known"
    started = time.perf_counter()
    latencies = sorted(_stat_beside(known, work))
    seconds = time.perf_counter() - started
    steps = drive.new_steps()
    by_place: dict[str, list[float]] = defaultdict(list)
    for step in steps:
        by_place[step["place"]].append(step["cpu"])
    held = [step["cpu"] for step in steps]
    longest, by_clock = max(held, default=0.0), max((step["wall"] for step in steps), default=0.0)
    median, late = (1000 * latencies[len(latencies) * percent // 100] for percent in (50, 99))
    print(f"{name}: {seconds:.1f} s")
    print(
        f"    loop held over 10 ms {sum(one > 10 for one in held)} times, at most {longest:.1f} ms ({by_clock:.1f} by the clock)"
    )
    print(f"    stat: median {median:.2f} ms, 99th percentile {late:.1f} ms, longest {1000 * latencies[-1]:.1f} ms")
    for place, found in sorted(by_place.items(), key=lambda item: -max(item[1]))[:SHOWN]:
        print(f"    {max(found):6.1f} ms longest, {len(found):5} times over 3 ms: {place}", flush=True)


def _stat_beside(path: Path, work: Callable[[], object]) -> list[float]:
    failures: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 (raised again below)
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    latencies = []
    while thread.is_alive() or not latencies:
        began = time.perf_counter()
        fresh_stat(path)
        latencies.append(time.perf_counter() - began)
        time.sleep(0.005)
    thread.join()
    if failures:
        raise failures[0]
    return latencies


def write_small(folder: Path, count: int) -> None:
    for number in range(count):
        if number % 500 == 0:
            (folder / f"{number // 500:04}").mkdir(parents=True)
        (folder / f"{number // 500:04}" / f"file {number:06}").write_bytes(os.urandom(500 + number * 37 % 16_000))


def change_all(folder: Path) -> None:
    for path in folder.rglob("file*"):
        path.rename(path.with_name(f"renamed {path.name}"))


def run(service: Service, folder: Path, files: int, large_mib: int) -> None:
    first = Device(service, "first", folder / "first-home", folder / "first")
    second = Device(service, "second", folder / "second-home", folder / "second")
    first.register()
    second.log_in()
    with Probed(first, folder) as drive:
        (drive.point / "known").write_bytes(b"x")
        measured(f"{files} small files are written", drive, lambda: write_small(drive.point / "small", files))
        measured("… and brought to the service", drive, drive.settle)
        measured("all of them are renamed, and that is committed", drive, lambda: (change_all(drive.point), drive.settle()))
        large = drive.point / "large"
        measured(f"{large_mib} MiB go up", drive, lambda: (write(large, large_mib * MIB, BLOCK), drive.settle()))
    with Probed(second, folder) as drive:

        def listed() -> bool:
            return bool(second.ask("status")["drive"]["listing"]["finished"])

        wait_until(lambda: (drive.point / "known").exists(), "the first names", SETTLE_SECONDS)
        measured("a listing of all that is merged", drive, lambda: wait_until(listed, "the listing", SETTLE_SECONDS))
        measured(f"{large_mib} MiB come down", drive, lambda: read(drive.point / "large", large_mib * MIB))


@contextlib.contextmanager
def playground(parent: Path | None) -> Iterator[tuple[Service, Path]]:
    folder = Path(tempfile.mkdtemp(prefix="aloft-bench-", dir=parent))
    service = Service(folder / "service")
    try:
        yield service, folder
    finally:
        service.stop()
        shutil.rmtree(folder)


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench loop", description=__doc__)
    parser.add_argument("--files", type=int, default=20_000, help="how many small files (default: 20000)")
    parser.add_argument("--large", type=int, default=800, metavar="MIB", help="size of the large file in MiB (default: 800)")
    parser.add_argument("--folder", type=Path, help="where to work (default: a temporary folder)")
    arguments = parser.parse_args()
    try:
        with playground(arguments.folder) as (service, folder):
            run(service, folder, arguments.files, arguments.large)
    except Failed as failure:
        print(f"scripts/bench loop: {failure}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
