"""What goes wrong around a connector: unreadable frames, a wrong key, lanes that are lost, a process that died."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

from aiohttp import WSMsgType, web

from libs.exchange.keyfiles import make_key_pair
from libs.marketdata.listening import union
from libs.marketdata.rows import ListenRangeRow
from libs.marketdata.tables import Family
from libs.store.batches import seal
from libs.store.lanes import LaneWriter
from libs.store.pool import Target, open_pool
from tests.integration.connector.test_capture import check
from tests.integration.connector.world import Zone, running_zone

NOW_MS = 1_795_000_000_000
ROOT = Path(__file__).parents[3]


def frame(kind: str, seq: int, **msg: Any) -> str:
    body = {
        "type": kind,
        "sid": 1,
        "seq": seq,
        "sending_ts_ms": NOW_MS + 100 * seq,
        "msg": {"market_ticker": "A"} | msg,
    }
    return json.dumps(body)


def delta(seq: int, price: str = "0.4000") -> str:
    return frame(
        "orderbook_delta",
        seq,
        price_dollars=price,
        delta_fp="1.00",
        side="yes",
        ts_ms=NOW_MS + 100 * seq,
    )


@asynccontextmanager
async def scripted_exchange() -> AsyncIterator[str]:
    """A websocket that sends frames no exchange should, and goes on."""

    async def handle(request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        first = await ws.receive()
        command = (
            json.loads(first.data) if first.type is WSMsgType.TEXT else {"params": {"channels": []}}
        )
        channels = command["params"]["channels"]
        for sid, channel in enumerate(channels, start=1):
            answer = {
                "type": "subscribed",
                "id": command["id"],
                "msg": {"channel": channel, "sid": sid},
            }
            await ws.send_str(json.dumps(answer | {"sending_ts_ms": NOW_MS}))
        if "orderbook_delta" in channels:
            for text in (
                frame("orderbook_snapshot", 1),
                delta(2),
                delta(3, "0.4000001"),
                "{ not json",
                frame("orderbook_riddle", 4),
                delta(5),
                delta(5),
                delta(6),
            ):
                await ws.send_str(text)
        async for _ in ws:
            pass
        return ws

    app = web.Application()
    app.router.add_get("/trade-api/ws/v2", handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"ws://127.0.0.1:{runner.addresses[0][1]}/trade-api/ws/v2"
    finally:
        await runner.cleanup()


async def test_unreadable_frames_are_kept_and_capture_goes_on(
    gatherer_db: Target, tmp_path: Path
) -> None:
    """Bytes and reason are stored, the market's stream begins anew, the sid's numbers go on."""
    async with running_zone(gatherer_db, tmp_path) as zone, scripted_exchange() as url:
        await zone.conn.execute("delete from markets")
        await zone.conn.execute(
            "insert into markets (ticker, event_ticker, series_ticker, status, is_combo, wanted, slot, updated_at,"
            " content_hash, body) values ('A', 'A', 'A', 'active', false, true, 'orderbook/0', 0, 0, '{}')"
        )
        zone.settings = replace(zone.settings, exchange=replace(zone.settings.exchange, ws_url=url))
        async with zone.connector():

            async def all_there() -> bool:
                return len(await zone.rows("rejected_frames")) == 4

            await zone.until(all_there)
        deltas = await zone.rows("orderbook_deltas")
        assert [(d.seq, d.occurrence) for d in sorted(deltas)] == [(2, 1), (5, 1), (6, 1)]
        rejected = sorted(await zone.rows("rejected_frames"), key=lambda r: r.row_no)
        assert {(r.seq, r.reason.split(":")[0]) for r in rejected} == {
            (3, "price_dollars"),
            (None, "not a JSON object"),
            (4, "unknown type 'orderbook_riddle'"),
            (5, "repeated seq"),
        }
        assert b"{ not json" in {r.frame for r in rejected}
        ranges = [r for r in await zone.rows("listen_ranges") if r.channel == "orderbook_delta"]
        assert union((r.seq_from, r.seq_to + 1) for r in ranges) == [(0, 7)]
        assert {g.reason for g in await zone.rows("gaps") if g.channel == "orderbook_delta"} >= {
            "rejected"
        }


async def test_a_wrong_key_is_one_clear_line_and_exit_3(
    gatherer_db: Target, tmp_path: Path
) -> None:
    """The line names what to check."""
    async with running_zone(gatherer_db, tmp_path) as zone:
        stranger, _ = make_key_pair(tmp_path, "stranger")
        exchange, store = zone.settings.exchange, zone.settings.store
        values = {
            "ZONE": "a", "HEALTH__PORT": "0", "METRICS__PORT": "0", "CONNECTOR__SHARD": "connector-a-1",
            "SLOTS__ORDERBOOK": "2", "SLOTS__TICKER": "1", "SLOTS__TRADE": "1", "SLOTS__LIFECYCLE": "1",
            "EXCHANGE__API_KEY_ID": "key", "EXCHANGE__PRIVATE_KEY_FILE": str(stranger),
            "EXCHANGE__ENVIRONMENT": "simulator", "EXCHANGE__REST_URL": exchange.rest_url,
            "EXCHANGE__WS_URL": exchange.ws_url, "STORE__DATABASE": store.database, "STORE__USER": store.user,
            "STORE__PASSWORD": store.password.reveal(), "STORE__HOST": store.host, "STORE__PORT": str(store.port),
        }  # fmt: skip
        environ = {f"KALSHI_DATA_{name}": value for name, value in values.items()}
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "services.connector", cwd=ROOT, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT, env=os.environ | environ,
        )  # fmt: skip
        async with asyncio.timeout(120):
            output, _ = await process.communicate()
        assert process.returncode == 3, output.decode()
        errors = [line for line in map(json.loads, output.splitlines()) if line["level"] == "error"]
        assert len(errors) == 1
        assert errors[0]["error"] == "AuthRejected"
        assert "api_key_id" in errors[0]["reason"]


async def test_a_closed_lane_is_left_without_a_hole(gatherer_db: Target, tmp_path: Path) -> None:
    """A successor closed our lane: what is held goes to a new one, and claims go on."""
    async with running_zone(gatherer_db, tmp_path) as zone:
        async with zone.connector():
            await _some_deltas(zone, 100)
            await zone.conn.execute(
                "update lanes set closed_at = clock_timestamp(), last_batch_no = 0"
            )
            await _some_deltas(zone, 600)
            await zone.stop_publishing()
        await check(zone)
        assert await zone.conn.fetchval("select count(*) from lanes where family = 'deltas'") == 2
        for ticker in {c.ticker for c in await zone.claims() if c.channel == "orderbook_delta"}:
            spans = union((c.from_ts, c.to_ts) for c in await zone.claims() if c.ticker == ticker)
            assert len(spans) == 1


async def test_a_database_that_went_back_costs_a_gap_and_nothing_more(
    gatherer_db: Target, tmp_path: Path
) -> None:
    """Committed batches are undone under the connector: it says so, restates, and claims only what is there."""
    async with running_zone(gatherer_db, tmp_path) as zone:
        async with zone.connector():
            await _some_deltas(zone, 300)
            await _go_back(zone, 5)
            await _some_deltas(zone, 300)
            await _some_deltas(zone, 900)
            await zone.stop_publishing()
        await check(zone)
        gaps = await zone.rows("gaps")
        assert {g.reason for g in gaps} == {"database_went_back"}
        ends = {c.ticker: c.to_ts for c in await zone.claims() if c.channel == "orderbook_delta"}
        wanted = {r[0] for r in await zone.conn.fetch("select ticker from markets")}
        assert set(ends) == wanted


async def _go_back(zone: Zone, batches: int) -> None:
    """Undo the last batches of the lane of deltas, as a restored backup would."""
    async with zone.conn.transaction():
        await zone.conn.execute("lock table ingest_batches in exclusive mode")
        undone = await zone.conn.fetch(
            "delete from ingest_batches where (lane, batch_no) in (select lane, batch_no from ingest_batches join lanes"
            " using (lane) where family = 'deltas' order by batch_id desc limit $1) returning batch_id", batches,
        )  # fmt: skip
        for table in ("orderbook_deltas", "listen_ranges", "listen_opened", "listen_closed"):
            await zone.conn.execute(
                f"delete from {table} where batch_id = any($1::bigint[])",
                [row[0] for row in undone],
            )
        await zone.conn.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'kd_writer'"
            " and datname = current_database()"
        )


async def _some_deltas(zone: Zone, count: int) -> None:
    async def enough() -> bool:
        return bool(await zone.conn.fetchval("select count(*) from orderbook_deltas") >= count)

    await zone.until(enough)


async def test_a_successor_writes_the_gap_of_the_process_that_died(
    gatherer_db: Target, tmp_path: Path
) -> None:
    """The open lane of the same shard name is closed; every sid it heard gets a row."""
    async with running_zone(gatherer_db, tmp_path) as zone:
        connection = uuid4()
        ranged = ListenRangeRow(
            7, 0, 9, 1_000_000, 9_000_000, 1_000_000, 1, 0, connection, "orderbook_delta"
        )
        async with open_pool(zone.settings.store.target()) as pool:
            dead = LaneWriter(pool, family=Family.DELTAS, process="connector-a-1", instance=uuid4())
            await dead.write(seal({"listen_ranges": [ranged]}))
            async with zone.connector():

                async def told() -> bool:
                    return bool(await zone.rows("gaps"))

                await zone.until(told)
        gap = (await zone.rows("gaps"))[0]
        assert (gap.reason, gap.connection, gap.sid, gap.from_ts) == (
            "process_died",
            connection,
            1,
            9_000_000,
        )
        closed = await zone.conn.fetchval(
            "select last_batch_no from lanes where lane = $1", dead.lane
        )
        assert closed == 1
