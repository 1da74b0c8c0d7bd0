"""Which spans of the tape repair what was not heard."""

import itertools
from collections.abc import Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from libs.marketdata.listening import covers, union
from libs.marketdata.rows import GapRow
from libs.marketdata.rows import gap as make_gap
from services.poller.repair import (
    LOOKBACK,
    WIDER,
    Limits,
    chunks,
    gap_repair,
    hole_repairs,
    unheard_parts,
)

SECOND = 1_000_000
LIMITS = Limits(delay=20 * SECOND, silence=60 * SECOND, age_max=3_600 * SECOND)
NOW = 10_000 * SECOND


def gap(**changes: Any) -> GapRow:
    """A gap of the trade channel from 100 s to 110 s, written at 111 s."""
    row = make_gap(
        111 * SECOND, "trade", "disconnected", slot="trade/0", from_ts=100 * SECOND, to_ts=110 * SECOND,
    )  # fmt: skip
    return row._replace(**changes)


def spans(*seconds: tuple[float, float]) -> list[tuple[int, int]]:
    """Spans given in seconds before NOW."""
    return [(NOW - int(a * SECOND), NOW - int(b * SECOND)) for a, b in seconds]


def found(
    heard: list[tuple[int, int]], noted: Sequence[tuple[int, int]] = ()
) -> list[tuple[float, float]]:
    """The spans to be repaired, in seconds before NOW."""
    repairs = hole_repairs(heard, noted, NOW, LIMITS)
    assert all(repair.ticker is None for repair in repairs)
    return [((NOW - r.from_ts) / SECOND, (NOW - r.to_ts) / SECOND) for r in repairs]


def test_a_hole_between_claims_is_repaired_once_the_tape_shows_it() -> None:
    """Each hole once, whatever its length, and not before the exchange's cache is past it."""
    assert found(spans((900, 800), (500, 1))) == [(800, 500)]
    assert found(spans((900, 800), (500, 1)), spans((800, 500))) == []
    assert found(spans((900, 800), (500, 1)), spans((850, 600))) == [(600, 500)]
    assert found(spans((900, 30), (19, 1))) == []
    assert found(spans((900, 30), (21, 1))) == [(30, 21)]


def test_nothing_heard_yet_is_no_gap() -> None:
    """Before the first claim nobody was listening; that is not a span to heal."""
    assert found([]) == []
    assert found(spans((900, 1))) == []


def test_a_long_silence_is_read_piece_by_piece() -> None:
    """With every connector gone the tape is read up to now, in steps of the silence, each step once."""
    assert found(spans((900, 79))) == []
    assert found(spans((900, 80))) == [(80, 20)]
    assert found(spans((900, 200)), spans((200, 90))) == [(90, 20)]
    assert found(spans((900, 200)), spans((200, 79))) == []
    assert found(spans((900, 200), (5, 1)), spans((200, 90))) == []


def test_what_is_too_old_is_left() -> None:
    """Holes end at the oldest trade that is still read."""
    assert found(spans((9_000, 8_000), (3_000, 1))) == [(3_600, 3_000)]
    assert found(spans((9_000, 8_000), (7_000, 1))) == []
    assert found(spans((9_000, 8_000))) == [(3_600, 20)]


def test_a_gap_row_says_when_or_the_claims_do() -> None:
    """Two seconds on both sides; receive times widen it; an unknown begin is where hearing ended, however long ago."""
    repair = gap_repair(gap(), [], LIMITS)
    assert (repair.ticker, repair.from_ts, repair.to_ts) == (
        None,
        100 * SECOND - WIDER,
        110 * SECOND + WIDER,
    )
    assert (repair.due_at, repair.cause) == (112 * SECOND + LIMITS.delay, "disconnected")
    wide = gap_repair(gap(received_from=90 * SECOND, received_to=120 * SECOND), [], LIMITS)
    assert (wide.from_ts, wide.to_ts) == (90 * SECOND - WIDER, 120 * SECOND + WIDER)
    unknown = gap(from_ts=None, to_ts=None, received_at=9_000 * SECOND, ticker="A")
    repair = gap_repair(unknown, [], LIMITS)
    assert repair.from_ts == 9_000 * SECOND - LOOKBACK - WIDER
    repair = gap_repair(unknown, [(0, 50 * SECOND), (60 * SECOND, 400 * SECOND)], LIMITS)
    assert (repair.ticker, repair.from_ts) == ("A", 400 * SECOND - WIDER)


SPANS = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 20)), max_size=6).map(
    lambda found: [(a, a + b) for a, b in found]
)


@given(SPANS, SPANS, st.integers(0, 30), st.integers(1, 40))
def test_parts_are_exactly_what_is_missing(
    heard: list[tuple[int, int]], healed: list[tuple[int, int]], start: int, length: int
) -> None:
    """Every moment of the span is either heard, healed, or in exactly one part; the newest part first."""
    parts = unheard_parts((start, start + length), heard, healed)
    assert parts == sorted(parts, reverse=True)
    known = union([*heard, *healed])
    for moment in range(start - 1, start + length + 1):
        wanted = start <= moment < start + length and not covers(known, moment)
        assert sum(a <= moment < b for a, b in parts) == wanted


@given(st.integers(0, 1_000), st.integers(1, 5_000), st.integers(1, 900))
def test_chunks_cover_a_part_newest_first(start: int, length: int, width: int) -> None:
    """Joined they are the part, none is wider than asked, and each ends where the one before began."""
    pieces = chunks((start, start + length), width)
    assert pieces[0][1] == start + length
    assert pieces[-1][0] == start
    assert all(0 < b - a <= width for a, b in pieces)
    assert all(newer[0] == older[1] for newer, older in itertools.pairwise(pieces))
