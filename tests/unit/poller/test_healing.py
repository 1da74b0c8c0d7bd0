"""The healer without exchange and database: which gap rows lead to the tape being read."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from libs.exchange.rest import RestClient
from libs.exchange.rest_wire import Page, RestTrade
from libs.marketdata.capture import CaptureFilter
from libs.marketdata.rows import GapRow, family_gaps
from libs.marketdata.tables import Family
from libs.runtime.clock import ManualClock
from libs.store.pool import Pool
from libs.store.scribe import Scribe
from libs.store.tail import Tail
from services.poller import healing
from services.poller.healing import Healer
from services.poller.repair import LOOKBACK, WIDER
from services.poller.settings import PollerSettings

SECOND = 1_000_000
NOW = 1_795_000_000 * SECOND
TRADE = RestTrade(
    "t1", "A", "1.00", "0.4000", "0.6000", "2026-11-18T11:06:30Z", "yes", "yes", None, False
)


class FakeTape:
    """Notes what is asked for; holds one trade."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int, int]] = []

    async def trades(self, ticker: str, min_ts: int, max_ts: int) -> AsyncIterator[Page[RestTrade]]:
        self.asked.append((ticker, min_ts, max_ts))
        yield Page((TRADE,), (), NOW, NOW)


class FakeScribe:
    """Keeps what is written."""

    def __init__(self) -> None:
        self.rows: list[Any] = []

    async def write(self, rows: Mapping[str, Sequence[Any]]) -> None:
        self.rows += rows["trades"]


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[GapRow]:
    """The zone's gap rows, as the healer finds them."""
    gaps: list[GapRow] = []

    @asynccontextmanager
    async def lend(_: Pool) -> AsyncIterator[None]:
        yield None

    async def read_tail(_: object, table: str, cursors: Mapping[Any, int]) -> Tail:
        assert table == "gaps"
        found, gaps[:] = tuple(gaps), []
        return Tail(found, cursors, is_end=True)

    monkeypatch.setattr(healing, "lend", lend)
    monkeypatch.setattr(healing, "read_tail", read_tail)
    return gaps


async def _heal(gaps: list[GapRow]) -> tuple[FakeTape, FakeScribe]:
    tape, scribe = FakeTape(), FakeScribe()
    clock = ManualClock(NOW + 30 * SECOND)
    healer = Healer(
        cast(RestClient, tape), cast(Pool, None), cast(Scribe, scribe), clock, CaptureFilter(), PollerSettings(), 100
    )  # fmt: skip
    await healer.repair_once()
    return tape, scribe


async def test_a_lost_lane_of_trades_leads_to_the_tape(told: list[GapRow]) -> None:
    """Its gap rows name the trade channel, so the last minute before it is read again, of every market."""
    told += family_gaps(NOW, Family.TRADES, "database_went_back", received_to=NOW)
    tape, scribe = await _heal(told)
    assert tape.asked == [("", NOW - LOOKBACK - WIDER, NOW + WIDER)]
    assert [row.trade_id for row in scribe.rows] == ["t1"]


@pytest.mark.parametrize("family", [Family.DELTAS, Family.REST])
async def test_other_lost_lanes_do_not(told: list[GapRow], family: Family) -> None:
    """The tape holds nothing of theirs."""
    told += family_gaps(NOW, family, "database_went_back", received_to=NOW)
    tape, _ = await _heal(told)
    assert tape.asked == []
