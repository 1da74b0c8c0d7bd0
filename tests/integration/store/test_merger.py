"""The production writer against a real server: numbered, fenced, exact in what it counts."""

import asyncio
import random
from uuid import UUID, uuid4

import pytest

from libs.marketdata.binary import codec
from libs.marketdata.rows import DeltaRow, GapRow, TradeRow
from libs.store import merge_sql
from libs.store.merge_errors import HistoryChanged, RowsRefused, WriterFenced
from libs.store.merge_records import forget_merges
from libs.store.merge_transaction import Cursor, MergeTransaction, Segment
from libs.store.merger import ProductionWriter
from libs.store.pool import Target, connect

NOON = 1_700_006_400_000_000
LANE = UUID("01890000-0000-4000-8000-000000000001")
CONNECTION = UUID("01890000-0000-7000-8000-000000000001")


def delta(number: int) -> DeltaRow:
    """A delta told apart by its size."""
    return DeltaRow(
        NOON, NOON, number, number, 50_000, 1, 1, True, CONNECTION, "MARKET", None, None
    )


def trade(trade_id: str, moment: int, size: int = 100) -> TradeRow:
    """A trade."""
    return TradeRow(
        moment, moment, size, 40_000, 60_000, True, trade_id, "MARKET", None, None, None, None, None
    )  # fmt: skip


def gap(row_no: int) -> GapRow:
    """A gap row of a batch."""
    return GapRow(
        NOON, row_no, "orderbook_delta", "", "seq", "", None, None, None, None, None, None, None, None,
        None, None,
    )  # fmt: skip


def transaction(
    batch_no: int, *, gatherer: int = 1, **rows: list[tuple[object, ...]]
) -> MergeTransaction:
    """A transaction that brings rows by table and moves the lane's cursor to batch_no."""
    segments = {
        name: [Segment(gatherer, LANE, batch_no, list(map(codec(name).encode, found)))]
        for name, found in rows.items()
    }
    count = sum(map(len, rows.values()))
    return MergeTransaction(segments, [Cursor(gatherer, LANE, batch_no, "deltas")], count)


async def test_a_transaction_carries_rows_cursors_and_its_number(production_db: Target) -> None:
    """Numbers go on by one; rows bear gatherer, merge_no and, where it is their identity, lane and batch_no."""
    writer = ProductionWriter(production_db)
    standing = await writer.take_over()
    assert standing is not None and standing.epoch == 1 and standing.cursors == {}
    first = await writer.merge(transaction(1, orderbook_deltas=[delta(1), delta(2)], gaps=[gap(1)]))
    second = await writer.merge(
        transaction(2, orderbook_deltas=[delta(2), delta(3)], gaps=[gap(1)])
    )
    assert (first.merge_no, second.merge_no) == (1, 2)
    assert first.inserted == {"orderbook_deltas": 2, "gaps": 1}
    assert second.inserted == {"orderbook_deltas": 1, "gaps": 1}
    assert second.present["orderbook_deltas"] == [("MARKET", NOON, 50_000, True, 2, 1)]
    await writer.release()
    async with connect(production_db) as conn:
        rows = await conn.fetch("SELECT size_delta, gatherer, merge_no FROM orderbook_deltas")
        assert sorted(tuple(row) for row in rows) == [(1, 1, 1), (2, 1, 1), (3, 1, 2)]
        gaps = await conn.fetch("SELECT lane, batch_no, row_no FROM gaps ORDER BY batch_no")
        assert [tuple(row) for row in gaps] == [(LANE, 1, 1), (LANE, 2, 1)]
        merges = await conn.fetch(
            "SELECT merge_no, rows_read, rows_inserted FROM merges ORDER BY 1"
        )
        assert [tuple(row) for row in merges] == [(1, 3, 3), (2, 3, 2)]
        assert await conn.fetchval("SELECT batch_no FROM sync_cursors") == 2


