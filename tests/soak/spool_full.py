"""The database is away and the disk spool is full: exactly what was dropped is a gap, and it is counted."""

from collections import defaultdict
from dataclasses import dataclass
from typing import Any, ClassVar

from libs.marketdata.listening import Span, holes, union
from libs.marketdata.units import SECOND
from tests.soak.away import is_written, no_memory
from tests.soak.evidence import Evidence, Measured
from tests.soak.ground import Ground, Terms
from tests.soak.scenario import Scenario

CALM_S = 3.0
GIVE_UP_S = 300.0
WIDER_S = 0.01
"""A gap begins the margin before the last frame that was kept and ends a second after the next: rounding is all there is to it."""


@dataclass
class SpoolFull(Scenario):
    """bytes_max of each connector's spool; rows_dropped until the database comes back."""

    name: ClassVar[str] = "spool-full"
    bytes_max: int = 2_000_000
    rows_dropped: int = 10_000
    timeout_s: float = 900.0

    def terms(self) -> Terms:
        return Terms(gatherer=no_memory(self.bytes_max))

    async def act(self, ground: Ground) -> None:
        await ground.rest(CALM_S)
        before = ground.clock.now()
        await ground.stop_database()

        async def enough() -> bool:
            return await self._dropped(ground) >= self.rows_dropped

        took = await ground.until(enough, GIVE_UP_S, f"{self.rows_dropped} rows dropped")
        await ground.start_database()
        ground.trouble("spool_full", before, ground.clock.now())

        await ground.until(
            lambda: is_written(ground), GIVE_UP_S, "everything that was kept is committed"
        )
        await ground.rest(CALM_S)
        self._span = (before, ground.clock.now())
        self._lost = await self._dropped(ground)
        ground.say(f"{self._lost} rows dropped after {took:.0f} s away")

    async def _dropped(self, ground: Ground) -> int:
        buffers = [health.get("buffer", {}) for health in (await ground.healths()).values()]
        return sum(family["dropped_rows"] for found in buffers for family in found.values())

    async def measure(self, ground: Ground, evidence: Evidence) -> list[Measured]:
        rows = await ground.rows(
            "select connection, sid, channel, seq_from, seq_to, from_ts, to_ts, rows_lost from gaps"
            " where reason = 'spool_full'"
        )
        told = sum(row["rows_lost"] or 0 for row in rows)
        odd = await self._odd_sids(ground, rows)
        lost = evidence.missing(self._span)
        gaps, silent = evidence.gaps(self._span), await _silent(ground)
        widest = max((beyond_s(gap[1:], silent[gap[0]]) for gap in gaps), default=0.0)
        return [
            Measured("rows dropped", str(self._lost), f">= {self.rows_dropped}", self._lost >= self.rows_dropped),
            Measured("rows lost by gap rows", str(told), str(self._lost), told == self._lost),
            Measured("sids whose hole is not their gap rows", str(odd), "0", odd == 0),
            Measured("deltas and trades missing", str(len(lost)), f"1 .. {told}", 0 < len(lost) <= told),
            Measured("gaps of markets", str(len(gaps)), ">= 1", bool(gaps)),
            Measured("gap wider than the frames around the drops", f"{widest:.3f} s", f"< {WIDER_S} s", widest < WIDER_S),
        ]  # fmt: skip

    @staticmethod
    async def _odd_sids(ground: Ground, gaps: list[Any]) -> int:
        """Count sids whose missing numbers are not exactly those of their gap rows."""
        said: dict[Any, list[Span]] = defaultdict(list)
        for row in gaps:
            if row["seq_from"] is not None:
                said[row["connection"], row["sid"]].append((row["seq_from"], row["seq_to"] + 1))
        ranges: dict[Any, list[Span]] = defaultdict(list)
        for row in await ground.rows("select connection, sid, seq_from, seq_to from listen_ranges"):
            ranges[row["connection"], row["sid"]].append((row["seq_from"], row["seq_to"] + 1))
        odd = 0
        for key, runs in ranges.items():
            spans = union(runs)
            missing = holes(spans, spans[0][0], spans[-1][1])
            inside = [gap for gap in union(said[key]) if spans[0][0] <= gap[0] < spans[-1][1]]
            odd += missing != inside
        return odd


async def _silent(ground: Ground) -> dict[str, list[Span]]:
    """Return where each market cannot have been heard for what its sid's ranges lack, microseconds."""
    holes_of: dict[Any, list[Span]] = defaultdict(list)
    before: Any = None
    for row in await ground.rows(
        "select connection, sid, seq_from, seq_to, sent_from, sent_to, max(margin) over (partition by connection, sid) as margin"
        " from listen_ranges where channel = 'orderbook_delta' order by connection, sid, seq_from"
    ):
        key = row["connection"], row["sid"]
        if before and before[:2] == tuple(key) and row["seq_from"] > before["seq_to"] + 1:
            low = before["sent_to"] - before["margin"]
            holes_of[key].append((low, row["sent_from"] + SECOND))
        before = row
    found: dict[str, list[Span]] = defaultdict(list)
    for row in await ground.rows(
        "select distinct ticker, connection, sid from listen_opened where ticker is not null"
    ):
        found[row["ticker"]] += holes_of[row["connection"], row["sid"]]
    return defaultdict(list, {ticker: union(spans) for ticker, spans in found.items()})


def beyond_s(gap: Span, silent: list[Span]) -> float:
    """Return by how much a gap is wider than the silence within it, seconds."""
    return sum(high - low for low, high in holes(silent, *gap)) / SECOND
