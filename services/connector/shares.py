"""Shares of a slot's markets: each part of a slot that was split hears the markets whose places lie in its span.

A market's place is a hash of its ticker, so everybody, always, says the same of the same market, and a new market falls
to the part whose span holds it. A span is cut where half of its present markets lie on either side.
"""

import hashlib
from collections.abc import Iterable
from typing import NamedTuple

PLACES = 2**64


def place_of(ticker: str) -> int:
    """Return where a market lies, 0 to PLACES - 1."""
    return int.from_bytes(hashlib.blake2b(ticker.encode(), digest_size=8).digest())


class Share(NamedTuple):
    """The places from `low` up to, not including, `high`."""

    low: int = 0
    high: int = PLACES

    @property
    def is_whole(self) -> bool:
        """True when every market lies in it."""
        return self == WHOLE

    def holds(self, ticker: str) -> bool:
        """True when this market lies in it."""
        return self.low <= place_of(ticker) < self.high

    def of(self, tickers: frozenset[str]) -> frozenset[str]:
        """Return those of the markets that lie in it."""
        return tickers if self.is_whole else frozenset(filter(self.holds, tickers))

    def halves(self, tickers: Iterable[str]) -> tuple["Share", "Share"] | None:
        """Cut it so that half of these markets lie on either side; None when that leaves a side without any."""
        places = sorted(
            {place for place in map(place_of, tickers) if self.low <= place < self.high}
        )
        if len(places) < 2:
            return None
        middle = places[len(places) // 2]
        return Share(self.low, middle), Share(middle, self.high)


WHOLE = Share()
