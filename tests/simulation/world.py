"""One life: a service, its devices, what people and faults do to them, the healing after it, and whether all is well then."""

from __future__ import annotations

import hashlib
import logging
import random
import traceback
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trio

from cache.model import Connection
from remote import crashpoints
from tests.simulation import device as devices
from tests.simulation import runtime
from tests.simulation.coverage import observed
from tests.simulation.device import Device, Hooks
from tests.simulation.invariants import check_healed, check_local, unquiet
from tests.simulation.ledger import Ledger
from tests.simulation.lost import give_up_lost
from tests.simulation.network import CLASSES, Fault
from tests.simulation.operations import OPERATIONS, Person
from tests.simulation.scenario import FAULTS_MIN, OPERATIONS_MIN, Scenario, Step
from tests.simulation.serving import Backend

ROUNDS = 14
SILENCE = 1.0
"""Virtual seconds without a request after which a phase of healing is over."""
PHASE_MAX = 90.0
SETTLE_MAX = 60.0


class Broken(AssertionError):
    """Something that must never happen did."""


@dataclass
class Trace:
    """What happened, in order: kept as text if somebody wants to read it, as a digest always."""

    keep: bool = False
    lines: list[str] = field(default_factory=list)
    _digest: object = field(default_factory=hashlib.sha256)

    def __call__(self, text: str) -> None:
        line = f"{trio.current_time():9.3f} {text}"
        self._digest.update(line.encode())  # type: ignore[attr-defined]
        if self.keep:
            self.lines.append(line)

    @property
    def digest(self) -> str:
        return str(self._digest.hexdigest())  # type: ignore[attr-defined]


@dataclass
class Outcome:
    """What became of one life. `failure` None: all was well."""

    scenario: Scenario
    trace: Trace
    counts: Counter[str]
    rounds: int = 0
    steps_done: int = 0
    virtual_seconds: float = 0.0
    failure: str | None = None


