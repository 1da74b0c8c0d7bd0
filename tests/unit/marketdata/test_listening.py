"""Listening claims."""

from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from libs.marketdata.listening import claims, covers, holes, union
from libs.marketdata.rows import ListenClosedRow, ListenOpenedRow, ListenRangeRow

CONNECTION = UUID(int=1)
S = 1_000_000


def ranged(seq_from: int, seq_to: int, margin: int = S) -> ListenRangeRow:
    """Frames of a sid that sends frame n at second n."""
    return ListenRangeRow(
        0, seq_from, seq_to, seq_from * S, seq_to * S, margin, 1, 1, CONNECTION, "orderbook_delta"
    )


def opened(
    ticker: str | None, seq: int, stream: int = 1, channel: str = "orderbook_delta"
) -> ListenOpenedRow:
    return ListenOpenedRow(
        0, seq, seq * S, S, stream, 1, 1, CONNECTION, channel, "orderbook/0", ticker
    )


def closed(
    ticker: str | None, seq: int, stream: int = 1, channel: str = "orderbook_delta"
) -> ListenClosedRow:
    return ListenClosedRow(0, seq, seq * S, stream, 1, 1, CONNECTION, channel, "seq", ticker)


def spans(
    ranges: list[ListenRangeRow], opens: list[ListenOpenedRow], closes: list[ListenClosedRow]
) -> dict[str | None, list[tuple[int, int]]]:
    found: dict[str | None, list[tuple[int, int]]] = {}
    for claim in claims(ranges, opens, closes):
        found.setdefault(claim.ticker, []).append((claim.from_ts // S, claim.to_ts // S))
    return found


def test_ranges_join_where_seq_is_contiguous_and_margins_stand_on_both_sides() -> None:
    """From the opening + 1 s to the last frame - margin, over ranges that came in any order and twice."""
    ranges = [ranged(21, 40), ranged(1, 20), ranged(21, 40)]
    assert spans(ranges, [opened("A", 5)], []) == {"A": [(6, 39)]}


def test_the_largest_margin_of_an_island_counts() -> None:
    """A connection that once saw late deltas claims less at the end."""
    assert spans([ranged(1, 20), ranged(21, 40, 4 * S)], [opened("A", 5)], []) == {"A": [(6, 36)]}


def test_a_lost_batch_ends_the_claim_and_nothing_carries_over_the_hole() -> None:
    """Without a restated opening the frames after a hole prove nothing."""
    ranges = [ranged(1, 20), ranged(31, 60)]
    assert spans(ranges, [opened("A", 5)], []) == {"A": [(6, 19)]}
    assert spans(ranges, [opened("A", 5), opened("A", 31)], []) == {"A": [(6, 19), (32, 59)]}


def test_an_opening_outside_every_range_counts_nothing() -> None:
    """The frame that began the stream must itself be proved."""
    assert spans([ranged(1, 20)], [opened("A", 25)], []) == {}


def test_a_seq_gap_carries_every_stream_but_the_one_that_had_ended() -> None:
    """Closed and opened rows with ticker NULL stand for all streams still open at the gap."""
    ranges = [ranged(1, 20), ranged(31, 60)]
    opens = [opened("A", 5), opened("B", 5), opened("C", 5), opened(None, 31)]
    closes = [closed("B", 12), closed("C", 20), closed(None, 20), closed("A", 50, stream=2)]
    assert spans(ranges, opens, closes) == {
        "A": [(6, 19), (32, 49)],
        "B": [(6, 11)],
        "C": [(6, 19)],
    }


def test_a_stream_whose_closing_was_lost_with_its_batch_is_not_carried() -> None:
    """The island of the opening must reach the closing of all streams; a hole between breaks the chain."""
    ranges = [ranged(1, 10), ranged(15, 20), ranged(31, 60)]
    assert spans(ranges, [opened("A", 5), opened(None, 31)], [closed(None, 20)]) == {"A": [(6, 9)]}


def test_a_restated_opening_of_a_stream_closed_before_counts_nothing() -> None:
    """The same stream number closed at a lower seq: the restatement was out of date."""
    assert spans([ranged(1, 60)], [opened("A", 5), opened("A", 30)], [closed("A", 20)]) == {
        "A": [(6, 19)]
    }


def test_whole_channel_sids_speak_with_ticker_null_and_are_not_carried() -> None:
    """On ticker, trade and lifecycle sids each opening stands for itself."""
    ranges = [ranged(0, 60)._replace(channel="trade")]
    opens = [opened(None, 0, 1, "trade"), opened(None, 41, 2, "trade")]
    assert spans(ranges, opens, [closed(None, 30, 1, "trade")]) == {None: [(1, 29), (42, 59)]}


SPANS = st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), max_size=8)


@given(SPANS, st.integers(0, 50), st.integers(0, 60))
def test_union_and_holes_share_every_moment_out(
    items: list[tuple[int, int]], low: int, high: int
) -> None:
    """A moment of [low, high) lies in a hole exactly when no span holds it."""
    joined, gaps = union(items), holes(items, low, high)
    for moment in range(61):
        held = any(a <= moment < b for a, b in items)
        assert covers(joined, moment) == held
        assert any(a <= moment < b for a, b in gaps) == (low <= moment < high and not held)
