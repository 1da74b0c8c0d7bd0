"""What the registry keeps right when answers are old, a lease is lost, markets are over, and the ledger grows."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from libs.marketdata.capture import CaptureFilter
from libs.marketdata.tables import Family
from libs.runtime.clock import ManualClock, SystemClock
from libs.store.catalogue import CatalogueWrite, LeaseNotHeld, read_markets, write_catalogue
from libs.store.errors import StoreUnavailable
from libs.store.lanes import LaneWriter
from libs.store.leases import Lease
from libs.store.notify import Notifier
from libs.store.pool import Pool, Target, open_pool
from libs.store.scribe import Scribe
from libs.telemetry.metrics import Metrics
from services.registry.catalogue import Rules
from services.registry.keeper import Keeper
from tests.integration.registry.world import QUICK, running_zone
from tests.unit.registry.factories import NOW, SECOND, heard, rules, state

CACHE = 16 * SECOND
TICKER = state().ticker


@asynccontextmanager
async def keeping(
    target: Target, chosen: Rules | None = None
) -> AsyncIterator[tuple[Keeper, ManualClock, Pool]]:
    """A keeper that holds the registry's lease, and its clock."""
    clock = ManualClock(NOW)
    async with open_pool(target) as pool:
        lease = Lease(pool, "registry", uuid4(), 60.0)
        assert await lease.take_once()
        lane = LaneWriter(pool, family=Family.REST, process="registry", instance=lease.holder)
        scribe = Scribe(
            lane, Family.REST.value, now=clock.now, stop=asyncio.Event(), metrics=Metrics("a")
        )
        yield (
            Keeper(pool, scribe, Notifier(pool), clock, chosen or rules(), CACHE, lease),
            clock,
            pool,
        )
        await scribe.close()
        pool.terminate()


def body(**changes: Any) -> dict[str, Any]:
    """That market as REST lists it."""
    return {
        "ticker": TICKER, "event_ticker": "KXA-26", "status": "closed", "open_time": "2026-11-01T00:00:00Z",
        "close_time": "2026-11-02T00:00:00Z", "updated_time": "2026-11-03T00:00:00Z",
    } | changes  # fmt: skip


async def test_a_cached_listing_does_not_end_what_a_message_reopened(gatherer_db: Target) -> None:
    """Asked for within the cache's reach of the message: left alone, looked at again; afterwards its word counts."""
    async with keeping(gatherer_db) as (keeper, clock, pool):
        closed = state(status="closed", wanted=False, updated_at=0)
        async with pool.acquire() as conn:
            await write_catalogue(conn, CatalogueWrite(markets=((closed, "{}"),)))

        async def wanted() -> bool:
            async with pool.acquire() as conn:
                return (await read_markets(conn, [TICKER]))[TICKER].wanted

        await keeper.hear([heard("close_date_updated", close_at=NOW + 3600 * SECOND)])
        assert await wanted()
        keeper.looks.take(NOW + CACHE, 1)
        for after in (-SECOND, 0, CACHE - 1):
            clock.advance(0.1)
            await keeper.list_markets([body()], NOW + after)
            assert await wanted()
        assert keeper.looks.next_at() == NOW + CACHE
        await keeper.list_markets([body()], NOW + CACHE)
        assert not await wanted()


async def test_a_keeper_without_its_lease_changes_nothing(gatherer_db: Target) -> None:
    """Another registry took the lease while this one slept: the write is refused for good, so that the process ends."""
    async with keeping(gatherer_db) as (keeper, _, pool):
        async with pool.acquire() as conn:
            await write_catalogue(conn, CatalogueWrite(markets=((state(), "{}"),)))
            await conn.execute("update leases set holder = $1, epoch = epoch + 1", uuid4())
        with pytest.raises(LeaseNotHeld):
            await keeper.hear([heard("determined")])
        async with pool.acquire() as conn:
            assert (await read_markets(conn, [TICKER]))[TICKER].wanted


async def test_a_market_of_a_new_series_waits_for_its_category(gatherer_db: Target) -> None:
    """The filter asks for a category that is not known yet: not wanted, and looked at again as soon as it is known."""
    chosen = rules(capture=CaptureFilter(category_include=("Sports",)))
    opened = body(status="active", close_time="2026-12-02T00:00:00Z")
    async with keeping(gatherer_db, chosen) as (keeper, clock, pool):

        async def wanted() -> bool:
            async with pool.acquire() as conn:
                return (await read_markets(conn, [TICKER]))[TICKER].wanted

        await keeper.list_markets([opened])
        assert (await wanted(), len(keeper.looks)) == (False, 0)
        await keeper.list_series([{"ticker": "KXOTHER", "category": "Sports"}])
        assert len(keeper.looks) == 0
        await keeper.list_series([{"ticker": "KXA", "category": "Sports"}])
        assert keeper.looks.take(clock.now(), 9) == [TICKER]
        await keeper.list_markets([opened])
        assert await wanted()
        assert keeper.markets.as_dict() == {"active": 1, "total": 1, "wanted": 1}


