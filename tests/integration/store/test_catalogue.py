"""The catalogue and the tail against a real database."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from libs.marketdata.rows import GapRow, LifecycleRow
from libs.marketdata.tables import Family
from libs.store import catalogue_views as views
from libs.store.batches import seal
from libs.store.catalogue import (
    CatalogueWrite,
    LeaseNotHeld,
    MarketState,
    ObjectState,
    get_state,
    read_categories,
    read_events,
    read_markets,
    read_series,
    set_state,
    write_catalogue,
)
from libs.store.lanes import LaneWriter
from libs.store.leases import Lease
from libs.store.pool import Pool, Target, open_pool
from libs.store.tail import read_heads, read_tail


@pytest.fixture
async def pool(gatherer_db: Target) -> AsyncIterator[Pool]:
    """A pool over a fresh gatherer database."""
    async with open_pool(gatherer_db) as opened:
        yield opened
        opened.terminate()


def market(ticker: str, **changes: Any) -> MarketState:
    """A wanted market of slot 0."""
    state = MarketState(
        ticker=ticker, event_ticker="E", series_ticker="S", status="active", is_combo=False, wanted=True,
        slot="orderbook/0", open_at=1, close_at=2, created_at=None, updated_at=3, content_hash=4,
    )  # fmt: skip
    return state._replace(**changes)


async def versions(conn: Any) -> dict[str, int]:
    """Return every slot's version."""
    return {row[0]: row[1] for row in await conn.fetch("select slot, version from slot_versions")}


async def test_what_is_written_is_read_again(pool: Pool) -> None:
    """Series, events and markets come back as they were written; unknown ones are absent."""
    write = CatalogueWrite(
        series=((ObjectState("S", "", 1, 2), '{"category":"Sports"}'),),
        events=((ObjectState("E", "S", 3, 4), "{}"),),
        markets=((market("A"), '{"a":1}'), (market("B", slot=None, wanted=False), "{}")),
    )
    async with pool.acquire() as conn:
        assert await write_catalogue(conn, write) == {"orderbook/0"}
        assert await read_series(conn, ["S", "T"]) == {"S": ObjectState("S", "", 1, 2)}
        assert await read_events(conn, ["E"]) == {"E": ObjectState("E", "S", 3, 4)}
        known = await read_markets(conn, ["A", "B", "C"])
        assert known == {"A": market("A"), "B": market("B", slot=None, wanted=False)}
        assert await read_categories(conn) == {"S": "Sports"}
        assert await views.read_event_series(conn) == {"E": "S"}
        assert await conn.fetchval("select body from markets where ticker = 'A'") == '{"a":1}'


async def test_a_slots_version_rises_exactly_when_its_list_changes(pool: Pool) -> None:
    """Entering, leaving and moving raise it once a transaction; anything else does not."""
    async with pool.acquire() as conn:
        both = CatalogueWrite(markets=((market("A"), "{}"), (market("B"), "{}")))
        await write_catalogue(conn, both)
        assert await versions(conn) == {"orderbook/0": 1}
        closed = CatalogueWrite(states=(market("A", status="inactive", close_at=99),))
        assert await write_catalogue(conn, closed) == frozenset()
        left = CatalogueWrite(states=(market("A", wanted=False),))
        assert await write_catalogue(conn, left) == {"orderbook/0"}
        moved = CatalogueWrite(states=(market("B", slot="orderbook/7"),))
        assert await write_catalogue(conn, moved) == {"orderbook/0", "orderbook/7"}
        unwanted = CatalogueWrite(states=(market("A", wanted=False, slot="orderbook/3"),))
        assert await write_catalogue(conn, unwanted) == frozenset()
        assert await versions(conn) == {"orderbook/0": 3, "orderbook/7": 1}


async def test_a_failed_write_raises_no_version(pool: Pool) -> None:
    """Version and lists stand in one transaction: a market that cannot be stored leaves both as they were."""
    async with pool.acquire() as conn:
        bad = market("A")._replace(status=None)  # type: ignore[arg-type]
        with pytest.raises(asyncpg.NotNullViolationError):
            await write_catalogue(conn, CatalogueWrite(markets=((market("B"), "{}"), (bad, "{}"))))
        assert await versions(conn) == {}
        assert await read_markets(conn, ["B"]) == {}


async def test_a_state_without_body_keeps_the_body(pool: Pool) -> None:
    """Status changes by message or clock leave what REST told."""
    async with pool.acquire() as conn:
        await write_catalogue(conn, CatalogueWrite(markets=((market("A"), '{"a":1}'),)))
        await write_catalogue(conn, CatalogueWrite(states=(market("A", status="closed"),)))
        (row,) = await conn.fetch("select status, body from markets")
        assert tuple(row) == ("closed", '{"a":1}')


