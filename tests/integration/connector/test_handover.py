"""How slots are given away: by a shard that ends, and by a zone that has fewer of them."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

from libs.marketdata.listening import union
from libs.runtime.sections import SlotSettings
from libs.runtime.service import Runtime
from libs.store.pool import Target, connect
from tests.integration.connector.world import Zone, place, running_zone


async def _live_at(zone: Zone, shard: str, slots: int) -> bool:
    """True when this shard alone has so many slots, all live."""
    rows = await zone.conn.fetch("select shard, state from slot_assignments")
    return [tuple(row) for row in rows] == [(shard, "live")] * slots


def _document(runtime: Runtime) -> dict[str, Any]:
    return runtime.health.document()


async def _claims_all(zone: Zone) -> bool:
    """True when some listening of every market is committed."""
    markets = {row[0] for row in await zone.conn.fetch("select ticker from markets")}
    return markets <= {claim.ticker for claim in await zone.claims()}


async def _assert_no_hole(zone: Zone) -> None:
    claims = await zone.claims()
    for ticker in {r[0] for r in await zone.conn.fetch("select ticker from markets")}:
        assert len(union((c.from_ts, c.to_ts) for c in claims if c.ticker == ticker)) == 1


async def test_a_shard_that_ends_alone_hears_on_until_another_comes(
    gatherer_db: Target, tmp_path: Path
) -> None:
    """SIGTERM with nobody there: capture goes on; the next shard takes everything over and nothing is missed."""
    async with asyncio.timeout(120), running_zone(gatherer_db, tmp_path) as zone:
        async with zone.connector(grace_s=25) as first:
            first.stop.set()
            await zone.until(lambda: zone.conn.fetchval("select bool_and(draining) from shards"))
            frames = int(_document(first)["frames"])
            await zone.until(lambda: int(_document(first)["frames"]) > frames + 300)
            assert _document(first)["connections"] == 5
            async with zone.connector(shard="connector-a-2", wait_ready=False, grace_s=1):
                await zone.until(lambda: _live_at(zone, "connector-a-2", 5))
                assert _document(first)["slots"] == {}
                await zone.until(lambda: zone.has_rows(orderbook_deltas=1500))
        await _assert_no_hole(zone)
        assert "handed over" in {r.reason for r in await zone.rows("listen_closed")}


async def test_markets_that_come_in_a_hand_over_are_heard_without_a_hole(
    gatherer_db: Target, tmp_path: Path
) -> None:
    """One that the old owner began to hear after the new one had told what it hears would be lost between the two."""
    some = "delete from markets where ticker in (select ticker from markets order by ticker offset 40) returning ticker, slot"
    async with asyncio.timeout(120), running_zone(gatherer_db, tmp_path, markets=240) as zone:
        late = [tuple(row) for row in await zone.conn.fetch(some)]
        async with zone.connector(grace_s=60) as first:
            first.stop.set()
            await zone.until(lambda: zone.conn.fetchval("select bool_and(draining) from shards"))
            async with zone.connector(shard="connector-a-2", wait_ready=False, grace_s=1):
                for market in late:
                    await place(zone.conn, [market])
                    await zone.conn.execute("select pg_sleep(0.02)")
                await zone.until(lambda: _live_at(zone, "connector-a-2", 5))
                await zone.until(lambda: _claims_all(zone))
        await _assert_no_hole(zone)
        assert "handed over" in {r.reason for r in await zone.rows("listen_closed")}


async def test_a_shard_that_ends_alone_ends_with_its_grace(
    gatherer_db: Target, tmp_path: Path
) -> None:
    """Its rows stay for whoever comes, and its streams end as drained."""
    async with asyncio.timeout(120), running_zone(gatherer_db, tmp_path) as zone:
        async with zone.connector(grace_s=1):
            await zone.until(lambda: zone.has_rows(orderbook_deltas=100))
        assert await _live_at(zone, "connector-a-1", 5)
        assert {r.reason for r in await zone.rows("listen_closed")} == {"drained"}


async def test_a_row_is_deleted_only_after_the_last_frames_are_committed(
    gatherer_db: Target, tmp_path: Path
) -> None:
    """While nothing can be committed the old owner's rows stay, though its connections are closed."""
    async with (
        asyncio.timeout(120),
        running_zone(gatherer_db, tmp_path) as zone,
        zone.connector(grace_s=25) as first,
        zone.connector(shard="connector-a-2", grace_s=1),
    ):
        async with connect(gatherer_db) as other:
            await other.execute("begin; lock table ingest_batches in exclusive mode")
            first.stop.set()
            await zone.until(lambda: _document(first)["slots"] == {})
            await zone.until(lambda: int(_document(first)["connections"]) == 0)
            clock, rows = (
                first.clock,
                "select count(*) from slot_assignments where shard = $1",
            )
            since = clock.monotonic()
            await zone.until(lambda: clock.monotonic() > since + 1.0)
            assert await zone.conn.fetchval(rows, "connector-a-1") > 0
            await other.execute("rollback")
        await zone.until(lambda: _live_at(zone, "connector-a-2", 5))
        reasons = {r.reason for r in await zone.rows("listen_closed")}
        assert reasons == {"handed over"}


async def test_a_slot_that_the_zone_no_longer_has_is_left_with_its_last_market(
    gatherer_db: Target, tmp_path: Path
) -> None:
    """Fewer slots than before: the last one is served while it has markets; then its row goes, and its connection.

    Of a whole channel the other slot hears the same.
    """
    both = SlotSettings(2, 2, 1, 1, 50)
    async with asyncio.timeout(120), running_zone(gatherer_db, tmp_path, slots=both) as zone:
        async with zone.connector():
            await zone.until(lambda: _live_at(zone, "connector-a-1", 6))
        zone.settings = replace(zone.settings, slots=SlotSettings(1, 1, 1, 1, 50))
        async with zone.connector() as runtime:
            await zone.until(lambda: _live_at(zone, "connector-a-1", 5))
            assert set(_document(runtime)["slots"]).issuperset({"ticker/0", "orderbook/1"})
            await zone.conn.execute("update markets set slot = 'orderbook/0'")
            await place(zone.conn, [])
            await zone.until(lambda: _live_at(zone, "connector-a-1", 4))
            assert "orderbook/1" not in _document(runtime)["slots"]
            assert int(_document(runtime)["connections"]) == 4
        whole = [r for r in await zone.rows("listen_closed") if r.ticker is None]
        assert sorted(
            {(r.channel, r.reason) for r in whole} - {(r.channel, "drained") for r in whole}
        ) == [
            ("orderbook_delta", "handed over"),
            ("ticker", "handed over"),
        ]
