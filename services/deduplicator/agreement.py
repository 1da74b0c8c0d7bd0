"""Do two whole streams tell the same story of a millisecond? The standing test of "one sequence on every connection".

A millisecond is whole in a stream when its deltas carry pos 1..n and the stream's next delta of that market opens a
later millisecond with pos 1: pos is NULL in a stream's first millisecond, so a stream that broke off never closes one.
Whole milliseconds of different streams are compared by content and order. A share of the markets is watched (chosen by
a hash of the ticker, so that every gatherer's copy is in the sample), and the memory is bounded.
"""

import zlib
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple
from uuid import UUID

from libs.marketdata.rows import DeltaRow

Change = tuple[int, bool, int]
"""Price, side, size_delta."""


class Disagreement(NamedTuple):
    """Two whole streams differ about one millisecond of one market."""

    ticker: str
    exchange_ts: int
    first: str
    second: str

    def __str__(self) -> str:
        return f"{self.ticker} at {self.exchange_ts}: {self.first} against {self.second}"


@dataclass(slots=True)
class _Open:
    """The millisecond a stream is in; changes is None when its beginning was not seen."""

    exchange_ts: int
    changes: list[Change] | None


class Agreement:
    """Compares whole milliseconds of the watched markets.

    Args of the constructor:
        sample: every sample-th market is watched; 1 is all, 0 none.
        streams_max, milliseconds_max: how much is remembered; the oldest goes first.
    """

    def __init__(
        self, *, sample: int, streams_max: int = 200_000, milliseconds_max: int = 100_000
    ) -> None:
        self._sample = sample
        self._streams_max = streams_max
        self._milliseconds_max = milliseconds_max
        self._watched: dict[str, bool] = {}
        self._open: OrderedDict[tuple[int, UUID, int, str], _Open] = OrderedDict()
        self._told: OrderedDict[tuple[str, int], tuple[tuple[Change, ...], str]] = OrderedDict()
        self.compared = 0

    def observe(self, gatherer: int, rows: Iterable[DeltaRow]) -> list[Disagreement]:
        """Follow the rows of a lane's next batches; return what they contradict.

        Rows of one batch may come in any order (the database promises none): they are put into that of their frames.
        """
        if not self._sample:
            return []
        watched = [row for row in rows if self._is_watched(row.ticker)]
        watched.sort(key=lambda row: (row.connection, row.sid, row.seq))
        found = (self._follow(gatherer, row) for row in watched)
        return [disagreement for disagreement in found if disagreement is not None]

    def forget(self, gatherer: int | None = None) -> None:
        """Forget open milliseconds (of one gatherer): rows between may be missing, or will be read again."""
        if gatherer is None:
            self._open.clear()
            return
        for key in [key for key in self._open if key[0] == gatherer]:
            del self._open[key]

    def _is_watched(self, ticker: str) -> bool:
        known = self._watched.get(ticker)
        if known is not None:
            return known
        if len(self._watched) >= self._streams_max:
            self._watched.clear()
        is_watched = zlib.crc32(ticker.encode()) % self._sample == 0
        self._watched[ticker] = is_watched
        return is_watched

    def _follow(self, gatherer: int, row: DeltaRow) -> Disagreement | None:
        key = (gatherer, row.connection, row.sid, row.ticker)
        before = self._open.get(key)
        change = (row.price, row.side, row.size_delta)
        if row.pos != 1:
            if before is None or before.changes is None:
                return None
            is_next = row.exchange_ts == before.exchange_ts and row.pos == len(before.changes) + 1
            if is_next:
                before.changes.append(change)
            else:
                before.changes = None
            return None
        self._open[key] = _Open(row.exchange_ts, [change])
        if before is None:
            self._bound()
            return None
        if before.changes is None or row.exchange_ts <= before.exchange_ts:
            return None
        who = f"gatherer {gatherer} connection {row.connection}"
        return self._compare((row.ticker, before.exchange_ts), tuple(before.changes), who)

    def _compare(
        self, millisecond: tuple[str, int], changes: tuple[Change, ...], who: str
    ) -> Disagreement | None:
        told = self._told.get(millisecond)
        if told is None:
            self._told[millisecond] = (changes, who)
            if len(self._told) > self._milliseconds_max:
                self._told.popitem(last=False)
            return None
        self.compared += 1
        if told[0] == changes:
            return None
        return Disagreement(*millisecond, f"{told[1]} {told[0]}", f"{who} {changes}")

    def _bound(self) -> None:
        while len(self._open) > self._streams_max:
            self._open.popitem(last=False)
