"""Which markets are checked in which round: a slice of the open ones by ticker, the next slice in the next round. Pure."""

import bisect
import math
from collections.abc import Sequence
from typing import Final

DAY_S: Final = 86_400.0
HASTE: Final = 1.1
"""So much larger than a day's share is a slice, for rounds that are late and markets that come."""


def sample_size(markets: int, sample_min: int, period_s: float) -> int:
    """Return how many of `markets` a round checks, so that every one has its turn within a day."""
    rounds = max(DAY_S // max(period_s, 0.001), 1.0)
    return min(markets, max(sample_min, math.ceil(HASTE * markets / rounds)))


def next_slice(tickers: Sequence[str], after: str, size: int) -> list[str]:
    """Return `size` tickers that follow `after` in an ascending list, beginning anew at its end; each at most once."""
    size = min(size, len(tickers))
    start = bisect.bisect_right(tickers, after)
    found = list(tickers[start : start + size])
    return found + list(tickers[: size - len(found)])
