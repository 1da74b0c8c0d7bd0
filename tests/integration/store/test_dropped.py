"""Rows where production's own are in the archive only: held back until their range is open, and nothing else is."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any

import pytest

from libs.marketdata.tables import ORDERBOOK_DELTAS, TRADES
from libs.marketdata.units import DAY, HOUR
from libs.store import partition_drop
from libs.store.dropped import Range, RangesDropped, insist_merge_open, range_of
from libs.store.merger import ProductionWriter
from libs.store.partition_drop import drop_partitions_archived
from libs.store.partitions import Horizon, Partition, ensure_partitions, existing_partitions
from libs.store.pool import AnyConnection, Connection, Target, connect
from libs.store.reopening_requests import want_open
from tests.integration.store.test_merger import delta, gap, trade, transaction
from tests.support.postgres import plain_only

NIGHT = 1_700_006_400_000_000 // DAY * DAY
"""Midnight of some day."""
HOUR_FIVE = NIGHT + 5 * HOUR
SMALL = Horizon(behind=0, ahead=0)


@pytest.fixture
async def conn(production_db: Target) -> AsyncIterator[Connection]:
    async with connect(production_db) as opened:
        yield opened


@pytest.fixture
async def writer(production_db: Target) -> AsyncIterator[ProductionWriter]:
    made = ProductionWriter(production_db)
    await made.take_over()
    yield made
    await made.release()


async def archived(conn: Connection, table: str, start: int, end: int, rows: int = 1) -> None:
    """Record that a window was archived."""
    await conn.execute(
        "INSERT INTO archive_manifests (table_name, window_from, window_to, supplement, object, rows, bytes, sha256,"
        " merge_from, merge_to, schema_version, pyarrow_version) VALUES ($1, $2, $3, 0, 'o', $4, 1, '', 0, 9, 1, '')",
        table, start, end, rows,
    )  # fmt: skip


async def mark(conn: Connection, table: str, before: int) -> None:
    """Leave the mark that dropping a partition leaves."""
    await conn.execute(
        "INSERT INTO retention_marks VALUES ($1, $2) ON CONFLICT (table_name)"
        " DO UPDATE SET dropped_before = excluded.dropped_before",
        table, before,
    )  # fmt: skip


async def opened(conn: Connection, ranges: Iterable[Range], state: str = "open") -> None:
    """Be the archiver: set the state of requests."""
    for one in await want_open(conn, list(ranges)):
        await conn.execute(
            "UPDATE archive_reopenings SET state = $3, detail = 'because' WHERE table_name = $1 AND range_from = $2",
            one.range.table, one.range.start, state,
        )  # fmt: skip


def deltas(*moments: int) -> dict[str, Any]:
    return {"orderbook_deltas": [delta(n)._replace(exchange_ts=m) for n, m in enumerate(moments)]}


async def count(conn: Connection, table: str) -> int:
    return int(await conn.fetchval(f"SELECT count(*) FROM {table}"))


async def test_only_archived_ranges_below_the_mark_are_held_back(
    conn: Connection, writer: ProductionWriter
) -> None:
    """Not what lies above it, not what no manifest speaks of, not what no calendar names; nothing of it is written."""
    await archived(conn, "orderbook_deltas", HOUR_FIVE, HOUR_FIVE + HOUR)
    await writer.merge(transaction(1, **deltas(HOUR_FIVE)))
    await mark(conn, "orderbook_deltas", HOUR_FIVE + HOUR)
    free = (HOUR_FIVE - 1, HOUR_FIVE + HOUR, -5, -(2**63), 2**63 - 1)
    await writer.merge(transaction(2, **deltas(*free), gaps=[gap(1)]))
    for number, moment in enumerate((HOUR_FIVE, HOUR_FIVE + 1, HOUR_FIVE + HOUR - 1), 3):
        with pytest.raises(
            RangesDropped, match=r"^reopening: orderbook_deltas_p20231115_05: "
        ) as got:
            await writer.merge(transaction(number, **deltas(NIGHT + DAY, moment), gaps=[gap(2)]))
        assert got.value.ranges == (range_of(ORDERBOOK_DELTAS, HOUR_FIVE),)
        assert not got.value.failed
    assert await count(conn, "orderbook_deltas") == 1 + len(free)
    assert await count(conn, "gaps") == 1


async def test_an_open_range_takes_rows_until_it_is_dropped_again(
    conn: Connection, writer: ProductionWriter
) -> None:
    """Requested, failed and closed hold back, open does not; merging into it keeps it; a drop closes it."""
    hour = range_of(ORDERBOOK_DELTAS, HOUR_FIVE)
    await archived(conn, *hour)
    await mark(conn, "orderbook_deltas", hour.end)
    for state in ("requested", "failed", "closed"):
        await opened(conn, [hour], state)
        with pytest.raises(RangesDropped) as got:
            await writer.merge(transaction(1, **deltas(HOUR_FIVE)))
        assert ("because" in got.value.failed) == (state == "failed")
    await opened(conn, [hour])
    await conn.execute("UPDATE archive_reopenings SET used_at = '2020-01-01'")
    assert (await writer.merge(transaction(1, **deltas(HOUR_FIVE)))).rows_inserted == 1
    used = "SELECT used_at > clock_timestamp() - interval '1 min' FROM archive_reopenings"
    assert await conn.fetchval(used)
    await mark(conn, "orderbook_deltas", hour.end)
    with pytest.raises(RangesDropped):
        await writer.merge(transaction(2, **deltas(HOUR_FIVE + 1)))
    (again,) = await want_open(conn, [hour])
    assert (again.state, again.detail) == ("requested", "")


async def test_a_trade_waits_for_every_day_its_look_up_reads(
    conn: Connection, writer: ProductionWriter
) -> None:
    """The first row of a trade may lie a day before or after this copy: both days must be there to find it."""
    days = [range_of(TRADES, NIGHT + number * DAY) for number in range(-2, 4)]
    for day in days:
        await archived(conn, *day)
    await mark(conn, "trades", days[3].start)  # the days -2, -1 and 0 are gone
    with pytest.raises(RangesDropped) as got:
        await writer.merge(transaction(1, trades=[trade("x", NIGHT + DAY + 7)]))
    assert got.value.ranges == (days[2],)
    with pytest.raises(RangesDropped) as got:
        await writer.merge(transaction(1, trades=[trade("x", NIGHT + 7)]))
    assert got.value.ranges == (days[1], days[2])
    await writer.merge(transaction(1, trades=[trade("x", NIGHT + 2 * DAY)]))
    await opened(conn, [days[2]])
    await writer.merge(transaction(2, trades=[trade("y", NIGHT + DAY + 7)]))
    assert await count(conn, "trades") == 2


async def test_what_a_merge_has_brought_is_judged_likewise(
    conn: Connection, writer: ProductionWriter
) -> None:
    """By its number: only its own rows, of trades with the days around them."""
    days = [range_of(TRADES, NIGHT + number * DAY) for number in range(3)]
    await writer.merge(transaction(1, trades=[trade("x", NIGHT + 7)]))
    await writer.merge(transaction(2, trades=[trade("y", NIGHT + DAY + 7)]))
    await writer.merge(transaction(3, trades=[trade("z", NIGHT + 2 * DAY + 7)]))
    for day in days:
        await archived(conn, *day)
    await mark(conn, "trades", days[0].end)
    for merge_no, wanted in ((1, days[:1]), (2, days[:1]), (3, [])):
        if not wanted:
            await insist_merge_open(conn, "trades", merge_no)
            continue
        with pytest.raises(RangesDropped) as got:
            await insist_merge_open(conn, "trades", merge_no)
        assert list(got.value.ranges) == wanted
    await opened(conn, days[:1])
    await insist_merge_open(conn, "trades", 1)
    await insist_merge_open(conn, "tickers", 1)


@plain_only
async def test_a_dropped_range_is_not_made_again_empty(conn: Connection) -> None:
    """An empty partition in its place would hide that its rows are elsewhere; where none were it may be made."""
    await ensure_partitions(conn, "production", HOUR_FIVE, SMALL)
    assert len((await drop_partitions_archived(conn, NIGHT + DAY)).dropped) > 10
    made = (await ensure_partitions(conn, "production", HOUR_FIVE, SMALL)).made
    assert {p.table for p in made} >= {"orderbook_deltas", "trades"}
    await drop_partitions_archived(conn, NIGHT + DAY)
    await archived(conn, "orderbook_deltas", HOUR_FIVE, HOUR_FIVE + 1)
    made = (await ensure_partitions(conn, "production", HOUR_FIVE, SMALL)).made
    assert "orderbook_deltas" not in {p.table for p in made}
    there = {(p.table, p.start) for p in await existing_partitions(conn)}
    assert ("orderbook_deltas", HOUR_FIVE) not in there and ("tickers", HOUR_FIVE) in there


async def test_a_range_in_use_is_not_dropped(conn: Connection, writer: ProductionWriter) -> None:
    """Asked for, failed, or open and used within the quiet time; after it, it goes by the ordinary rule."""
    hour = range_of(ORDERBOOK_DELTAS, HOUR_FIVE)

    async def gone(quiet_s: float) -> bool:
        done = await drop_partitions_archived(conn, hour.end, quiet_s)
        assert not done.kept
        return "orderbook_deltas" in {p.table for p in done.dropped}

    await ensure_partitions(conn, "production", HOUR_FIVE, SMALL)
    await writer.merge(transaction(1, **deltas(HOUR_FIVE)))
    await archived(conn, *hour)
    for state in ("requested", "failed", "open"):
        await opened(conn, [hour], state)
        assert not await gone(3600)
    assert await gone(0)
    state = await conn.fetchval("SELECT state FROM archive_reopenings")
    assert state == "closed"


async def test_readers_and_the_merge_go_on_while_a_partition_is_counted(
    conn: Connection,
    writer: ProductionWriter,
    production_db: Target,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Both plan over the whole table, which locks every partition; only who writes into this one waits for the count."""
    old, today = range_of(TRADES, NIGHT), NIGHT + 8 * DAY
    for day in (NIGHT, today):
        await ensure_partitions(conn, "production", day, SMALL)
    await writer.merge(transaction(1, trades=[trade("a", NIGHT)]))
    await archived(conn, *old)
    count_rows, turns = partition_drop._archived, list[Partition]()
    counting, may_end = asyncio.Event(), asyncio.Event()

    async def slow(conn: AnyConnection, partition: Partition) -> str | None:
        if partition.table == "trades":
            turns.append(partition)
            if len(turns) == 2:  # the first count is before the lock
                counting.set()
                await may_end.wait()
        return await count_rows(conn, partition)

    monkeypatch.setattr(partition_drop, "_archived", slow)
    async with connect(production_db) as other, asyncio.timeout(120):
        dropping = asyncio.create_task(drop_partitions_archived(other, old.end))
        await counting.wait()
        try:
            await conn.execute("SET lock_timeout = '30s'")
            assert await count(conn, "trades") == 1
            async with asyncio.timeout(30):
                await writer.merge(transaction(2, trades=[trade("b", today)]))
        finally:
            may_end.set()
            done = await dropping
    assert "trades" in {p.table for p in done.dropped}
    assert await conn.fetchval("SELECT array_agg(trade_id) FROM trades") == ["b"]
