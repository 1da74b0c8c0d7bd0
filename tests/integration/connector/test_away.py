"""A connector whose database is away: under load, and when it starts."""

import asyncio
from contextlib import AsyncExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any

from libs.marketdata.listening import covers, union
from libs.runtime.service import Runtime
from libs.store.pool import Target
from services.local.postgres import EmbeddedPostgres
from tests.integration.connector.test_capture import check, check_channels, published
from tests.integration.connector.world import Zone, running_zone

S = 1_000_000
AWAY_S = 2.0
BATCHES = """
select l.family, r.lane, r.batch_no, x.connection, x.sid, min(x.seq) as low, max(x.seq) as high,
    count(*) as rows, count(distinct x.seq) as numbers
from orderbook_deltas x join ingest_batches r using (batch_id) join lanes l using (lane)
group by 1, 2, 3, 4, 5 order by 4, 5, 3
"""


def buffered(runtime: Runtime) -> int:
    rows: Any = runtime.health.document()["buffer_rows"]
    return sum(rows.values())


async def check_order(zone: Zone) -> None:
    """Batches stand in the order of their frames, each frame's row once, and ranges have no hole."""
    batches: dict[Any, list[Any]] = {}
    for row in await zone.conn.fetch(BATCHES):
        assert row["rows"] == row["numbers"]
        batches.setdefault((row["connection"], row["sid"]), []).append(row)
    assert batches
    for rows in batches.values():
        assert len({row["lane"] for row in rows}) == 1
        assert all(before["high"] < after["low"] for before, after in pairwise(rows))
    ranges: dict[Any, list[tuple[int, int]]] = {}
    for found in await zone.rows("listen_ranges"):
        ranges.setdefault((found.connection, found.sid), []).append(
            (found.seq_from, found.seq_to + 1)
        )
    assert all(len(union(spans)) == 1 for spans in ranges.values())


async def check_nothing_lost(zone: Zone, since: int) -> None:
    """Every fact published from `since` to the end is stored and lies within a claim of its market."""
    ended: Any = zone.simulator.state()["end_ts"]
    wanted = {r[0] for r in await zone.conn.fetch("select ticker from markets")}
    claims = [c for c in await zone.claims() if c.channel == "orderbook_delta"]
    heard = {
        t: union((c.from_ts, c.to_ts) for c in claims if c.ticker == t and c.to_ts > since)
        for t in wanted
    }
    late = [key for key in published(zone) if since <= key[1] < ended and key[0] in wanted]
    assert len(late) > 100
    assert [key for key in late if not covers(heard[key[0]], key[1])] == []
    await check(zone)
    await check_channels(zone, since, ended)


