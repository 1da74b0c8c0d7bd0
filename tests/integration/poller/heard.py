"""What the poller's tests share: lanes that heard the trade channel, and a tape in the hand of the test."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast
from uuid import UUID, uuid4

import asyncpg

from libs.exchange.errors import ExchangeError
from libs.exchange.rest import RestClient
from libs.exchange.rest_wire import Page, RestTrade
from libs.marketdata.capture import CaptureFilter
from libs.marketdata.listening import Span
from libs.marketdata.rows import GapRow, ListenOpenedRow, ListenRangeRow, TradeRow
from libs.marketdata.tables import Family
from libs.marketdata.units import SECOND, format_rfc3339
from libs.runtime.clock import ManualClock
from libs.store.batches import seal
from libs.store.lanes import LaneWriter
from libs.store.pool import Pool, Target, open_pool
from libs.store.scribe import Scribe
from libs.telemetry.metrics import Metrics
from services.poller.following import Follower
from services.poller.healing import Healer
from services.poller.repair import Limits
from services.poller.tape import Tape

NOW = 1_900_000_800 * SECOND
MARGIN = SECOND
LIMITS = Limits(delay=20 * SECOND, silence=60 * SECOND, age_max=86_400 * SECOND)


def heard(from_ts: int, to_ts: int, connection: UUID | None = None) -> dict[str, Sequence[Any]]:
    """The rows of a trade connection that claims exactly [from_ts, to_ts)."""
    connection = connection or uuid4()
    first, last = from_ts - MARGIN, to_ts + MARGIN
    return {
        "listen_ranges": [
            ListenRangeRow(last, 1, 9, first, last, MARGIN, 1, 0, connection, "trade")
        ],
        "listen_opened": [
            ListenOpenedRow(first, 1, first, MARGIN, 1, 1, 0, connection, "trade", "trade/0", None)
        ],
    }


def trade_row(trade_id: str, at: int) -> TradeRow:
    """A trade as the socket brings it."""
    return TradeRow(at, at, 100, 40_000, 60_000, True, trade_id, "A", uuid4(), 1, 5, at, False)


def tape_trade(trade_id: str, at: int) -> RestTrade:
    """The same trade as the tape has it, with microseconds."""
    return RestTrade(
        trade_id, "A", "1.00", "0.4000", "0.6000", format_rfc3339(at), "yes", "yes", None, False
    )


@dataclass
class FakeTape:
    """An exchange's tape: trades by time, pages of `page` items; fails with `error` after `pages_left` pages, and at what
    begins in `silent`.
    """

    trades_at: dict[str, int] = field(default_factory=dict)
    page: int = 10
    pages_left: int = 1_000_000
    error: ExchangeError | None = None
    silent: Span | None = None
    asked: list[tuple[str, int | None, int | None]] = field(default_factory=list)

    async def trades(
        self, ticker: str, min_ts: int | None, max_ts: int | None, *, limit: int = 1000
    ) -> AsyncIterator[Page[RestTrade]]:
        """Newest first, as whole seconds allow."""
        self.asked.append((ticker, min_ts, max_ts))
        if self.silent and min_ts is not None and self.silent[0] <= min_ts < self.silent[1]:
            assert self.error is not None
            raise self.error
        low = min_ts // SECOND * SECOND if min_ts is not None else 0
        high = -(-max_ts // SECOND) * SECOND + SECOND if max_ts is not None else 1 << 62
        found = sorted(
            ((at, name) for name, at in self.trades_at.items() if low <= at < high), reverse=True
        )
        size = min(self.page, limit)
        for start in range(0, max(len(found), 1), size):
            if self.pages_left == 0:
                assert self.error is not None
                raise self.error
            self.pages_left -= 1
            items = tuple(tape_trade(name, at) for at, name in found[start : start + size])
            yield Page(items, (), NOW, NOW)

    @property
    def spans(self) -> list[tuple[int, int]]:
        """What was asked for with a beginning: [min_ts, max_ts]."""
        return [(a, b) for _, a, b in self.asked if a is not None and b is not None]


@dataclass
class Bench:
    """A zone's database with lanes that the test writes, and healers over it."""

    pool: Pool
    clock: ManualClock
    metrics: Metrics
    scribe: Scribe

    async def write(self, family: Family, *rows: dict[str, Sequence[Any]]) -> None:
        """Commit each of these as a batch of a lane of its own."""
        lane = LaneWriter(self.pool, family=family, process="connector-a-1", instance=uuid4())
        for batch in rows:
            await lane.write(seal(batch))
        await lane.close()

    async def gap(self, row: GapRow) -> None:
        """Commit a gap row."""
        await self.write(Family.REST, {"gaps": [row]})

    def healer(self, tape: FakeTape) -> Healer:
        """A healer that has just started."""
        reader = Tape(cast(RestClient, tape), self.pool, self.scribe, CaptureFilter(), 7)
        follower = Follower(self.pool, LIMITS, None)
        return Healer(follower, reader, self.pool, self.clock, self.metrics, LIMITS)

    async def repairs(self) -> list[asyncpg.Record]:
        """Return what is remembered of repairs, the oldest first."""
        return await self.pool.fetch("select * from trade_repairs order by from_ts, repair")

    async def stored(self) -> list[str]:
        """Return the id of every stored trade, doubled ones twice."""
        rows = await self.pool.fetch("select trade_id from trades order by exchange_ts, trade_id")
        return [row[0] for row in rows]


@asynccontextmanager
async def bench(target: Target) -> AsyncIterator[Bench]:
    """Open a bench over a fresh database; its clock stands at NOW."""
    metrics, clock = Metrics(), ManualClock(NOW)
    async with open_pool(target) as pool:
        lane = LaneWriter(pool, family=Family.TRADES, process="poller", instance=uuid4())
        scribe = Scribe(lane, "trades", now=clock.now, stop=asyncio.Event(), metrics=metrics)
        yield Bench(pool, clock, metrics, scribe)
        await scribe.close()
