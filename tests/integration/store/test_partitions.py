"""Partitions on a real server: made ahead, filled from the default one, and dropped only when proved to be elsewhere.

The same tests run on TimescaleDB (KALSHI_TEST_TIMESCALE=1), where chunks make themselves.
"""

import asyncio
from contextlib import suppress
from dataclasses import replace
from uuid import UUID, uuid4

import pytest

from libs.marketdata.units import DAY, HOUR
from libs.store.errors import StoreUnavailable
from libs.store.partition_drop import drop_partitions_archived, drop_partitions_released
from libs.store.partitions import (
    Ensured,
    Horizon,
    Partition,
    count_default_rows,
    ensure_partitions,
    existing_partitions,
    has_timescale,
)
from libs.store.pool import AnyConnection, Target, connect
from tests.support.postgres import plain_only, with_timescale

NOW = 1_900_000_800_000_000  # far from the template's own partitions; a whole hour
SMALL = Horizon(behind=HOUR, ahead=HOUR)


async def _delta(conn: AnyConnection, at: int, batch_id: int = 1) -> None:
    await conn.execute(
        "INSERT INTO orderbook_deltas VALUES ($1, $2, $2, 100, 1, 50000, 1, 1, true, $3, 'M', NULL, NULL)",
        batch_id, at, UUID(int=1),
    )  # fmt: skip


async def _at(conn: AnyConnection, table: str, moment: int) -> Partition | None:
    found = [
        p for p in await existing_partitions(conn) if p.table == table and p.start <= moment < p.end
    ]
    return found[0] if found else None


async def test_the_server_decides_once(gatherer_db: Target) -> None:
    """A database has hypertables exactly when the server offered the extension at its migration."""
    async with connect(gatherer_db) as conn:
        assert await has_timescale(conn) == with_timescale()
        kind = await conn.fetchval(
            "SELECT relkind::text FROM pg_class WHERE relname = 'orderbook_deltas'"
        )
        assert kind == ("r" if with_timescale() else "p")


async def test_chunks_have_the_table_s_own_width(gatherer_db: Target) -> None:
    """An hour for deltas, a day for trades' neighbours, on either kind of server."""
    async with connect(gatherer_db) as conn:
        await ensure_partitions(conn, "gatherer", NOW, SMALL)
        await _delta(conn, NOW + 5)
        await conn.execute(
            "INSERT INTO exchange_status VALUES (1, $1, 1, 1, 's', '', NULL, NULL)", NOW + 5
        )
        deltas = await _at(conn, "orderbook_deltas", NOW + 5)
        status = await _at(conn, "exchange_status", NOW + 5)
        assert deltas is not None and (deltas.start, deltas.end) == (NOW, NOW + HOUR)
        assert status is not None and status.end - status.start == DAY


@plain_only
async def test_partitions_are_made_once(gatherer_db: Target) -> None:
    """The second call makes nothing; the writer's role may make them."""
    async with connect(replace(gatherer_db, user="kd_writer")) as conn:
        first = await ensure_partitions(conn, "gatherer", NOW, SMALL)
        assert {p.name for p in first.made if p.table == "orderbook_deltas"} == {
            "orderbook_deltas_p20300317_17", "orderbook_deltas_p20300317_18", "orderbook_deltas_p20300317_19",
        }  # fmt: skip
        assert (await ensure_partitions(conn, "gatherer", NOW, SMALL)).made == ()
        owners = await conn.fetch(
            "SELECT DISTINCT pg_get_userbyid(relowner) FROM pg_class WHERE relname LIKE 'orderbook_deltas%'"
        )
        assert [row[0] for row in owners] == ["kd_owner"]


async def _ensured(conn: AnyConnection) -> Ensured:
    """Ask until it is done: whoever waits for the other for more than a second is told to ask again."""
    while True:
        with suppress(StoreUnavailable):
            return await ensure_partitions(conn, "gatherer", NOW, SMALL)


@plain_only
async def test_two_processes_may_make_the_same_partitions(gatherer_db: Target) -> None:
    """Both find them missing at once: each is made by one of the two, and neither fails."""
    async with connect(gatherer_db) as one, connect(gatherer_db) as other, asyncio.timeout(60):
        made = await asyncio.gather(_ensured(one), _ensured(other))
        names = [partition.name for ensured in made for partition in ensured.made]
        assert len(set(names)) == len(names)
        there = {p.name for p in await existing_partitions(one)}
        assert set(names) <= there and "orderbook_deltas_p20300317_18" in names


