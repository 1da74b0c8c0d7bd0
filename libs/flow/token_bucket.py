"""A token bucket, pure: reservations are made in order of asking, and each is told how long to wait for its turn."""


class TokenBucket:
    """Tokens refill continuously at `rate` a second up to `capacity`.

    The balance may go below zero: a reservation always succeeds and pays by waiting, so callers are served in the
    order in which they asked and nobody starves.
    """

    def __init__(self, rate: float, capacity: float) -> None:
        if rate <= 0 or capacity <= 0:
            raise ValueError("a token bucket needs a rate and a capacity above zero")
        self.rate = rate
        self.capacity = capacity
        self._tokens = capacity
        self._at_s: float | None = None

    def reserve(self, now_s: float, cost: float = 1.0) -> float:
        """Take `cost` tokens at monotonic time now_s; return the seconds to wait before using them, 0.0 for none."""
        self._refill(now_s)
        self._tokens -= cost
        return max(0.0, -self._tokens / self.rate)

    def take(self, now_s: float, most: int) -> int:
        """Take as many whole tokens as there are at monotonic time now_s, at most so many; return how many."""
        self._refill(now_s)
        taken = max(0, min(most, int(self._tokens)))
        self._tokens -= taken
        return taken

    def hold(self, now_s: float, for_s: float) -> None:
        """Leave no token for the next for_s seconds: the exchange said that its own bucket is empty."""
        self._refill(now_s)
        self._tokens = min(self._tokens, -for_s * self.rate)

    def set_rate(self, now_s: float, rate: float, capacity: float) -> None:
        """Go on with another rate and capacity, for example the account's own limits."""
        if rate <= 0 or capacity <= 0:
            raise ValueError("a token bucket needs a rate and a capacity above zero")
        self._refill(now_s)
        self.rate, self.capacity = rate, capacity
        self._tokens = min(self._tokens, capacity)

    def _refill(self, now_s: float) -> None:
        if self._at_s is not None and now_s > self._at_s:
            self._tokens = min(self.capacity, self._tokens + (now_s - self._at_s) * self.rate)
        self._at_s = now_s if self._at_s is None else max(self._at_s, now_s)