class World:
    def __init__(self, scenario: Scenario, folder: Path, nursery: trio.Nursery, trace: Trace) -> None:
        self.scenario = scenario
        self.trace = trace
        self.counts: Counter[str] = Counter()
        self.rounds = self.steps_done = 0
        self._collected = False
        self._may_stop = False
        """Something was put back to an older state, so guards may stop devices."""
        self._nursery = nursery
        self.backend = Backend(folder, scenario.seed)
        self.ledger = Ledger(single="ada" if scenario.single else None)
        self.ledger.service_at(self.backend.data, self.backend.space)
        hooks = Hooks(self.ledger, trace, self._fault_met, self.ledger.committed, self._count)
        self.devices = [
            Device(index, folder, self.backend, scenario.seed, nursery, hooks, scenario.skews[index])
            for index in range(scenario.devices)
        ]
        self.people = [Person(device, self.ledger, trace) for device in self.devices]

    def close(self) -> None:
        self.ledger.close()
        self.backend.stop()

    def _fault_met(self, fault: Fault) -> None:
        self.counts[f"fault: {fault}"] += 1

    # ------------------------------------------------------------------------------------------------------------ a life

    async def live(self) -> None:
        await self.begin()
        for step in self.scenario.steps:
            self.steps_done += 1
            await self._step(step)
        if self.counts["operations"] >= OPERATIONS_MIN:
            await self._make_up_for_faults()
        await self.heal()
        await self.check()

    async def _make_up_for_faults(self) -> None:
        """Some that were meant met nothing. Where that leaves too few, cables are pulled while the rest is sent."""
        missing = FAULTS_MIN - sum(count for what, count in self.counts.items() if what.startswith("fault: "))
        for number in range(missing):
            await self._step(Step("cable", number, 300, 0, 0))
            await trio.sleep(0.5)

    async def begin(self) -> None:
        """Everybody is there, and has the empty tree."""
        for device in self.devices:
            device.page_limit, device.latency = self.scenario.page_limit, self.scenario.latency
            await device.start()
        await self.settle()

    async def _step(self, step: Step) -> None:
        device = self.devices[step.device % len(self.devices)]
        if not device.alive:
            await device.start()
        if step.what in OPERATIONS:
            await self.people[device.index].perform(step.what, step.a, step.b, step.c)
            self._count("operations")
            self._count(f"operation: {step.what}")
            if device.alive:
                check_local(self.ledger, device.name)
            await trio.lowlevel.checkpoint()
        else:
            await STEPS[step.what](self, device, step)
        self.ledger.raise_if_wrong()

    async def _wait(self, device: Device, step: Step) -> None:
        await trio.sleep(step.a / 1000)

    async def _settle_step(self, device: Device, step: Step) -> None:
        await self.settle()

    async def settle(self) -> None:
        """Until everybody has everything, in peace."""
        await self.settle_for(SETTLE_MAX)

    async def settle_for(self, seconds: float) -> None:
        """The same, for so long at most."""
        with trio.move_on_after(seconds):
            while not self._is_quiet():  # noqa: ASYNC110 (what is waited for is spread over all of them)
                await trio.sleep(0.5)

    # ------------------------------------------------------------------------------------------------------------- faults

    async def _arm(self, device: Device, step: Step) -> None:
        fault = list(Fault)[step.a % len(Fault)]
        class_ = CLASSES[fault][step.b % len(CLASSES[fault])]
        device.wire.arm(fault, class_)

    async def _unplug(self, device: Device, step: Step) -> None:
        self._count("fault: offline")
        device.set_cable(False)

    async def _cable(self, device: Device, step: Step) -> None:
        """Out, and in again after a moment."""
        self._count("fault: cable")
        device.set_cable(False)
        self._nursery.start_soon(self._plug_later, device, step.a % 4000 / 1000)

    async def _plug_later(self, device: Device, seconds: float) -> None:
        await trio.sleep(seconds)
        device.set_cable(True)

    async def _offline(self, device: Device, step: Step) -> None:
        self._count("fault: offline")
        device.drive.set_offline(True)

    async def _connect(self, device: Device, step: Step) -> None:
        device.set_cable(True)
        device.drive.set_offline(False)

    async def _crash(self, device: Device, step: Step) -> None:
        if step.a % 4 == 0:
            self._count("fault: crash")
            self.trace(f"{device.name} crashes")
            await device.crash()
        elif step.a % 4 == 1:
            device.crash_after(step.b % 12)
        else:
            device.crash_at_point(step.b % 20)

    async def _service(self, device: Device, step: Step) -> None:
        if self.backend.service is None:
            return  # it is down already
        if step.a % 3 == 0:
            self.backend.crash_at_point(step.c % 12)
        elif step.a % 3 == 1:
            self._count("fault: service crash")
            self.trace("the service crashes")
            self._kill_service((0.0, 0.5, 4.0)[step.b % 3])
        else:
            self._count("fault: service restart")
            self.trace("the service restarts")
            self.backend.stop()
            self._nursery.start_soon(self._start_later, (0.0, 0.5, 4.0)[step.b % 3])

    def _kill_service(self, down_seconds: float) -> None:
        self.backend.crash()
        self.ledger.service_moved(self.backend.data)
        for each in self.devices:
            if each.alive:
                each.wire.break_all()
        self._nursery.start_soon(self._start_later, down_seconds)

    def passed(self, point: str) -> None:
        """The code of a device, or of the service, passes a crash point."""
        if not point.startswith("service."):
            devices.passed(point)
        elif self.backend.dies_at(point):
            self._count("fault: service crash at a point")
            self._count(f"crash point: {point}")
            self.trace(f"the service dies at {point}")
            self._kill_service(0.5)

    async def _start_later(self, seconds: float) -> None:
        await trio.sleep(seconds)
        self.backend.start()

    async def _collect(self, device: Device, step: Step) -> None:
        if self.backend.service is not None:
            self.collect()

    def collect(self) -> None:
        """The service forgets what it need not know any more: whoever has not heard of it lists anew."""
        self._count("fault: collection")
        self.backend.collect()
        self.ledger.service_collected()
        self._collected = True

    async def _back_up_home(self, device: Device, step: Step) -> None:
        device.back_up()

    async def _restore_home(self, device: Device, step: Step) -> None:
        if device.has_backup:
            self._count("fault: home restored")
            self.trace(f"the home of {device.name} is put back to its backup")
            await device.crash()
            device.restore()
            await device.start()
            self._may_stop = True

    async def _back_up_service(self, device: Device, step: Step) -> None:
        self.backend.back_up()

    async def _restore_service(self, device: Device, step: Step) -> None:
        if self.backend.has_backup and self.backend.service is not None:
            await self.restore_service()

    async def restore_service(self) -> None:
        """Put it back to its backup."""
        self._count("fault: service restored")
        self.trace("the service is put back to its backup")
        self.backend.restore()
        self.ledger.service_at(self.backend.data, self.backend.space)
        self.ledger.service_restored()
        self._may_stop = True
        for each in self.devices:
            if each.alive:
                each.wire.break_all()
        self.backend.start()

    async def _reconnect_step(self, device: Device, step: Step) -> None:
        self._reconnect()

    def _reconnect(self) -> None:
        """Persons let the devices go on that a guard stopped, if there was a reason to stop."""
        for device in self.devices:
            if device.alive and device.drive.status().breakers:
                self._count("event: deletions confirmed")
                self.trace(f"{device.name} deletes many files: {device.drive.confirm_deletes()}")
        for device in self.devices:
            if self._may_stop and device.alive and device.drive.connection.stopped_because is not None:
                self._count("event: reconnect")
                self.trace(f"{device.name} goes on, though {device.drive.connection.stopped_because}")
                device.drive.reconnect(go_on=True)

    def _give_up_lost(self) -> None:
        for device in self.devices:
            if device.alive and device.drive.connection.stopped_because is None:
                self.counts["event: lost file given up"] += give_up_lost(self.ledger, device, self.people[device.index])

    def _count(self, what: str) -> None:
        self.counts[what] += 1

    # ------------------------------------------------------------------------------------------------------------ healing

    async def heal(self) -> None:
        """Undisturbed rounds, in one of three orders, until every side is quiet."""
        self.trace("healing")
        self.backend.crash_never()
        for device in self.devices:
            device.crash_never()
        await trio.sleep(5.0)  # whatever was to come back by itself has come back
        for device in self.devices:
            if not device.alive:
                await device.start()
            device.set_cable(True)
            device.wire.disarm()
            device.wire.latency, device.wire.page_limit = 0.0, None
            await self.people[device.index].close_all()
            device.drive.set_offline(True)
        chance = random.Random(f"healing {self.scenario.seed}")
        for device in self.devices:
            device.wire.set_gates(push=False, pull=False)
            device.drive.set_offline(False)
        for self.rounds in range(1, ROUNDS + 1):
            self._reconnect()
            if self.ledger.was_restored:
                self._give_up_lost()
            await ORDERS[self.scenario.healing](self, chance.sample(self.devices, len(self.devices)))
            self.ledger.raise_if_wrong()
            if self._is_quiet():
                return
        raise Broken(f"not quiet after {ROUNDS} rounds: {self._unrest()}")

    async def _pull_push(self, devices: list[Device]) -> None:
        """One device after the other, both ways."""
        for device in devices:
            await self._phase([device], push=True, pull=True)

    async def _deliver_pull_push(self, devices: list[Device]) -> None:
        await self._phase(devices, push=True, pull=False)
        await self._phase(devices, push=False, pull=True)
        await self._phase(devices, push=True, pull=False)

    async def _push_before_pull(self, devices: list[Device]) -> None:
        await self._phase(devices, push=True, pull=False)
        await self._phase(devices, push=False, pull=True)

    async def _phase(self, devices: list[Device], *, push: bool, pull: bool) -> None:
        """Let these devices go on until none has anything to say, and none takes the service for unreachable: who could not
        reach it for long looks once a minute."""
        for device in devices:
            device.wire.set_gates(push=push, pull=pull)
        with trio.move_on_after(PHASE_MAX):
            while True:
                before = [device.wire.begun for device in devices]
                await trio.sleep(SILENCE)
                silent = before == [device.wire.begun for device in devices] and not any(device.wire.busy for device in devices)
                waiting = pull and any(device.drive.connection.state is Connection.UNREACHABLE for device in devices)
                if silent and not waiting:
                    break
        for device in devices:
            device.wire.set_gates(push=False, pull=False)

    def _is_quiet(self) -> bool:
        return not self._unrest()

    def _unrest(self) -> list[str]:
        """What somebody has yet to send or to hear."""
        if self.backend.service is None:
            return ["the service is down"]
        return [said for device in self.devices for said in self._unrest_of(device)]

    def _unrest_of(self, device: Device) -> list[str]:
        if not device.alive:
            return [f"{device.name} is dead"]
        stopped = device.drive.connection.stopped_because
        if stopped is not None:
            return [f"{device.name} stopped: {stopped}"]
        return [f"{device.name}: {left}" for left in unquiet(self.ledger, device.name)]

    async def check(self) -> None:
        """What must be true in the end."""
        for device in self.devices:
            device.wire.set_gates(push=True, pull=True)
        drives = {device.name: device.drive for device in self.devices}
        await check_healed(self.ledger, drives, collected=self._collected)
        self.ledger.raise_if_wrong()


