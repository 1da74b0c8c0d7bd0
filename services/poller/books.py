"""From answered books to rows: what equals the market's last stored book is a row without ladders. Pure.

What was stored is remembered only after its commit, so a batch that is lost is never referred to.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from libs.exchange.convert import snapshot_row_from_rest
from libs.exchange.rest_wire import RestBook
from libs.marketdata.rows import RejectedFrameRow, SnapshotRow
from libs.marketdata.units import ValueDoesNotFit

REJECTED_BYTES_MAX = 64 * 1024


@dataclass(frozen=True, slots=True)
class Converted:
    """Rows of one answer, the markets it left out, and what could not be read."""

    rows: tuple[SnapshotRow, ...]
    missing: tuple[str, ...]
    rejected: tuple[RejectedFrameRow, ...]


class StoredBooks:
    """The last stored book of each market: its hash, and when its ladders were last written.

    full_after: microseconds after which ladders are written again though the book is the same.
    """

    def __init__(self, full_after: int) -> None:
        self._full_after = full_after
        self._stored: dict[str, tuple[int, int]] = {}

    def __len__(self) -> int:
        return len(self._stored)

    def convert(
        self, tickers: Iterable[str], books: Iterable[RestBook], requested_at: int, received_at: int
    ) -> Converted:
        """Build the rows of one answer to a request for `tickers`."""
        rows: dict[str, SnapshotRow] = {}
        rejected: list[RejectedFrameRow] = []
        asked = dict.fromkeys(tickers)
        for book in books:
            if book.ticker not in asked or book.ticker in rows:
                continue
            last = self._last_hash(book.ticker, received_at)
            try:
                row = snapshot_row_from_rest(book.ticker, book, requested_at, received_at, last)
            except ValueDoesNotFit as error:
                rejected.append(rejection(book.ticker, repr(book), str(error), received_at))
                continue
            rows[book.ticker] = row
        refused = {row.ticker for row in rejected}
        missing = tuple(t for t in asked if t not in rows and t not in refused)
        return Converted(tuple(rows.values()), missing, tuple(rejected))

    def committed(self, rows: Iterable[SnapshotRow]) -> None:
        """Remember what is stored now."""
        for row in rows:
            if row.yes is not None:
                self._stored[row.ticker] = (row.content_hash, row.observed_at)

    def forget(self) -> None:
        """Write every book with its ladders again: the database lost what was stored."""
        self._stored.clear()

    def keep_only(self, tickers: set[str]) -> None:
        """Drop the memory of markets that are not open any more."""
        self._stored = {t: stored for t, stored in self._stored.items() if t in tickers}

    def _last_hash(self, ticker: str, now: int) -> int | None:
        stored = self._stored.get(ticker)
        if stored is None or now - stored[1] >= self._full_after:
            return None
        return stored[0]


def rejection(ticker: str | None, text: str, reason: str, received_at: int) -> RejectedFrameRow:
    """Build the row of an item of a REST answer that could not be read, with its bytes as far as they fit."""
    data = text.encode(errors="replace")
    return RejectedFrameRow(
        received_at=received_at,
        row_no=0,
        is_truncated=len(data) > REJECTED_BYTES_MAX,
        reason=f"rest: {reason}",
        frame=data[:REJECTED_BYTES_MAX],
        connection=None,
        sid=None,
        seq=None,
        sent_at=None,
        ticker=ticker,
    )
