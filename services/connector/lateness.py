"""How late a connection's frames come: a connection that delivers ever later is as good as dead, though it is open.

The exchange's sending time and our receipt stand on two clocks, so their difference alone says nothing. What counts is by
how much it grew above the least of this connection. Receipt is told by a clock that is never set, so that a step of our
wall clock changes nothing here; a step of the exchange's clock makes at most one connection late, for the next one has a
least of its own. One frame with a wild time neither ends a connection nor spoils its least: two in a row must agree.
"""

from libs.marketdata.units import HOUR, SECOND

SAMPLES_MIN = 3
"""Frames that must be late in a row, however long the first of them is ago."""
LEAST_KEPT = 6 * HOUR
"""How long the least is remembered, at least, microseconds. Two clocks that are kept by different hands drift apart, by
up to 10 s a day: the least of long ago would make every frame late. A drip this does not show grows by less a day."""

DOUBLINGS_MAX = 5
"""Most doublings of the patience: a lateness that no new connection cures costs fewer and fewer of them, down to one in
some minutes."""
ON_TIME_S = 600.0
"""Seconds a connection must have lasted, and not ended for being late, for the part to be as strict as at first."""


class Lateness:
    """The judgement of one connection.

    Args of the constructor: how much later than the least a frame may come, and for how long, microseconds.

    Attributes:
        late: by how much later than the least the last sample came, microseconds; 0 before there is a least.
    """

    def __init__(self, limit: int, patience: int) -> None:
        self._limit = limit
        self._patience = patience
        self._least: int | None = None
        self._older: int | None = None
        self._begun_at: int | None = None
        self._before: int | None = None
        self._late_since = 0
        self._lates = 0
        self.late = 0

    def sample(self, sent_at: int, moment: int) -> bool:
        """Take a frame's sending time and the moment it came, each microseconds of its own clock.

        Returns:
            True when frames have come too late for too long: give the connection up.
        """
        age = moment - sent_at
        self._learn(age, moment)
        least = min((a for a in (self._least, self._older) if a is not None), default=None)
        self.late = 0 if least is None else max(0, age - least)
        if self.late <= self._limit:
            self._lates = 0
            return False
        if not self._lates:
            self._late_since = moment
        self._lates += 1
        return self._lates >= SAMPLES_MIN and moment - self._late_since >= self._patience

    def excuse(self) -> None:
        """Begin a run of late frames anew: it is we who were slow."""
        self._lates = 0

    def _learn(self, age: int, moment: int) -> None:
        if self._begun_at is None or moment - self._begun_at >= LEAST_KEPT:
            self._older, self._least, self._begun_at = self._least, None, moment
        if self._before is not None:
            agreed = max(age, self._before)
            self._least = agreed if self._least is None else min(self._least, agreed)
        self._before = age


class Strictness:
    """How strict one part is with its connections: each one given up for being late makes it twice as patient.

    Args of the constructor: how much later than the least a frame may come, and for how long, seconds.
    """

    def __init__(self, limit_s: float, patience_s: float) -> None:
        self._limit_s = limit_s
        self._patience_s = patience_s
        self._doublings = 0

    def judge(self) -> Lateness:
        """Return the judgement of a new connection."""
        limit_s = self._limit_s * 2**self._doublings
        return Lateness(int(limit_s * SECOND), int(self._patience_s * SECOND))

    def ended(self, *, was_late: bool, lasted_s: float) -> None:
        """Note how a connection ended, and after how many seconds."""
        if was_late:
            self._doublings = min(self._doublings + 1, DOUBLINGS_MAX)
        elif lasted_s >= ON_TIME_S:
            self._doublings = 0


class Turns:
    """Who may give a late connection up now: one at a time, for those that are late together share their cause.

    If it is ours or the exchange's, opening one anew shows that it does not help before the others try; else they follow.

    Args of the constructor: seconds between two.
    """

    def __init__(self, apart_s: float) -> None:
        self._apart_s = apart_s
        self._next_s: float | None = None

    def take(self, now_s: float) -> bool:
        """Take the turn if it is free, at a moment in seconds of a clock that is never set."""
        if self._next_s is not None and now_s < self._next_s:
            return False
        self._next_s = now_s + self._apart_s
        return True
