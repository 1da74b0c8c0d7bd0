"""Random fault scripts: a function of a seed, so that a run that went wrong can be had again."""

from collections.abc import Callable, Iterator, Sequence
from itertools import takewhile
from typing import Any

from services.simulator.chance import Chance
from services.simulator.faults.entries import read_entry
from services.simulator.faults.menu import BY_CHANNEL, KINDS, Fault
from services.simulator.subscription import BOOKS, LIFECYCLE, TICKERS, TRADES

EVERY_S = 5.0
DURATION_S = 6.0
DURATION_S_MAX = 60.0
DEFAULT_KINDS = tuple(kind for kind in KINDS if kind != "clock_step")
"""Everything but clock steps: those of the exchange end streams for good, ours need a world that owns the clock."""
_CHANNELS = (BOOKS, TRADES, TICKERS, LIFECYCLE)


def random_script(
    seed: int,
    seconds: float,
    zones: Sequence[str] = (),
    kinds: Sequence[str] = DEFAULT_KINDS,
    every_s: float = EVERY_S,
) -> list[Fault]:
    """Return faults for the first `seconds` after the epoch.

    Args:
        zones: labels to aim at; none: every fault hits everyone. every_s: mean time between two faults.
    """
    faults = random_faults(seed, zones, kinds, every_s)
    return list(takewhile(lambda fault: (fault.at_s or 0.0) < seconds, faults))


def random_faults(
    seed: int,
    zones: Sequence[str] = (),
    kinds: Sequence[str] = DEFAULT_KINDS,
    every_s: float = EVERY_S,
) -> Iterator[Fault]:
    """Yield faults without end, in the order of their times."""
    chance = Chance(seed)
    at_s = 0.0
    while True:
        at_s += chance.exponential(every_s)
        kind = chance.pick(kinds)
        entry: dict[str, Any] = {"fault": kind, "at_s": round(at_s, 3)}
        entry |= _whom(chance, kind, zones) | _DRAWS.get(kind, _nothing)(chance)
        cls = KINDS[kind]
        if cls.duration == "lasting" or (cls.duration == "either" and chance.draw() < 0.5):
            entry["for_s"] = round(min(0.2 + chance.exponential(DURATION_S), DURATION_S_MAX), 3)
            if cls.duration == "either":
                entry["share"] = round(0.02 + 0.5 * chance.draw() ** 2, 3)
        elif cls.duration == "either":
            entry["count_max"] = 1 + int(chance.exponential(4.0))
        yield read_entry(entry)


def _whom(chance: Chance, kind: str, zones: Sequence[str]) -> dict[str, Any]:
    aims = KINDS[kind].aims
    on: dict[str, str] = {}
    if zones and "zone" in aims and kind != "clock_step" and chance.draw() < 0.7:
        on["zone"] = chance.pick(zones)
    if aims == BY_CHANNEL and kind != "error" and chance.draw() < 0.5:
        # Ticker frames have no numbers to skip.
        on["channel"] = chance.pick(_CHANNELS[:2] if kind == "seq_gap" else _CHANNELS)
    return {"on": on} if on else {}


def _nothing(_chance: Chance) -> dict[str, Any]:
    return {}


def _rename(chance: Chance) -> dict[str, Any]:
    field = chance.pick(("price_dollars", "delta_fp", "market_ticker", "ts_ms", "sid", "seq"))
    return {"field": field, "to": f"{field}_v2"}


_DRAWS: dict[str, Callable[[Chance], dict[str, Any]]] = {
    "delay": lambda chance: {"delay_ms": 20 + int(chance.exponential(1_500.0))},
    "reorder": lambda chance: {"places": 1 + int(chance.exponential(3.0))},
    "seq_gap": lambda chance: {"by": 1 + int(chance.exponential(5.0))},
    "stall": lambda chance: {"pings": chance.draw() < 0.5, "lost": chance.draw() < 0.5},
    "drip": lambda chance: {"growth": round(0.1 + 0.8 * chance.draw(), 3)},
    "close": lambda chance: {"code": chance.pick((1000, 1001, 1008, 1009, 1011))},
    "refuse": lambda chance: {
        "status": chance.pick((429, 500, 502, 503, 504)), "body": chance.pick(("html", "empty", "json"))
    },
    "error": lambda chance: {"code": chance.pick((10, 25, 26, 27))},
    "rename_field": _rename,
    "unknown_type": lambda chance: {"count": chance.between(1, 3)},
    "clock_step": lambda chance: {"by_ms": chance.pick((-1, 1)) * chance.between(1, 5_000)},
    "create_markets": lambda chance: {"count": chance.between(1, 30)},
    "rest": lambda chance: {"status": chance.pick((429, 500, 502, 503)), "share": round(chance.draw(), 3)},
}  # fmt: skip
