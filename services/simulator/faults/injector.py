"""Carries faults out: begins them when they are due, ends what lasts, and writes each of it into the session journal.

A fault on frames is handed to the lines it concerns, also to those that connect while it lasts; what happens to a whole
connection or to the exchange happens here. No I/O, no clock: time comes with the calls, in microseconds since 1970.
"""

import heapq
import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from libs.marketdata.units import MILLISECOND, SECOND
from services.simulator.faults import connections, menu, subscriptions
from services.simulator.faults.active import Active
from services.simulator.faults.aims import unknown_aim
from services.simulator.faults.entries import FaultInvalid
from services.simulator.faults.trouble import FrameEffect
from services.simulator.journal import Sink
from services.simulator.line import Line
from services.simulator.stages import LiveStage

if TYPE_CHECKING:
    from services.simulator.simulation import Simulation

DONE_KEPT = 1_000
MARKET_KINDS = frozenset({"clock_step", "create_markets"})
"""Kinds that change what is published."""
StepClock = Callable[[menu.On, int], None]
"""Moves the clock of clients, by milliseconds; only a world in virtual time has it."""


class Injector:
    """The faults of one simulation.

    Args:
        script: faults in the order of their `at_s`, without end if need be. journal: the session journal.
        step_clock: carries out clock_step of `ours`; None: such a fault is refused.
    """

    def __init__(
        self,
        simulation: "Simulation",
        script: Iterator[menu.Fault],
        journal: Sink,
        step_clock: StepClock | None,
    ) -> None:
        self.active: dict[int, Active] = {}
        self.done: deque[Active] = deque(maxlen=DONE_KEPT)
        self._simulation = simulation
        self._script = script
        self._next: menu.Fault | None = next(script, None)
        self._journal = journal
        self._step_clock = step_clock
        self._numbers = itertools.count(1)
        self._epoch: int | None = None
        self._rest: dict[int, int] = {}
        """Number of a fault -> number of the REST trouble it made."""

    def arm(self, epoch: int) -> None:
        """Say when `at_s` counts from; before this nothing of the script happens."""
        self._epoch = epoch

    def check(self, fault: menu.Fault) -> None:
        """Refuse what this simulation cannot carry out.

        Raises:
            FaultInvalid: see its lines.
        """
        simulation = self._simulation
        has_market = isinstance(simulation.stage, LiveStage) and simulation.end_ts is None
        wrong = impossible(fault, has_market, self._step_clock, simulation.zones)
        if wrong:
            raise FaultInvalid([wrong])

    def advance(self, now: int) -> None:
        """End and begin what is due."""
        if self.active:
            for active in [active for active in self.active.values() if _is_due(active, now)]:
                self._end(active, now, early=False)
        while self._next is not None and self._is_next_due(now):
            fault = self._next
            self._next = next(self._script, None)
            self._begin(fault, now, self._moment(fault))

    def inject(self, fault: menu.Fault, now: int) -> Active:
        """Let a fault begin now, whatever its `at_s` says.

        Raises:
            FaultInvalid: this simulation cannot carry it out.
        """
        self.check(fault)
        return self._begin(replace(fault, at_s=None), now, now)

    def add(self, faults: Iterable[menu.Fault]) -> None:
        """Put faults between those that are to come.

        Raises:
            FaultInvalid: this simulation cannot carry one out; none is put in.
        """
        added = sorted(faults, key=time_of)
        for fault in added:
            self.check(fault)
        coming = itertools.chain(() if self._next is None else (self._next,), self._script)
        self._script = heapq.merge(added, coming, key=time_of)
        self._next = next(self._script, None)

    def forget(self) -> None:
        """Forget what is to come."""
        self._script, self._next = iter(()), None

    def end(self, number: int, now: int) -> bool:
        """End a fault before its time; False: it is not active."""
        active = self.active.get(number)
        if active is not None:
            self._end(active, now, early=True)
        return active is not None

    def end_all(self, now: int) -> int:
        """End every active fault; returns how many there were."""
        for active in (found := list(self.active.values())):
            self._end(active, now, early=True)
        return len(found)

    def close(self, now: int) -> None:
        """End every fault and forget the script: the exchange's last words are heard."""
        for active in list(self.active.values()):
            self._end(active, now, early=False)
        self.forget()

    def join(self, line: Line) -> None:
        """Let what is active on frames act on a new line too."""
        for active in self.active.values():
            self._give(active, line)

    def refusing(self, key_id: str, zone: str) -> Active | None:
        """Return the fault for which a new connection of this key is refused, if there is one."""
        for active in self.active.values():
            fault = active.fault
            is_one = isinstance(fault, menu.Refuse | menu.AuthExpiry | menu.Maintenance)
            if is_one and fault.on.takes_key(key_id, zone):
                return active
        return None

    def describe(self) -> dict[str, Any]:
        """Return what is active, done (the last of it) and to come next."""
        return {
            "active": [active.describe() for active in self.active.values()],
            "done": [active.describe() for active in self.done],
            "next_at": None
            if self._next is None or self._epoch is None
            else self._moment(self._next),
        }

    def record(self, active: Active, phase: str, now: int, **facts: object) -> None:
        """Write a line of the session journal about a fault."""
        self._journal.record(
            {
                "kind": "fault", "at": now, "phase": phase, "fault": active.fault.kind,
                "number": active.number, **facts,
            }
        )  # fmt: skip

    def _moment(self, fault: menu.Fault) -> int:
        assert self._epoch is not None, "only asked when the epoch is known"
        moment = self._epoch + round((fault.at_s or 0.0) * SECOND)
        return -(-moment // MILLISECOND) * MILLISECOND

    def _is_next_due(self, now: int) -> bool:
        assert self._next is not None
        return self._epoch is not None and self._moment(self._next) <= now

    def _begin(self, fault: menu.Fault, now: int, at: int) -> Active:
        """Begin a fault that was due at `at`."""
        until = at + round(fault.for_s * SECOND) if fault.for_s else None
        active = Active(next(self._numbers), fault, at, until)
        entry = active.describe()["entry"]
        if self._epoch is not None:
            entry["at_s"] = max(round((at - self._epoch) / SECOND, 6), 0.0)
        self.record(active, "begin", now, entry=entry, until=until)
        if isinstance(fault, FrameEffect) or until is not None:
            self.active[active.number] = active
        else:
            self.done.append(active)
        if isinstance(fault, FrameEffect):
            for line in self._simulation.lines.values():
                self._give(active, line)
        else:
            self._carry_out(active, now)
        return active

    def _give(self, active: Active, line: Line) -> None:
        fault = active.fault
        if isinstance(fault, FrameEffect) and takes(fault.on, line):
            line.begin(active)

    def _carry_out(self, active: Active, now: int) -> None:
        fault, simulation = active.fault, self._simulation
        if isinstance(fault, menu.ClockStep):
            self._move_clock(active, fault, now)
        elif isinstance(fault, menu.CreateMarkets):
            assert isinstance(simulation.stage, LiveStage), "checked before"
            at = simulation.stage.create_markets(fault.count, active.begin)
            self.record(active, "hit", now, count=fault.count, exchange_at=at)
        elif isinstance(fault, menu.Rest | menu.AuthExpiry):
            self._rest[active.number] = simulation.rest_trouble.begin(
                fault.kind, _rest_params(fault), active.until, partial(self._hit_request, active)
            )
        elif isinstance(fault, menu.Maintenance):
            assert active.until is not None, "it lasts"
            self._pause(active.until, active.begin)
        for line in [line for line in simulation.lines.values() if takes(fault.on, line)]:
            connections.hit(active, line, simulation, now)
            subscriptions.hit(active, line, now)

    def _hit_request(self, active: Active, now: int, facts: dict[str, object]) -> None:
        active.hits += 1
        self.record(active, "hit", now, **facts)

    def _move_clock(self, active: Active, fault: menu.ClockStep, now: int) -> None:
        at = now
        if fault.whose == "exchange":
            stage = self._simulation.stage
            assert isinstance(stage, LiveStage), "checked before"
            at = stage.clock_step(fault.by_ms, active.begin)
        else:
            assert self._step_clock is not None, "checked before"
            self._step_clock(fault.on, fault.by_ms)
        self.record(active, "hit", now, whose=fault.whose, by_ms=fault.by_ms, exchange_at=at)

    def _pause(self, until: int, at: int) -> None:
        """Let the exchange say until when it pauses, and trading stand still."""
        stage = self._simulation.stage
        if isinstance(stage, LiveStage):
            stage.halt(until, at)
        self._simulation.exchange.pause = until

    def _end(self, active: Active, now: int, early: bool) -> None:
        del self.active[active.number]
        self.done.append(active)
        if isinstance(active.fault, FrameEffect):
            for line in self._simulation.lines.values():
                line.end(active, now // MILLISECOND)
        trouble = self._rest.pop(active.number, None)
        if trouble is not None:
            self._simulation.rest_trouble.end(trouble)
        if isinstance(active.fault, menu.Maintenance):
            self._resume(now)
        facts = {"hits": active.hits, "connections": active.lines, "early": early}
        self.record(active, "end", now, **facts)

    def _resume(self, now: int) -> None:
        """Trade again, or pause for as long as another maintenance lasts."""
        others = (a for a in self.active.values() if isinstance(a.fault, menu.Maintenance))
        self._pause(max((a.until or 0 for a in others), default=now), now)
        if self._simulation.exchange.pause == now:
            self._simulation.exchange.pause = None


def time_of(fault: menu.Fault) -> float:
    """Return when a fault of a script is due, seconds after the epoch."""
    return fault.at_s or 0.0


def impossible(
    fault: menu.Fault, has_market: bool, step_clock: StepClock | None, zones: Mapping[str, str]
) -> str:
    """Say why a fault cannot be carried out, with its field; "" when it can."""
    if isinstance(fault, menu.ClockStep) and fault.whose == "ours" and step_clock is None:
        return "whose: choose exchange; the clock of a client on a socket is not the simulator's to move"
    if fault.kind in MARKET_KINDS and not has_market:
        return f"fault: {fault.kind} needs a made-up market that is being published; choose another kind"
    return unknown_aim(fault.on, zones)


def takes(on: menu.On, line: Line) -> bool:
    """Say whether a fault aimed so hits this line."""
    return on.takes_line(line.number, line.key_id, line.zone)


def _is_due(active: Active, now: int) -> bool:
    return active.is_used_up or (active.until is not None and active.until <= now)


def _rest_params(fault: menu.Rest | menu.AuthExpiry) -> dict[str, object]:
    params: dict[str, object] = {"zone": fault.on.zone, "key": fault.on.key}
    if isinstance(fault, menu.Rest):
        params |= {
            "status": fault.status,
            "body": fault.body,
            "share": fault.share,
            "path": fault.path,
        }
    return params
