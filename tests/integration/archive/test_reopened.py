"""A range on its way back: nobody is kept waiting, nothing wrong stands, nobody else's lease is used."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import libs.store.reopening as reopening
from libs.archive.objects import ObjectStore
from libs.marketdata.tables import ORDERBOOK_DELTAS
from libs.marketdata.units import DAY, HOUR, SECOND
from libs.runtime.clock import SystemClock
from libs.runtime.health import HealthState
from libs.runtime.leasing import LeaseLost
from libs.runtime.service import Runtime
from libs.store.dropped import Range, range_of
from libs.store.errors import StoreUnavailable
from libs.store.leases import Lease
from libs.store.loading import load_rows
from libs.store.partition_drop import drop_partitions_archived
from libs.store.partitions import Horizon, ensure_partitions, existing_partitions
from libs.store.pool import AnyConnection, Pool, Target, connect, open_pool
from libs.store.reopening_requests import want_open
from libs.telemetry.metrics import Metrics
from services.archiver.reopening import Reopener
from services.archiver.settings import ArchiverSettings
from services.local.postgres import EmbeddedPostgres
from tests.integration.archive.world import Production, archiver, own_lease
from tests.integration.connector.test_spool import frozen
from tests.support.postgres import plain_only, with_timescale

HOUR_SIX = SystemClock().now() // DAY * DAY - 9 * DAY + 6 * HOUR
QUICK = {"reopening_retry_s_max": 0, "window_s": 10}

LEFT = int(with_timescale())
"""Rows that stay of an attempt that failed: on TimescaleDB one, archived, that makes the chunk."""


class Dropped:
    """Production with one hour of deltas archived in several objects and dropped."""

    def __init__(self, target: Target, pool: Pool, root: Path) -> None:
        self.target, self.pool, self.root = target, pool, root
        self.production = Production(target, HOUR_SIX + 70 * SECOND)
        self.range = range_of(ORDERBOOK_DELTAS, HOUR_SIX)
        self.metrics = Metrics()

    async def make(self) -> None:
        async with connect(self.target) as conn:
            await ensure_partitions(conn, "production", HOUR_SIX, Horizon(0, 0))
        store = ObjectStore(str(self.root))
        exporter = archiver(self.pool, store, SystemClock().now())
        await self.production.merge(1, 2, 3, 20 * SECOND)
        await exporter.export_once(closing=True)
        await self.production.merge(4, 30 * SECOND)
        await exporter.export_once(closing=True)
        self.rows = await self.found()
        assert len(self.rows) == 6
        async with connect(self.target) as conn:
            await drop_partitions_archived(conn, HOUR_SIX + HOUR)
            await want_open(conn, [self.range])
        assert await self.found() == []

    async def found(self) -> list[tuple[Any, ...]]:
        rows = await self.pool.fetch(
            "SELECT * FROM orderbook_deltas ORDER BY exchange_ts, merge_no"
        )
        return [tuple(row) for row in rows]

    async def reopen(self, lease: Lease | None = None) -> None:
        own = ArchiverSettings(str(self.root), **QUICK)  # type: ignore[arg-type]
        clock, store = SystemClock(), ObjectStore(str(self.root))
        runtime = Runtime(
            clock, asyncio.Event(), HealthState("archiver", "", clock, self.metrics), self.metrics
        )
        lease = lease or own_lease(self.pool)
        await Reopener(own, self.pool, store, runtime, lease).reopen_once()

    async def state(self) -> tuple[str, str]:
        row = await self.pool.fetchrow("SELECT state, detail FROM archive_reopenings")
        assert row is not None
        return row["state"], row["detail"]


@pytest.fixture
async def dropped(production_db: Target, tmp_path: Path) -> AsyncIterator[Dropped]:
    async with open_pool(production_db) as pool:
        made = Dropped(production_db, pool, tmp_path / "archive")
        await made.make()
        yield made


async def test_the_rows_come_back_as_they_were_and_nobody_waits_meanwhile(
    dropped: Dropped, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While they are loaded others read, write today's rows and rows of the default partition, and make partitions."""
    done, today = load_rows, SystemClock().now()
    looks = 0

    async def look(*args: Any, **kwargs: Any) -> int:
        nonlocal looks
        rows = await done(*args, **kwargs)
        looks += 1
        if looks <= LEFT:
            return rows  # the moment in which the chunk is made
        async with connect(dropped.target) as conn, conn.transaction():
            await conn.execute("SET LOCAL lock_timeout = '200ms'")
            seen = await conn.fetchval("SELECT count(*) FROM orderbook_deltas")
            assert seen == LEFT
            for moment in (today, HOUR_SIX - 500 * DAY):
                await conn.execute(INSERT, moment, looks)
            await ensure_partitions(conn, "production", HOUR_SIX + looks * HOUR, Horizon(0, 0))
            await conn.execute("DELETE FROM orderbook_deltas WHERE ticker = 'X'")
        return rows

    monkeypatch.setattr(reopening, "load_rows", look)
    await dropped.reopen()
    assert looks == 4 + LEFT
    assert await dropped.found() == dropped.rows
    assert await dropped.state() == ("open", "")
    async with connect(dropped.target) as conn:
        there = [p for p in await existing_partitions(conn) if p.start == HOUR_SIX]
        assert "orderbook_deltas" in {p.table for p in there}
        plain = "SELECT count(*) FROM pg_constraint WHERE conname = 'reopened'"
        assert await conn.fetchval(plain) == 0


