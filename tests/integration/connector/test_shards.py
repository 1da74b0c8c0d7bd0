"""What a connector makes of control tables that were lost under it."""

import asyncio
from pathlib import Path

from libs.marketdata.listening import union
from libs.store.pool import Target
from tests.integration.connector.world import Zone, running_zone


async def _is_whole(zone: Zone) -> bool:
    """True when the one shard has its lease and every slot a live row."""
    alive = await zone.conn.fetchval("select count(*) from shards where expires_at > now()")
    rows = await zone.conn.fetch("select state from slot_assignments")
    return alive == 1 and [r["state"] for r in rows] == ["live"] * 5


async def test_a_shard_that_the_database_forgot_registers_again_and_never_stops_hearing(
    gatherer_db: Target, tmp_path: Path
) -> None:
    """Emptied control tables are filled again; meanwhile every connection stays open, so claims have no hole."""
    async with asyncio.timeout(120), running_zone(gatherer_db, tmp_path) as zone:
        async with zone.connector() as runtime:
            await zone.until(lambda: _is_whole(zone))
            before = runtime.health.document()["slots"]
            for table in ("slot_assignments", "shards", "planner"):
                await zone.conn.execute(f"delete from {table}")
            await zone.until(lambda: _is_whole(zone))
            after = runtime.health.document()["slots"]
            assert {n: s["connection"] for n, s in after.items()} == {
                n: s["connection"] for n, s in before.items()
            }
            assert runtime.health.document()["ready"]
            await zone.until(lambda: zone.has_rows(orderbook_deltas=1000))
        tickers = {r[0] for r in await zone.conn.fetch("select ticker from markets")}
        claims = await zone.claims()
        for ticker in tickers:
            assert len(union((c.from_ts, c.to_ts) for c in claims if c.ticker == ticker)) == 1


async def test_a_slot_whose_row_is_gone_is_left_once_another_shard_hears_it(
    gatherer_db: Target, tmp_path: Path
) -> None:
    """The slot's connection stays until then."""
    async with (
        asyncio.timeout(120),
        running_zone(gatherer_db, tmp_path) as zone,
        zone.connector() as runtime,
    ):
        await zone.until(lambda: _is_whole(zone))
        await zone.conn.execute("update planner set holder = 'operator', expires_at = 'infinity'")
        await zone.conn.execute("delete from slot_assignments where slot = 'trade/0'")
        await zone.until(lambda: runtime.health.document()["slots"]["trade/0"]["state"] is None)
        assert runtime.health.document()["connections"] == 5
        await zone.conn.execute(
            "insert into shards (shard, instance, capacity, expires_at)"
            " values ('other', gen_random_uuid(), 1, 'infinity')"
        )
        await zone.conn.execute(
            "insert into slot_assignments (slot, shard, epoch, state, listening_from)"
            " values ('trade/0', 'other', 9, 'live', 1)"
        )
        await zone.until(lambda: "trade/0" not in runtime.health.document()["slots"])
        assert runtime.health.document()["connections"] == 4
