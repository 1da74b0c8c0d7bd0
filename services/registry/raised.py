"""Which markets a message made wanted so lately that the exchange's cache may not know it yet. Pure."""

from collections.abc import Iterable
from typing import Final

TIDY: Final = 1_000
"""From this many on, markets raised longer ago than matters are forgotten."""


class Raised:
    """Tickers by the moment they were raised. cache: how old the exchange's answers may be, microseconds."""

    def __init__(self, cache: int) -> None:
        self._cache = cache
        self._at: dict[str, int] = {}

    def note(self, raised: Iterable[str], lowered: Iterable[str], now: int) -> None:
        """Remember which markets messages have made wanted, and which they have ended."""
        self._at |= dict.fromkeys(raised, now)
        for ticker in lowered:
            self._at.pop(ticker, None)
        if len(self._at) > TIDY:
            # Twice: a listing may take as long to come as the cache holds it.
            oldest = now - 2 * self._cache
            self._at = {ticker: at for ticker, at in self._at.items() if at > oldest}

    def unseen(self, tickers: Iterable[str], asked_at: int) -> set[str]:
        """Return those that a listing asked for at that moment may not know to be raised."""
        oldest = asked_at - self._cache
        return {ticker for ticker in tickers if self._at.get(ticker, oldest) > oldest}

    def sure_at(self, ticker: str) -> int:
        """Return from when on a listing surely knows it; the ticker is one that unseen() gave."""
        return self._at[ticker] + self._cache
