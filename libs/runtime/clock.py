"""The only door to the time of day; everything else is handed a clock or a plain `now`.

Wall time is integer microseconds since the Unix epoch, the unit of every fact. Durations inside one process come from
`monotonic`, in seconds, because wall time may be set back.
"""

import time
from typing import Protocol

NANOSECONDS_PER_MICROSECOND = 1_000
MICROSECONDS_PER_SECOND = 1_000_000


class Clock(Protocol):
    """What a room needs to know about time."""

    def now(self) -> int:
        """Wall time in microseconds since the Unix epoch."""
        ...

    def monotonic(self) -> float:
        """Seconds since some fixed moment; never goes back."""
        ...


class SystemClock:
    """The machine's clocks."""

    def now(self) -> int:
        """Wall time in microseconds since the Unix epoch."""
        return time.time_ns() // NANOSECONDS_PER_MICROSECOND

    def monotonic(self) -> float:
        """Seconds since some fixed moment; never goes back."""
        return time.monotonic()


class ManualClock:
    """A clock that stands still until a test moves it; both readings move together.

    Args:
        now: the first wall time, microseconds since the Unix epoch.
    """

    def __init__(self, now: int) -> None:
        self._now = now
        self._elapsed = 0

    def now(self) -> int:
        """Wall time in microseconds since the Unix epoch."""
        return self._now

    def monotonic(self) -> float:
        """Seconds advanced so far."""
        return self._elapsed / MICROSECONDS_PER_SECOND

    def advance(self, seconds: float) -> None:
        """Let time pass on both clocks; negative durations are a mistake of the test."""
        assert seconds >= 0
        micros = round(seconds * MICROSECONDS_PER_SECOND)
        self._now += micros
        self._elapsed += micros

    def set_wall(self, now: int) -> None:
        """Set the wall clock alone, forward or back, as an operator or NTP does."""
        self._now = now
