"""Holds snapshots against the books they were taken of, and the books rebuilt from production against the exchange's."""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet

from libs.marketdata.listening import Span, holes
from libs.marketdata.rebuild import BookImpossible, Levels, apply, levels_of
from libs.marketdata.units import MILLISECOND, SECOND
from services.local.sessions import Sessions
from services.local.stored import Snapshot, Stored
from services.local.truth import Market, Truth
from services.local.verdict import ClaimIndex, Verdict

REST_AGE_MAX = 15 * SECOND
"""A REST book may be this old when it is answered (it comes through a CDN)."""
AT_CLOSE = SECOND
"""What the last frame of a market that closes need not prove: the margin. It is unsubscribed when it is closed."""
AFTER_SNAPSHOT = SECOND + MILLISECOND
"""From a stream's first snapshot to the beginning of its claim: the margin."""


def judge_snapshots(
    verdict: Verdict, truth: Truth, sessions: Sessions, snapshots: Sequence[Snapshot]
) -> None:
    """Count the snapshots that are the book they were taken of."""
    for snapshot in snapshots:
        book = snapshot.book
        if book is None:
            continue
        verdict.snapshots += 1
        if snapshot.source == "ws":
            key = (snapshot.ticker, snapshot.sid or 0, snapshot.seq or 0, snapshot.sent_at or 0)
            equal = (book.yes, book.no) in sessions.snapshots.get(key, ())
        else:
            equal = _was_a_book(
                truth.markets[snapshot.ticker], levels_of(book.yes, book.no), snapshot
            )
        verdict.snapshots_equal += equal


def judge_books(
    verdict: Verdict, truth: Truth, stored: Stored, claims: ClaimIndex, lives: Mapping[str, Span], heard: AbstractSet[str],
) -> None:  # fmt: skip
    """Rebuild the last book of every market that was ever heard, from snapshots without a gap behind them."""
    taken = stored.taken()
    rebuilt: dict[str, Levels | None] = {}
    for ticker in truth.markets.keys() & heard:
        market = truth.markets[ticker]
        end = lives[ticker][1] - (AT_CLOSE if market.closed_at else 0) if ticker in lives else 0
        own = claims.of(ticker)
        usable = [
            snapshot
            for snapshot in taken.get(ticker, ())
            if (start := snapshot.observed_at + AFTER_SNAPSHOT) <= end
            and not holes(own, start, end)
        ]
        try:
            book = stored.book(ticker, usable)
        except BookImpossible as error:
            verdict.faults.append(f"the book of {ticker} cannot be rebuilt: {error}")
            continue
        if book is None and len(usable) < len(taken.get(ticker, ())):
            verdict.books_unproved += 1
        else:
            rebuilt[ticker] = book
    verdict.compare_books(rebuilt, {ticker: truth.markets[ticker].book() for ticker in rebuilt})


def _was_a_book(market: Market, levels: Levels, snapshot: Snapshot) -> bool:
    """True when the market's book stood so at some moment within the age a REST answer may have."""
    low = (snapshot.requested_at or snapshot.received_at) - REST_AGE_MAX
    before = [d for d in market.deltas if d.exchange_ts < low]
    book = apply(market.start, before)
    if book == levels:
        return True
    for delta in market.deltas[len(before) :]:
        if delta.exchange_ts > snapshot.received_at:
            return False
        book = apply(book, [delta])
        if book == levels:
            return True
    return False
