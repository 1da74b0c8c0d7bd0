"""What a seed stands for: the exchange, three zones, the faults of the exchange and the blows of the world.

Everything is drawn here, before anything runs, so that a failing seed can be printed and shortened.
"""

from dataclasses import dataclass
from random import Random

from services.simulator.faults.menu import Fault
from services.simulator.settings import KeySettings, SimulatorSettings
from tests.simulation.gatherer import SLOTS, Build
from tests.simulation.script import FAULT_KINDS, script_of

ZONES = ("a", "b", "c")
EPOCH = 1_800_000_000_000_000
"""Wall time when a world begins, microseconds since 1970."""
HEAD_S = 4
"""Seconds from a world's beginning to the exchange's first change: everybody is connected and listens by then."""
SECONDS = 33
"""Seconds of publishing; the last TAIL_S of them without a fault, so that everybody has to be back."""
TAIL_S = 10

MOVES = (
    "database_away", "database_slow", "database_doubt", "database_back", "lanes_closed", "kill",
    "hand_over", "unwant",
)  # fmt: skip
"""What befalls a zone besides the exchange's faults."""
LATER_MOVES = ("database_wiped", "batch_held", "rolled_back")
"""... and what mostly concerns whoever reads its database."""
MERGER_MOVES = (
    "merger_kill",
    "merger_twin",
    "production_away",
    "production_doubt",
    "production_back",
)
"""What befalls the deduplicator and production; of no zone."""
ROLLED_BACK_SHARE = 0.02
SKEW_MS_MAX = 700
"""Error of a zone's clock from the beginning, milliseconds; faults set it further off."""


@dataclass(frozen=True, slots=True)
class Move:
    """A blow to one zone; zone empty: to those who merge.

    amount: share of doubt or of roll-backs, factor of slowness, seconds a restore goes back, a market's place.
    """

    at_s: float
    kind: str
    zone: str
    for_s: float = 0.0
    amount: float = 0.0
    slot: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """One world. skews: error of each zone's clock, microseconds. merges: a deduplicator runs in it."""

    seed: int
    exchange: SimulatorSettings
    builds: dict[str, Build]
    skews: dict[str, int]
    faults: tuple[Fault, ...]
    moves: tuple[Move, ...]
    lost_dials: float
    merges: bool

    @property
    def is_quiet(self) -> bool:
        """Nothing goes wrong: everything has to be there."""
        return not self.faults and not self.moves and not self.lost_dials


def plan_of(seed: int, kinds: frozenset[str] | None = None, *, merges: bool = True) -> Plan:
    """Draw a world.

    Args:
        kinds: the only kinds of trouble there may be, None = all, empty = none.
        merges: let a deduplicator run in it, unless the kinds name only what is not its business. It doubles the cost.
    """
    chance = Random(f"plan {seed}")
    settings = SimulatorSettings(
        seed=seed,
        epoch_us=EPOCH + HEAD_S * 1_000_000,
        markets=chance.randint(3, 9),
        rate=chance.choice([12.0, 20.0, 35.0]),
        new_market_every_s=chance.choice([4.0, 8.0, 20.0]),
        closing_share=0.3,
        close_after_s_min=8.0,
        close_after_s_max=30.0,
        pause_every_s=6.0,
        keys=tuple(KeySettings(zone, "", zone=zone) for zone in ZONES),
        ping_s=1.5,
        quiet_ms=5_000,
    )
    builds = {zone: Build(chance.choice([200, 20_000]), chance.choice([5, 500])) for zone in ZONES}  # fmt: skip
    skews = {zone: 1000 * chance.randint(-SKEW_MS_MAX, SKEW_MS_MAX) for zone in ZONES}
    moves = _moves(chance, kinds)
    merges = merges and (not kinds or bool(kinds & {*LATER_MOVES, *MERGER_MOVES}))
    if merges:
        moves = tuple(sorted((*moves, *_later_moves(seed, kinds)), key=lambda m: (m.at_s, m.zone)))
    able = [kind for kind in FAULT_KINDS if kinds is None or kind in kinds]
    faults = script_of(seed, SECONDS - TAIL_S, ZONES, able) if able else ()
    lost_dials = chance.choice([0.0, 0.05]) if kinds is None or "lost_dial" in kinds else 0.0
    return Plan(seed, settings, builds, skews, faults, moves, lost_dials, merges)


def _moves(chance: Random, kinds: frozenset[str] | None) -> tuple[Move, ...]:
    able = [kind for kind in MOVES if kinds is None or kind in kinds]
    if not able:
        return ()
    count = chance.choice([0, 0, 2, 4, 8])
    return tuple(
        sorted((_move(chance, able) for _ in range(count)), key=lambda m: (m.at_s, m.zone))
    )


def _move(chance: Random, able: list[str]) -> Move:
    kind, zone = chance.choice(able), chance.choice(ZONES)
    at = round(chance.uniform(1, HEAD_S + SECONDS - TAIL_S), 3)
    length = round(min(chance.uniform(0.5, 10), HEAD_S + SECONDS - TAIL_S - at), 3)
    amount, slot = 0.0, ""
    if kind == "database_doubt":
        amount = 0.3
    elif kind == "database_slow":
        amount = 20.0
    elif kind == "database_back":
        amount = chance.uniform(0.5, 4.0)
    elif kind == "unwant":
        amount = float(chance.randint(0, 100))
    elif kind == "hand_over":
        at, slot = min(at, 18.0), chance.choice(SLOTS)
    return Move(at, kind, zone, length, amount, slot)


def _later_moves(seed: int, kinds: frozenset[str] | None) -> list[Move]:
    """Draw what befalls merging, by a chance of its own."""
    able = [k for k in (*LATER_MOVES, *MERGER_MOVES) if kinds is None or k in kinds]
    chance = Random(f"merging {seed}")
    return (
        [_later_move(chance, chance.choice(able)) for _ in range(chance.choice([0, 2, 4, 8]))]
        if able
        else []
    )


def _later_move(chance: Random, kind: str) -> Move:
    zone = chance.choice(ZONES) if kind in LATER_MOVES else ""
    at = round(chance.uniform(1, HEAD_S + SECONDS - TAIL_S), 3)
    length = round(min(chance.uniform(0.2, 6), HEAD_S + SECONDS - TAIL_S - at), 3)
    amount = 0.0
    if kind == "rolled_back":
        amount = chance.choice([ROLLED_BACK_SHARE, 0.2])
    elif kind == "production_doubt":
        amount = 0.3
    elif kind == "production_back":
        amount = chance.uniform(0.5, 15.0)
    return Move(at, kind, zone, length, amount)
