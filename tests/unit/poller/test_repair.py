"""Which spans of the tape repair which gaps."""

from typing import Any

from libs.marketdata.rows import GapRow
from libs.marketdata.rows import gap as make_gap
from services.poller.repair import LOOKBACK, WIDER, Span, due_spans, joined, span_of

SECOND = 1_000_000


def gap(**changes: Any) -> GapRow:
    """A gap of the trade channel from 100 s to 110 s, written at 111 s."""
    row = make_gap(
        111 * SECOND, "trade", "disconnected", slot="trade/0", from_ts=100 * SECOND, to_ts=110 * SECOND,
    )  # fmt: skip
    return row._replace(**changes)


def test_a_span_is_wider_than_its_gap() -> None:
    """Two seconds on both sides; receive times widen it further; an unknown begin looks a minute back."""
    assert span_of(gap()) == Span(None, 100 * SECOND - WIDER, 110 * SECOND + WIDER)
    wide = span_of(gap(received_from=90 * SECOND, received_to=120 * SECOND))
    assert wide == Span(None, 90 * SECOND - WIDER, 120 * SECOND + WIDER)
    unknown = span_of(gap(from_ts=None, to_ts=None))
    assert unknown == Span(None, 111 * SECOND - LOOKBACK - WIDER, 111 * SECOND + WIDER)


def test_touching_spans_of_one_ticker_join() -> None:
    """Both mirrors miss the same moment: the tape is read once; other tickers stay apart."""
    spans = [
        Span(None, 0, 10),
        Span("A", 5, 8),
        Span(None, 10, 20),
        Span(None, 30, 40),
        Span(None, 31, 32),
    ]
    assert joined(spans) == [Span(None, 0, 20), Span(None, 30, 40), Span("A", 5, 8)]
    assert joined([]) == []


def test_gaps_wait_for_the_cache_and_old_ones_are_left() -> None:
    """Only gaps of the trade channel, once the tape surely shows them, and not beyond the age."""
    rows = [gap(), gap(channel="orderbook_delta"), gap(received_at=200 * SECOND)]
    spans, waiting = due_spans(rows, 131 * SECOND, 20 * SECOND, 3600 * SECOND)
    assert spans == [span_of(gap())]
    assert [row.received_at for row in waiting] == [200 * SECOND]
    spans, waiting = due_spans(rows, 130 * SECOND, 20 * SECOND, 3600 * SECOND)
    assert (spans, len(waiting)) == ([], 2)
    spans, _ = due_spans([gap()], 10_000 * SECOND, 20 * SECOND, 60 * SECOND)
    assert spans == []