async def test_rows_copied_directly_fall_back_to_staging_when_a_key_objects(
    production_db: Target,
) -> None:
    """After some transactions without copies rows go straight in; a copy costs only its own way back."""
    writer = ProductionWriter(production_db)
    await writer.take_over()
    for number in range(1, 5):
        await writer.merge(transaction(number, orderbook_deltas=[delta(number)]))
    assert writer._rows is not None and writer._rows._is_direct("orderbook_deltas")
    merged = await writer.merge(
        transaction(5, orderbook_deltas=[delta(4), delta(5)], gaps=[gap(1)])
    )
    assert merged.inserted == {"orderbook_deltas": 1, "gaps": 1}
    assert not writer._rows._is_direct("orderbook_deltas")
    await writer.release()


async def test_a_trade_is_looked_up_by_its_id_within_a_day(production_db: Target) -> None:
    """Another time is the same trade, other content a conflict, two days apart another row."""
    writer, day = ProductionWriter(production_db), 86_400_000_000
    await writer.take_over()
    await writer.merge(transaction(1, trades=[trade("x", NOON)]))
    merged = await writer.merge(
        transaction(2, trades=[trade("x", NOON + day // 2, 7), trade("y", NOON)])
    )
    assert merged.inserted == {"trades": 1}
    assert merged.present == {"trades": ["x"]}
    assert [conflict.key for conflict in merged.conflicts] == ["x"]
    merged = await writer.merge(transaction(3, trades=[trade("x", NOON + 2 * day)]))
    assert merged.inserted == {"trades": 1}
    await writer.release()


async def test_a_trade_of_any_time_is_looked_up(production_db: Target) -> None:
    """The day around it ends where bigint does; a copy near its end is still the same trade."""
    writer, ends = ProductionWriter(production_db), (2**63 - 1, -(2**63))
    await writer.take_over()
    for number, moment in enumerate(ends):
        merged = await writer.merge(
            transaction(2 * number + 1, trades=[trade(f"{number}", moment)])
        )
        assert merged.inserted == {"trades": 1}
        near = moment - 5 if moment > 0 else moment + 5
        merged = await writer.merge(transaction(2 * number + 2, trades=[trade(f"{number}", near)]))
        assert merged.present == {"trades": [f"{number}"]}
    await writer.release()


async def test_refused_rows_leave_nothing_and_the_writer_goes_on(production_db: Target) -> None:
    """A key too long for its index: no row, cursor or number of that transaction stands; the next one is merged."""
    writer, long = ProductionWriter(production_db), random.Random(1).randbytes(4000).hex()
    await writer.take_over()
    await writer.merge(transaction(1, trades=[trade("x", NOON)]))
    with pytest.raises(RowsRefused, match="refused: ProgramLimit"):
        await writer.merge(transaction(2, trades=[trade("y", NOON), trade(long, NOON)]))
    merged = await writer.merge(transaction(2, trades=[trade("x", NOON), trade("z", NOON)]))
    assert (merged.merge_no, merged.inserted) == (2, {"trades": 1})
    async with connect(production_db) as conn:
        ids = await conn.fetch("SELECT trade_id FROM trades ORDER BY 1")
        assert [row[0] for row in ids] == ["x", "z"]
    await writer.release()


async def test_the_second_writer_is_refused_until_the_lease_ends_and_fences_the_first(
    production_db: Target,
) -> None:
    """The first one, paused meanwhile, writes nothing when it wakes."""
    first = ProductionWriter(production_db, ttl_s=3600)
    second = ProductionWriter(production_db, ttl_s=5)
    await first.take_over()
    await first.merge(transaction(1, orderbook_deltas=[delta(1)]))
    assert await second.take_over() is None
    async with connect(production_db) as conn:
        await conn.execute(
            "UPDATE writer_lease SET expires_at = clock_timestamp() - interval '1 s'"
        )
    standing = await second.take_over()
    assert standing is not None and standing.epoch == 2
    assert standing.cursors == {1: {LANE: 1}}
    with pytest.raises(WriterFenced):
        await first.merge(transaction(2, orderbook_deltas=[delta(2)]))
    await second.merge(transaction(2, orderbook_deltas=[delta(3)]))
    async with connect(production_db) as conn:
        sizes = await conn.fetch("SELECT size_delta FROM orderbook_deltas ORDER BY 1")
        assert [row[0] for row in sizes] == [1, 3]
    await second.release()


async def test_a_changed_merge_no_stops_the_writer_and_the_next_numbers_lie_above(
    production_db: Target,
) -> None:
    """A restored production is noticed even under the same epoch and holder; no number is used twice."""
    writer = ProductionWriter(production_db)
    await writer.take_over()
    for number in range(1, 6):
        await writer.merge(transaction(number, orderbook_deltas=[delta(number)]))
    async with connect(production_db) as conn:
        await conn.execute("UPDATE writer_lease SET merge_no = 2")
        await conn.execute("DELETE FROM merges WHERE merge_no > 2")
        with pytest.raises(HistoryChanged):
            await writer.merge(transaction(6, orderbook_deltas=[delta(6)]))
        assert await conn.fetchval("SELECT count(*) FROM orderbook_deltas") == 5
    standing = await writer.take_over()
    assert standing is not None and standing.merge_no == 5
    await writer.release()
    other = ProductionWriter(production_db)
    standing = await other.take_over(merge_no_floor=70)
    assert standing is not None and standing.merge_no == 70
    await other.release()


async def test_a_connection_cut_in_a_transaction_is_a_changed_history(
    production_db: Target,
) -> None:
    """Whether it was committed is found out by taking over again; nothing is written twice."""
    writer = ProductionWriter(production_db)
    await writer.take_over()
    assert writer._conn is not None
    pid = writer._conn.get_server_pid()
    async with connect(production_db) as conn:
        await conn.execute("SELECT pg_terminate_backend($1)", pid)
        with pytest.raises(HistoryChanged):
            await writer.merge(transaction(1, orderbook_deltas=[delta(1)]))
        standing = await writer.take_over()
        assert standing is not None and standing.cursors == {}
        await writer.merge(transaction(1, orderbook_deltas=[delta(1)]))
        assert await conn.fetchval("SELECT count(*) FROM orderbook_deltas") == 1
    await writer.release()


async def test_identities_are_admitted_once_and_a_second_one_of_a_zone_is_told_of(
    production_db: Target,
) -> None:
    """The same database keeps its number; an emptied one gets another."""
    writer = ProductionWriter(production_db)
    await writer.take_over()
    one, two = uuid4(), uuid4()
    first = await writer.admit(one, "a")
    assert first.is_new and await writer.admit(one, "a") == first.__class__(
        first.gatherer, "a", "ok", "", False, False, {}, {}, frozenset()
    )
    assert (await writer.admit(two, "a")).gatherer != first.gatherer
    await writer.quarantine(first.gatherer, "lane=x batch_no=1 hash")
    again = await writer.admit(one, "a")
    assert (again.status, again.detail) == ("quarantined", "lane=x batch_no=1 hash")
    async with connect(production_db) as conn:
        kinds = await conn.fetch("SELECT kind FROM operational_events ORDER BY at")
        assert [row[0] for row in kinds] == [
            "gatherer_admitted", "gatherer_new_identity", "gatherer_quarantined"
        ]  # fmt: skip
    await writer.release()


async def test_a_cursor_never_goes_back(production_db: Target) -> None:
    """A page that was read twice, the older one merged last, leaves the cursor where it was."""
    writer = ProductionWriter(production_db)
    await writer.take_over()
    await writer.merge(transaction(5, orderbook_deltas=[delta(1)]))
    await writer.merge(transaction(4, orderbook_deltas=[delta(2)]))
    async with connect(production_db) as conn:
        assert await conn.fetchval("SELECT batch_no FROM sync_cursors") == 5
    await writer.release()


async def test_a_status_is_read_while_the_lease_row_is_locked(production_db: Target) -> None:
    """Who waits for a re-admission asks outside of the fence, and holds up nobody."""
    writer = ProductionWriter(production_db)
    await writer.take_over()
    admission = await writer.admit(uuid4(), "a")
    await writer.quarantine(admission.gatherer, "why")
    async with connect(production_db) as conn, conn.transaction():
        await conn.execute("SELECT FROM writer_lease FOR UPDATE")
        async with asyncio.timeout(60):
            assert await writer.status_of(admission.gatherer) == "quarantined"
            assert await writer.status_of(99) is None
    await writer.release()


async def test_old_merges_are_forgotten_but_never_the_newest(production_db: Target) -> None:
    """The table tells of the last days only, and numbers go on from its newest row whatever its age."""
    async with connect(production_db) as conn:
        await conn.execute(
            "INSERT INTO merges SELECT g, now() - (100 - g) * interval '1 day', 1, 1 FROM generate_series(1, 65) g"
        )
        assert await forget_merges(conn, 40.5 * 86_400.0) == 59
        assert await forget_merges(conn, 10 * 86_400.0) == 65 - 60
        assert await conn.fetchval("SELECT array_agg(merge_no) FROM merges") == [65]


async def test_a_copy_of_the_cursors_bears_one_time_after_the_fence(production_db: Target) -> None:
    """Waiting for the lease's row does not make the copy older than what it holds."""
    writer = ProductionWriter(production_db)
    await writer.take_over()
    async with connect(production_db) as conn:
        async with conn.transaction():
            await conn.execute("SELECT FROM writer_lease FOR UPDATE")
            copying = asyncio.create_task(writer.copy_cursors(1.0, 60.0))
            while not await conn.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
                await conn.execute("SELECT pg_sleep(0.01)")
            await conn.execute(
                "INSERT INTO sync_cursors SELECT 1, gen_random_uuid(), 5, 'deltas' FROM generate_series(1, 3)"
            )
        assert await copying
        query = (
            "SELECT count(*), count(DISTINCT copied_at), min(copied_at) > (SELECT max(merged_at) FROM sync_cursors)"
            " FROM sync_cursor_copies"
        )
        found = await conn.fetchrow(query)
        assert found is not None and tuple(found) == (3, 1, True)
    await writer.release()


async def test_the_former_identity_of_a_zone_is_replaced_and_may_return(
    production_db: Target,
) -> None:
    """It holds no window open any more; a quarantined one stays so; one that comes back takes its zone again."""
    writer = ProductionWriter(production_db)
    await writer.take_over()
    identities = [uuid4() for _ in range(3)]
    numbers = [(await writer.admit(identity, "a")).gatherer for identity in identities[:2]]
    other = (await writer.admit(uuid4(), "b")).gatherer
    await writer.quarantine(numbers[1], "why")
    numbers.append((await writer.admit(identities[2], "a")).gatherer)
    async with connect(production_db) as conn:
        query = "SELECT gatherer, status FROM gatherers"
        first, second, third = numbers
        assert {tuple(row) for row in await conn.fetch(query)} == {
            (first, "replaced"), (second, "quarantined"), (third, "ok"), (other, "ok")
        }  # fmt: skip
        again = await writer.admit(identities[0], "a")
        assert (again.gatherer, again.status, again.is_new) == (first, "ok", False)
        assert {tuple(row) for row in await conn.fetch(query)} == {
            (first, "ok"), (second, "quarantined"), (third, "replaced"), (other, "ok")
        }  # fmt: skip
    await writer.release()


async def test_trade_look_ups_use_the_key_whatever_the_planner_guesses(
    production_db: Target,
) -> None:
    """No plan of the look-ups reads a whole table."""
    async with connect(production_db) as conn:
        for name in ("trades", "orderbook_deltas", "tickers"):
            sql = merge_sql.statements(name)
            await conn.execute(sql.create_stage)
            await conn.execute("SET enable_seqscan = off")
            assert sql.present is not None
            plan = await conn.fetch("EXPLAIN " + sql.present.replace("$1", "1"))
            text = "\n".join(row[0] for row in plan)
            assert f"Seq Scan on {name}" not in text, text
