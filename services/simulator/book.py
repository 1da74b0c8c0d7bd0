"""A book of resting bids: price to size on both sides, integers in our units, never below zero."""

from libs.marketdata.units import PRICE_ONE

Ladder = tuple[tuple[int, int], ...]
"""(price, size) ascending by price; price in hundred-thousandths of a dollar, size in hundredths."""


class Book:
    """Both bid ladders of one market; a no bid at p is a yes ask at 1 - p."""

    __slots__ = ("no", "yes")

    def __init__(self, yes: Ladder = (), no: Ladder = ()) -> None:
        self.yes: dict[int, int] = dict(yes)
        self.no: dict[int, int] = dict(no)

    def side(self, side: bool) -> dict[int, int]:
        """Return the levels of the yes (True) or no side."""
        return self.yes if side else self.no

    def apply(self, side: bool, price: int, size_delta: int) -> int:
        """Change one level and return its new size; an emptied level goes, also when it fell below zero."""
        levels = self.yes if side else self.no
        size = levels.get(price, 0) + size_delta
        if size > 0:
            levels[price] = size
        else:
            levels.pop(price, None)
        return size

    def ladder(self, side: bool) -> Ladder:
        return tuple(sorted(self.side(side).items()))

    @property
    def is_empty(self) -> bool:
        return not self.yes and not self.no

    @property
    def is_crossed(self) -> bool:
        """True when the best bids of the two sides add up to a dollar or more."""
        return bool(self.yes and self.no) and max(self.yes) + max(self.no) >= PRICE_ONE
