"""A book rebuilt from stored facts: one snapshot, its cut, and the deltas that follow the cut.

Deltas of production are a set of facts, each with the exchange's millisecond and, where a stream covered that
millisecond whole, its position in it (`pos`). A snapshot names the last delta before it (cut_exchange_ts, cut_pos); a
stream's first snapshot is completed by a snapshot_cuts row instead: the first later millisecond and how many of its
deltas came after the snapshot. Without either (nothing followed for long, or the stream ended in that millisecond) the
moment it was sent decides, where no delta lies within a second of it. A snapshot whose cut cannot be told is not used;
an earlier one is.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from libs.marketdata.rows import Ladder
from libs.marketdata.units import SECOND

Levels = dict[tuple[bool, int], int]
"""(side, price) -> size, sizes above zero only; side TRUE = yes."""


class BookDelta(NamedTuple):
    """A stored delta, as far as a book needs it."""

    exchange_ts: int
    pos: int | None
    side: bool
    price: int
    size_delta: int


class BookSnapshot(NamedTuple):
    """A stored snapshot with ladders; `cut` as in orderbook_snapshots, `tail` as in snapshot_cuts, each (ts, number)."""

    observed_at: int
    yes: Ladder
    no: Ladder
    cut: tuple[int, int] | None
    tail: tuple[int, int] | None


class BookImpossible(ValueError):
    """A level would fall below zero: a delta is missing or was counted twice."""


def levels_of(yes: Iterable[tuple[int, int]], no: Iterable[tuple[int, int]]) -> Levels:
    """Turn two ladders into levels."""
    levels = {(True, price): size for price, size in yes if size}
    return levels | {(False, price): size for price, size in no if size}


def apply(levels: Levels, deltas: Iterable[BookDelta]) -> Levels:
    """Return the levels after these deltas; the order inside one millisecond does not matter for the sum.

    Raises:
        BookImpossible: a level ends below zero.
    """
    after = dict(levels)
    for delta in deltas:
        key = (delta.side, delta.price)
        after[key] = after.get(key, 0) + delta.size_delta
    low = next((key for key, size in after.items() if size < 0), None)
    if low is not None:
        raise BookImpossible(f"size {after[low]} at {'yes' if low[0] else 'no'} {low[1]}")
    return {key: size for key, size in after.items() if size}


def following(snapshot: BookSnapshot, deltas: Sequence[BookDelta]) -> list[BookDelta] | None:
    """Return the deltas after the snapshot's cut, or None when the cut cannot be told from what is stored."""
    if snapshot.tail is not None:
        moment, count = snapshot.tail
        inside = [d for d in deltas if d.exchange_ts == moment]
        ordered = _ordered(inside)
        if count > len(inside) or (ordered is None and count not in (0, len(inside))):
            return None
        chosen = inside if ordered is None else ordered
        return chosen[len(chosen) - count :] + [d for d in deltas if d.exchange_ts > moment]
    if snapshot.cut is not None:
        moment, pos = snapshot.cut
        inside = [d for d in deltas if d.exchange_ts == moment]
        if any(d.pos is None for d in inside):
            return None
        # What the snapshot contains need not be there: it may have been lost, and the snapshot asked for because of that.
        after = [d for d in inside if d.pos is not None and d.pos > pos]
        return after + [d for d in deltas if d.exchange_ts > moment]
    low, high = snapshot.observed_at - SECOND, snapshot.observed_at + SECOND
    if any(low < d.exchange_ts <= high for d in deltas):
        return None
    return [d for d in deltas if d.exchange_ts > high]


def _ordered(inside: Sequence[BookDelta]) -> list[BookDelta] | None:
    """Order one millisecond's deltas by pos; None unless they are numbered 1..n without a hole."""
    numbered = sorted((d for d in inside if d.pos is not None), key=lambda d: d.pos or 0)
    if [d.pos for d in numbered] != list(range(1, len(inside) + 1)):
        return None
    return numbered


def rebuild(snapshots: Iterable[BookSnapshot], deltas: Sequence[BookDelta]) -> Levels | None:
    """Rebuild the last book of one market from its latest usable snapshot; None when no snapshot is usable.

    Args:
        snapshots: only those behind which nothing may be missing; with a gap behind it an earlier one leads to another book.
        deltas: all that are stored of the market.

    Raises:
        BookImpossible: something is missing all the same.
    """
    for snapshot in sorted(snapshots, key=lambda s: s.observed_at, reverse=True):
        rest = following(snapshot, deltas)
        if rest is not None:
            return apply(levels_of(snapshot.yes, snapshot.no), rest)
    return None


def differing(left: Mapping[str, Levels | None], right: Mapping[str, Levels]) -> list[str]:
    """Return the tickers whose books differ, in order."""
    return sorted(t for t in left.keys() | right.keys() if left.get(t) != right.get(t))
