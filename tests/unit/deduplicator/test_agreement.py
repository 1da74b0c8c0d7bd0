"""Whole milliseconds of different streams are compared, broken ones never."""

from uuid import UUID

from libs.marketdata.rows import DeltaRow
from services.deduplicator.agreement import Agreement
from tests.unit.deduplicator.support import NOON, delta

OTHER = UUID("01890000-0000-7000-8000-000000000002")
LATER = NOON + 1000


def whole(*sizes: int, connection: UUID | None = None) -> list[DeltaRow]:
    """A millisecond of these changes and the next one's beginning."""
    rows = [delta(size, NOON, pos) for pos, size in enumerate(sizes, 1)] + [delta(9, LATER, 1)]
    return [row if connection is None else row._replace(connection=connection) for row in rows]


def test_equal_streams_agree() -> None:
    """Compared once, nothing told."""
    agreement = Agreement(sample=1)
    assert agreement.observe(1, whole(1, 2)) == agreement.observe(2, whole(1, 2)) == []
    assert agreement.compared == 1


def test_order_and_multiset_matter() -> None:
    """Another order, and one change less, are both told, with who said what."""
    agreement = Agreement(sample=1)
    agreement.observe(1, whole(1, 2))
    (twisted,) = agreement.observe(2, whole(2, 1))
    (shorter,) = agreement.observe(3, whole(1))
    assert (twisted.ticker, twisted.exchange_ts) == ("M", NOON)
    assert "gatherer 1" in str(shorter) and "gatherer 3" in str(shorter)


def test_two_connections_of_one_gatherer_are_compared_too() -> None:
    """A hand-over's overlap is a test like any."""
    agreement = Agreement(sample=1)
    agreement.observe(1, whole(1, 2))
    assert len(agreement.observe(1, whole(2, 1, connection=OTHER))) == 1


def test_a_stream_that_broke_off_or_began_inside_says_nothing() -> None:
    """pos NULL, a number missing, or rows of a dropped batch between: not whole, not compared."""
    agreement = Agreement(sample=1)
    agreement.observe(1, whole(1, 2))
    began = [delta(2, NOON, None), delta(9, LATER, 1)]
    broke = [delta(1, NOON, 1), delta(5, LATER, None), delta(9, LATER + 1000, 1)]
    holed = [delta(1, NOON, 1), delta(2, NOON, 3), delta(9, LATER, 1)]
    for gatherer, rows in enumerate((began, broke, holed), 2):
        assert agreement.observe(gatherer, rows) == []
    first, *rest = whole(2, 1)
    agreement.observe(5, [first])
    agreement.forget(5)
    assert agreement.observe(5, rest) == []


def test_the_sample_is_the_same_for_every_gatherer_and_may_be_none() -> None:
    """Chosen by the ticker alone."""
    none = Agreement(sample=0)
    none.observe(1, whole(1))
    assert none.observe(2, whole(2)) == []
    some = Agreement(sample=4)
    tickers = [f"T{n}" for n in range(200)]
    for gatherer, size in ((1, 1), (2, 2)):
        for name in tickers:
            rows = [row._replace(ticker=name) for row in whole(size)]
            told = some.observe(gatherer, rows)
            assert not told or gatherer == 2
    assert 20 < some.compared < 100


def test_memory_is_bounded() -> None:
    """The oldest streams and milliseconds go first."""
    agreement = Agreement(sample=1, streams_max=3, milliseconds_max=2)
    for number in range(10):
        agreement.observe(1, [row._replace(ticker=f"T{number}") for row in whole(1)])
    assert len(agreement._open) == 3
    assert len(agreement._told) == 2


def test_rows_of_a_batch_may_come_in_any_order() -> None:
    """A database gives rows back in no promised order: the frames' own order counts."""
    agreement = Agreement(sample=1)
    rows = [row._replace(seq=seq) for seq, row in enumerate(whole(5, -5), 1)]
    assert agreement.observe(1, rows) == []
    assert agreement.observe(2, [rows[2], rows[0], rows[1]]) == []
    assert agreement.compared == 1