@plain_only
@pytest.mark.parametrize("moment", [-(2**63), -1, 2**63 - 1, 1_795_000_000_000_000_000])
async def test_partitions_of_impossible_times_are_made(gatherer_db: Target, moment: int) -> None:
    """Whatever time is asked for, the server takes the ranges; a row finds its place."""
    async with connect(gatherer_db) as conn:
        await ensure_partitions(conn, "gatherer", moment, SMALL)
        await _delta(conn, moment)
        assert (await ensure_partitions(conn, "gatherer", moment, SMALL)).made == ()
        assert await conn.fetchval("SELECT exchange_ts FROM orderbook_deltas") == moment


@plain_only
async def test_new_partitions_have_the_table_s_indexes(production_db: Target) -> None:
    """A partition that is attached later enforces the key and carries the BRIN index with its settings."""
    async with connect(production_db) as conn:
        await ensure_partitions(conn, "production", NOW, SMALL)
        partition = await _at(conn, "orderbook_deltas", NOW)
        assert partition is not None
        definitions = [
            row[0]
            for row in await conn.fetch(
                "SELECT indexdef FROM pg_indexes WHERE tablename = $1", partition.name
            )
        ]
        assert len(definitions) == 2
        assert any("UNIQUE" in text and "NULLS NOT DISTINCT" in text for text in definitions)
        assert any(
            "brin (merge_no)" in text and "pages_per_range='32'" in text for text in definitions
        )
        attached = await conn.fetchval(
            "SELECT count(*) FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhparent"
            " WHERE c.relname IN ('orderbook_deltas_key', 'orderbook_deltas_merge_no')"
            " AND i.inhrelid IN (SELECT indexrelid FROM pg_index WHERE indrelid = $1::regclass)",
            partition.name,
        )
        assert attached == 2


@plain_only
async def test_rows_wait_in_the_default_partition_and_move(gatherer_db: Target) -> None:
    """A row without a partition is counted as an alarm, never lost, and moves when its partition is made."""
    async with connect(gatherer_db) as conn:
        await _delta(conn, NOW + 5)
        await _delta(conn, NOW + 7 * DAY)
        assert await count_default_rows(conn, "gatherer") == {"orderbook_deltas": 2}
        ensured = await ensure_partitions(conn, "gatherer", NOW, SMALL)
        assert ensured.default_rows == {"orderbook_deltas": 1}
        partition = await _at(conn, "orderbook_deltas", NOW + 5)
        assert partition is not None
        assert await conn.fetchval(f"SELECT exchange_ts FROM {partition.name}") == NOW + 5
        assert await conn.fetchval("SELECT count(*) FROM orderbook_deltas") == 2


@plain_only
async def test_a_writer_at_work_does_not_keep_partitions_from_being_made(
    gatherer_db: Target,
) -> None:
    """Attaching a partition does not wait for an open transaction that has inserted into the table."""
    async with connect(gatherer_db) as conn, connect(gatherer_db) as writer:
        await ensure_partitions(conn, "gatherer", NOW, SMALL)
        async with writer.transaction():
            await _delta(writer, NOW + 5)
            ensured = await ensure_partitions(conn, "gatherer", NOW + 5 * HOUR, SMALL)
            assert [p for p in ensured.made if p.table == "orderbook_deltas"]


@plain_only
async def test_a_busy_table_does_not_keep_the_others_from_theirs(gatherer_db: Target) -> None:
    """Who holds one default partition for long makes that table wait for the next call, and no other."""
    async with connect(gatherer_db) as conn, connect(gatherer_db) as reader:
        async with reader.transaction():
            await reader.fetch("SELECT * FROM orderbook_deltas_default")
            with pytest.raises(StoreUnavailable):
                await ensure_partitions(conn, "gatherer", NOW, SMALL)
            assert await _at(conn, "orderbook_deltas", NOW) is None
            assert await _at(conn, "tickers", NOW) is not None
        await ensure_partitions(conn, "gatherer", NOW, SMALL)
        assert await _at(conn, "orderbook_deltas", NOW) is not None


