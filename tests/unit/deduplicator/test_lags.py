"""Sketches of lags: what falls where, that they add up, and how far a quantile may be off."""

from collections import Counter
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from libs.store.merge_transaction import LagRow
from services.deduplicator.lags import BOUNDS, Lags, bucket_of
from tests.unit.deduplicator.support import MINUTE, NOON, arrival, batch, delta, room, ticker

WEEK = 7 * 86_400_000_000


def _lags(merged_at: int, *received: int, gatherer: int = 1) -> list[LagRow]:
    lags = Lags()
    lags.note(gatherer, "tickers", [ticker(1)._replace(received_at=at) for at in received])
    return lags.settle(merged_at)


@given(
    st.lists(st.integers(NOON - WEEK, NOON + 3 * MINUTE), min_size=1, max_size=60),
    st.integers(NOON, NOON + MINUTE),
)
def test_cutting_equals_counting_row_by_row(received: list[int], merged_at: int) -> None:
    """For any times of receipt, also after the merge, each row is in the bucket of its own lag and minute."""
    expected = Counter((at // MINUTE * MINUTE, bucket_of(merged_at - at)) for at in received)
    rows = _lags(merged_at, *received)
    found = Counter(
        {
            (row.minute, bucket): count
            for row in rows
            for bucket, count in zip(row.buckets, row.counts, strict=True)
        }
    )
    assert found == expected
    assert len({row.minute for row in rows}) == len(rows)
    longest = {
        row.minute: max(merged_at - at for at in received if at // MINUTE * MINUTE == row.minute)
        for row in rows
    }
    assert {row.minute: row.lag_max for row in rows} == {m: max(v, 0) for m, v in longest.items()}


def test_a_bucket_spans_an_eighth_of_a_doubling() -> None:
    """Its geometric middle is at most 4.5 % from either end, and eight of them double."""
    ratios = [high / low for low, high in pairwise(BOUNDS)]
    assert max(ratio**0.5 for ratio in ratios) < 1.045
    assert BOUNDS[8] == 2 * BOUNDS[0] == 2000
    assert bucket_of(BOUNDS[5]) == 5 and bucket_of(BOUNDS[5] + 1) == 6
    assert bucket_of(10 * BOUNDS[-1]) == len(BOUNDS) - 1


def test_a_plan_measures_every_gatherers_rows_and_no_claims() -> None:
    """Copies count for the gatherer that brought them; the moment of merging is told by who commits."""
    rows = [delta(n)._replace(received_at=NOON) for n in (1, 2)]
    plan = room().plan(
        [
            arrival(1, batch(orderbook_deltas=rows)),
            arrival(2, batch(orderbook_deltas=rows[:1], listen_ranges=[])),
        ]
    )
    assert plan.transaction.measure(NOON + 2000) == [
        LagRow(1, "orderbook_deltas", NOON, 2000, (8,), (2,)),
        LagRow(2, "orderbook_deltas", NOON, 2000, (8,), (1,)),
    ]
