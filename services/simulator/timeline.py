"""Things to happen, in order of their time: advanced in any number of steps, they happen the same."""

import heapq
import itertools
from collections.abc import Callable
from typing import Any

from libs.marketdata.units import MILLISECOND, SECOND
from services.simulator.chance import Chance


class Timeline:
    """One heap; times in microseconds since 1970.

    Args:
        chance: draws waiting times. begin: nothing happens before; a whole millisecond.
    """

    def __init__(self, chance: Chance, begin: int) -> None:
        self._chance = chance
        self._heap: list[tuple[int, int, Callable[[int, Any], None], Any]] = []
        self._numbers = itertools.count()
        self._first_numbers = itertools.count(-(1 << 62))
        self._reached = begin

    def at(self, at: int, happen: Callable[[int, Any], None], subject: object = None) -> None:
        """Let something happen at a time; things of one time happen in the order they were put here."""
        heapq.heappush(self._heap, (at, next(self._numbers), happen, subject))

    def next(self, at: int, mean_s: float, happen: Callable[[int, Any], None]) -> None:
        """Let something happen an exponential time after `at`; never when the mean (seconds) is 0."""
        if mean_s > 0:
            self.at(at + 1 + int(self._chance.exponential(mean_s * SECOND)), happen)

    def before_all(self, at: int, happen: Callable[[int, Any], None], subject: object) -> int:
        """Let something happen before all else of a millisecond: the first whole one from `at` that is not over.

        Returns:
            When.
        """
        at = max(-(-at // MILLISECOND) * MILLISECOND, self._reached)
        heapq.heappush(self._heap, (at, next(self._first_numbers), happen, subject))
        return at

    def run(self, until: int, is_enough: Callable[[], bool]) -> None:
        """Let everything before `until`, a whole millisecond, happen, or as much as is enough."""
        heap = self._heap
        while heap and heap[0][0] < until and not is_enough():
            at, _, happen, subject = heapq.heappop(heap)
            self._reached = at - at % MILLISECOND + MILLISECOND
            happen(at, subject)
        if self.is_through(until):
            self._reached = max(self._reached, until)

    def is_through(self, until: int) -> bool:
        """Say whether everything before `until` has happened."""
        return not self._heap or self._heap[0][0] >= until