async def _batch(
    conn: AnyConnection, lane: UUID, batch_no: int, at: int, table: str = "orderbook_deltas"
) -> None:
    await conn.execute(
        "INSERT INTO ingest_batches (lane, batch_no, schema_version, table_names, row_counts, row_hashes, times_from,"
        " times_to) VALUES ($1, $2, 1, ARRAY['gaps', $4], '{1, 1}', '{0, 0}', ARRAY[0, $3::bigint], ARRAY[0, $3])",
        lane, batch_no, at, table,
    )  # fmt: skip


async def _gone(conn: AnyConnection, now: int) -> set[tuple[str, int]]:
    """Drop what may go; return (table, start) of what went, without the template's own partitions of today."""
    result = await drop_partitions_released(conn, now)
    return {(p.table, p.start) for p in result.dropped if p.start >= NOW - DAY}


async def _release(conn: AnyConnection, lane: UUID, batch_no: int) -> None:
    await conn.execute(
        "INSERT INTO lane_releases VALUES ($1, $2, 1) ON CONFLICT (lane) DO UPDATE SET released_batch_no = $2",
        lane, batch_no,
    )  # fmt: skip


async def _gatherer_with_two_batches(conn: AnyConnection) -> tuple[UUID, UUID]:
    """One partition of deltas that two lanes have written to."""
    await ensure_partitions(conn, "gatherer", NOW, SMALL)
    lanes = uuid4(), uuid4()
    for number, lane in enumerate(lanes):
        await _batch(conn, lane, 1, NOW + number)
        await _delta(conn, NOW + number)
    return lanes


async def test_a_partition_stays_until_every_batch_is_released(gatherer_db: Target) -> None:
    """One unreleased batch of another lane keeps it; with the last release it goes and its batches are marked."""
    async with connect(gatherer_db) as conn:
        one, other = await _gatherer_with_two_batches(conn)
        await _release(conn, one, 1)
        later = NOW + 2 * HOUR
        result = await drop_partitions_released(conn, later)
        assert ("orderbook_deltas", NOW) not in {(p.table, p.start) for p in result.dropped}
        assert [
            why for p, why in result.kept if p.table == "orderbook_deltas" and p.start == NOW
        ] == ["1 batches are not released"]
        await _release(conn, other, 1)
        assert await _gone(conn, later) == {("orderbook_deltas", NOW)}
        assert await conn.fetchval("SELECT count(*) FROM orderbook_deltas") == 0
        marked = await conn.fetch("SELECT dropped_at FROM ingest_batches")
        assert len(marked) == 2 and all(row[0] is not None for row in marked)


async def test_a_later_number_of_a_released_lane_is_not_released(gatherer_db: Target) -> None:
    """A release reaches up to its number; the next batch of the same lane keeps the partition."""
    async with connect(gatherer_db) as conn:
        one, other = await _gatherer_with_two_batches(conn)
        await _release(conn, one, 1)
        await _release(conn, other, 1)
        await _batch(conn, one, 2, NOW + HOUR - 1)
        assert await _gone(conn, NOW + 2 * HOUR) == set()


async def test_a_partition_that_is_not_over_is_not_looked_at(gatherer_db: Target) -> None:
    """Even released, the partition of the present stays."""
    async with connect(gatherer_db) as conn:
        for lane in await _gatherer_with_two_batches(conn):
            await _release(conn, lane, 1)
        assert await _gone(conn, NOW + HOUR - 1) == set()


@plain_only
async def test_partitions_made_ahead_stay(gatherer_db: Target) -> None:
    """Partitions that no batch has touched are kept for four days after they are over, then they go."""
    async with connect(gatherer_db) as conn:
        await ensure_partitions(conn, "gatherer", NOW, SMALL)
        assert await _gone(conn, NOW + 2 * HOUR) == set()
        assert ("orderbook_deltas", NOW) in await _gone(conn, NOW + 6 * DAY)


