"""What a scenario is. Each kind has a module: of devices, of commands, of the service, of a service of its own.

A scenario is used once, for one case: `prepare`, then `run`, in which the process with the bomb dies, then `check`, which starts
it again. `check` gives what was seen, fit for the table.
"""

from __future__ import annotations

from tests.crash.laboratory import Bomb, Laboratory


class Scenario:
    def __init__(self, lab: Laboratory, case: str) -> None:
        self.lab = lab
        self.case = case

    def prepare(self) -> None: ...

    def run(self, bomb: Bomb) -> None:
        raise NotImplementedError

    def check(self) -> str:
        raise NotImplementedError
