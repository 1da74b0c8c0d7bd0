"""Does a book rebuilt from one stream agree with the exchange's own answer? Pure.

A REST book says nothing of when it was made and may be 15 s old, so it is compared with every state the stream's book
went through between its oldest possible making and its receipt. The stream's book starts from a snapshot of that stream
(exactly) or from an earlier REST book (in any state of that book's own window). A market about which nothing is claimed
over the whole time is no agreement and no disagreement.
"""

from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

from libs.marketdata.listening import Span
from libs.marketdata.rebuild import Levels

Outcome = Literal["agree", "disagree", "unknown"]

STARTS_MAX: Final = 100
"""States that a REST base may stand for."""
STEPS_MAX: Final = 400_000
"""Deltas applied for one market, over all starts."""
SHOWN_MAX: Final = 8
"""Levels that a disagreement names."""


class StreamDelta(NamedTuple):
    """A delta of one market on one sid, in the order of seq."""

    seq: int
    exchange_ts: int
    side: bool
    price: int
    size_delta: int


class Base(NamedTuple):
    """Where a stream's book starts: `window` None: before the first delta, exactly; else in some state of that time."""

    levels: Levels
    window: Span | None


class Verdict(NamedTuple):
    """What the comparison says; matched_ts: exchange time of the last delta of the equal state (None: of none)."""

    outcome: Outcome
    reason: str = ""
    matched_ts: int | None = None
    detail: str = ""


def judge(base: Base, deltas: Sequence[StreamDelta], rest: Levels, window: Span) -> Verdict:
    """Compare a REST book with the states of a stream's book.

    Args:
        deltas: all of the market on one sid from the base to the end of the window, ascending by seq.
        window: [from, to] in which the REST book was made; microseconds of exchange time.
    """
    starts = [0] if base.window is None else states_within(deltas, base.window)
    if len(starts) > STARTS_MAX or len(starts) * (len(deltas) + 1) > STEPS_MAX:
        return Verdict("unknown", "too_busy")
    older: int | None = None
    for start in starts:
        match, before = _search(base.levels, deltas[start:], rest, window)
        if match is not None:
            return Verdict("agree", "", match or None)
        older = before if older is None else older
    return _disagreement(base, deltas[starts[0] :], rest, window, older)


def states_within(deltas: Sequence[StreamDelta], window: Span) -> list[int]:
    """Return the states the book was in during [from, to]: n = after n deltas. There is always one."""
    low, high = window
    found = []
    for number in range(len(deltas) + 1):
        began = deltas[number - 1].exchange_ts if number else None
        ended = deltas[number].exchange_ts if number < len(deltas) else None
        if (began is None or began <= high) and (ended is None or ended >= low):
            found.append(number)
    return found


def _search(
    levels: Levels, deltas: Sequence[StreamDelta], rest: Levels, window: Span
) -> tuple[int | None, int | None]:
    """Return the time of a state within the window that equals `rest`, 0 for the first one; None: there is none.

    Second: the time at which an equal state before the window ended, if there was one.
    """
    book = dict(levels)
    wrong = {key for key in book.keys() | rest.keys() if book.get(key, 0) != rest.get(key, 0)}
    began, older = 0, None
    for number in range(len(deltas) + 1):
        if number:
            delta = deltas[number - 1]
            key = (delta.side, delta.price)
            book[key] = book.get(key, 0) + delta.size_delta
            began = delta.exchange_ts
            if book[key] == rest.get(key, 0):
                wrong.discard(key)
            else:
                wrong.add(key)
            if began > window[1]:
                break
        if not wrong:
            ended = deltas[number].exchange_ts if number < len(deltas) else None
            if ended is None or ended >= window[0]:
                return began, older
            older = ended
    return None, older


def _disagreement(
    base: Base, deltas: Sequence[StreamDelta], rest: Levels, window: Span, older: int | None
) -> Verdict:
    """Say how the book at the end of the window differs."""
    book, negative = dict(base.levels), ""
    for delta in deltas:
        if delta.exchange_ts > window[1]:
            break
        key = (delta.side, delta.price)
        book[key] = book.get(key, 0) + delta.size_delta
        if book[key] < 0 and base.window is None and not negative:
            negative = f"size {book[key]} at {_named(key)} after seq {delta.seq}; "
    wrong = sorted(k for k in book.keys() | rest.keys() if book.get(k, 0) != rest.get(k, 0))
    shown = [f"{_named(k)}: rest {rest.get(k, 0)}, rebuilt {book.get(k, 0)}" for k in wrong]
    more = f" and {len(shown) - SHOWN_MAX} more" if len(shown) > SHOWN_MAX else ""
    stale = (
        f"; equals the book until {(window[0] - older) / 1e6:.3f} s before the window"
        if older is not None
        else ""
    )
    detail = f"{negative}{', '.join(shown[:SHOWN_MAX])}{more}{stale}"
    return Verdict("disagree", "impossible" if negative else "levels", None, detail)


def _named(key: tuple[bool, int]) -> str:
    return f"{'yes' if key[0] else 'no'} {key[1]}"