STEPS: dict[str, Callable[..., object]] = {
    "wait": World._wait,
    "settle": World._settle_step,
    "fault": World._arm,
    "cable": World._cable,
    "unplug": World._unplug,
    "offline": World._offline,
    "connect": World._connect,
    "crash": World._crash,
    "service": World._service,
    "collect": World._collect,
    "back up home": World._back_up_home,
    "restore home": World._restore_home,
    "back up service": World._back_up_service,
    "restore service": World._restore_service,
    "reconnect": World._reconnect_step,
}
ORDERS = (World._pull_push, World._deliver_pull_push, World._push_before_pull)


def live(scenario: Scenario, *, keep_trace: bool = False) -> Outcome:
    """Live through a scenario. Raises nothing for what goes wrong in it."""
    return _run(scenario, World.live, keep_trace=keep_trace)


def stage(play: Callable[[World], Awaitable[None]], *, devices: int = 2) -> None:
    """Let `play` happen to some devices that know each other, and see that all is well after it."""

    async def act(world: World) -> None:
        await world.begin()
        await play(world)
        await world.heal()
        await world.check()

    scenario = Scenario(0, devices, False, 0, None, 0.0, (0,) * devices)
    outcome = _run(scenario, act, keep_trace=True)
    assert outcome.failure is None, "\n".join([*outcome.trace.lines, outcome.failure])


