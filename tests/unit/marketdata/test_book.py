"""Books kept up delta by delta."""

import pytest

from libs.marketdata.book import Book, BookCorrupt


def test_deltas_add_up_and_a_level_of_zero_vanishes() -> None:
    """Ladders come out ascending by price."""
    book = Book(yes=((47_000, 300),), no=((48_000, 200),))
    book.apply(True, 47_000, -300)
    book.apply(True, 46_000, 500)
    book.apply(True, 45_000, 100)
    book.apply(False, 48_000, 50)
    assert book.yes == ((45_000, 100), (46_000, 500))
    assert book.no == ((48_000, 250),)


def test_below_zero_is_a_lost_message_and_leaves_the_book_as_it_was() -> None:
    """The level that cannot be is named."""
    book = Book(yes=((47_000, 300),))
    with pytest.raises(BookCorrupt, match="size -1 at yes 47000"):
        book.apply(True, 47_000, -301)
    assert book.yes == ((47_000, 300),)


def test_a_book_whose_bids_add_up_to_more_than_a_dollar_is_crossed() -> None:
    """Exactly a dollar is not."""
    assert Book(((53_000, 1),), ((48_000, 1),)).is_crossed
    assert not Book(((52_000, 1),), ((48_000, 1),)).is_crossed
    assert not Book(((53_000, 1),), ()).is_crossed
