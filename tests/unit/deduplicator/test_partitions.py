"""Which hours rows need partitions for."""

from typing import Any

from libs.marketdata.units import DAY, HOUR
from services.deduplicator.partitions import hours_of, runs
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
