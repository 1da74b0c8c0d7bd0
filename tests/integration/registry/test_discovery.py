"""The registry against the simulated exchange and a real database: what it finds and how it keeps it."""

import json
from pathlib import Path
from typing import Any

from libs.runtime.sections import CaptureSettings
from libs.store.pool import Target
from services.registry.slots import slot_name
from tests.integration.registry.world import running_zone


async def test_discovery_stores_every_market_with_its_slot(
    gatherer_db: Target, tmp_path: Path
) -> None:
    """Series, events and markets of the exchange are in the catalogue; every market is wanted in its slot."""
    async with running_zone(gatherer_db, tmp_path) as zone, zone.registry():
        exchange = zone.simulator.exchange
        rows = await zone.conn.fetch("select ticker, slot, wanted, status, body from markets")
        combos = {t for t in exchange.listings if t.startswith("KXMVE")}
        assert {row["ticker"] for row in rows} == set(exchange.listings) - combos
        assert all(row["slot"] == slot_name(row["ticker"], 8) and row["wanted"] for row in rows)
        assert all("yes_bid_dollars" not in json.loads(row["body"]) for row in rows)
        assert await zone.value("select count(*) from series") == len(exchange.series)
        used = {row["slot"] for row in rows}
        versions = {r[0] for r in await zone.conn.fetch("select slot from slot_versions")}
        assert versions == used
        listed = await zone.value("select count(*) from market_versions where level = 'market'")
        assert listed == len(rows)
        assert await zone.value("select count(*) from gaps") == 0


async def test_combos_come_by_choice(gatherer_db: Target, tmp_path: Path) -> None:
    """With combos chosen every listed market is there, and the combos are marked."""
    async with (
        running_zone(gatherer_db, tmp_path, CaptureSettings(combos=True)) as zone,
        zone.registry(),
    ):
        known = {r[0] for r in await zone.conn.fetch("select ticker from markets")}
        assert known == set(zone.simulator.exchange.listings)


async def test_each_changed_field_is_one_version_row(gatherer_db: Target, tmp_path: Path) -> None:
    """Many listings write nothing new; a market closed by the exchange writes exactly one row more."""
    async with running_zone(gatherer_db, tmp_path) as zone, zone.registry() as runtime:
        before = await zone.value("select count(*) from market_versions")
        done = runtime.health.document()["listing"]["incremental"]
        await zone.until(lambda: runtime.health.document()["listing"]["incremental"] > done + 3)
        assert await zone.value("select count(*) from market_versions") == before
        distinct = await zone.value(
            "select count(*) from (select distinct level, ticker, content_hash, updated_at from market_versions) v"
        )
        assert distinct == before


async def test_exchange_status_and_schedule_are_rows(gatherer_db: Target, tmp_path: Path) -> None:
    """Status again and again, schedule at once: observations with both times and the whole answer."""
    async with running_zone(gatherer_db, tmp_path) as zone, zone.registry():
        count = "select count(*) from exchange_status where source = $1"
        await zone.until(lambda: _at_least(zone.value(count, "status"), 3))
        await zone.until(lambda: _at_least(zone.value(count, "schedule"), 1))
        row = await zone.conn.fetchrow(
            "select * from exchange_status where source = 'status' limit 1"
        )
        assert (row["exchange_active"], row["trading_active"]) == (True, True)
        assert row["requested_at"] <= row["received_at"]
        assert "exchange_index_statuses" in json.loads(row["body"])
        schedule = await zone.conn.fetchrow(
            "select * from exchange_status where source = 'schedule'"
        )
        assert "standard_hours" in json.loads(schedule["body"])["schedule"]


async def test_a_restart_goes_on_from_the_database(gatherer_db: Target, tmp_path: Path) -> None:
    """A second start lists only what changed, writes no version again, and closes the first one's lane."""
    async with running_zone(gatherer_db, tmp_path) as zone:
        async with zone.registry() as first:
            assert first.health.document()["listing"]["full"] == 1
        assert await zone.value("select count(*) from lanes where closed_at is null") == 0
        before = await zone.value("select count(*) from market_versions")
        async with zone.registry() as second:
            listing = second.health.document()["listing"]
            assert (listing["full"], listing["incremental"] >= 1) == (0, True)
            assert await zone.value("select count(*) from market_versions") == before


async def test_other_rules_list_and_place_anew(gatherer_db: Target, tmp_path: Path) -> None:
    """After a change of the filter everything is listed again; what is excluded loses slot and subscription."""
    async with running_zone(gatherer_db, tmp_path) as zone:
        async with zone.registry():
            series = await zone.value("select min(series_ticker) from markets")
            versions = dict(await zone.conn.fetch("select slot, version from slot_versions"))
        async with zone.registry(capture=CaptureSettings(series_exclude=(series,))) as runtime:
            assert runtime.health.document()["listing"]["full"] == 1
            rows = await zone.conn.fetch("select series_ticker, slot, wanted from markets")
            assert all((row["slot"] is None) == (row["series_ticker"] == series) for row in rows)
            assert all(row["wanted"] == (row["slot"] is not None) for row in rows)
            raised = dict(await zone.conn.fetch("select slot, version from slot_versions"))
            assert raised != versions


async def _at_least(found: Any, number: int) -> bool:
    return bool(await found >= number)


async def test_debug_markets_pages_through_the_catalogue(
    gatherer_db: Target, tmp_path: Path
) -> None:
    """Filters by status, slot and prefix, pages by `after`, counts by status."""
    async with running_zone(gatherer_db, tmp_path) as zone, zone.registry() as runtime:
        found: list[str] = []
        query: dict[str, str] = {"limit": "7", "status": "active"}
        while True:
            answer = await runtime.health.page("markets", query)
            found += [market["ticker"] for market in answer["markets"]]
            if answer["next"] is None:
                break
            query["after"] = answer["next"]
        active = await zone.conn.fetch(
            "select ticker from markets where status = 'active' order by 1"
        )
        assert found == [row["ticker"] for row in active]
        assert answer["counts"]["total"] >= len(found)
        one = await runtime.health.page("markets", {"slot": "orderbook/3", "prefix": found[0][:4]})
        assert {market["slot"] for market in one["markets"]} <= {"orderbook/3"}
