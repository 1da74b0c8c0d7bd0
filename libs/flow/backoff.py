"""Exponential back-off, pure: it says how long to wait, and who waits is the caller's business.

With jitter the delay is drawn from the upper half of a bound that doubles ("equal jitter"), the first from the shortest
delay to twice as long: never so short that a dead exchange is hammered, never so equal that hundreds of connections come
back in the same instant, and always within the two limits. Who waits alone needs no jitter.
"""

from collections.abc import Callable


class Backoff:
    """Delays that double from delay_s_min to delay_s_max, all in seconds; none is shorter or longer than these.

    Args of the constructor: jitter returns numbers in [0, 1), `random.random` or a seeded one; None: every delay is
    the whole bound. stable_s: how long what was retried must have lasted to count as a success; None: as long as the
    present bound.
    """

    def __init__(
        self,
        delay_s_min: float,
        delay_s_max: float,
        jitter: Callable[[], float] | None = None,
        *,
        stable_s: float | None = None,
    ) -> None:
        if not 0 < delay_s_min <= delay_s_max:
            raise ValueError(f"0 < {delay_s_min} <= {delay_s_max} does not hold")
        self._delay_s_min = delay_s_min
        self._delay_s_max = delay_s_max
        self._jitter = jitter
        self._stable_s = stable_s
        self._first_s = delay_s_min if jitter is None else min(2 * delay_s_min, delay_s_max)
        self._bound_s = self._first_s
        self.failures = 0

    def next_delay(self, at_most_s: float | None = None) -> float:
        """Count one more failure and return how many seconds to wait.

        at_most_s: bounds the delay of a failure like this one, and what the next one's is counted from.
        """
        self.failures += 1
        bound = self._bound_s if at_most_s is None else min(self._bound_s, at_most_s)
        self._bound_s = min(bound * 2, self._delay_s_max)
        if self._jitter is None:
            return bound
        return max(self._delay_s_min, bound * (1 + self._jitter()) / 2)

    def reset(self) -> None:
        """Begin again at the shortest delay."""
        self._bound_s = self._first_s
        self.failures = 0

    def exhaust(self) -> None:
        """Go to the longest delay at once, after a failure that does not pass by itself."""
        self._bound_s = self._delay_s_max

    def reset_if_stable(self, lasted_s: float) -> bool:
        """Reset when what was retried lasted long enough to count as a success, and say so.

        A connection that is accepted and dropped at once must not count as success, else the delay never grows.
        """
        stable = lasted_s >= (self._bound_s if self._stable_s is None else self._stable_s)
        if stable:
            self.reset()
        return stable
