"""Healing the trade channel: for each of its gaps the tape is read by REST and what it holds is stored. Pure part.

A trade is one fact by its trade_id, so copies of what was heard after all do no harm; times are widened rather than
narrowed.
"""

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from libs.marketdata.rows import GapRow

TRADE_CHANNEL: Final = "trade"
WIDER: Final = 2_000_000
"""Microseconds added on both sides of a gap: clock skew, and the margin of listening."""
LOOKBACK: Final = 60_000_000
"""Microseconds before a gap's end where its beginning is not known."""


class Span(NamedTuple):
    """Trades of `ticker` (None: all) within [from_ts, to_ts] are to be read; microseconds."""

    ticker: str | None
    from_ts: int
    to_ts: int


def span_of(gap: GapRow) -> Span:
    """Return what to read for a gap of the trade channel; unknown ends are taken from the receive times."""
    ends = [t for t in (gap.to_ts, gap.received_to) if t is not None]
    to_ts = max(ends, default=gap.received_at)
    starts = [t for t in (gap.from_ts, gap.received_from) if t is not None]
    from_ts = min(starts, default=to_ts - LOOKBACK)
    return Span(gap.ticker, min(from_ts, to_ts) - WIDER, to_ts + WIDER)


def joined(spans: Iterable[Span]) -> list[Span]:
    """Join spans of one ticker that touch; both mirrors of the trade channel tend to miss the same moments."""
    result: list[Span] = []
    for span in sorted(spans, key=lambda s: (s.ticker or "", s.from_ts, s.to_ts)):
        last = result[-1] if result else None
        if last is not None and last.ticker == span.ticker and span.from_ts <= last.to_ts:
            result[-1] = last._replace(to_ts=max(last.to_ts, span.to_ts))
        else:
            result.append(span)
    return result


def due_spans(
    gaps: Sequence[GapRow], now: int, delay: int, age_max: int
) -> tuple[list[Span], list[GapRow]]:
    """Return the spans whose tape may be read now, and the gaps that must wait; gaps older than age_max are left."""
    trade = [gap for gap in gaps if gap.channel == TRADE_CHANNEL]
    waiting = [gap for gap in trade if gap.received_at + delay > now]
    due = [gap for gap in trade if gap.received_at + delay <= now]
    spans = [span for span in map(span_of, due) if span.to_ts > now - age_max]
    return joined(spans), waiting