async def test_a_cold_start_lists_what_closed_lately(gatherer_db: Target, tmp_path: Path) -> None:
    """A market that closed before the registry knew it has its row and version; one that closed long ago has none."""
    async with running_zone(gatherer_db, tmp_path) as zone:
        exchange = zone.simulator.exchange
        names = sorted(t for t in exchange.listings if not t.startswith("KXMVE"))
        lately, old = (
            exchange.listings.changing(exchange.listings[name].instrument) for name in names[:2]
        )
        now = SystemClock().now()
        lately.close_at = now - SECOND
        old.close_at = now - 3 * 86_400 * SECOND
        async with zone.registry() as runtime:
            assert runtime.health.document()["listing"]["full"] == 1
            known = await zone.conn.fetch("select ticker, wanted, status from markets")
            found = {row["ticker"]: (row["wanted"], row["status"]) for row in known}
            assert found[names[0]] == (False, "closed")
            assert names[1] not in found
            versions = "select count(*) from market_versions where ticker = $1"
            assert await zone.value(versions, names[0]) == 1


async def test_the_ledger_is_trimmed(gatherer_db: Target, tmp_path: Path) -> None:
    """Released, and its facts dropped longer ago than is kept: the registry forgets lane and batches."""
    async with running_zone(gatherer_db, tmp_path) as zone:
        lane = uuid4()
        await zone.conn.execute(
            "insert into lanes (lane, family, process, instance, closed_at, last_batch_no)"
            " values ($1, 'deltas', 'gone', $1, clock_timestamp() - interval '9 days', 1)",
            lane,
        )
        await zone.conn.execute(
            "insert into ingest_batches (lane, batch_no, schema_version, table_names, row_counts, row_hashes,"
            " times_from, times_to, dropped_at) values ($1, 1, 1, '{orderbook_deltas}', '{1}', '{1}', '{1}', '{1}',"
            " clock_timestamp() - interval '8 days')",
            lane,
        )
        await zone.conn.execute("insert into lane_releases values ($1, 1, 1)", lane)
        async with zone.registry(registry=replace(QUICK, housekeeping_s=0.1)) as runtime:
            await zone.until(lambda: runtime.health.document()["house"]["lanes_forgotten"] == 1)
            assert runtime.health.document()["house"]["batches_forgotten"] == 1
            assert await zone.value("select count(*) from lanes where lane = $1", lane) == 0


async def test_what_was_listed_meanwhile_is_not_removed(gatherer_db: Target) -> None:
    """Nor does a market stay removed that is listed again; then the hole has its cause."""
    shown = body(status="active", close_time="2027-12-01T00:00:00Z")
    async with keeping(gatherer_db) as (keeper, _, pool):

        async def found() -> tuple[str, bool]:
            async with pool.acquire() as conn:
                known = (await read_markets(conn, [TICKER]))[TICKER]
            return known.status, known.wanted

        said = []
        for listed_meanwhile in (True, False):
            await keeper.list_markets([shown])
            keeper.missing[TICKER] = 9
            if listed_meanwhile:
                await keeper.list_markets([shown])
            await keeper.retire([TICKER])
            said.append(await found())
        await keeper.list_markets([shown])
        said.append(await found())
        assert said == [("active", True), ("removed", False), ("active", True)]
        async with pool.acquire() as conn:
            gaps = await conn.fetch("select ticker, reason, from_ts, to_ts, received_to from gaps")
        assert [tuple(gap) for gap in gaps] == [(TICKER, "not_subscribed", None, NOW, NOW)]


async def test_messages_that_could_not_be_applied_are_applied_in_the_next_turn(
    gatherer_db: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of a market's, also those before the last one."""
    metadata = {"event_type": "created", "additional_metadata": {"event_ticker": "KXA-26"}}
    page = [heard("created", body=metadata), heard("deactivated", at=NOW + 1)]
    async with keeping(gatherer_db) as (keeper, _, pool):
        with monkeypatch.context() as away:
            away.setattr("services.registry.keeper.write_catalogue", _away)
            with pytest.raises(StoreUnavailable):
                await keeper.hear(page)
        await keeper.hear(page)
        async with pool.acquire() as conn:
            known = await read_markets(conn, [TICKER])
        assert [(one.status, one.wanted) for one in known.values()] == [("inactive", True)]


async def _away(*_: Any) -> None:
    raise StoreUnavailable("away")
