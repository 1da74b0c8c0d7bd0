"""A database that has all the bytes it may take: trades and the rest go on, deltas and tickers wait, a drop is its own gap."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from libs.runtime.service import Runtime
from libs.store.pool import Target
from libs.store.storage_size import read_size
from services.connector import storage
from tests.integration.connector.test_away import check_nothing_lost, check_order
from tests.integration.connector.test_capture import check
from tests.integration.connector.test_spool import (
    ALONE,
    EAGER,
    S,
    check_drops,
    check_once,
    dropped,
    spool_bytes,
    spooled,
    tiny,
)  # fmt: skip
from tests.integration.connector.world import Zone, running_zone

ROOM = 12 << 20
"""Bytes that the database may grow by."""
BALLAST = 24 << 20


@pytest.fixture(autouse=True)
def attentive(monkeypatch: pytest.MonkeyPatch) -> None:
    """The size is looked at ten times a second."""
    monkeypatch.setattr(storage, "LOOK_S", 0.1)


def level(runtime: Runtime) -> str:
    found: Any = runtime.health.document().get("storage", {"level": ""})
    return str(found["level"])


@asynccontextmanager
async def filled(zone: Zone) -> AsyncIterator[None]:
    """Let something else take more bytes than the database may have; afterwards they are free again, as after retention."""
    await zone.conn.execute("create table ballast (filler text)")
    await zone.conn.execute("alter table ballast alter filler set storage external")
    await zone.conn.execute(
        "insert into ballast select repeat('x', 8000) from generate_series(1, $1)", BALLAST // 8000
    )
    yield
    await zone.conn.execute("drop table ballast")


async def limited(zone: Zone, state: Path, **spool: Any) -> dict[str, Any]:
    """A connector whose database may grow a little, with a spool that is eager."""
    tiny(zone)
    limit = await read_size(zone.conn) + ROOM
    eager = replace(EAGER, **spool)
    return ALONE | {"state_dir": str(state), "storage_bytes_max": limit, "spool": eager}


async def counts(zone: Zone) -> dict[str, int]:
    names = ("orderbook_deltas", "tickers", "trades", "market_lifecycle", "orderbook_snapshots")
    return {name: await zone.conn.fetchval(f"select count(*) from {name}") for name in names}


async def test_deltas_wait_while_trades_go_on_and_resume_by_themselves(
    gatherer_db: Target, tmp_path: Path
) -> None:
    """Not a row of deltas or tickers is written above the limit; below it all of them come, in order, without a gap."""
    async with asyncio.timeout(120), running_zone(gatherer_db, tmp_path) as zone:
        own = await limited(zone, tmp_path / "s")
        async with zone.connector(**own) as runtime:
            await zone.until(lambda: zone.has_rows(orderbook_deltas=200, trades=1, tickers=1))
            started = max(r.sent_at for r in await zone.rows("listen_opened")) + S
            assert level(runtime) == "ok"
            async with filled(zone):
                await zone.until(lambda: level(runtime) == "full" and spooled(runtime) > 5)
                held = await counts(zone)
                await zone.until(lambda: zone.has_rows(trades=held["trades"] + 20))
                await zone.until(lambda: spooled(runtime, "rows") > 500)
                now = await counts(zone)
                assert (now["orderbook_deltas"], now["tickers"]) == (
                    held["orderbook_deltas"],
                    held["tickers"],
                )
                said: Any = runtime.health.document()["spool"]
                assert said["deltas"]["rows"] > said["trades"]["rows"] == 0
            await zone.until(lambda: not spooled(runtime, "bytes"))
            assert level(runtime) == "ok"
            await zone.until(lambda: zone.has_rows(orderbook_deltas=held["orderbook_deltas"] + 600))
            await zone.stop_publishing()
        await check_order(zone)
        await check_nothing_lost(zone, started)
        assert {g.reason for g in await zone.rows("gaps")} == set()


async def claims_of(zone: Zone, *channels: str) -> bool:
    """True once somebody claims to have listened to each of these."""
    return {*channels} <= {claim.channel for claim in await zone.claims()}


async def check_books_behind(zone: Zone, gaps: list[Any]) -> None:
    """Every market of the slots that lost rows has a book from behind the hole, from which it can be rebuilt."""
    behind = max(g.to_ts for g in gaps if g.channel == "orderbook_delta")
    wanted = {r[0] for r in await zone.conn.fetch("select ticker from markets")}
    snapshots = await zone.rows("orderbook_snapshots")
    assert {s.ticker for s in snapshots if s.observed_at > behind} == wanted


async def test_what_a_full_spool_drops_above_the_limit_is_exactly_one_gap(
    gatherer_db: Target, tmp_path: Path
) -> None:
    """Memory and disk full: from then on all of a sid is dropped until there is room, and that is one row with its cause."""
    async with asyncio.timeout(120), running_zone(gatherer_db, tmp_path) as zone:
        own = await limited(zone, tmp_path / "s", bytes_max=80_000)
        batches = replace(zone.settings.batches, buffer_rows_max=200)
        zone.settings = replace(zone.settings, batches=batches)
        async with zone.connector(**own) as runtime:
            await zone.until(lambda: zone.has_rows(orderbook_deltas=200))
            async with filled(zone):
                await zone.until(lambda: dropped(runtime) > 500)
                trades = await zone.conn.fetchval("select count(*) from trades")
                await zone.until(lambda: zone.has_rows(trades=trades + 5))
                room_at = runtime.clock.now()
            await zone.until(lambda: not spooled(runtime, "bytes"))
            before = await zone.conn.fetchval("select count(*) from orderbook_deltas")
            await zone.until(lambda: zone.has_rows(orderbook_deltas=before + 1000))
            lost = dropped(runtime)
            await zone.stop_publishing()
        gaps = await zone.rows("gaps")
        assert {g.reason for g in gaps} == {"storage_full"}
        await check_books_behind(zone, gaps)
        # While the backlog is written a slow machine may run out of so little memory once more.
        books = [g for g in gaps if g.channel == "orderbook_delta" and g.received_from <= room_at]
        assert len(books) == len({g.slot for g in books}) == 2
        await check_drops(zone, lost, "storage_full")
        await check(zone)


async def test_a_process_that_ends_above_the_limit_leaves_the_rest_to_the_next(
    gatherer_db: Target, tmp_path: Path
) -> None:
    """It does not wait for room; the next one holds it back as well, and commits it as soon as there is some."""
    async with asyncio.timeout(120), running_zone(gatherer_db, tmp_path) as zone:
        own = await limited(zone, tmp_path / "s") | {"grace_s": 60.0}
        async with filled(zone):
            async with zone.connector(**own | {"grace_s": 0.1}) as runtime:
                await zone.until(
                    lambda: level(runtime) == "full" and spooled(runtime, "rows") > 100
                )
            left = spool_bytes(tmp_path / "s")
            assert left > 0
            rows = await counts(zone)
            async with zone.connector(**own | {"grace_s": 0.1}) as runtime:
                await zone.until(lambda: spooled(runtime, "rows") > 100)
                assert spooled(runtime, "inherited_bytes") > 0
        assert (await counts(zone))["orderbook_deltas"] == rows["orderbook_deltas"]
        async with zone.connector(**own | {"grace_s": 0.1}) as runtime:
            await zone.until(lambda: level(runtime) == "ok")
            await zone.until(lambda: not spooled(runtime, "inherited_bytes"))
            # A process that lived for a moment proves nothing.
            await zone.until(lambda: claims_of(zone, "trade", "ticker"))
            await zone.stop_publishing()
        dead = {r.connection for r in await zone.rows("orderbook_deltas")}
        await check_once(zone, dead)
        await check(zone)
        assert not spool_bytes(tmp_path / "s")
