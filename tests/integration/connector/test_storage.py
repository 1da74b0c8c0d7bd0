"""A database that has all the bytes it may take: trades and the rest go on, deltas and tickers wait, a drop is its own gap."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from libs.runtime.service import Runtime
from libs.store.pool import Target
from libs.store.storage_size import read_size
from services.connector import storage
from services.local.truth import TICKER_FIELDS
from tests.integration.connector.test_away import check_nothing_lost, check_order
from tests.integration.connector.test_capture import check, fact, journal, published
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
        # While the backlog is written a slow machine may run out of so little memory once more, for want of time.
        first = [g for g in gaps if g.received_from <= room_at]
        assert {g.reason for g in first} == {"storage_full"}
        assert {g.reason for g in gaps} <= {"storage_full", "spool_full"}
        await check_books_behind(zone, gaps)
        books = [g for g in first if g.channel == "orderbook_delta"]
        assert len(books) == len({g.slot for g in books}) == 2
        await check_drops(zone, lost, "storage_full", "spool_full")
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
            first, second = [g for g in await told(zone) if g.channel == "orderbook_delta"]
            # What the first left is still there when the second ends, and would be lost with its disk.
            assert (second.from_ts, second.received_from) == (first.from_ts, first.received_from)
            assert second.received_to > first.received_to
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


CHANNELS = {"orderbook_delta", "ticker"}


async def told(zone: Zone) -> list[Any]:
    """What processes said of what they left on their disks, in the order of their ends."""
    found = [g for g in await zone.rows("gaps") if g.reason == "storage_full"]
    assert all(g.rows_lost is None and "connector-a-1" in g.detail for g in found)
    return sorted(found, key=lambda g: g.received_to)


def rows_of(runtime: Runtime, family: str) -> int:
    """Rows of a family on the disk."""
    said: Any = runtime.health.document()["spool"]
    return int(said[family]["rows"])


async def has_opened(zone: Zone) -> bool:
    """True once every market's book is heard, and every channel."""
    opened = await zone.rows("listen_opened")
    markets = {r[0] for r in await zone.conn.fetch("select ticker from markets")}
    return markets <= {r.ticker for r in opened} and {r.channel for r in opened} >= CHANNELS


async def held_back(zone: Zone, own: dict[str, Any]) -> tuple[int, int]:
    """Run a connector that ends above the limit with rows of both families held; returns since when it heard, and its end."""
    async with AsyncExitStack() as ballast, zone.connector(**own | {"grace_s": 0.1}) as runtime:
        await zone.until(lambda: has_opened(zone))
        await zone.until(lambda: zone.has_rows(orderbook_deltas=200, trades=1, tickers=1))
        started = max(r.sent_at for r in await zone.rows("listen_opened")) + S
        # There is no room before it has ended.
        await ballast.enter_async_context(filled(zone))
        await zone.until(lambda: level(runtime) == "full" and spooled(runtime, "rows") > 500)
        await zone.until(lambda: all(rows_of(runtime, f) for f in ("deltas", "tickers")))
        ended = runtime.clock.now()
    return started, ended


async def unstored(zone: Zone, since: int, until: int) -> dict[str, list[int]]:
    """By channel, exchange times of what was published from `since` until then and is not in the database."""
    deltas = await zone.rows("orderbook_deltas")
    stored = {(r.ticker, r.exchange_ts, r.price, r.side, r.size_delta) for r in deltas}
    names = ("exchange_ts", *TICKER_FIELDS)
    tickers = {fact(row, names) for row in await zone.rows("tickers")}
    markets = {r[0] for r in await zone.conn.fetch("select ticker from markets")}
    moments = {
        "orderbook_delta": [k[1] for k in published(zone) if k not in stored and k[0] in markets],
        "ticker": [
            f.moment for f in journal(zone).tickers if f not in tickers and f.ticker in markets
        ],
    }
    return {c: [at for at in found if since <= at < until] for c, found in moments.items()}


async def test_what_is_held_back_and_goes_with_its_pod_is_a_gap_with_its_cause(
    gatherer_db: Target, tmp_path: Path
) -> None:
    """Ended in order, its disk deleted: a row for each channel covers every fact of it that nobody has any more."""
    async with asyncio.timeout(120), running_zone(gatherer_db, tmp_path) as zone:
        own = await limited(zone, tmp_path / "s")
        started, ended = await held_back(zone, own)
        stored = [r for r in await zone.rows("listen_ranges") if r.channel in CHANNELS]
        assert spool_bytes(tmp_path / "s") > 0
        shutil.rmtree(tmp_path / "s")
        another = own | {"state_dir": str(tmp_path / "t"), "shard": "connector-a-2"}
        async with zone.connector(**another):
            await zone.stop_publishing()
        gaps = {g.channel: g for g in await told(zone)}
        assert gaps.keys() == CHANNELS
        for channel, lost in (await unstored(zone, started, ended)).items():
            row, margin = gaps[channel], max(r.margin for r in stored if r.channel == channel)
            assert lost
            assert row.from_ts - margin <= min(lost)
            assert max(lost) <= row.received_to
            # It is no cause for what is stored; frames of two connections may be read out of order.
            kept = max(r.received_at for r in stored if r.channel == channel)
            assert kept - S <= row.received_from
        await check(zone)


async def test_what_is_held_back_on_a_volume_that_stays_is_told_and_not_lost(
    gatherer_db: Target, tmp_path: Path
) -> None:
    """The next process of its name commits all of it; the row that told of it stands beside claims without a hole."""
    async with asyncio.timeout(120), running_zone(gatherer_db, tmp_path) as zone:
        own = await limited(zone, tmp_path / "s")
        await held_back(zone, own)
        dead = {r.connection for r in await zone.rows("listen_ranges")}
        async with zone.connector(**own | {"wait_ready": True}) as runtime:
            await zone.until(lambda: not spooled(runtime, "inherited_bytes"))
            await zone.stop_publishing()
        gaps = {g.channel: g for g in await told(zone)}
        assert gaps.keys() == CHANNELS
        heard = [r for r in await zone.rows("listen_ranges") if r.connection in dead]
        for channel, row in gaps.items():
            # All that was committed before ends before it.
            assert max(r.sent_to for r in heard if r.channel == channel) >= row.from_ts
        await check_once(zone, dead)
        await check(zone)