INSERT = (
    "INSERT INTO orderbook_deltas (exchange_ts, received_at, size_delta, seq, price, occurrence, sid, side, connection,"
    " ticker, gatherer, merge_no) VALUES ($1, $1, 5, 1, 52000, $2, 1, true, gen_random_uuid(), 'X', 1, 3)"
)


async def test_what_the_manifests_do_not_account_for_does_not_stand(dropped: Dropped) -> None:
    """Two records of the same rows: the objects are as they were put, their sum is not what production would hold."""
    await dropped.pool.execute(
        "INSERT INTO archive_manifests SELECT table_name, window_from, window_to, supplement + 1, object, rows, bytes,"
        " sha256, time_min, time_max, ticker_min, ticker_max, merge_from, merge_to, schema_version, pyarrow_version"
        " FROM archive_manifests WHERE supplement = 1"
    )
    await dropped.reopen()
    state, detail = await dropped.state()
    assert state == "failed" and "holds 4 rows, its manifests 5" in detail
    assert len(await dropped.found()) == LEFT
    assert dropped.metrics.archive_reopenings_failed._value.get() == 1
    await dropped.pool.execute("DELETE FROM archive_manifests WHERE supplement = 2")
    await dropped.reopen()
    assert (await dropped.state(), await dropped.found()) == (("open", ""), dropped.rows)
    assert dropped.metrics.archive_reopenings_failed._value.get() == 0


class LostLease(Lease):
    """A lease that another archiver takes while rows are loaded."""

    async def renew(self) -> bool:
        return True

    async def holds(self, conn: AnyConnection) -> bool:
        return False


@plain_only
async def test_rows_that_waited_in_the_default_partition_are_kept_once(dropped: Dropped) -> None:
    """A copy of an archived one goes, one that no object holds yet stays."""
    names = "exchange_ts, received_at, size_delta, seq, price, occurrence, sid, side, connection, ticker, sent_at, pos, gatherer"
    copy = f"INSERT INTO orderbook_deltas SELECT {names}, $1 FROM staged"
    async with connect(dropped.target) as conn:
        await conn.execute("CREATE TEMP TABLE staged (LIKE orderbook_deltas)")
        await conn.copy_records_to_table("staged", records=dropped.rows[:1])
        await conn.execute(copy, 98)
        await conn.execute("UPDATE staged SET occurrence = 77")
        await conn.execute(copy, 99)
    await dropped.reopen()
    found = await dropped.found()
    assert len(found) == len(dropped.rows) + 1
    assert [row[-1] for row in found if row not in dropped.rows] == [99]


async def test_an_archiver_that_lost_its_lease_changes_nothing(dropped: Dropped) -> None:
    """Everything it loaded is rolled back, and the process ends."""
    lease = own_lease(dropped.pool)
    with pytest.raises(LeaseLost):
        await dropped.reopen(LostLease(dropped.pool, lease.name, lease.holder, 9.0))
    assert (await dropped.state(), len(await dropped.found())) == (("requested", ""), LEFT)