async def test_a_database_away_under_load_costs_nothing(
    postgres_server: EmbeddedPostgres, gatherer_db: Target, tmp_path: Path
) -> None:
    """Without a disk some seconds of frames wait in the buffer; they are committed in their order, and claims have no hole."""
    async with asyncio.timeout(120), running_zone(gatherer_db, tmp_path) as zone:
        async with zone.connector() as runtime:
            await zone.until(lambda: zone.has_rows(orderbook_deltas=200, trades=1, tickers=1))
            started = max(r.sent_at for r in await zone.rows("listen_opened")) + S
            clock, document = runtime.clock, runtime.health.document
            async with zone.database_away(postgres_server):
                began, frames = clock.monotonic(), int(document()["frames"])
                await zone.until(lambda: clock.monotonic() - began >= AWAY_S)
                await zone.until(lambda: int(document()["frames"]) - frames > 200)
                await zone.until(lambda: buffered(runtime) > 200)
                assert document()["connections"] == 5
                waiting = buffered(runtime)
            before = await zone.conn.fetchval("select count(*) from orderbook_deltas")
            await zone.until(lambda: zone.has_rows(orderbook_deltas=before + 500))
            await zone.until(lambda: buffered(runtime) < waiting // 2)
            await zone.stop_publishing()
        await check_order(zone)
        await check_nothing_lost(zone, started)
        assert {g.reason for g in await zone.rows("gaps")} == set()


async def test_a_schema_that_is_away_under_load_costs_nothing(
    gatherer_db: Target, tmp_path: Path
) -> None:
    """Tables that are made anew in place end no connector: it hears on, holds what it has, and commits it in its order."""
    async with asyncio.timeout(120), running_zone(gatherer_db, tmp_path) as zone:
        async with zone.connector(storage_bytes_max=1 << 40) as runtime:
            await zone.until(lambda: zone.has_rows(orderbook_deltas=200, trades=1, tickers=1))
            started = max(r.sent_at for r in await zone.rows("listen_opened")) + S
            clock, document = runtime.clock, runtime.health.document
            await zone.conn.execute("alter schema public rename to elsewhere")
            began, frames = clock.monotonic(), int(document()["frames"])
            await zone.until(lambda: clock.monotonic() - began >= AWAY_S)
            await zone.until(lambda: int(document()["frames"]) - frames > 200)
            await zone.until(lambda: buffered(runtime) > 200)
            assert document()["connections"] == 5
            waiting = buffered(runtime)
            for task in ("heartbeat", "follow"):
                await zone.until(runtime.metrics.task_faults_total.labels(task)._value.get)
            await zone.conn.execute("alter schema elsewhere rename to public")
            before = await zone.conn.fetchval("select count(*) from orderbook_deltas")
            await zone.until(lambda: zone.has_rows(orderbook_deltas=before + 500))
            await zone.until(lambda: buffered(runtime) < waiting // 2)
            await zone.stop_publishing()
        await check_order(zone)
        await check_nothing_lost(zone, started)
        assert {g.reason for g in await zone.rows("gaps")} == set()


async def test_a_restarted_connector_captures_before_its_database_is_there(
    postgres_server: EmbeddedPostgres, gatherer_db: Target, tmp_path: Path
) -> None:
    """It serves what it remembers into the buffer; when the database is back, these rows are committed and claimed."""
    async with asyncio.timeout(120), running_zone(gatherer_db, tmp_path) as zone:
        memory = str(tmp_path / "state")
        async with zone.connector(state_dir=memory):
            await zone.until(lambda: zone.has_rows(orderbook_deltas=50))
        async with AsyncExitStack() as running:
            async with zone.database_away(postgres_server):
                connector = zone.connector(wait_ready=False, state_dir=memory)
                runtime = await running.enter_async_context(connector)
                document = runtime.health.document
                await zone.until(lambda: document().get("connections") == 5)
                await zone.until(
                    lambda: document()["subscriptions"] == {"wanted": 16, "acked": 16, "seen": 16}
                )
                started = runtime.clock.now() + 2 * S
                await zone.until(lambda: runtime.clock.now() > started and buffered(runtime) > 300)
                assert not document()["ready"]
                waiting = buffered(runtime)
            await zone.until(lambda: document()["ready"] and buffered(runtime) < waiting // 2)
            await zone.stop_publishing()
        await check_order(zone)
        await check_nothing_lost(zone, started)
        assert await zone.conn.fetchval("select count(*) from lanes where closed_at is null") == 0


async def test_a_connector_whose_schema_does_not_fit_hears_and_waits(
    gatherer_db: Target, tmp_path: Path
) -> None:
    """Restarted on a schema that is too new it writes nothing and says why; what it heard is committed once it fits."""
    async with asyncio.timeout(120), running_zone(gatherer_db, tmp_path) as zone:
        memory = str(tmp_path / "state")
        async with zone.connector(state_dir=memory):
            await zone.until(lambda: zone.has_rows(orderbook_deltas=50))
        level, oldest = await zone.conn.fetchrow(
            "select level, oldest_code_level from schema_level"
        )
        lanes = await zone.conn.fetchval("select count(*) from lanes")
        await zone.conn.execute("update schema_level set level = 99, oldest_code_level = 98")
        async with zone.connector(wait_ready=False, state_dir=memory) as runtime:
            document = runtime.health.document
            await zone.until(lambda: "98 or later" in document()["reason"])
            await zone.until(
                lambda: document()["subscriptions"] == {"wanted": 16, "acked": 16, "seen": 16}
            )
            started = runtime.clock.now() + 2 * S
            await zone.until(lambda: runtime.clock.now() > started and buffered(runtime) > 300)
            assert not document()["ready"]
            assert await zone.conn.fetchval("select count(*) from lanes") == lanes
            alive = "select count(*) from shards where expires_at > clock_timestamp()"
            assert await zone.conn.fetchval(alive) == 0
            await zone.conn.execute(
                "update schema_level set level = $1, oldest_code_level = $2", level, oldest
            )
            await zone.until(lambda: document()["ready"])
            await zone.stop_publishing()
        await check_order(zone)
        await check_nothing_lost(zone, started)


async def test_a_stop_while_nothing_can_be_written_hears_on_and_keeps_it(
    gatherer_db: Target, tmp_path: Path
) -> None:
    """Nobody can take over, so it hears to the end of its grace; the next process commits what the disk holds."""
    async with asyncio.timeout(120), running_zone(gatherer_db, tmp_path) as zone:
        memory = str(tmp_path / "state")
        async with zone.connector(state_dir=memory):
            await zone.until(lambda: zone.has_rows(orderbook_deltas=50))
        await zone.conn.execute("update schema_level set oldest_code_level = 98, level = 99")
        quick = {"state_dir": memory, "flush_s": 1.0, "grace_s": 3.0}
        async with zone.connector(wait_ready=False, **quick) as runtime:
            await zone.until(lambda: runtime.health.document().get("connections") == 5)
            await zone.until(lambda: buffered(runtime) > 300)
            runtime.stop.set()
            document = runtime.health.document
            await zone.until(lambda: document()["reason"] == "draining")
            frames = int(document()["frames"])
            await zone.until(lambda: int(document()["frames"]) > frames + 200)
            assert document()["connections"] == 5
        kept = await zone.conn.fetchval("select count(*) from orderbook_deltas")
        await zone.conn.execute("update schema_level set oldest_code_level = 4, level = 5")
        async with zone.connector(state_dir=memory):
            await zone.until(lambda: zone.has_rows(orderbook_deltas=kept + 100))
            await zone.stop_publishing()
        await check(zone)