async def test_a_writer_at_work_keeps_the_partition(gatherer_db: Target) -> None:
    """A batch whose transaction is still open holds the partition: it is kept for want of the lock, not dropped."""
    async with connect(gatherer_db) as conn, connect(gatherer_db) as writer:
        for lane in await _gatherer_with_two_batches(conn):
            await _release(conn, lane, 1)
        transaction = writer.transaction()
        await transaction.start()
        await _batch(writer, uuid4(), 1, NOW + 3)
        await _delta(writer, NOW + 3)
        result = await drop_partitions_released(conn, NOW + 2 * HOUR)
        assert ("orderbook_deltas", NOW) not in {(p.table, p.start) for p in result.dropped}
        assert any("lock timeout" in why for _, why in result.kept)
        await transaction.commit()
        result = await drop_partitions_released(conn, NOW + 2 * HOUR)
        assert any(why == "1 batches are not released" for _, why in result.kept)


async def test_the_writer_s_role_may_drop(gatherer_db: Target) -> None:
    """kd_writer, who may delete no fact, drops a released partition as its owner."""
    async with connect(gatherer_db) as conn:
        for lane in await _gatherer_with_two_batches(conn):
            await _release(conn, lane, 1)
    async with connect(replace(gatherer_db, user="kd_writer")) as conn:
        assert await _gone(conn, NOW + 2 * HOUR) == {("orderbook_deltas", NOW)}


async def _merged(conn: AnyConnection, at: int, merge_no: int) -> None:
    await conn.execute(
        "INSERT INTO orderbook_deltas VALUES ($1, $1, 100, 1, 50000, 1, 1, true, $2, 'M', NULL, NULL, 1, $3)",
        at, UUID(int=1), merge_no,
    )  # fmt: skip


async def _manifest(
    conn: AnyConnection,
    start: int,
    end: int,
    rows: int,
    merge_to: int,
    supplement: int = 0,
    merge_from: int = 0,
) -> None:
    await conn.execute(
        "INSERT INTO archive_manifests (table_name, window_from, window_to, supplement, object, rows, bytes, sha256,"
        " merge_from, merge_to, schema_version, pyarrow_version)"
        " VALUES ('orderbook_deltas', $1, $2, $3, 'o', $4, 1, '', $5, $6, 1, '')",
        start, end, supplement, rows, merge_from, merge_to,
    )  # fmt: skip


async def _archived_partition(conn: AnyConnection) -> None:
    """Three rows in two windows of one partition, every one archived, the last by a supplement."""
    await ensure_partitions(conn, "production", NOW, SMALL)
    half = NOW + HOUR // 2
    for at, merge_no in ((NOW, 1), (half, 2), (half + 1, 9)):
        await _merged(conn, at, merge_no)
    await _manifest(conn, NOW, half, 1, 5)
    await _manifest(conn, half, NOW + HOUR, 1, 5)
    await _manifest(conn, half, NOW + HOUR, 1, 9, supplement=1, merge_from=5)


async def _dropped(conn: AnyConnection, before: int = NOW + HOUR) -> set[int]:
    result = await drop_partitions_archived(conn, before)
    return {p.start for p in result.dropped if p.table == "orderbook_deltas" and p.start == NOW}


async def test_an_archived_partition_goes(production_db: Target) -> None:
    """When the manifests account for every row it goes, by the archiver's role too, but not before its time."""
    async with connect(production_db) as conn:
        await _archived_partition(conn)
        assert await _dropped(conn, NOW + HOUR - 1) == set()
    async with connect(replace(production_db, user="kd_archiver")) as conn:
        assert await _dropped(conn) == {NOW}
        assert await conn.fetchval("SELECT count(*) FROM orderbook_deltas") == 0
        mark = "SELECT dropped_before FROM retention_marks WHERE table_name = 'orderbook_deltas'"
        assert await conn.fetchval(mark) == NOW + HOUR


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE archive_manifests SET rows = 2 WHERE supplement = 1",
        "DELETE FROM archive_manifests WHERE supplement = 1",
        "UPDATE archive_manifests SET merge_to = 8 WHERE supplement = 1",
        "DELETE FROM archive_manifests",
    ],
)
async def test_a_partition_with_an_unarchived_row_stays(production_db: Target, change: str) -> None:
    """Another number of rows, a missing supplement, a row merged after the export, no manifest at all: it stays."""
    async with connect(production_db) as conn:
        await _archived_partition(conn)
        await conn.execute(change)
        assert await _dropped(conn) == set()
        assert await conn.fetchval("SELECT count(*) FROM orderbook_deltas") == 3