def _run(scenario: Scenario, act: Callable[[World], Awaitable[None]], *, keep_trace: bool) -> Outcome:
    outcome = Outcome(scenario, Trace(keep_trace), Counter())
    with runtime.folder() as folder:
        runtime.run(scenario.seed, _live, outcome, folder, act)
    return outcome


async def _live(outcome: Outcome, folder: Path, act: Callable[[World], Awaitable[None]]) -> None:
    async with trio.open_nursery() as nursery:
        world = World(outcome.scenario, folder, nursery, outcome.trace)
        before = crashpoints.install(world.passed)
        try:
            with _errors_into(world.ledger.wrong, outcome.trace), observed(world.ledger, world.counts):
                await act(world)
        except Exception as error:  # noqa: BLE001 - whatever goes wrong is the finding
            outcome.failure = f"{type(error).__name__}: {error}"
            outcome.trace("".join(traceback.format_exception(error)))
        finally:
            crashpoints.install(before)
        outcome.counts, outcome.rounds, outcome.steps_done = world.counts, world.rounds, world.steps_done
        outcome.virtual_seconds = trio.current_time()
        for device in world.devices:
            await device.crash()
        world.close()
        nursery.cancel_scope.cancel()


class _Errors(logging.Handler):
    """Parts of a drive that fail are restarted by it; here nothing may fail that the code does not expect."""

    def __init__(self, wrong: list[str], trace: Trace) -> None:
        super().__init__(logging.WARNING)
        self._wrong = wrong
        self._trace = trace

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        said = record.getMessage() + (f": {type(error).__name__}: {error}" if error else "")
        self._trace(f"log: {said}")
        if record.levelno >= logging.ERROR:
            if error is not None and self._trace.keep:
                self._trace.lines += traceback.format_exception(error)
            self._wrong.append(said)


@contextmanager
def _errors_into(wrong: list[str], trace: Trace) -> Iterator[None]:
    logger, handler = logging.getLogger("cache"), _Errors(wrong, trace)
    before = logger.propagate
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = before
