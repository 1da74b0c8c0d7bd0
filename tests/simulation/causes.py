"""Why a zone may not have listened: every cause stands in a journal, the exchange's, the network's or the world's.

A gap is tight when all of it lies within BEFORE and AFTER of causes, together 10 s. What leaves no hole (a repeated
frame, a delay, a clock that is wrong, a database that is away while the buffer holds) is no cause.
"""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

from libs.flow.placement import CHANNELS, kind_of
from libs.marketdata.listening import Span, union
from libs.marketdata.units import SECOND
from libs.store.steady import WAIT_S_MAX
from tests.simulation.gatherer import SILENCE_S, SLOTS
from tests.simulation.plan import EPOCH, ZONES
from tests.simulation.production import Production
from tests.simulation.world import LISTED_S, Run

BEFORE = 3_500_000
"""A gap may begin this long before its cause, microseconds: see gatherer.py. Larger end margins come on top."""
AFTER = 6_500_000
"""... and end this long after it. Where a fault took the sending times, the start margin is 4 s more."""
MARGIN = 1 * SECOND
FOREVER = 1 << 60
UNSENT_MARGIN = 5 * SECOND
HARMLESS = frozenset({"database_doubt", "lanes_closed"})
"""Blows that the client has to take without missing anything."""
ONLY_WHEN_FULL = frozenset({"database_away", "database_slow", "batch_held", "rolled_back"})
"""Harmless too until the buffer is full, which the client has to have written down."""
HARMLESS_FAULTS = frozenset({"duplicate", "new_field", "snapshot_storm", "create_markets"})
"""Faults that the client has to take without missing anything, beside delays shorter than DELAY_S and clocks set forth."""
DELAY_S = 1.0
"""Answers that come later than this may be given up."""
MARKET_LIMIT = 26
LASTING = frozenset({"stall", "refuse", "auth_expiry", "maintenance", "drip"})
"""Faults that are a cause as long as they last, whether or not they hit a frame."""
WATCHDOG_S = SILENCE_S + 1.0
"""How long a dead connection may go unnoticed."""


@dataclass(slots=True)
class Causes:
    """Spans by zone, slot and ticker ("" = every one), microseconds.

    full_since: by zone and slot, when the exchange said that a subscription takes no more markets (error 26). That is
    believed for a minute: a new market waits until another connection has taken its share of the others.
    """

    full_since: dict[tuple[str, str], int] = field(default_factory=dict)
    spans: dict[tuple[str, str, str], list[Span]] = field(default_factory=lambda: defaultdict(list))

    def add(self, zone: str, slot: str, ticker: str, start: int, end: int) -> None:
        self.spans[zone, slot, ticker].append((start, end))

    def awaits_room(self, zone: str, slot: str, until: int) -> bool:
        """Say whether a market that came up to `until` may have to wait for room."""
        since = self.full_since.get((zone, slot))
        return since is not None and since <= until

    def allowed(self, zone: str, slot: str, ticker: str, margin: int) -> list[Span]:
        """Where a gap of this market (or channel) may lie, with the connection's end margin."""
        before = BEFORE + max(0, margin - MARGIN)
        after = AFTER + (UNSENT_MARGIN - MARGIN if margin >= UNSENT_MARGIN else 0)
        keys = {("", ""), (slot, ""), ("", ticker), (slot, ticker)}
        found = (span for key in keys for span in self.spans.get((zone, *key), ()))
        return union((start - before, end + after) for start, end in found)


def causes_of(run: Run, production: Production, created: dict[str, int]) -> Causes:
    """Collect the causes of a finished run; created: when each market was listed."""
    causes = Causes()
    for zone in ZONES:
        causes.add(zone, "", "", EPOCH - SECOND, EPOCH)
        for ticker, at in created.items():
            causes.add(zone, "", ticker, at, at + int(LISTED_S * SECOND))
    _of_the_world(causes, run, production)
    for start, end in quiet_tickers(run):
        for zone in ZONES:
            causes.add(zone, "ticker/0", "", start, end)
    for zone, slot, start, end in run.venue.lost:
        causes.add(zone, slot, "", start, end)
    for fault in faults_of(run):
        for zone, slot in fault.whom:
            causes.add(zone, slot, "", fault.start, fault.end)
            if fault.entry.get("code") == MARKET_LIMIT:
                causes.full_since.setdefault((zone, slot), fault.start)
    return causes


