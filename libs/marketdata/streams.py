"""Streams: the numbers that give a delta its identity, counted per market and (connection, sid).

`occurrence` is the running number of one exact change (side, price, size_delta) within one millisecond of the market,
`pos` its place among all deltas of that millisecond. Both are counted inside ONE stream and only for its current
millisecond: `ts_ms` does not decrease within a market, so nothing older can come. In the stream's first millisecond the
stream may have begun in the middle, hence `pos` is unknown there. A stream knows neither wall time nor sockets.
"""

from typing import NamedTuple

CUTS_MAX = 8
"""Cuts of one stream that may be waited for at once, all of its first millisecond; the oldest but the first is given up."""
SHARED_MAX = 1_000
"""Snapshots that may wait for one cut: nearly three hours of a quiet market that is probed every ten seconds.

Beyond it the oldest but the first stays without a cut: a book is rebuilt from the first, or from the newest."""

Change = tuple[bool, int, int]
"""(side, price, size_delta)."""


class Cut(NamedTuple):
    """A completed cut: after the snapshot `seq`, `deltas` of the millisecond `exchange_ts` followed."""

    seq: int
    exchange_ts: int
    deltas: int


class _Waiting:
    """Snapshots with no delta between them, whose one cut is not known yet."""

    __slots__ = ("deltas", "exchange_ts", "seqs")

    def __init__(self, seq: int) -> None:
        self.seqs = [seq]
        self.exchange_ts = -1
        self.deltas = 0

    def cuts(self) -> list[Cut]:
        return [Cut(seq, self.exchange_ts, self.deltas) for seq in self.seqs]


class Stream:
    """One market on one (connection, sid), from its beginning to its end.

    Attributes:
        number: the stream's number on its sid, in listening rows.
        epoch: which life of the sid it counts in; a seq gap of the sid begins a new one for every stream.
        exchange_ts: millisecond of the last delta, microseconds; -1 before the first.
        deltas: how many deltas of that millisecond it counted.
        whole: the current millisecond began inside the stream.
        claimed: an opening stands for it; False for stray deltas of a market that was given back.
        waiting: snapshots without a cut, oldest first; None when there are none.
    """

    __slots__ = (
        "claimed", "deltas", "epoch", "exchange_ts", "number", "only", "opened_seq", "seen", "snapshots",
        "waiting", "whole",
    )  # fmt: skip

    def __init__(self, number: int, epoch: int, opened_seq: int, claimed: bool = True) -> None:
        self.number = number
        self.claimed = claimed
        self.opened_seq = opened_seq
        self.begin(epoch)

    def begin(self, epoch: int) -> None:
        """Forget everything that was counted: what follows is counted as a new stream's."""
        self.epoch = epoch
        self.exchange_ts = -1
        self.deltas = 0
        self.whole = False
        self.snapshots = 0
        self.only: Change | None = None
        self.seen: dict[Change, int] | None = None
        self.waiting: list[_Waiting] | None = None

    def goes_back(self, exchange_ts: int) -> bool:
        """True when this delta is older than the last one: the stream ends before it."""
        return exchange_ts < self.exchange_ts

    def count(self, exchange_ts: int, change: Change) -> int:
        """Count one delta and return its occurrence; `pos` tells its place. exchange_ts must not go back."""
        if exchange_ts != self.exchange_ts:
            self.whole = self.exchange_ts >= 0
            self.exchange_ts = exchange_ts
            self.deltas = 1
            self.only = change
            self.seen = None
            return 1
        self.deltas += 1
        seen = self.seen
        if seen is None:
            assert self.only is not None
            seen = self.seen = {self.only: 1}
        occurrence = seen[change] = seen.get(change, 0) + 1
        return occurrence

    @property
    def pos(self) -> int | None:
        """Place of the last counted delta in its millisecond; None in the stream's first."""
        return self.deltas if self.whole else None

    def snapshot(self, seq: int) -> tuple[int, int] | None:
        """Take a snapshot at `seq`; return its cut (exchange_ts, pos), None when follow() will tell it."""
        self.snapshots += 1
        if self.whole:
            return self.exchange_ts, self.deltas
        waiting = self.waiting
        if waiting is None:
            waiting = self.waiting = []
        elif waiting[-1].exchange_ts < 0:
            seqs = waiting[-1].seqs
            if len(seqs) >= SHARED_MAX:
                del seqs[1]
            seqs.append(seq)
            return None
        elif len(waiting) >= CUTS_MAX:
            del waiting[1]
        waiting.append(_Waiting(seq))
        return None

    def follow(self, exchange_ts: int) -> list[Cut]:
        """Note a delta for the waiting snapshots, and return the cuts that its millisecond completes.

        Call it for every delta while `waiting` is not None, before or after count().
        """
        assert self.waiting is not None
        cuts: list[Cut] = []
        kept = []
        for wait in self.waiting:
            if wait.exchange_ts in (-1, exchange_ts):
                wait.exchange_ts = exchange_ts
                wait.deltas += 1
                kept.append(wait)
            else:
                cuts += wait.cuts()
        self.waiting = kept or None
        return cuts

    def pass_time(self, until: int) -> list[Cut]:
        """Return the cuts whose millisecond is over at exchange time `until`: nothing older can come."""
        if self.waiting is None:
            return []
        over = [w for w in self.waiting if w.exchange_ts >= 0 and w.exchange_ts + 1_000 <= until]
        self.waiting = [w for w in self.waiting if w not in over] or None
        return [cut for wait in over for cut in wait.cuts()]
