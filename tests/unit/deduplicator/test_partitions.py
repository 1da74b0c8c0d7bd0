"""Which hours rows need partitions for."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from libs.marketdata.units import DAY, HOUR
from libs.runtime.clock import ManualClock
from libs.store.errors import StoreUnavailable
from libs.store.pool import Target
from services.deduplicator import partitions
from services.deduplicator.partitions import AGAIN_S, PartitionKeeper, hours_of, runs
from tests.unit.deduplicator.support import NOON, delta, ticker


def test_hours_are_those_of_the_partition_time_near_the_receipt() -> None:
    """A row a day off its receipt still counts, one microsecond more does not."""
    noon = NOON // HOUR
    rows: dict[str, list[Any]] = {
        "orderbook_deltas": [
            delta(1), delta(2, NOON - HOUR, received_at=NOON),
            delta(3, NOON - DAY, received_at=NOON), delta(4, NOON - DAY - 1, received_at=NOON),
            delta(5, 2**63 - 1, received_at=NOON),
        ],
        "tickers": [ticker(1, NOON + 5 * HOUR)],
    }  # fmt: skip
    assert hours_of(rows) == {noon, noon - 1, noon - 24, noon + 5}


def test_tables_without_partitions_need_none() -> None:
    """The catalogue is one table, whatever it speaks of."""
    assert hours_of({"market_versions": [object()]}) == set()


def test_hours_join_into_runs() -> None:
    """A hole begins another run."""
    assert runs([3, 4, 5, 9, 11, 12]) == [(3, 5), (9, 9), (11, 12)]
    assert runs([]) == []


async def test_what_could_not_be_made_is_not_tried_with_every_merge(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each attempt may cost a second's wait a table, and the merge waits with it; after a pause it is owed still."""
    tried: list[int] = []

    @asynccontextmanager
    async def connected(*_: object) -> AsyncIterator[None]:
        yield

    async def busy(_: object, __: str, now: int, ___: object) -> None:
        tried.append(now // HOUR)
        raise StoreUnavailable("the lock was not to be had")

    monkeypatch.setattr(partitions, "connect", connected)
    monkeypatch.setattr(partitions, "ensure_partitions", busy)
    clock = ManualClock(NOON)
    keeper = PartitionKeeper(Target("nowhere", 1, "none", "nobody", ""), clock)
    for hour in (7, 8, 9):
        await keeper.make_for([hour])
    assert tried == [7]
    clock.advance(AGAIN_S)
    await keeper.make_for([])
    assert tried == [7, 7]