class Hit(NamedTuple):
    """A fault as the session journal tells it, or one hit of it: from when to when it may cost hearing.

    whom: (zone, slot) it concerns. is_lasting: the fault itself, not one frame or connection.
    """

    kind: str
    start: int
    end: int
    whom: tuple[tuple[str, str], ...]
    is_lasting: bool
    entry: Mapping[str, Any]


def faults_of(run: Run) -> list[Hit]:
    """Read every fault of the session journal that may cost hearing."""
    found = []
    entries: dict[int, dict[str, Any]] = {}
    for line in run.venue.session.lines:
        if not line.startswith('{"kind":"fault"'):
            continue
        told = json.loads(line)
        if told["phase"] == "begin":
            entries[told["number"]] = told["entry"]
            if told["fault"] in LASTING:
                found.append(_lasting(told))
        elif told["fault"] == "delay" and told["phase"] == "end":
            found += _delayed(run, told, entries[told["number"]])
        elif told["phase"] == "hit":
            hit = _hit(run, told, entries[told["number"]])
            if hit is not None:
                found.append(hit)
    return found


def _lasting(told: Mapping[str, Any]) -> Hit:
    entry = told["entry"]
    late = 0.0
    if entry["fault"] == "drip":
        # What waits at the end is as late as it has grown.
        late = entry.get("growth", 0.5) * entry["for_s"]
    end = told["until"] + int(late * SECOND)
    return Hit(told["fault"], told["at"], end, _whom(entry.get("on", {})), True, entry)


def _delayed(run: Run, told: Mapping[str, Any], entry: Mapping[str, Any]) -> Iterator[Hit]:
    """Frames that came late, too late for who waited for them; the journal only counts them, by connection."""
    late = entry.get("delay_ms", 1_000)
    if late >= DELAY_S * 1000:
        start = run.plan.exchange.epoch_us + int(entry["at_s"] * SECOND)
        whom = tuple(run.venue.slots[int(number)] for number in told["connections"])
        yield Hit("delay", start, told["at"] + late * 1000, whom, False, entry)


def _whom(on: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Whom a fault is aimed at."""
    zones = [on.get("zone") or on["key"]] if "zone" in on or "key" in on else ZONES
    slots = [
        slot for slot in SLOTS if "channel" not in on or on["channel"] in CHANNELS[kind_of(slot)]
    ]
    return tuple((zone, slot) for zone in zones for slot in slots)


def _hit(run: Run, told: Mapping[str, Any], entry: Mapping[str, Any]) -> Hit | None:
    kind, at = told["fault"], told["at"]
    if kind in HARMLESS_FAULTS or kind in LASTING:
        return None
    end = at
    if kind == "clock_step":
        if told["whose"] == "ours" or told["by_ms"] > 0:
            return None
        return Hit(kind, at, at, _whom({}), False, entry)
    if kind == "half_open":
        end += int(WATCHDOG_S * SECOND)
    return Hit(kind, at, end, (run.venue.slots[told["connection"]],), False, entry)


def quiet_tickers(run: Run) -> list[Span]:
    """When the exchange published no ticker for longer than the watchdog waits, or none any more: silence nobody made."""
    lines = (line for line in run.venue.market.lines if line.startswith('{"kind":"ticker"'))
    moments = [run.plan.exchange.epoch_us, *(json.loads(line)["at"] for line in lines), FOREVER]
    return [(a, b) for a, b in pairwise(moments) if b - a > (SILENCE_S - 1) * SECOND]


def _of_the_world(causes: Causes, run: Run, production: Production) -> None:
    full = {
        zone
        for zone, rows in production.gaps.items()
        if any(r.reason == "spool_full" for r in rows)
    }
    for trouble in run.troubles:
        if trouble.kind in HARMLESS:
            continue
        if trouble.kind in ONLY_WHEN_FULL and trouble.zone not in full:
            continue
        # A writer that waits for its database finds it back after its longest pause at the latest.
        late = int(WAIT_S_MAX * SECOND) if trouble.kind in ONLY_WHEN_FULL else 0
        causes.add(trouble.zone, trouble.slot, trouble.ticker, trouble.start, trouble.end + late)
    for zone, gatherer in run.gatherers.items():
        for death in gatherer.deaths:
            span = (EPOCH + int(s * SECOND) for s in (death.lost_from, death.until))
            causes.add(zone, "", "", *span)
