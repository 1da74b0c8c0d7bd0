"""When to ask REST about which object: soon after a message, and once more when no cache can hold what was before it.

The first answer is mostly the new one, since hardly anybody has asked for that address lately; only the second is sure.
Pure; time is an argument.
"""

from services.registry.schedule import Schedule


class Looks:
    """Tickers by the moment they are to be looked at, microseconds."""

    def __init__(self) -> None:
        self._next = Schedule()
        self._sure: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._next)

    def put_earlier(self, ticker: str, at: int) -> None:
        """Look at the ticker at that moment, unless an earlier one is set."""
        self._next.put_earlier(ticker, at)

    def put_sure(self, ticker: str, at: int) -> None:
        """Look at it at that moment whatever was seen before: only what is asked for from then on is surely true."""
        self._sure[ticker] = max(at, self._sure.get(ticker, at))
        self._next.put_earlier(ticker, at)

    def is_early(self, ticker: str, asked_at: int) -> bool:
        """True when what was asked for at that moment may be older than the ticker's last message."""
        return asked_at < self._sure.get(ticker, asked_at)

    def take(self, now: int, limit: int) -> list[str]:
        """Take out at most `limit` tickers that are due, earliest first; those still to be looked at surely stay."""
        taken = self._next.take(now, limit)
        for ticker in taken:
            at = self._sure.get(ticker)
            if at is None:
                continue
            if at > now:
                self._next.put(ticker, at)
            else:
                del self._sure[ticker]
        return taken

    def next_at(self) -> int | None:
        """Return the earliest moment; None when nothing waits."""
        return self._next.next_at()
