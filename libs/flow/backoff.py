"""Exponential back-off with jitter, pure: it says how long to wait, and who waits is the caller's business.

The delay is drawn from the upper half of the doubling bound ("equal jitter"): never so short that a dead exchange is
hammered, never so equal that hundreds of connections come back in the same instant.
"""

from collections.abc import Callable


class Backoff:
    """Delays that double from delay_s_min to delay_s_max, all in seconds.

    Args of the constructor: jitter returns numbers in [0, 1), `random.random` or a seeded one.
    """

    def __init__(self, delay_s_min: float, delay_s_max: float, jitter: Callable[[], float]) -> None:
        if not 0 < delay_s_min <= delay_s_max:
            raise ValueError(f"0 < {delay_s_min} <= {delay_s_max} does not hold")
        self._delay_s_min = delay_s_min
        self._delay_s_max = delay_s_max
        self._jitter = jitter
        self._bound_s = delay_s_min
        self.failures = 0

    def next_delay(self) -> float:
        """Count one more failure and return how many seconds to wait: from half the present bound up to it."""
        self.failures += 1
        bound, self._bound_s = self._bound_s, min(self._bound_s * 2, self._delay_s_max)
        return bound * (1 + self._jitter()) / 2

    def reset(self) -> None:
        """Begin again at the shortest delay."""
        self._bound_s = self._delay_s_min
        self.failures = 0

    def reset_if_stable(self, lasted_s: float) -> bool:
        """Reset when what was retried lasted at least the present bound, and say so.

        A connection that is accepted and dropped at once must not count as success, else the delay never grows.
        """
        stable = lasted_s >= self._bound_s
        if stable:
            self.reset()
        return stable
