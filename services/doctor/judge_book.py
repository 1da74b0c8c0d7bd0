"""Price orientation: in which leg no prices come, whoever asks how, told from REST books, which are always each in its own leg.

A REST book may be 15 s older than the socket's, so readings are compared by how many whole levels they share, and only
where the book alone does not tell. Pure.
"""

from collections.abc import Mapping
from typing import Literal

from libs.exchange import wire
from libs.exchange.convert import is_crossed, ladders
from libs.marketdata.rows import Ladder
from libs.marketdata.units import PRICE_ONE, ValueDoesNotFit, format_price
from services.doctor.findings import Finding, fail, ok, skipped, warn

ORIENTATION, CROSSED = "price orientation", "book not crossed"
Leg = Literal["own leg", "yes scale", "unclear"]
Books = Mapping[bool | None, wire.OrderbookSnapshot | None]
"""The market's snapshot by the use_yes_price asked for; None: nothing was said of it."""


def flipped(ladder: Ladder) -> Ladder:
    """Read prices of one leg on the other's scale."""
    return tuple(sorted((PRICE_ONE - price, size) for price, size in ladder))


def telling(yes: Ladder, no: Ladder) -> int:
    """Say how well a book shows its orientation: 2 one reading would cross it, 1 by comparison only, 0 not at all."""
    if not yes or not no or is_crossed(yes, no):
        return 0
    if is_crossed(yes, flipped(no)):
        return 2
    return int({price for price, _ in no} != {price for price, _ in flipped(no)})


def leg_of(yes: Ladder, no: Ladder, rest_no: Ladder) -> Leg:
    """Say in which leg the prices of `no` (as they came) are; rest_no: REST's, in their own.

    A reading that crosses the book is none, and that needs no second source; where both fit, whole levels are compared
    (by price alone two ladders around 50 cents agree by chance).
    """
    own_fits, other_fits = not is_crossed(yes, no), not is_crossed(yes, flipped(no))
    if yes and own_fits != other_fits:
        return "own leg" if own_fits else "yes scale"
    own, other = len({*no} & {*rest_no}), len({*flipped(no)} & {*rest_no})
    if own == other:
        return "unclear"
    return "own leg" if own > other else "yes scale"


def judge_orientation(books: Books, rest_no: Ladder, setting: bool) -> list[Finding]:
    """Judge the three ways to ask; setting: what the connector asks for."""
    try:
        legs = {asked: _leg(book, rest_no) for asked, book in books.items()}
    except ValueDoesNotFit as error:
        return [fail(ORIENTATION, f"a book cannot be read: {error}", "report it")]
    default, without, with_it = legs.get(None), legs.get(False), legs.get(True)
    ours = f"the connector asks for {str(setting).lower()}"
    found = f"use_yes_price false: {_said(without)}, true: {_said(with_it)}, default: {_said(default)}; {ours}"
    return [_orientation(found, default, without, with_it), _crossed(books, setting)]


def _orientation(
    found: str, default: Leg | None, without: Leg | None, with_it: Leg | None
) -> Finding:
    if without == "yes scale" or with_it == "own leg":
        return fail(
            ORIENTATION,
            found,
            "the exchange does not give the orientation asked for, and no prices would be stored wrongly:"
            " do not capture, report it",
        )
    if "unclear" in (without, with_it) or None in (without, with_it):
        return warn(ORIENTATION, found, "run it again, when another market is busy")
    if default == "yes scale":
        return warn(
            ORIENTATION,
            f"{found}; the default has changed, as announced",
            "nothing to do: every capture says which it wants; other programs of yours may not",
        )
    return ok(ORIENTATION, found)


def _crossed(books: Books, setting: bool) -> Finding:
    book = books.get(setting)
    if book is None:
        return skipped(CROSSED, "needs: a book")
    try:
        yes, no = ladders(book, setting)
    except ValueDoesNotFit as error:
        return fail(CROSSED, f"a book cannot be read: {error}", "report it")
    if not yes or not no:
        return skipped(CROSSED, f"needs: both sides of {book.msg.market_ticker}")
    bid, ask = format_price(yes[-1][0]), format_price(PRICE_ONE - no[-1][0])
    found = f"{book.msg.market_ticker}: bid {bid}, ask {ask}, {len(yes)} + {len(no)} levels"
    if is_crossed(yes, no):
        return fail(
            CROSSED,
            f"{found}: crossed",
            "no prices are read in the wrong leg: do not capture, report it",
        )
    return ok(CROSSED, found)


def _leg(book: wire.OrderbookSnapshot | None, rest_no: Ladder) -> Leg | None:
    if book is None:
        return None
    yes, no = ladders(book, use_yes_price=False)
    return leg_of(yes, no, rest_no)


def _said(leg: Leg | None) -> str:
    return "no book" if leg is None else leg
