"""The book of one market, kept up while deltas come: two ladders of resting bids.

Capture itself needs no books (a stream's completeness is proved by seq); checks and the comparison with REST books do.
rebuild.py is the other half: it finds which stored deltas follow which stored snapshot.
"""

from libs.marketdata.rows import Ladder


class BookCorrupt(ValueError):
    """A level would fall below zero: a message was lost or counted twice."""


class Book:
    """Bid sizes by price for both legs, hundredths of a contract by hundred-thousandths of a dollar."""

    __slots__ = ("_sides",)

    def __init__(self, yes: Ladder = (), no: Ladder = ()) -> None:
        self._sides: tuple[dict[int, int], dict[int, int]] = (dict(no), dict(yes))

    def apply(self, side: bool, price: int, size_delta: int) -> None:
        """Add a signed change to a level; a level of size zero is no level.

        Raises:
            BookCorrupt: the level would fall below zero; the book is unchanged.
        """
        levels = self._sides[side]
        size = levels.get(price, 0) + size_delta
        if size < 0:
            raise BookCorrupt(f"size {size} at {'yes' if side else 'no'} {price}")
        if size:
            levels[price] = size
        else:
            levels.pop(price, None)

    @property
    def yes(self) -> Ladder:
        """Yes bids, ascending by price."""
        return tuple(sorted(self._sides[True].items()))

    @property
    def no(self) -> Ladder:
        """No bids in no-leg prices, ascending by price."""
        return tuple(sorted(self._sides[False].items()))

    @property
    def is_crossed(self) -> bool:
        """True when the best bids add up to more than a dollar: they would have traded."""
        return is_crossed(self.yes, self.no)


def is_crossed(yes: Ladder, no: Ladder) -> bool:
    """True when the best yes bid and the best no bid of two ascending ladders add up to more than a dollar."""
    return bool(yes and no) and yes[-1][0] + no[-1][0] > 100_000
