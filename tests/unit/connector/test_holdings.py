"""Holdings that give a slot away: its row goes when everything of it is committed."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, cast

import pytest

from libs.flow.assignment import State
from libs.flow.batch import Limits
from libs.marketdata.rows import TradeRow
from libs.marketdata.tables import Family
from libs.runtime.clock import SystemClock
from libs.store import control
from libs.store.control import Owned
from libs.store.lanes import LaneWriter
from libs.store.pool import AnyConnection
from libs.telemetry.metrics import Metrics
from services.connector.buffer import Buffer
from services.connector.holdings import Holdings
from services.connector.outlets import Outlets
from services.connector.pipeline import Pipeline
from services.connector.slot import Slot, Wiring

NO_CONN = cast(AnyConnection, None)


class Tables:
    """The control tables of one shard; released: the rows it deleted. versions, markets: of slots. ahead: slots that a
    successor hears.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *rows: Owned) -> None:
        self.rows = list(rows)
        self.released: list[str] = []
        self.versions: dict[str, int] = {}
        self.markets: list[str] = []
        self.ahead: set[str] = set()
        for name in (
            "owned",
            "heard_by_others",
            "surpassed",
            "slot_versions",
            "slot_markets",
            "notify",
        ):
            monkeypatch.setattr(control, name, getattr(self, f"_{name}"))
        monkeypatch.setattr(control, "released", self._released)

    async def _owned(self, *_: Any) -> list[Owned]:
        return self.rows

    async def _heard_by_others(self, *_: Any) -> dict[str, int]:
        return {}

    async def _surpassed(self, _: Any, slots: list[str], __: str) -> set[str]:
        return self.ahead & set(slots)

    async def _slot_versions(self, *_: Any) -> dict[str, int]:
        return self.versions

    async def _slot_markets(self, *_: Any) -> list[str]:
        return self.markets

    async def _notify(self, *_: Any) -> None: ...

    async def _released(self, _: Any, slot: str, __: str) -> bool:
        self.released.append(slot)
        self.rows = [row for row in self.rows if row.slot != slot]
        return True


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slot that is dropped is waited for longer than any test lasts: none gets by with its time running out."""
    monkeypatch.setattr("services.connector.holdings.DROP_S_MAX", 600.0)


@pytest.fixture(autouse=True)
def _unreachable(wiring: Wiring) -> None:
    """No dial is ever answered."""

    @asynccontextmanager
    async def hang(*_: Any) -> AsyncIterator[None]:
        await asyncio.Event().wait()
        yield None

    wiring.dial = cast(Any, hang)


def _pipeline() -> tuple[Pipeline, Outlets]:
    outlets = Outlets(dict.fromkeys(Family, Limits(1000, 1 << 30, 1000)), 1 << 20)
    family, lane = Family.TRADES, cast(LaneWriter, None)
    return Pipeline(
        family, outlets, Buffer(family, 100), lane, SystemClock(), Metrics("a")
    ), outlets


@pytest.mark.parametrize("successor", [100, None])
async def test_a_slot_given_away_keeps_its_row_until_all_of_it_is_committed(
    wiring: Wiring,
    monkeypatch: pytest.MonkeyPatch,
    successor: int | None,
) -> None:
    """With a successor, or as one that the configuration has no more; it is not served again meanwhile."""
    row = Owned("trade/0", State.RELEASING, 1, successor, has_others=successor is not None)
    tables = Tables(monkeypatch, row)
    pipeline, outlets = _pipeline()
    trade = TradeRow(1, 1, 100, 40_000, 60_000, True, "t", "A", None, None, None, None, None)
    outlets.batchers[Family.TRADES].table("trades").append(trade)
    wired = replace(wiring, pipelines={Family.TRADES: pipeline})
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        holdings = Holdings("me", wired, group, ["trade/0"])
        for _ in range(3):
            await holdings.follow(NO_CONN)
            assert (holdings.slots, list(holdings.leaving), tables.released) == (
                {},
                ["trade/0"],
                [],
            )
        pipeline.buffer.commit()
        await holdings.follow(NO_CONN)
        assert (list(holdings.leaving), tables.released) == ([], ["trade/0"])


async def test_a_slot_whose_successor_went_is_served_again(
    wiring: Wiring,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The planner restores the row before it is deleted."""
    tables = Tables(monkeypatch, Owned("trade/0", State.RELEASING, 1, 100))
    pipeline, outlets = _pipeline()
    outlets.batchers[Family.TRADES].table("trades").append((1,) * 13)
    monkeypatch.setattr(pipeline, "mark", lambda: 1)
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        wired = replace(wiring, pipelines={Family.TRADES: pipeline})
        holdings = Holdings("me", wired, group, ["trade/0"])
        await holdings.follow(NO_CONN)
        assert list(holdings.leaving) == ["trade/0"]
        tables.rows = [Owned("trade/0", State.LIVE, 1, None)]
        await holdings.follow(NO_CONN)
        assert (list(holdings.leaving), list(holdings.slots)) == ([], ["trade/0"])
        await holdings.close("drained")


