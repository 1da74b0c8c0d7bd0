"""The exchange's faults of a seed: drawn from the simulator's own menu, then kept to what a verdict can be asked of.

Everything ends before the quiet tail. The exchange's clock stays within the margin of a second, but for some seeds whose
larger steps are excused by data-model.md section 7: of these only NO EXTRA is asked. A connection's frames either come
late or without sending times, never both: our own clock stands in for these, with a margin that lateness would exceed.
"""

from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import Any, Literal

from services.simulator.faults.chance_script import random_script
from services.simulator.faults.menu import (
    KINDS,
    ClockStep,
    CreateMarkets,
    Delay,
    Drip,
    Fault,
    On,
    RenameField,
    Stall,
)

WITHOUT_A_WORLD = frozenset({"rest"})
"""Kinds that no websocket notices."""
FAULT_KINDS = tuple(kind for kind in KINDS if kind not in WITHOUT_A_WORLD)
STEP_MS_MAX = 600
"""The exchange's clock may be wrong by this much: the margin of 1 s, less publishing in rounds and a growing lag."""
OUR_STEP_MS_MAX = 8_000
"""Ours by this much at a time; beyond 10 s the exchange refuses our signatures."""
OUR_SKEW_MS_MAX = 9_000
UNSENT_SKEW_MS_MAX = 2_000
"""... where frames without sending times make our clock part of what is claimed, with a margin of 5 s."""
FAR_SHARE = 0.1
FAR_MS_MAX = 30_000
"""Share of seeds in which the exchange's clock may be off further, and how far."""
DELAY_MS_MAX = 4_000
DRIP_S_MAX = 8.0
MARKETS_MAX = 8
SENDING_TIME = "sending_ts_ms"


def script_of(
    seed: int, seconds: float, zones: Sequence[str], kinds: Sequence[str]
) -> tuple[Fault, ...]:
    """Draw the faults of a seed, all over after `seconds` since the epoch."""
    chance = Random(f"script {seed}")
    every_s = chance.choice([2.0, 5.0, 12.0])
    others = [kind for kind in kinds if kind != ClockStep.kind]
    # Nothing in the last two seconds: what a fault holds back has to come before the tail.
    drawn = random_script(seed, seconds - 2, zones, others, every_s) if others else []
    drawn = [_named(fault, chance) for fault in drawn]
    unsent = any(_takes_sending_times(fault) for fault in drawn)
    kept = [_bounded(fault, seconds) for fault in drawn if not (unsent and _makes_late(fault))]
    if ClockStep.kind in kinds:
        most = UNSENT_SKEW_MS_MAX if unsent else OUR_SKEW_MS_MAX
        kept += _clock_steps(chance, seconds, zones, most)
    return tuple(sorted(kept, key=lambda fault: fault.at_s or 0.0))


def steps_far(faults: Sequence[Fault]) -> bool:
    """Say whether the exchange's clock is ever further off than a margin can hold."""
    off = 0
    for fault in faults:
        if isinstance(fault, ClockStep) and fault.whose == "exchange":
            off += fault.by_ms
            if abs(off) > STEP_MS_MAX:
                return True
    return False


def steps_back(faults: Sequence[Fault]) -> bool:
    """Say whether the exchange's clock is ever set back."""
    return any(isinstance(f, ClockStep) and f.whose == "exchange" and f.by_ms < 0 for f in faults)


def _named(fault: Fault, chance: Random) -> Fault:
    """Let some renamed fields be the sending time, which the random script leaves alone."""
    if isinstance(fault, RenameField) and chance.random() < 0.2:
        return replace(fault, field=SENDING_TIME, to=f"{SENDING_TIME}_v2")
    return fault


def _takes_sending_times(fault: Fault) -> bool:
    return isinstance(fault, RenameField) and fault.field == SENDING_TIME


def _makes_late(fault: Fault) -> bool:
    return isinstance(fault, Delay | Drip) or (isinstance(fault, Stall) and not fault.lost)


def _bounded(fault: Fault, seconds: float) -> Fault:
    """Let a fault end in time, with whatever it holds back."""
    left = seconds - (fault.at_s or 0.0)
    changes: dict[str, Any] = {}
    if isinstance(fault, Delay):
        changes["delay_ms"] = min(fault.delay_ms, DELAY_MS_MAX)
        left = max(left - DELAY_MS_MAX / 1000, 0.2)
    if isinstance(fault, Drip):
        left = min(DRIP_S_MAX, max(left / (1 + fault.growth), 0.2))
    if isinstance(fault, CreateMarkets):
        changes["count"] = min(fault.count, MARKETS_MAX)
    if fault.for_s:
        changes["for_s"] = round(min(fault.for_s, left), 3)
    return replace(fault, **changes)


def _clock_steps(
    chance: Random, seconds: float, zones: Sequence[str], ours_max: int
) -> list[Fault]:
    """Draw steps of the exchange's clock ("") and of the zones', none of which ever stands further off than it may."""
    exchange_max = FAR_MS_MAX if chance.random() < FAR_SHARE else STEP_MS_MAX
    off: dict[str, int] = {}
    steps: list[Fault] = []
    for at_s in sorted(chance.uniform(1, seconds) for _ in range(chance.choice([0, 0, 1, 3]))):
        zone = chance.choice(("", "", *zones))
        most = ours_max if zone else exchange_max
        by_ms = chance.randint(-most, most) - off.get(zone, 0)
        if zone:
            by_ms = max(-OUR_STEP_MS_MAX, min(OUR_STEP_MS_MAX, by_ms))
        if by_ms:
            off[zone] = off.get(zone, 0) + by_ms
            whose: Literal["ours", "exchange"] = "ours" if zone else "exchange"
            steps.append(ClockStep(at_s=round(at_s, 3), on=On(zone=zone), by_ms=by_ms, whose=whose))
    return steps
