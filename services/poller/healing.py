"""Reading the tape for the trade channel's gaps and storing what it holds."""

import json
from typing import Final
from uuid import UUID

from libs.exchange.convert import trade_row_from_rest
from libs.exchange.rest import RestClient
from libs.exchange.rest_wire import Page, RestTrade
from libs.marketdata.capture import CaptureFilter
from libs.marketdata.rows import GapRow, TradeRow
from libs.marketdata.units import SECOND, ValueDoesNotFit
from libs.runtime.clock import Clock
from libs.store.catalogue import get_state, lend, set_state
from libs.store.catalogue_views import read_captured
from libs.store.pool import Pool
from libs.store.scribe import Scribe
from libs.store.tail import read_tail
from libs.telemetry.logging import get_logger
from services.poller.repair import TRADE_CHANNEL, Span, due_spans
from services.poller.settings import PollerSettings

log = get_logger(__name__)

STATE_KEY: Final = "repair_cursors"


class Healer:
    """Follows the zone's gap rows and repairs the trade channel.

    Attributes: repaired counts spans, trades the rows stored, unreadable the trades that could not be read.
    """

    def __init__(
        self,
        rest: RestClient,
        pool: Pool,
        scribe: Scribe,
        clock: Clock,
        capture: CaptureFilter,
        settings: PollerSettings,
        rows_max: int,
    ) -> None:
        self._rest = rest
        self._pool = pool
        self._scribe = scribe
        self._clock = clock
        self._capture = capture
        self._delay = int(settings.repair_delay_s * SECOND)
        self._age_max = int(settings.repair_age_s_max * SECOND)
        self._rows_max = rows_max
        self._cursors: dict[UUID, int] = {}
        self._saved: dict[UUID, int] = {}
        self._waiting: list[GapRow] = []
        self.repaired = self.trades = self.unreadable = 0

    @property
    def waiting(self) -> int:
        """Gaps that are read but not repaired yet."""
        return len(self._waiting)

    async def load(self) -> None:
        """Go on after the last gap that was repaired."""
        async with lend(self._pool) as conn:
            text = await get_state(conn, STATE_KEY)
        if text is not None:
            self._cursors = {UUID(lane): number for lane, number in json.loads(text).items()}
            self._saved = dict(self._cursors)

    async def repair_once(self) -> None:
        """Read new gap rows and repair those whose tape is complete by now.

        Raises:
            ExchangeError, StoreUnavailable: what is not repaired stays waiting; call again.
        """
        await self._read_gaps()
        spans, waiting = due_spans(self._waiting, self._clock.now(), self._delay, self._age_max)
        for span in spans:
            await self._repair(span)
        self._waiting = waiting
        # A gap that still waits must be found again after a crash: cursors are remembered only when none does.
        if not self._waiting and self._cursors != self._saved:
            text = json.dumps({str(lane): number for lane, number in self._cursors.items()})
            async with lend(self._pool) as conn:
                await set_state(conn, STATE_KEY, text)
            self._saved = dict(self._cursors)

    async def _read_gaps(self) -> None:
        while True:
            async with lend(self._pool) as conn:
                tail = await read_tail(conn, "gaps", self._cursors)
            self._waiting += [gap for gap in tail.rows if gap.channel == TRADE_CHANNEL]
            self._cursors = dict(tail.cursors)
            if tail.is_end:
                return

    async def _repair(self, span: Span) -> None:
        stored = 0
        pages = self._rest.trades(span.ticker or "", span.from_ts, span.to_ts)
        async for page in pages:
            rows = await self._rows(page, span)
            for start in range(0, len(rows), self._rows_max):
                await self._scribe.write({"trades": rows[start : start + self._rows_max]})
            stored += len(rows)
        self.repaired += 1
        self.trades += stored
        log.info(
            "trades_repaired",
            ticker=span.ticker,
            from_ts=span.from_ts,
            to_ts=span.to_ts,
            trades=stored,
        )

    async def _rows(self, page: Page[RestTrade], span: Span) -> list[TradeRow]:
        """Convert a page of the tape to the rows of captured markets within the span."""
        rows: list[TradeRow] = []
        for trade in page.items:
            try:
                row = trade_row_from_rest(trade, page.received_at)
            except ValueDoesNotFit as error:
                self.unreadable += 1
                log.warning("trade_unreadable", trade_id=trade.trade_id[:64], error=str(error))
                continue
            if span.from_ts <= row.exchange_ts <= span.to_ts and self._capture.may_want(row.ticker):
                rows.append(row)
        self.unreadable += len(page.rejected)
        if rows and self._capture.needs_category:
            async with lend(self._pool) as conn:
                captured = await read_captured(conn, list({row.ticker for row in rows}))
            rows = [row for row in rows if row.ticker in captured]
        return rows
