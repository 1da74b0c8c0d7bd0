"""How long after its receipt each gatherer's rows were merged, as sketches that add up.

A lag falls into one of fixed buckets whose bounds grow by the eighth root of two from a millisecond on, so that counts
of any transactions, minutes or tables may be summed and a quantile read from the sums is at most 4.5 % off. The
largest lag is kept as it is. Times of receipt are sorted once a transaction and cut at the bounds: nothing is done row
by row, and rows that waited together are cut once for all.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from operator import itemgetter
from typing import Any

from libs.marketdata.tables import GATHERER_TABLES
from libs.marketdata.units import MILLISECOND, MINUTE
from libs.store.merge_transaction import LagRow

PER_DOUBLING = 8
"""Buckets between a lag and its double; the view `lag_by_minute` knows the same number."""
DOUBLINGS = 34
"""From a millisecond on: 200 days. What is longer counts as that long; its `lag_max` tells."""

BOUNDS = tuple(
    int(MILLISECOND * 2 ** (bucket / PER_DOUBLING)) for bucket in range(PER_DOUBLING * DOUBLINGS)
)
"""The longest lag of each bucket, microseconds; the last bucket has no end."""

_RECEIVED = {
    name: itemgetter(table.column_names.index("received_at"))
    for name, table in GATHERER_TABLES.items()
}


class Lags:
    """What one transaction merges, by gatherer and table; claims of listening are no facts and have no lag."""

    def __init__(self) -> None:
        self._received: dict[tuple[int, str], list[int]] = {}

    def note(self, gatherer: int, table_name: str, rows: Sequence[Any]) -> None:
        """Rows of this gatherer and table are merged by this transaction, copies among them."""
        if GATHERER_TABLES[table_name].family is not None:
            times = self._received.setdefault((gatherer, table_name), [])
            times.extend(map(_RECEIVED[table_name], rows))

    def settle(self, merged_at: int) -> list[LagRow]:
        """Return the increments of the transaction.

        Args:
            merged_at: when it merges them, microseconds by production's clock.
        """
        return [
            LagRow(gatherer, table_name, *cut)
            for (gatherer, table_name), times in self._received.items()
            for cut in _cuts(sorted(times), merged_at)
        ]


def bucket_of(lag: int) -> int:
    """Return the bucket of a lag in microseconds; one before its receipt (clocks differ) is none at all."""
    return min(bisect_left(BOUNDS, lag), len(BOUNDS) - 1)


def _cuts(
    times: Sequence[int], merged_at: int
) -> Iterator[tuple[int, int, tuple[int, ...], tuple[int, ...]]]:
    """Yield minute (its first microsecond), longest lag, buckets and their counts of ascending times of receipt."""
    low = 0
    while low < len(times):
        minute = times[low] // MINUTE * MINUTE
        high = bisect_left(times, minute + MINUTE, low)
        buckets, counts, at = [], [], low
        while at < high:
            bucket = bucket_of(merged_at - times[at])
            after = bisect_left(times, merged_at - BOUNDS[bucket - 1], at, high) if bucket else high
            buckets.append(bucket)
            counts.append(after - at)
            at = after
        yield minute, max(merged_at - times[low], 0), tuple(buckets), tuple(counts)
        low = high