async def test_a_releasing_slot_waits_while_its_successor_is_not_live(
    wiring: Wiring,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another shard has a row and no start yet: nothing is given up."""
    Tables(monkeypatch, Owned("trade/0", State.RELEASING, 1, None))
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        holdings = Holdings("me", wiring, group, ["trade/0"])
        await holdings.follow(NO_CONN)
        assert list(holdings.slots) == ["trade/0"]
        await holdings.close("drained")


async def test_a_market_that_comes_after_a_successor_hears_is_the_successors(
    wiring: Wiring,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """We close before the successor hears it: heard by us first, it would be lost in between. Without one it is ours."""
    tables = Tables(monkeypatch, Owned("orderbook/0", State.LIVE, 1, None))
    tables.versions, tables.markets = {"orderbook/0": 1}, ["A"]
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        holdings = Holdings("me", wiring, group, ["orderbook/0"])
        await holdings.follow(NO_CONN)
        tables.versions, tables.markets, tables.ahead = (
            {"orderbook/0": 2},
            ["A", "B"],
            {"orderbook/0"},
        )
        await holdings.follow(NO_CONN)
        assert holdings.slots["orderbook/0"].tickers == {"A"}
        tables.ahead = set()
        await holdings.follow(NO_CONN)
        assert holdings.slots["orderbook/0"].tickers == {"A", "B"}
        await holdings.close("drained")


async def test_a_slot_is_told_live_with_the_list_it_hears(
    wiring: Wiring,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """So that the database can refuse it when the list is another by then; without a list there is none to compare."""
    told: list[tuple[Any, ...]] = []

    async def set_live(_: Any, *words: Any) -> bool:
        told.append(words)
        return False

    monkeypatch.setattr(control, "set_live", set_live)
    monkeypatch.setattr(Slot, "is_complete", True)
    monkeypatch.setattr(Slot, "listening_from", 300)
    tables = Tables(monkeypatch, Owned("orderbook/0", State.ASSIGNED, 1, None))
    tables.versions, tables.markets = {"orderbook/0": 7}, ["A"]
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        holdings = Holdings("me", wiring, group, ["orderbook/0"])
        await holdings.follow(NO_CONN)
        assert holdings.states == {"orderbook/0": State.ASSIGNED}
        tables.versions = {}
        await holdings.follow(NO_CONN)
        await holdings.close("drained")
    assert told == [("orderbook/0", "me", 300, 7), ("orderbook/0", "me", 300, None)]


async def test_a_list_that_the_zone_lost_takes_no_market_away(
    wiring: Wiring,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Markets are heard on until a list says otherwise, whatever its number."""
    tables = Tables(monkeypatch, Owned("orderbook/0", State.LIVE, 1, None))
    tables.versions, tables.markets = {"orderbook/0": 1}, ["A", "B"]
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        holdings = Holdings("me", wiring, group, ["orderbook/0"])
        await holdings.follow(NO_CONN)
        tables.versions, tables.markets = {}, []
        await holdings.follow(NO_CONN)
        assert holdings.slots["orderbook/0"].tickers == {"A", "B"}
        tables.versions, tables.markets = {"orderbook/0": 1}, ["B"]
        await holdings.follow(NO_CONN)
        assert holdings.slots["orderbook/0"].tickers == {"B"}
        await holdings.close("drained")


async def test_a_drain_that_ends_while_the_tables_are_read_is_no_fault(
    wiring: Wiring,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A slot without a row, which the configuration has no more, is closed between the question and its answer."""
    tables = Tables(monkeypatch, Owned("trade/7", State.LIVE, 1, None))
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        holdings = Holdings("me", wiring, group, ["trade/0"])
        await holdings.follow(NO_CONN)
        tables.rows = []

        async def heard_by_others(*_: Any) -> dict[str, int]:
            await holdings.close("drained")
            return {}

        monkeypatch.setattr(control, "heard_by_others", heard_by_others)
        await holdings.follow(NO_CONN)
        assert holdings.slots == {}
