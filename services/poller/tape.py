"""One span of the tape: read newest first, page by page, and what is missing is stored before the next page is asked.

After each page it is known down to which moment everything is stored, so that a repair which is interrupted goes on
from there by time; a cursor of the exchange means nothing to the next process.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from libs.exchange.convert import trade_row_from_rest
from libs.exchange.rest import RestClient
from libs.exchange.rest_wire import Page, RestTrade
from libs.marketdata.capture import CaptureFilter
from libs.marketdata.listening import Span
from libs.marketdata.rows import TradeRow
from libs.marketdata.units import SECOND, ValueDoesNotFit
from libs.store.catalogue import lend
from libs.store.catalogue_views import read_captured
from libs.store.pool import Pool
from libs.store.scribe import Scribe
from libs.store.trade_repairs import stored_trades
from libs.telemetry.logging import get_logger
from services.poller.repair import chunks

log = get_logger(__name__)

CHUNK: Final = 900 * SECOND
"""Microseconds of one request's span: a listing that the exchange cuts off costs no more than that."""
ORDER_SLACK: Final = SECOND
"""The tape's order is taken for exact only this far, microseconds."""
TIME_SLACK: Final = 10 * SECOND
"""The socket's time and the tape's of one trade differ by less, microseconds."""

Progress = Callable[[int, int, int], Awaitable[None]]
"""Told after each page: everything at or after the moment is stored; trades read, trades stored by that page."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What a page or span brought: its oldest trade's time (microseconds; None: no trade), trades of the span and of
    captured markets, those that were missing and are stored now, those that could not be read.
    """

    oldest: int | None = None
    read: int = 0
    stored: int = 0
    unreadable: int = 0

    def plus(self, other: "Reading") -> "Reading":
        """Return both together."""
        times = [moment for moment in (self.oldest, other.oldest) if moment is not None]
        return Reading(
            min(times, default=None),
            self.read + other.read,
            self.stored + other.stored,
            self.unreadable + other.unreadable,
        )


class Tape:
    """Reads the exchange's tape and stores what the zone's database lacks. rows_max: of one batch."""

    def __init__(
        self, rest: RestClient, pool: Pool, scribe: Scribe, capture: CaptureFilter, rows_max: int
    ) -> None:
        self._rest = rest
        self._pool = pool
        self._scribe = scribe
        self._capture = capture
        self._rows_max = rows_max

    async def heal(self, ticker: str | None, part: Span, progress: Progress) -> Reading:
        """Read the part [from, to) of the tape and store what is missing of captured markets.

        Args:
            ticker: None for every market.

        Raises:
            ExchangeError, StoreUnavailable: what progress was told of is stored; go on from there.
        """
        reading = Reading()
        for low, high in chunks(part, CHUNK):
            reached = high
            async for page in self._rest.trades(ticker or "", low, high):
                taken = await self._take(page, (low, high))
                reading = reading.plus(taken)
                if taken.oldest is not None:
                    reached = min(reached, max(low, taken.oldest + ORDER_SLACK))
                await progress(reached, taken.read, taken.stored)
            await progress(low, 0, 0)
        return reading

    async def reaches_before(self, moment: int) -> bool:
        """Tell whether the tape holds a trade of any market that is older than the moment (microseconds)."""
        async for page in self._rest.trades("", None, moment - SECOND, limit=1):
            return bool(page.items or page.rejected)
        return False

    async def _take(self, page: Page[RestTrade], part: Span) -> Reading:
        """Store what is missing of one page."""
        rows, times, unreadable = [], [], len(page.rejected)
        for trade in page.items:
            try:
                row = trade_row_from_rest(trade, page.received_at)
            except ValueDoesNotFit as error:
                unreadable += 1
                log.warning("trade_unreadable", trade_id=trade.trade_id[:64], error=str(error))
                continue
            times.append(row.exchange_ts)
            if part[0] <= row.exchange_ts < part[1] and self._capture.may_want(row.ticker):
                rows.append(row)
        missing = await self._missing(rows)
        for start in range(0, len(missing), self._rows_max):
            await self._scribe.write({"trades": missing[start : start + self._rows_max]})
        return Reading(min(times, default=None), len(rows), len(missing), unreadable)

    async def _missing(self, rows: Sequence[TradeRow]) -> list[TradeRow]:
        """Return the rows of captured markets whose trade_id is not stored yet, each once."""
        if not rows:
            return []
        by_id = {row.trade_id: row for row in rows}
        times = [row.exchange_ts for row in rows]
        async with lend(self._pool) as conn:
            known = await stored_trades(conn, by_id, min(times), max(times), TIME_SLACK)
            captured = None
            if self._capture.needs_category:
                captured = await read_captured(conn, list({row.ticker for row in rows}))
        return [
            row
            for trade_id, row in by_id.items()
            if trade_id not in known and (captured is None or row.ticker in captured)
        ]
