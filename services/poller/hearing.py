"""What the zone proved to have heard of the trade channel, kept small while the ledger grows. Pure.

The same claims as the view `listening`, of a follower's own: of each sid only the joined ranges, openings and closings
are kept, which is all that a later range can still be joined to. What was dropped to stay small is never claimed more
than it was; at worst a span is read from the tape that was heard after all.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

from libs.marketdata.listening import Sid, Span, claims, union
from libs.marketdata.rows import ListenClosedRow, ListenOpenedRow, ListenRangeRow

SIDS_MAX: Final = 64
"""Sids that a range may still be joined to; beyond, those heard longest ago are settled."""
ROWS_MAX: Final = 200
"""Joined ranges, openings and closings of one sid."""
RANGES_KEPT: Final = 50
"""Joined ranges that a sid with more than ROWS_MAX keeps."""


@dataclass(slots=True)
class _Heard:
    ranges: list[ListenRangeRow] = field(default_factory=list)
    opened: list[ListenOpenedRow] = field(default_factory=list)
    closed: list[ListenClosedRow] = field(default_factory=list)

    @property
    def last_sent(self) -> int:
        return max((row.sent_to for row in self.ranges), default=0)

    def __len__(self) -> int:
        return len(self.ranges) + len(self.opened) + len(self.closed)

    def spans(self) -> list[Span]:
        """The claims proved by what is kept."""
        return [(c.from_ts, c.to_ts) for c in claims(self.ranges, self.opened, self.closed)]


class Hearing:
    """The claims of one channel that is heard whole. `lanes`: cursors of the ledger up to which they are known."""

    def __init__(self) -> None:
        self.lanes: dict[UUID, int] = {}
        self._sids: dict[Sid, _Heard] = {}
        self._settled: list[Span] = []

    def absorb(
        self,
        ranges: Iterable[ListenRangeRow],
        opened: Iterable[ListenOpenedRow],
        closed: Iterable[ListenClosedRow],
    ) -> None:
        """Take in rows of the channel, in any order, any number of times."""
        touched: set[Sid] = set()
        for row in ranges:
            self._of(row, touched).ranges.append(row)
        for opening in opened:
            self._of(opening, touched).opened.append(opening._replace(received_at=0, row_no=0))
        for closing in closed:
            self._of(closing, touched).closed.append(closing._replace(received_at=0, row_no=0))
        for sid in touched:
            heard = self._sids[sid]
            heard.ranges = condensed(heard.ranges)
            heard.opened = sorted(set(heard.opened), key=lambda row: row.seq)
            heard.closed = sorted(set(heard.closed), key=lambda row: row.seq)
            if len(heard) > ROWS_MAX:
                self._shorten(heard)
        self._settle_old()

    def spans(self) -> list[Span]:
        """Return the spans [from, to) in which at least one sid heard the channel, joined and ascending."""
        found = list(self._settled)
        for heard in self._sids.values():
            found += heard.spans()
        return union(found)

    def forget_before(self, moment: int) -> None:
        """Let go of what was settled before the moment."""
        self._settled = [(max(a, moment), b) for a, b in self._settled if b > moment]

    def dump(self) -> dict[str, Any]:
        """Return everything as JSON can hold it."""
        return {
            "lanes": {str(lane): number for lane, number in self.lanes.items()},
            "settled": self._settled,
            "sids": [
                [str(sid[0]), sid[1], *(_plain(rows) for rows in (h.ranges, h.opened, h.closed))]
                for sid, h in self._sids.items()
            ],
        }

    @classmethod
    def load(cls, dumped: dict[str, Any]) -> "Hearing":
        """Return what dump() was called on."""
        hearing = cls()
        hearing.lanes = {UUID(lane): number for lane, number in dumped["lanes"].items()}
        hearing._settled = [(a, b) for a, b in dumped["settled"]]
        for connection, sid, ranges, opened, closed in dumped["sids"]:
            hearing._sids[UUID(connection), sid] = _Heard(
                [ListenRangeRow(*_uuid(row, 8)) for row in ranges],
                [ListenOpenedRow(*_uuid(row, 7)) for row in opened],
                [ListenClosedRow(*_uuid(row, 6)) for row in closed],
            )
        return hearing

    def _of(
        self, row: ListenRangeRow | ListenOpenedRow | ListenClosedRow, touched: set[Sid]
    ) -> _Heard:
        sid = (row.connection, row.sid)
        touched.add(sid)
        return self._sids.setdefault(sid, _Heard())

    def _shorten(self, heard: _Heard) -> None:
        """Settle what a sid claims and keep its newest rows; a stream's closings stay with its openings."""
        self._settled = union([*self._settled, *heard.spans()])
        heard.ranges = heard.ranges[-RANGES_KEPT:]
        first = heard.ranges[0].seq_from if heard.ranges else 0
        heard.opened = [row for row in heard.opened if row.seq >= first]
        streams = {row.stream for row in heard.opened}
        heard.closed = [row for row in heard.closed if row.seq >= first or row.stream in streams]

    def _settle_old(self) -> None:
        if len(self._sids) <= SIDS_MAX:
            return
        by_age = sorted(self._sids, key=lambda sid: self._sids[sid].last_sent)
        for sid in by_age[: len(by_age) - SIDS_MAX]:
            self._settled = union([*self._settled, *self._sids.pop(sid).spans()])


def condensed(rows: Iterable[ListenRangeRow]) -> list[ListenRangeRow]:
    """Join the ranges of one sid where the next begins at most one seq after the last; the claims stay the same."""
    joined: list[ListenRangeRow] = []
    for row in sorted(rows, key=lambda r: (r.seq_from, r.seq_to)):
        last = joined[-1] if joined else None
        if last is None or row.seq_from > last.seq_to + 1:
            joined.append(row._replace(received_at=0, row_no=0))
            continue
        sent_to = row.sent_to if row.seq_to > last.seq_to else last.sent_to
        if row.seq_to == last.seq_to:
            sent_to = max(row.sent_to, last.sent_to)
        joined[-1] = last._replace(
            seq_to=max(last.seq_to, row.seq_to),
            sent_from=min(last.sent_from, row.sent_from),
            sent_to=sent_to,
            margin=max(last.margin, row.margin),
        )
    return joined


def _plain(rows: Sequence[tuple[object, ...]]) -> list[list[object]]:
    return [[str(v) if isinstance(v, UUID) else v for v in row] for row in rows]


def _uuid(row: Sequence[Any], place: int) -> list[Any]:
    return [UUID(value) if at == place else value for at, value in enumerate(row)]


def to_text(hearing: Hearing, gap_lanes: dict[UUID, int]) -> str:
    """Write down what a follower knows: what was heard, and up to where the gap rows are read."""
    gaps = {str(lane): number for lane, number in gap_lanes.items()}
    return json.dumps({"hearing": hearing.dump(), "gap_lanes": gaps}, separators=(",", ":"))


def from_text(text: str | None) -> tuple[Hearing, dict[UUID, int]]:
    """Read what to_text() wrote; None: nothing is known yet."""
    if text is None:
        return Hearing(), {}
    value = json.loads(text)
    gaps = {UUID(lane): number for lane, number in value["gap_lanes"].items()}
    return Hearing.load(value["hearing"]), gaps
