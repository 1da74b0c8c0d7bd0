"""The only door to randomness: a seeded stream of numbers that is the same on every run.

Only `Random.random` is used: of the standard library's generators it is the one whose sequence for a seed is promised
to stay what it is.
"""

import math
from bisect import bisect_right
from collections.abc import Sequence
from random import Random
from typing import TypeVar

T = TypeVar("T")


class Chance:
    """A stream of draws; every draw moves it on by exactly one number."""

    __slots__ = ("draw",)

    def __init__(self, seed: int) -> None:
        self.draw = Random(seed).random  # noqa: S311 - a made-up market, no secret
        """The next number in [0, 1)."""

    def below(self, limit: int) -> int:
        """Draw an integer in 0..limit-1."""
        return int(self.draw() * limit)

    def between(self, low: int, high: int) -> int:
        """Draw an integer in low..high, both included."""
        return low + int(self.draw() * (high - low + 1))

    def pick(self, items: Sequence[T]) -> T:
        """Draw one of the items, all equally likely."""
        return items[int(self.draw() * len(items))]

    def exponential(self, mean: float) -> float:
        """Draw a waiting time of the given mean."""
        return -mean * math.log(1.0 - self.draw())

    def weighted(self, cumulative: Sequence[float]) -> int:
        """Draw an index by cumulative weights (ascending, not empty)."""
        return bisect_right(cumulative, self.draw() * cumulative[-1], hi=len(cumulative) - 1)