async def test_views_of_the_whole_catalogue(pool: Pool) -> None:
    """Unfinished, wanted, open, captured, counted, and paged by ticker."""
    states = (
        market("A"),
        market("B", status="initialized", slot="orderbook/1"),
        market("C", status="finalized", wanted=False),
        market("D", wanted=False, slot=None),
    )
    async with pool.acquire() as conn:
        await write_catalogue(conn, CatalogueWrite(markets=tuple((s, "{}") for s in states)))
        assert [due.ticker for due in await views.read_unfinished(conn)] == ["A", "B", "D"]
        assert await views.read_wanted(conn) == ["A", "B"]
        assert await views.read_open(conn) == ["A"]
        assert await views.read_captured(conn, ["A", "D", "X"]) == {"A"}
        counted = await views.count_markets(conn)
        assert counted == {"active": 2, "initialized": 1, "finalized": 1, "total": 4, "wanted": 2}
        page = await views.list_markets(conn, limit=2)
        assert [view.ticker for view in page] == ["A", "B"]
        assert [view.ticker for view in await views.list_markets(conn, after="B")] == ["C", "D"]
        assert [v.ticker for v in await views.list_markets(conn, status="active", prefix="D")] == [
            "D"
        ]
        assert [v.ticker for v in await views.list_markets(conn, slot="orderbook/1")] == ["B"]


async def test_state_is_remembered(pool: Pool) -> None:
    """A key has its last value, None before the first."""
    async with pool.acquire() as conn:
        assert await get_state(conn, "k") is None
        await set_state(conn, "k", "1")
        await set_state(conn, "k", "2")
        assert await get_state(conn, "k") == "2"


async def test_who_lost_the_lease_writes_nothing(pool: Pool) -> None:
    """A registry that slept through its lease's end changes neither the catalogue nor what is remembered."""
    sleeper, successor = (Lease(pool, "registry", uuid4(), 5.0) for _ in range(2))
    assert await sleeper.take_once()
    wanted = CatalogueWrite(markets=((market("A"), "{}"),))
    async with pool.acquire() as conn:
        assert await write_catalogue(conn, wanted, sleeper) == {"orderbook/0"}
        await set_state(conn, "k", "1", sleeper)
        await conn.execute("update leases set expires_at = '-infinity'")
        assert await successor.take_once()
        late = CatalogueWrite(states=(market("A", wanted=False),))
        with pytest.raises(LeaseNotHeld, match="registry"):
            await write_catalogue(conn, late, sleeper)
        with pytest.raises(LeaseNotHeld):
            await set_state(conn, "k", "2", sleeper)
        assert not LeaseNotHeld.retryable
        assert (await read_markets(conn, ["A"]))["A"].wanted
        assert await get_state(conn, "k") == "1"
        assert await versions(conn) == {"orderbook/0": 1}
        await set_state(conn, "k", "3", successor)


def lifecycle(ticker: str, at: int) -> LifecycleRow:
    """A lifecycle row."""
    return LifecycleRow(
        observed_at=at, received_at=at, content_hash=0, seq=1, sid=4, observed_is_sent=True, connection=UUID(int=1),
        message_type="market_lifecycle_v2", event_type="activated", ticker=ticker, body="{}", sent_at=at,
        open_at=None, close_at=None, determined_at=None, settled_at=None, settlement_value=None, result=None,
    )  # fmt: skip


def gap(at: int) -> GapRow:
    """A gap row, of the same family but another table."""
    return GapRow(at, 0, "trade", "trade/0", "silent", "", *([None] * 10))


async def test_the_tail_of_a_table_over_all_lanes(pool: Pool) -> None:
    """Rows after the cursors, each once, lane by lane in order; batches without the table move the cursor too."""
    lanes = [LaneWriter(pool, family=Family.REST, process="c", instance=uuid4()) for _ in range(2)]
    first, second = lanes
    await first.write(seal({"market_lifecycle": [lifecycle("A", 10), lifecycle("B", 11)]}))
    await second.write(seal({"gaps": [gap(5)]}))
    async with pool.acquire() as conn:
        tail = await read_tail(conn, "market_lifecycle", {})
        assert [row.ticker for row in tail.rows] == ["A", "B"]
        assert tail.cursors == {first.lane: 1, second.lane: 1}
        assert tail.is_end
        assert await read_heads(conn, "market_lifecycle") == tail.cursors
        assert (await read_tail(conn, "market_lifecycle", tail.cursors)).rows == ()
        assert [row.received_at for row in (await read_tail(conn, "gaps", {})).rows] == [5]
    await second.write(seal({"market_lifecycle": [lifecycle("C", 5)], "gaps": [gap(6)]}))
    await first.write(seal({"market_lifecycle": [lifecycle("D", 20)]}))
    await first.close()
    async with pool.acquire() as conn:
        later = await read_tail(conn, "market_lifecycle", tail.cursors)
        assert sorted(row.ticker for row in later.rows) == ["C", "D"]
        assert (await read_tail(conn, "market_lifecycle", later.cursors)).rows == ()


async def test_the_tail_comes_in_bounded_pages(pool: Pool) -> None:
    """At most so many batches at once; the next call goes on where it ended."""
    lane = LaneWriter(pool, family=Family.REST, process="c", instance=uuid4())
    for number in range(5):
        await lane.write(seal({"market_lifecycle": [lifecycle(f"T{number}", number)]}))
    seen: list[str] = []
    cursors: dict[UUID, int] = {}
    async with pool.acquire() as conn:
        while True:
            tail = await read_tail(conn, "market_lifecycle", cursors, batches_max=2)
            seen += [row.ticker for row in tail.rows]
            cursors = dict(tail.cursors)
            if tail.is_end:
                break
    assert seen == [f"T{number}" for number in range(5)]


async def test_listening_rows_cannot_be_followed_alone(pool: Pool) -> None:
    """listen_* rows go with every family: asking for their tail is a mistake."""
    async with pool.acquire() as conn:
        with pytest.raises(ValueError, match="every family"):
            await read_tail(conn, "listen_ranges", {})
