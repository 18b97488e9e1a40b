"""`scripts/load`: a service, two devices with real mounts, many programs on them, and faults all along. Says what was seen.

Exit status 0: nothing was lost, nothing was wrong, nothing hung, nothing grew. The run ends by itself, whatever fails, and leaves
nothing behind (unless it failed and was told to `--keep` its folder).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from tests.load.machines import Hangs
from tests.load.party import Party, Plan
from tests.load.planted import BUGS
from tests.load.worker import KINDS

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM)
SECONDS_BEYOND = 2400.0
"""How much longer than the load itself a run may take, with all that it compares at the end."""


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse(arguments)
    for number in SIGNALS:
        signal.signal(number, _interrupt)
    signal.alarm(int(options.minutes * 60 + SECONDS_BEYOND))
    folder = Path(tempfile.mkdtemp(prefix="aloft-load-", dir=options.folder))
    plan = Plan(
        seconds=options.minutes * 60,
        seed=options.seed,
        workers=tuple(options.workers.split(",")),
        fault_every=options.fault_every,
        faults=options.faults,
        planted=options.plant,
        judge_growth=options.minutes >= 10 or options.judge_growth,
    )
    _say(f"scripts/load --minutes {options.minutes:g} --seed {options.seed}: {folder}")
    party = Party(folder, plan, _say)
    try:
        party.run()
    except KeyboardInterrupt as interrupt:
        party.wrong.append(f"the run was interrupted ({interrupt})")
    except Hangs as error:
        party.wrong.append(str(error))
        party.say_stacks()
    except Exception as error:  # noqa: BLE001 - whatever it is, what was started has to be cleared away
        party.wrong.append(f"{type(error).__name__}: {error}")
    finally:
        signal.alarm(0)
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)  # whoever is impatient must not keep it from clearing away
        party.close()
    party.summary.say(_say)
    if options.json is not None:
        options.json.write_text(json.dumps(party.summary.as_json(), indent=2))
    _remove(folder, keep=options.keep and bool(party.wrong))
    return 1 if party.wrong else 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/load", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0, help="of load; what is compared at the end comes on top")
    parser.add_argument("--seed", type=int, default=random.randrange(10_000))
    parser.add_argument("--workers", default=",".join(KINDS), help=f"some of {', '.join(KINDS)}")
    parser.add_argument("--faults", default=None, metavar="WORD", help="only those whose name holds this; `none`: none")
    parser.add_argument("--fault-every", type=float, default=15.0, metavar="S", help="mean time between two faults")
    parser.add_argument("--plant", choices=BUGS, default=None, help="a bug in the first device, which the run must find")
    parser.add_argument("--judge-growth", action="store_true", help="also in a run of less than ten minutes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the summary there, too")
    parser.add_argument("--folder", type=Path, default=None, help="where the run's own folder is made")
    parser.add_argument("--keep", action="store_true", help="keep that folder if the run fails")
    options = parser.parse_args(arguments)
    unknown = set(options.workers.split(",")) - KINDS.keys()
    if unknown:
        parser.error(f"unknown workers: {', '.join(sorted(unknown))}")
    return options


def _interrupt(number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt(signal.Signals(number).name)


def _say(text: str) -> None:
    sys.stdout.write(f"{time.strftime('%H:%M:%S')} {text}\n")
    sys.stdout.flush()


def _remove(folder: Path, *, keep: bool) -> None:
    if keep:
        _say(f"kept: {folder}")
        return
    if any(str(folder) in line for line in Path("/proc/self/mountinfo").read_text().splitlines()):
        _say(f"something is still mounted below {folder}: it is left there")
        return
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    os.umask(0o022)
    sys.exit(main())
