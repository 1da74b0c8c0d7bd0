"""Sequence: what the numbers of one sid prove, and how far in exchange time.

Every frame with a sid takes the next number of that sid (data, snapshots, `ok`, `unsubscribed`, `error`), over all its
markets. A run is an unbroken piece of them; runs become listen_ranges. A jump forward is a gap, a number that was
there already counts nothing. Sids whose frames carry no number (ticker) are counted by our own.
"""

import enum
from typing import NamedTuple

from libs.marketdata.units import SECOND

START_MARGIN = SECOND
"""Start margin: every delta sent later has come; the second is for clock skew."""
START_MARGIN_UNSENT = 5 * SECOND
"""Margin, both ends, where frames carry no sent_at and our receive time stands in."""


class Run(NamedTuple):
    """Frames seq_from..seq_to of one sid without a hole; times are those of the first and last frame."""

    seq_from: int
    seq_to: int
    sent_from: int
    sent_to: int


class Step(enum.Enum):
    """What a frame's number says."""

    NEXT = "next"
    GAP = "gap"
    OLD = "old"


class Margin:
    """The end margin of one connection, microseconds: 1 s, or twice the largest lag seen, whichever is more.

    Lag is sent_at - exchange_ts. From the first frame without sent_at on, the least is 5 s.
    """

    __slots__ = ("base", "lag_max")

    def __init__(self) -> None:
        self.base = START_MARGIN
        self.lag_max = 0

    def observe(self, lag: int) -> None:
        """Note one fact's lag, microseconds."""
        if lag > self.lag_max:
            self.lag_max = lag

    def unsent(self) -> None:
        """Note that frames come without sent_at."""
        self.base = START_MARGIN_UNSENT

    @property
    def value(self) -> int:
        return max(self.base, 2 * self.lag_max)


class Sequence:
    """The numbers of one sid since its `subscribed` answer, which counts as 0.

    Attributes:
        last: number of the last frame that counted.
        sent_at: its time, microseconds.
    """

    __slots__ = ("_from", "_runs", "_sent_from", "last", "sent_at")

    def __init__(self, sent_at: int) -> None:
        self.last = 0
        self.sent_at = sent_at
        self._from = 0
        self._sent_from = sent_at
        self._runs: list[Run] = []

    def judge(self, seq: int) -> Step:
        """Say what `seq` would be, without counting it."""
        if seq == self.last + 1:
            return Step.NEXT
        return Step.GAP if seq > self.last else Step.OLD

    def count(self, seq: int, sent_at: int) -> None:
        """Count a frame that judge() called NEXT or GAP; a gap ends the run."""
        if seq != self.last + 1:
            self._finish()
        if self._from < 0:
            self._from = seq
            self._sent_from = sent_at
        self.last = seq
        self.sent_at = sent_at

    def _finish(self) -> None:
        if self._from >= 0:
            self._runs.append(Run(self._from, self.last, self._sent_from, self.sent_at))
            self._from = -1

    @property
    def running(self) -> tuple[int, int] | None:
        """(seq, sent_at) of the first frame since the last drain; None when none came."""
        if self._runs:
            return self._runs[0].seq_from, self._runs[0].sent_from
        return (self._from, self._sent_from) if self._from >= 0 else None

    def drain(self) -> list[Run]:
        """Return the runs since the last drain, ascending; the next run begins with the next frame."""
        self._finish()
        runs, self._runs = self._runs, []
        return runs
