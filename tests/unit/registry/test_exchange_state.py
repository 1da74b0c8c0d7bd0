"""Status and schedule come by loops of their own; neither undoes what the other has noted."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest

from libs.exchange.rest_wire import Answer, ExchangeStatus
from libs.marketdata.rows import EXCHANGE_CHANNELS
from libs.marketdata.units import format_rfc3339
from libs.telemetry.metrics import Metrics
from services.registry import exchange_state
from services.registry.exchange_state import ExchangeWatch
from tests.unit.registry.factories import NOW, SECOND


class Exchange:
    """Answers with what is set, asked at `now`; also the clock."""

    def __init__(self) -> None:
        self.trading = True
        self.at = NOW

    def now(self) -> int:
        self.at += SECOND
        return self.at

    async def exchange_status(self) -> Answer[ExchangeStatus]:
        at = self.now()
        return Answer(ExchangeStatus(exchange_active=True, trading_active=self.trading), at, at)

    async def exchange_schedule(self) -> Answer[dict[str, Any]]:
        begin, end = (format_rfc3339(NOW + hours * 3600 * SECOND) for hours in (5, 6))
        windows = [{"start_datetime": begin, "end_datetime": end}]
        return Answer({"schedule": {"maintenance_windows": windows}}, self.at, self.at)


async def test_a_schedule_that_is_noted_while_a_pause_ends_does_not_bring_it_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The pause has one end; what the schedule says counts."""
    written: list[Any] = []
    begun, stored = asyncio.Event(), asyncio.Event()

    async def write(rows: dict[str, list[Any]]) -> None:
        written.extend(rows.get("gaps", ()))

    async def set_state(_conn: Any, _key: str, text: str, _lease: Any) -> None:
        if json.loads(text)["windows"] and not begun.is_set():
            begun.set()
            await stored.wait()

    @asynccontextmanager
    async def lend(_: Any) -> AsyncIterator[None]:
        yield None

    monkeypatch.setattr(exchange_state, "lend", lend)
    monkeypatch.setattr(exchange_state, "set_state", set_state)
    exchange = Exchange()
    scribe = SimpleNamespace(write=write)
    parts = (exchange, scribe, None, exchange, None, Metrics("a"))
    watch = ExchangeWatch(*cast(Any, parts))
    await watch.status_once()
    exchange.trading = False
    await watch.status_once()
    assert watch.facts()["paused"]
    exchange.trading = True
    async with asyncio.TaskGroup() as both:
        both.create_task(watch.schedule_once())
        await begun.wait()
        both.create_task(watch.status_once())
        for _ in range(10):
            await asyncio.sleep(0)
        stored.set()
    assert watch.facts()["paused"] is None
    await watch.status_once()
    ends = [row.channel for row in written if row.to_ts is not None]
    assert sorted(ends) == sorted(EXCHANGE_CHANNELS)
    assert watch.facts()["next_maintenance"]["from"] == NOW + 5 * 3600 * SECOND


def test_a_shard_that_pauses_by_itself_is_a_pause_too() -> None:
    """What REST does not show of its markets then is not gone."""
    watch = ExchangeWatch(*cast(Any, (None, None, None, None, None, Metrics("a"))))
    said = []
    for trading in (True, False, True):
        shards = [{"exchange_index": 0}, {"exchange_index": 1, "trading_active": trading}]
        watch._note_shards({"exchange_index_statuses": shards})
        said.append(watch.is_paused)
    assert said == [False, True, False]
