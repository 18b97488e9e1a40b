"""A process that asked for it gives back what its threads have freed."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import sys, threading
from remote.memory import give_back_freed_memory

if sys.argv[1] == "asked":
    give_back_freed_memory()

def resident():
    pages = int(open("/proc/self/statm").read().split()[1])
    return pages * 4096 // 2**20

def work():
    bytes(bytearray(3 * 2**20))  # the first large buffer that is freed
    few, many = [], []
    for number in range(200):
        many.append(bytearray(b"x") * 300_000)
        few.append(bytearray(b"x") * 2_000)
    kept.append(few)

kept = []
before = resident()
threads = [threading.Thread(target=work) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(resident() - before)
"""


def grown(how: str) -> int:
    """MiB more than before, after four threads had 60 MiB each and let go of all but little of it."""
    done = subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True, timeout=120)
    return int(done.stdout)


def test_large_buffers_go_back_when_they_are_freed() -> None:
    assert grown("asked") < 20
