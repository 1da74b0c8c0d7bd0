"""What sessions heard with spans cut out of it, through the real writer into PostgreSQL: the verdict of section 7.

The same cases as tests/simulation/test_union.py, which has all of them on a model of production's keys.
"""

from collections.abc import AsyncIterator
from random import Random

import pytest

from libs.store.merger import ProductionWriter
from libs.store.pool import Connection, connect
from services.deduplicator.merge import MergeRoom
from tests.integration.deduplicator.pages import (
    IDENTITIES,
    ZONES,
    epoch_of,
    gatherers_of,
    shuffled,
    stored,
)
from tests.simulation.combined import COMBINATIONS, random_case
from tests.simulation.heard import KINDS, Cut, Heard, hear
from tests.simulation.published import TICKERS, Truth, short_truth
from tests.simulation.united import judge
from tests.support.postgres import NewDatabase

RANDOM_CASES = 5
INSIDE = [(1, 3), (5, 9)]
"""Spans of the short truth: within a millisecond, and over a border."""


class Union:
    """One production, its writer and what the writer remembers."""

    def __init__(self, conn: Connection, writer: ProductionWriter, numbers: list[int]) -> None:
        self.conn, self._writer, self._numbers = conn, writer, numbers
        self._room = MergeRoom(horizon_s=600.0, identities_max=100_000, agreement_sample=1)

    async def unite(self, case: int, heard: list[Heard]) -> None:
        """Merge a case's pages in any order, some of them twice, now and then with an empty memory."""
        chance, waiting = Random(case), shuffled(heard, case, self._numbers)
        while waiting:
            count = chance.randint(2, 6)
            taken, waiting = waiting[:count], waiting[count:]
            if chance.random() < 0.2:
                self._room.forget()
            plan = self._room.plan(taken)
            self._room.confirm(await self._writer.merge(plan.transaction), 1 << 60)


@pytest.fixture
async def union(new_database: NewDatabase) -> AsyncIterator[Union]:
    """An empty production with three gatherers."""
    production = new_database("production")
    writer = ProductionWriter(production)
    assert await writer.take_over() is not None
    numbers = [(await writer.admit(IDENTITIES[zone], zone)).gatherer for zone in ZONES]
    async with connect(production) as conn:
        yield Union(conn, writer, numbers)
    await writer.close()


async def check(union: Union, case: int, truth: Truth, heard: list[Heard]) -> None:
    """Unite and judge a case."""
    await union.unite(case, heard)
    assert judge(truth, heard, await stored(union.conn, case)) == [], case


async def test_every_combination_of_who_hears_a_span_unites_in_production(union: Union) -> None:
    """All 2^3, each gatherer cut in another way, around and inside a millisecond of repeats and pairs."""
    case = 0
    for span in INSIDE:
        for hears in COMBINATIONS:
            truth = short_truth(epoch_of(case))
            heard = []
            for place, (gatherer, is_heard) in enumerate(
                zip(gatherers_of(case), hears, strict=True)
            ):
                cut = Cut(KINDS[(case + place) % len(KINDS)], *span, TICKERS[0])
                heard.append(hear(gatherer, truth, [] if is_heard else [cut]))
            await check(union, case, truth, heard)
            case += 1


async def test_random_cuts_unite_in_production(union: Union) -> None:
    """Longer truths with late frames and bursts; each of the merges is one transaction of the writer."""
    for case in range(RANDOM_CASES):
        truth, heard = random_case(1000 + case, epoch_of(case), gatherers_of(case))
        await check(union, case, truth, heard)
