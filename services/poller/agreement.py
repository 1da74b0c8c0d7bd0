"""Does a book rebuilt from one stream agree with the exchange's own answer? Pure.

A REST book says nothing of when it was made and may be 15 s old, so it is compared with every state the stream's book
went through between its oldest possible making and its receipt. The stream's book starts from a snapshot of that stream
(exactly) or from an earlier REST book (in any state of that book's own window). A market about which nothing is claimed
over the whole time is no agreement and no disagreement.
"""

import bisect
import functools
import hashlib
from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

from libs.marketdata.listening import Span
from libs.marketdata.rebuild import Levels

Outcome = Literal["agree", "disagree", "unknown"]

SHOWN_MAX: Final = 8
"""Levels that a disagreement names."""
_MODULUS: Final = (1 << 61) - 1


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
    starts = range(1) if base.window is None else states_within(deltas, base.window)
    match, older = _search(_sum(rest) - _sum(base.levels), deltas, starts, window)
    if match is not None:
        return Verdict("agree", "", match or None)
    return _disagreement(base, deltas[starts[0] :], rest, window, older)


def states_within(deltas: Sequence[StreamDelta], window: Span) -> range:
    """Return the states the book was in during [from, to]: n = after n deltas. There is always one."""
    first = bisect.bisect_left(deltas, window[0], key=lambda delta: delta.exchange_ts)
    last = bisect.bisect_right(deltas, window[1], key=lambda delta: delta.exchange_ts)
    return range(first, last + 1)


def _search(
    need: int, deltas: Sequence[StreamDelta], starts: range, window: Span
) -> tuple[int | None, int | None]:
    """Return the time of the last delta of a state within the window that is equal, 0 for the first; None: none is.

    A book's sum is linear in its levels, so a state j is equal when the deltas from some start i to j sum up to `need`:
    one look at a set for each state, however many starts and states there are.

    Second: when an equal state before the window ended, the last such; None: there was none.
    """
    ends = states_within(deltas, window)
    sums: set[int] = set()
    total, older = 0, None
    for number in range(ends[-1] + 1):
        if number:
            delta = deltas[number - 1]
            total += delta.size_delta * _weight(delta.side, delta.price)
        if number in starts:
            sums.add((total + need) % _MODULUS)
        if total % _MODULUS in sums:
            if number in ends:
                return (deltas[number - 1].exchange_ts if number else 0), older
            older = deltas[number].exchange_ts
    return None, older


def _sum(levels: Levels) -> int:
    return sum(size * _weight(side, price) for (side, price), size in levels.items())


@functools.lru_cache(maxsize=1 << 16)
def _weight(side: bool, price: int) -> int:
    """Return a level's random factor: two different books have equal sums once in 2^61 times."""
    digest = hashlib.blake2b(b"%d %d" % (side, price), digest_size=8).digest()
    return int.from_bytes(digest, "big") % _MODULUS


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
