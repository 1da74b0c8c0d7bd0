"""3: power cut of zone a, partition of zone b while a is away, both return; coverage says who was away."""

import asyncio
from collections.abc import Sequence
from typing import ClassVar

from libs.marketdata.listening import Span
from libs.marketdata.units import SECOND
from tests.cluster.errors import NotInTime
from tests.cluster.figures import Figure, at_least, equal, of_verdict
from tests.cluster.ground import Ground
from tests.cluster.referee import Case
from tests.cluster.scenario import Scenario
from tests.cluster.values import ZONES
from tests.cluster.waiting import until

A, B = 0, 1
ALONE_S = 15.0
BACK_S_MAX = 300.0
RECONNECT_S = 35
"""The exchange's journal takes a zone that is cut off for a listener until it hears of it; the zone's next attempt to connect may
be half a minute off (exchange.backoff_s_max)."""
MARGIN_S = 5
"""What is sent a little late after a minute's end belongs to the minute all the same."""
BEFORE_S, AFTER_S = 120, 20
"""Seconds beside the outage whose minutes must have rows; of the shorter one at least one minute has ten."""
MERGED_S_MAX = 60.0
MINUTE = 60 * SECOND
TABLES = ("orderbook_deltas", "tickers")
"""What only the feed brings: trades are healed from the exchange's tape when a zone is back."""


class Outages(Scenario):
    """Zone c alone captures while the other two are away."""

    number: ClassVar[int] = 3
    title: ClassVar[str] = (
        "power cut of zone a, partition of zone b, both return; nothing lost, coverage says who was away"
    )
    timeout_s: ClassVar[float] = 780.0
    breaks: ClassVar[bool] = True

    async def play(self, ground: Ground) -> list[Figure]:
        since, faults = ground.clock.now(), ground.faults
        begun: dict[str, int] = {}
        back: dict[str, int] = {}
        try:
            await faults.kill(A)
            begun["a"] = ground.clock.now()
            ground.say("zone a has no power")
            await asyncio.sleep(ALONE_S)
            await faults.cut(B)
            begun["b"] = ground.clock.now()
            ground.say("zone b is cut off; zone c is alone")
            await asyncio.sleep(
                (whole_minute_after(begun["b"]) - ground.clock.now()) / SECOND + MARGIN_S
            )
        finally:
            back["b"] = ground.clock.now()
            await faults.heal(B)
            back["a"] = ground.clock.now()
            await faults.start(A)
        took = await ground.settle(ZONES, BACK_S_MAX)
        ground.say(f"all zones are whole {took:.0f} s after")
        settled = ground.clock.now()
        away = [(zone, (begun[zone], back[zone])) for zone in ("a", "b")]
        trouble = [("b", (back["b"], back["b"] + RECONNECT_S * SECOND))]
        case = Case(since, away=away, trouble=trouble, no_gap=("production", "c"))
        verdict = await ground.judge(case)
        figures = of_verdict(verdict, case)
        before = (max(ground.since, since - BEFORE_S * SECOND), since)
        after = (settled, max(ground.clock.now(), settled + AFTER_S * SECOND))
        others = [*minutes_touching(before), *minutes_touching(after)]
        for zone, outage in away:
            figures += await self._coverage(ground, zone, minutes_within(outage), others)
        return figures

    async def _coverage(
        self, ground: Ground, zone: str, inside: Sequence[int], others: Sequence[int]
    ) -> list[Figure]:
        """Hold a zone's rows by minute against its outage: minutes inside of it, and those before and after."""
        figures = [
            at_least(f"zone {zone}: whole minutes of its outage", len(inside), 1),
            at_least(f"zone {zone}: other minutes looked at", len(others), 1),
        ]
        for table in TABLES:
            rows = await self._rows(ground, zone, table, others)
            empty = [minute for minute in others if not rows.get(minute)]
            figures += [
                equal(
                    f"zone {zone}: {table} in its outage", sum(rows.get(m, 0) for m in inside), 0
                ),
                equal(f"zone {zone}: {table}, other minutes without a row", len(empty), 0),
            ]
        return figures

    async def _rows(
        self, ground: Ground, zone: str, table: str, others: Sequence[int]
    ) -> dict[int, int]:
        """Return a zone's rows by minute; what is new is waited for a while."""
        seen: dict[int, int] = {}

        async def look() -> bool:
            seen.update(await self._counted(ground, zone, table))
            return all(map(seen.get, others))

        try:
            await until(look, bool, MERGED_S_MAX, f"rows of {zone} in {table}", say=ground.say)
        except NotInTime:
            ground.say(f"zone {zone} has no {table} in a minute: {seen}")
        return seen

    async def _counted(self, ground: Ground, zone: str, table: str) -> dict[int, int]:
        query = (
            "SELECT c.minute, sum(c.facts + c.late_facts) FROM coverage_by_minute c JOIN gatherers z"
            f" ON z.gatherer = ANY (c.gatherers) WHERE z.zone = '{zone}' AND c.table_name = '{table}' GROUP BY 1"
        )
        return {int(minute): int(count) for minute, count in await ground.sql("production", query)}


def whole_minute_after(moment: int) -> int:
    """Return the end of the first whole minute that begins at or after a moment."""
    return -(-moment // MINUTE) * MINUTE + MINUTE


def minutes_within(span: Span) -> list[int]:
    """Return the beginnings of the minutes that lie in a span as a whole."""
    first = -(-span[0] // MINUTE)
    return [number * MINUTE for number in range(first, span[1] // MINUTE)]


def minutes_touching(span: Span) -> list[int]:
    """Return the beginnings of the minutes of which a good part (10 s) lies in a span."""
    numbers = range(span[0] // MINUTE, span[1] // MINUTE + 1)
    return [
        n * MINUTE
        for n in numbers
        if min(span[1], (n + 1) * MINUTE) - max(span[0], n * MINUTE) >= 10 * SECOND
    ]
