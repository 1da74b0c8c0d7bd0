"""Books to rows, and what is remembered of them."""

from libs.exchange.rest_wire import BookSides, RestBook
from libs.marketdata.rows import SnapshotRow
from services.poller.books import StoredBooks

DAY = 86_400_000_000


def book(ticker: str, *sizes: str) -> RestBook:
    """A book with these sizes at ascending yes prices."""
    levels = [(f"0.{10 + n}00", size) for n, size in enumerate(sizes)]
    return RestBook(orderbook_fp=BookSides(yes_dollars=levels, no_dollars=None), ticker=ticker)


def taken(stored: StoredBooks, answer: RestBook, at: int) -> SnapshotRow:
    """Convert and commit one book."""
    (row,) = stored.convert([answer.ticker], [answer], at - 5, at).rows
    stored.committed([row])
    return row


def test_an_unchanged_book_is_a_row_without_ladders() -> None:
    """Equal to the last stored one: both ladders NULL, the hash the same; a changed one has its ladders."""
    stored = StoredBooks(DAY)
    first, second = taken(stored, book("A", "1.50"), 100), taken(stored, book("A", "1.50"), 200)
    assert first.yes == ((10_000, 150),)
    assert first.no == ()
    assert (second.yes, second.no, second.content_hash) == (None, None, first.content_hash)
    third = taken(stored, book("A", "2.00"), 300)
    assert third.yes == ((10_000, 200),)
    back = taken(stored, book("A", "1.50"), 400)
    assert back.yes == first.yes
    assert (back.observed_at, back.requested_at, back.observed_is_sent) == (400, 395, False)


def test_only_committed_books_count() -> None:
    """A row that never was committed is not referred to."""
    stored = StoredBooks(DAY)
    stored.convert(["A"], [book("A", "1.00")], 0, 1)
    assert taken(stored, book("A", "1.00"), 2).yes is not None


def test_ladders_are_written_again_after_a_while() -> None:
    """However long a book stays the same, its ladders are never further back than full_after."""
    stored = StoredBooks(100)
    assert taken(stored, book("A", "1.00"), 1_000).yes is not None
    assert taken(stored, book("A", "1.00"), 1_099).yes is None
    assert taken(stored, book("A", "1.00"), 1_100).yes is not None
    assert taken(stored, book("A", "1.00"), 1_150).yes is None


def test_forgetting_restates_every_book() -> None:
    """After the database lost rows, and for markets that are not open any more, nothing is referred to."""
    stored = StoredBooks(DAY)
    taken(stored, book("A", "1.00"), 1)
    taken(stored, book("B", "1.00"), 1)
    stored.keep_only({"A"})
    assert len(stored) == 1
    stored.forget()
    assert taken(stored, book("A", "1.00"), 2).yes is not None


def test_missing_foreign_and_unreadable_books() -> None:
    """A market left out is named, one not asked for is dropped, one with a bad value is rejected with its reason."""
    bad = book("C", "1.005")
    answer = [book("A", "1.00"), book("X", "1.00"), bad, book("A", "9.00")]
    converted = StoredBooks(DAY).convert(["A", "B", "C"], answer, 0, 7)
    assert [row.ticker for row in converted.rows] == ["A"]
    assert converted.missing == ("B",)
    (rejected,) = converted.rejected
    assert (rejected.ticker, rejected.received_at, rejected.is_truncated) == ("C", 7, False)
    assert b"1.005" in rejected.frame
    assert rejected.reason.startswith("rest: ")
