"""Books rebuilt from stored facts."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.marketdata.rebuild import (
    BookDelta,
    BookImpossible,
    BookSnapshot,
    apply,
    differing,
    following,
    levels_of,
    rebuild,
)

S = 1_000_000


@st.composite
def market(draw: st.DrawFn) -> tuple[list[BookDelta], int]:
    """A market's deltas, several in one millisecond, and a place in their order at which a snapshot was taken."""
    deltas = []
    for ms in range(draw(st.integers(1, 6))):
        for pos in range(1, draw(st.integers(1, 4)) + 1):
            deltas.append(
                BookDelta(ms * 1000, pos, True, draw(st.integers(1, 2)), draw(st.integers(1, 3)))
            )
    return deltas, draw(st.integers(0, len(deltas) - 1))


def ladder(deltas: list[BookDelta]) -> tuple[tuple[int, int], ...]:
    return tuple(sorted((price, size) for (_, price), size in apply({}, deltas).items()))


@given(market(), st.randoms(use_true_random=False))
def test_snapshot_and_cut_give_the_book_whatever_the_order_of_rows(
    case: tuple[list[BookDelta], int], rng: random.Random
) -> None:
    """Both kinds of cut, at any place inside a millisecond, lead to the same last book."""
    deltas, taken = case
    whole = apply({}, deltas)
    before, after = deltas[:taken], deltas[taken:]
    tail = (after[0].exchange_ts, sum(d.exchange_ts == after[0].exchange_ts for d in after))
    shuffled = rng.sample(deltas, len(deltas))
    first = BookSnapshot(0, ladder(before), (), None, tail)
    assert rebuild([first], shuffled) == whole
    if before and before[-1].pos is not None:
        later = first._replace(cut=(before[-1].exchange_ts, before[-1].pos), tail=None)
        assert rebuild([later], shuffled) == whole


def test_a_cut_in_a_millisecond_without_positions_is_not_used() -> None:
    """No stream covered it whole: which deltas follow the snapshot cannot be told; an earlier snapshot is used."""
    deltas = [
        BookDelta(1000, 1, True, 5, 2),
        BookDelta(2000, None, True, 5, 3),
        BookDelta(2000, 1, True, 5, 4),
    ]
    late = BookSnapshot(3, ((5, 5),), (), (2000, 1), None)
    early = BookSnapshot(2, ((5, 2),), (), (1000, 1), None)
    assert following(late, deltas) is None
    assert rebuild([early, late], deltas) == {(True, 5): 9}
    assert rebuild([late], deltas) is None


def test_what_a_snapshot_contains_may_be_lost() -> None:
    """It was asked for behind lost rows: the last delta before it is among them, and those after it follow all the same."""
    asked = BookSnapshot(3, ((5, 5),), (), (2000, 2), None)
    after = [BookDelta(2000, 3, True, 5, 4), BookDelta(3000, None, True, 5, 1)]
    for lost in ([], [BookDelta(2000, 1, True, 5, 2)]):
        assert rebuild([asked], [*lost, *after]) == {(True, 5): 10}


def test_a_snapshot_without_cut_is_placed_by_its_time_where_no_delta_is_near() -> None:
    """Older than a second before it: contained. Later than a second after it: follows. Between: it cannot be told."""
    snapshot = BookSnapshot(5 * S, ((5, 1),), ((7, 2),), None, None)
    before, after = BookDelta(4 * S, None, True, 5, 1), BookDelta(6 * S + 1, None, True, 5, 3)
    assert following(snapshot, [before, after]) == [after]
    for near in (4 * S + 1, 5 * S, 6 * S):
        assert following(snapshot, [before, after, BookDelta(near, None, True, 5, 1)]) is None
    assert rebuild([snapshot], [before, after]) == {(True, 5): 4, (False, 7): 2}
    assert rebuild([snapshot], []) == {(True, 5): 1, (False, 7): 2}


def test_a_level_below_zero_is_an_error() -> None:
    """It means that a delta is missing."""
    with pytest.raises(BookImpossible, match="yes 5"):
        apply(levels_of([(5, 1)], []), [BookDelta(0, 1, True, 5, -2)])


def test_differing_names_markets_of_either_side() -> None:
    """A market that only one side knows differs; so does a book that could not be rebuilt."""
    one = {(True, 1): 1}
    assert differing({"A": one, "B": None, "C": one}, {"A": one, "B": one, "D": one}) == [
        "B",
        "C",
        "D",
    ]
