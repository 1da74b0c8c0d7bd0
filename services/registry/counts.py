"""How many markets there are, by status: counted once, then kept with every write, since nobody else writes them.

Counting a million markets reads the whole table. A write of which it is not known whether it was committed makes the
numbers unknown until somebody counts again.
"""

from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager

from libs.store.catalogue import MarketState

TOTAL, WANTED = "total", "wanted"


class Counts:
    """Markets by status, and under `total` and `wanted` those. is_known: the numbers are right."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._doubts = 0
        self.is_known = False

    def set(self, counts: Mapping[str, int]) -> None:
        """Take what was counted; statuses of which none is left stay, as nought."""
        self._counts = Counter({**dict.fromkeys(self._counts, 0), **counts})
        self.is_known = True

    def forget(self) -> None:
        """Say that the catalogue is another one than was counted, also by a write that is on its way."""
        self._doubts += 1
        self.is_known = False

    def as_dict(self) -> dict[str, int]:
        """Return the numbers as they are known."""
        return dict(self._counts)

    @asynccontextmanager
    async def changing(
        self, known: Mapping[str, MarketState], written: Iterable[MarketState]
    ) -> AsyncIterator[None]:
        """Count a write when it is done; one that fails may be committed all the same."""
        was_known, self.is_known = self.is_known, False
        doubts = self._doubts
        yield
        self.is_known = was_known and doubts == self._doubts
        for state in written:
            old = known.get(state.ticker)
            if old is None:
                self._counts[TOTAL] += 1
            else:
                self._counts[old.status] -= 1
                self._counts[WANTED] -= old.wanted
            self._counts[state.status] += 1
            self._counts[WANTED] += state.wanted
