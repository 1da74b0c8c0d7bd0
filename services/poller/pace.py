"""How fast the poller asks: its share of the account's reads, less for a while after the exchange said "too many". Pure.

The account's budget is shared with other processes and its costs are not all documented, so being within our share does
not prove that we are within the budget: each refusal halves the rate, each quiet while gives a part of it back.
"""

from typing import Final

HALVE_EVERY_S: Final = 5.0
"""Refusals within this time are one."""
RAISE_EVERY_S: Final = 10.0
RAISED_BY: Final = 0.05
"""Part of the allowed rate that is given back every RAISE_EVERY_S without a refusal."""
LEAST: Final = 0.05
"""Part of the allowed rate that is never gone below."""


class Pace:
    """The rate in force, reads a second.

    Attributes: allowed is what the share permits, rate what is asked; slowed counts how often it was halved.
    """

    def __init__(self, allowed: float) -> None:
        self.allowed = allowed
        self.rate = allowed
        self.slowed = 0
        self._limited = 0
        self._changed_s = 0.0

    @property
    def is_full(self) -> bool:
        """True while nothing is held back."""
        return self.rate == self.allowed

    def allow(self, allowed: float) -> None:
        """Take over what our share of the account permits now; what refusals have slowed down is not hurried."""
        self.rate = allowed if self.is_full else min(self.rate, allowed)
        self.allowed = allowed

    def adjust(self, now_s: float, limited: int) -> float:
        """Return the rate from now on.

        Args:
            now_s: monotonic seconds. limited: requests refused with 429 since the start.
        """
        if limited > self._limited:
            if self.is_full or now_s - self._changed_s >= HALVE_EVERY_S:
                self.rate = max(self.rate / 2, LEAST * self.allowed)
                self.slowed += 1
                self._changed_s = now_s
        elif self.rate < self.allowed and now_s - self._changed_s >= RAISE_EVERY_S:
            self.rate = min(self.allowed, self.rate + RAISED_BY * self.allowed)
            self._changed_s = now_s
        self._limited = limited
        return self.rate
