"""Listening claims: from what was written down to the spans in which a stream was proved heard.

A gatherer writes ranges (runs of frames with contiguous seq, all of whose rows are committed), openings and closings
of streams. A claim is what all three prove together, in exchange time, with margins on both sides; everything outside
the union of claims is a gap. The SQL view `listening` says the same; a property test holds the two together.
"""

import bisect
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar
from uuid import UUID

from libs.marketdata.rows import ListenClosedRow, ListenOpenedRow, ListenRangeRow
from libs.marketdata.units import ceil_ms, floor_ms

ORDERBOOK_CHANNEL = "orderbook_delta"


class Claim(NamedTuple):
    """Everything of `ticker` (None: of the whole channel) with from_ts <= exchange_ts < to_ts was heard."""

    connection: UUID
    sid: int
    channel: str
    ticker: str | None
    from_ts: int
    to_ts: int


Sid = tuple[UUID, int]
Span = tuple[int, int]


@dataclass(slots=True)
class _Island:
    seq_from: int
    seq_to: int
    sent_to: int
    margin: int


@dataclass(frozen=True, slots=True)
class _Closings:
    """Closings of one ticker (or of ticker NULL) on one sid, by ascending seq."""

    seqs: list[int]
    sent: list[int]

    def first_from(self, seq: int) -> Span | None:
        """Return (seq, sent_at) of the first closing at or after seq."""
        at = bisect.bisect_left(self.seqs, seq)
        return (self.seqs[at], self.sent[at]) if at < len(self.seqs) else None


_NONE = _Closings([], [])


def claims(
    ranges: Iterable[ListenRangeRow],
    opened: Iterable[ListenOpenedRow],
    closed: Iterable[ListenClosedRow],
) -> list[Claim]:
    """Return every claim these rows prove; rows may come in any order and more than once."""
    ranges_of, opened_of, closed_of = _by_sid(ranges), _by_sid(opened), _by_sid(closed)
    found: set[Claim] = set()
    for sid, openings in opened_of.items():
        islands = _islands(ranges_of.get(sid, ()))
        found.update(_claims_of_sid(islands, openings, closed_of.get(sid, ())))
    return sorted(found, key=lambda c: (c.connection, c.sid, c.ticker or "", c.from_ts, c.to_ts))


RowT = TypeVar("RowT", ListenRangeRow, ListenOpenedRow, ListenClosedRow)


def _by_sid(rows: Iterable[RowT]) -> dict[Sid, list[RowT]]:
    grouped: dict[Sid, list[RowT]] = defaultdict(list)
    for row in rows:
        grouped[row.connection, row.sid].append(row)
    return grouped


def _islands(ranges: Sequence[ListenRangeRow]) -> list[_Island]:
    """Join ranges where the next begins at most one seq after the last."""
    islands: list[_Island] = []
    for row in sorted(ranges, key=lambda r: (r.seq_from, r.seq_to)):
        last = islands[-1] if islands else None
        if last is None or row.seq_from > last.seq_to + 1:
            islands.append(_Island(row.seq_from, row.seq_to, row.sent_to, row.margin))
            continue
        last.margin = max(last.margin, row.margin)
        if row.seq_to > last.seq_to:
            last.seq_to, last.sent_to = row.seq_to, row.sent_to
        elif row.seq_to == last.seq_to:
            last.sent_to = max(last.sent_to, row.sent_to)
    return islands


def _closings(rows: Sequence[ListenClosedRow]) -> dict[str | None, _Closings]:
    by_ticker: dict[str | None, list[Span]] = defaultdict(list)
    for row in rows:
        by_ticker[row.ticker].append((row.seq, row.sent_at))
    return {
        ticker: _Closings([seq for seq, _ in sorted(ends)], [sent for _, sent in sorted(ends)])
        for ticker, ends in by_ticker.items()
    }


def _claims_of_sid(
    islands: Sequence[_Island],
    openings: Sequence[ListenOpenedRow],
    closings: Sequence[ListenClosedRow],
) -> Iterable[Claim]:
    ends = _closings(closings)
    ended_before: dict[tuple[str | None, int], int] = {}
    for closing in closings:
        key = (closing.ticker, closing.stream)
        ended_before[key] = min(closing.seq, ended_before.get(key, closing.seq))
    resumes = sorted(
        (row.seq, row.sent_at, row.margin)
        for row in openings
        if row.ticker is None and row.channel == ORDERBOOK_CHANNEL
    )
    for row in openings:
        if row.ticker is None and row.channel == ORDERBOOK_CHANNEL:
            continue
        if ended_before.get((row.ticker, row.stream), row.seq) < row.seq:
            continue
        for start, end in _spans(islands, row, ends, resumes):
            yield Claim(row.connection, row.sid, row.channel, row.ticker, start, end)


def _spans(
    islands: Sequence[_Island],
    opening: ListenOpenedRow,
    ends: Mapping[str | None, _Closings],
    resumes: Sequence[tuple[int, int, int]],
) -> Iterable[Span]:
    """Yield the spans of one opening: its own, and those it is carried into by openings of all streams of the sid."""
    own, all_streams = ends.get(opening.ticker, _NONE), ends.get(None, _NONE)
    point: tuple[int, int, int] | None = (opening.seq, opening.sent_at, opening.margin)
    while point is not None:
        seq, sent_at, margin = point
        island = next((i for i in islands if i.seq_from <= seq <= i.seq_to), None)
        if island is None:
            return
        end_seq, end_sent = island.seq_to, island.sent_to
        carried = False
        for closing, is_all in ((own.first_from(seq), False), (all_streams.first_from(seq), True)):
            if closing is not None and closing[0] <= end_seq:
                carried = is_all and (closing[0] < end_seq or not _ends(own, seq, end_seq))
                end_seq, end_sent = closing
        start, end = ceil_ms(sent_at + margin), floor_ms(end_sent - island.margin)
        if start < end:
            yield start, end
        point = _resume(all_streams, resumes, end_seq) if carried else None


def _ends(own: _Closings, seq: int, end_seq: int) -> bool:
    """True when the stream's own closing lies at end_seq: it does not go on with the others."""
    first = own.first_from(seq)
    return first is not None and first[0] == end_seq


def _resume(
    all_streams: _Closings, resumes: Sequence[tuple[int, int, int]], end_seq: int
) -> tuple[int, int, int] | None:
    """Return the opening of all streams that follows the closing at end_seq, if no other closing comes first."""
    at = bisect.bisect_right(resumes, end_seq, key=lambda resume: resume[0])
    if at == len(resumes):
        return None
    later = all_streams.first_from(end_seq + 1)
    if later is not None and later[0] < resumes[at][0]:
        return None
    return resumes[at]


def union(spans: Iterable[Span]) -> list[Span]:
    """Join half-open spans that touch or overlap; empty ones vanish."""
    joined: list[Span] = []
    for start, end in sorted(spans):
        if start >= end:
            continue
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(joined[-1][1], end))
        else:
            joined.append((start, end))
    return joined


def holes(spans: Iterable[Span], start: int, end: int) -> list[Span]:
    """Return what of [start, end) the spans leave uncovered."""
    found: list[Span] = []
    for low, high in union(spans):
        if low > start:
            found.append((start, min(low, end)))
        start = max(start, high)
        if start >= end:
            break
    if start < end:
        found.append((start, end))
    return [span for span in found if span[0] < span[1]]


def covers(spans: Sequence[Span], moment: int) -> bool:
    """True when one of the joined, ascending spans holds the moment."""
    at = bisect.bisect_right(spans, moment, key=lambda span: span[0]) - 1
    return at >= 0 and moment < spans[at][1]
