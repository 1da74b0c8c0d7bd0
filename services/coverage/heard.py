"""From claims and causes to answers: who heard, what nobody heard and why, and which share that was. Pure.

A subject is one market on one channel, or a whole channel. It is judged between the first and the last claim that
anybody makes of it in the span: before the first nobody had begun, after the last nothing is proved yet. A market that
is over is given up by plan (its streams end as "deleted"), and what follows is no gap; whoever claims it again without
having given it up, a zone that was away at the time, does not bring it back to life.
"""

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from libs.marketdata.listening import Span, holes, union
from libs.store.coverage_records import Cause, Claim

PLANNED = "deleted"
"""Reason of a closing that gives a market up because it is over, or heard elsewhere."""


class Unheard(NamedTuple):
    """No gatherer heard this of a subject; times in microseconds, [from_ts, to_ts)."""

    channel: str
    ticker: str | None
    from_ts: int
    to_ts: int
    causes: tuple[Cause, ...]

    @property
    def length(self) -> int:
        """Microseconds."""
        return self.to_ts - self.from_ts


@dataclass(frozen=True, slots=True)
class Lane:
    """What one gatherer (None: all of them together) heard of a channel.

    heard: everything of every subject. partly: some subject was not heard. share: of the time every subject was to be
    heard, summed over subjects; None without any. missed: microseconds in which some subject, or all of them, were to be
    heard and were not.
    """

    gatherer: int | None
    subjects: int
    heard: list[Span]
    partly: list[Span]
    share: float | None
    missed: int


@dataclass(frozen=True, slots=True)
class ChannelHeard:
    """A channel in a span. first, last: bounds of what anybody claims; None when nobody does."""

    channel: str
    claims: Sequence[Claim]
    causes: Sequence[Cause]
    unheard: list[Unheard]
    lanes: list[Lane]
    first: int | None
    last: int | None


def channel_heard(
    channel: str,
    claims: Iterable[Claim],
    causes: Sequence[Cause],
    gatherers: Iterable[int],
    span: Span,
) -> ChannelHeard:
    """Answer for one channel; claims are clipped to the span."""
    clipped = [_clip(claim, span) for claim in claims]
    by_subject: dict[str | None, list[Claim]] = defaultdict(list)
    for claim in clipped:
        by_subject[claim.ticker].append(claim)
    lives = {ticker: _lives(found) for ticker, found in by_subject.items()}
    lanes = [_lane(gatherer, by_subject, lives) for gatherer in (*gatherers, None)]
    unheard = [
        Unheard(channel, ticker, *hole, _causes_of(ticker, hole, causes))
        for ticker, found in by_subject.items()
        for life in lives[ticker]
        for hole in holes(_spans(found), *life)
    ]
    unheard.sort(key=lambda gap: (-gap.length, gap.from_ts, gap.ticker or ""))
    first = min((claim.from_ts for claim in clipped), default=None)
    last = max((claim.to_ts for claim in clipped), default=None)
    return ChannelHeard(channel, clipped, causes, unheard, lanes, first, last)


def _lives(claims: Sequence[Claim]) -> list[Span]:
    """Return from when to when a subject was to be heard: a hole that nobody planned lies within a life."""
    lives: list[Span] = []
    given_up: dict[int, set[int]] = defaultdict(set)
    for claim in claims:
        if claim.ended == PLANNED:
            given_up[claim.to_ts].add(claim.gatherer)
    gone: set[int] = set()
    for start, end in _spans(claims):
        if gone and not any(c.gatherer in gone and c.from_ts >= start for c in claims):
            break
        if lives and not gone:
            lives[-1] = (lives[-1][0], end)
        else:
            lives.append((start, end))
        was_planned = bool(given_up.get(end))
        gone = set().union(*(who for at, who in given_up.items() if at <= end)) if was_planned else set()  # fmt: skip
    return lives


def _clip(claim: Claim, span: Span) -> Claim:
    return claim._replace(from_ts=max(claim.from_ts, span[0]), to_ts=min(claim.to_ts, span[1]))


def _spans(claims: Iterable[Claim]) -> list[Span]:
    return union((claim.from_ts, claim.to_ts) for claim in claims)


def _lane(
    gatherer: int | None,
    by_subject: dict[str | None, list[Claim]],
    lives: dict[str | None, list[Span]],
) -> Lane:
    own = {
        ticker: _within(
            _spans(claim for claim in found if gatherer in {None, claim.gatherer}), lives[ticker]
        )
        for ticker, found in by_subject.items()
    }
    missed = union(
        hole for ticker, spans in lives.items() for life in spans for hole in holes(own[ticker], *life)
    )  # fmt: skip
    some = union(span for spans in own.values() for span in spans)
    heard = _without(some, missed)
    total = sum(end - start for spans in lives.values() for start, end in spans)
    listened = sum(end - start for spans in own.values() for start, end in spans)
    return Lane(
        gatherer, sum(map(bool, own.values())), heard, _without(some, heard),
        listened / total if total else None, sum(end - start for start, end in missed),
    )  # fmt: skip


def _within(spans: Sequence[Span], lives: Sequence[Span]) -> list[Span]:
    """Return what of the spans lies in a life."""
    return [
        (max(start, low), min(end, high))
        for low, high in lives
        for start, end in spans
        if start < high and end > low
    ]


def _without(spans: Sequence[Span], taken: Sequence[Span]) -> list[Span]:
    """Return what of joined spans is in none of the other joined, ascending spans."""
    starts = [start for start, _ in taken]
    left: list[Span] = []
    for start, end in spans:
        low, high = bisect_right(starts, start), bisect_left(starts, end)
        left += holes(taken[max(low - 1, 0) : high], start, end)
    return left


def _causes_of(ticker: str | None, gap: Span, causes: Sequence[Cause]) -> tuple[Cause, ...]:
    """Return the causes that touch a gap: of its market, and those of a slot or channel; equal ones once."""
    start, end = gap
    return tuple(
        dict.fromkeys(
            cause
            for cause in causes
            if cause.ticker in {None, ticker} or ticker is None
            if cause.from_ts <= end and cause.to_ts >= start
        )
    )