async def test_a_cancelled_reopening_ends_as_one_on_a_server_that_answers_nothing(
    dropped: Dropped, postgres_server: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The archiver whose lease is gone is cancelled once only; taken for a fault of production it would go on for ever."""
    done, begun, go = load_rows, asyncio.Event(), asyncio.Event()
    calls = 0

    async def stuck(conn: AnyConnection, *args: Any, **kwargs: Any) -> int:
        nonlocal calls
        calls += 1
        if calls > LEFT:
            begun.set()
            await go.wait()
        return await done(conn, *args, **kwargs)

    monkeypatch.setattr(reopening, "load_rows", stuck)
    async with asyncio.timeout(60):
        task = asyncio.create_task(dropped.reopen())
        await begun.wait()
        with frozen(postgres_server):
            go.set()
            await asyncio.wait([task], timeout=0.1)
            assert not task.done()
            task.cancel()
            await asyncio.wait([task], timeout=20.0)
            assert task.cancelled()
        monkeypatch.setattr(reopening, "load_rows", done)
        assert (await dropped.state())[0] == "requested"
        await dropped.reopen()
        assert (await dropped.state(), await dropped.found()) == (("open", ""), dropped.rows)


async def test_what_nobody_waits_for_any_more_is_not_opened(dropped: Dropped) -> None:
    """After a day without anybody asking the request is closed; asked for again it is opened."""
    old = "UPDATE archive_reopenings SET used_at = clock_timestamp() - interval '25 hours'"
    await dropped.pool.execute(old)
    await dropped.reopen()
    assert (await dropped.state())[0] == "closed"
    async with connect(dropped.target) as conn:
        assert [w.state for w in await want_open(conn, [dropped.range])] == ["requested"]
    await dropped.reopen()
    assert (await dropped.state())[0] == "open"


async def test_a_range_whose_rows_never_went_is_only_opened(dropped: Dropped) -> None:
    """Somebody made the partition and its rows are there: loading them again changes nothing."""
    await dropped.reopen()
    async with connect(dropped.target) as conn:
        await conn.execute("UPDATE archive_reopenings SET state = 'requested'")
    await dropped.reopen()
    assert (await dropped.state(), await dropped.found()) == (("open", ""), dropped.rows)
    assert await dropped.pool.fetchval("SELECT rows FROM archive_reopenings") == 0


async def test_openings_stay_while_their_streams_are_heard(production_db: Target) -> None:
    """Without its opening a stream that is heard today would count as never heard."""
    opened, today = Range("listen_opened", HOUR_SIX // DAY * DAY, 0), SystemClock().now()

    async def gone() -> bool:
        async with connect(production_db) as conn:
            done = await drop_partitions_archived(conn, opened.start + DAY)
        assert not [p for p, _ in done.kept if p.table == "listen_opened"]
        return ("listen_opened", opened.start) in {(p.table, p.start) for p in done.dropped}

    async with connect(production_db) as conn:
        await ensure_partitions(conn, "production", HOUR_SIX, Horizon(0, 0))
        await conn.execute(
            "INSERT INTO listen_opened (received_at, seq, sent_at, margin, stream, sid, row_no, connection, channel, slot,"
            " lane, batch_no, gatherer, merge_no) VALUES ($1, 1, $1, 1, 1, 7, 1, $2, 'trade', 's', $2, 1, 1, 1)",
            HOUR_SIX, "00000000-0000-0000-0000-000000000001",
        )  # fmt: skip
        await conn.execute(
            "INSERT INTO listen_ranges (received_at, seq_from, seq_to, sent_from, sent_to, margin, sid, row_no,"
            " connection, channel, gatherer, merge_no, lane, batch_no)"
            " VALUES ($1, 1, 2, $1, $1, 0, 7, 1, $2, 'trade', 1, 1, $2, 1)",
            today, "00000000-0000-0000-0000-000000000001",
        )  # fmt: skip
        await conn.execute(
            "INSERT INTO archive_manifests (table_name, window_from, window_to, supplement, object, rows, bytes, sha256,"
            " merge_from, merge_to, schema_version, pyarrow_version)"
            " VALUES ('listen_opened', $1, $2, 0, 'o', 1, 1, '', 0, 1, 1, '')",
            HOUR_SIX, HOUR_SIX + HOUR,
        )  # fmt: skip
    assert not await gone()
    async with connect(production_db) as conn:
        await conn.execute("DELETE FROM listen_ranges")
    assert await gone()


@plain_only
async def test_a_table_whose_lock_is_not_to_be_had_keeps_no_other_one_waiting(
    dropped: Dropped, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody looks at tickers for long: the deltas, asked for later, are opened, and the tickers when he is done."""
    monkeypatch.setattr(reopening, "ATTACH_ATTEMPTS", 1)
    await dropped.pool.execute(
        "INSERT INTO archive_reopenings (table_name, range_from, range_to, requested_at)"
        " VALUES ('tickers', $1, $2, '-infinity')",
        dropped.range.start, dropped.range.end,
    )  # fmt: skip
    states = "SELECT string_agg(state, ' ' ORDER BY table_name) FROM archive_reopenings"
    async with connect(dropped.target) as conn, conn.transaction():
        await conn.execute("LOCK TABLE tickers_default IN ACCESS SHARE MODE")
        with pytest.raises(StoreUnavailable):
            await dropped.reopen()
        assert await dropped.pool.fetchval(states) == "open requested"
    await dropped.reopen()
    assert await dropped.pool.fetchval(states) == "open open"
    assert await dropped.found() == dropped.rows
