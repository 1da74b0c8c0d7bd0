"""A lane on a real server: contents, doubt, loss and succession."""

import asyncio
import json
from uuid import UUID, uuid4

import asyncpg
import pytest

from libs.marketdata.tables import Family
from libs.store.batches import seal
from libs.store.errors import LaneLost, SchemaAway, StoreUnavailable, StoreUnsafe
from libs.store.lane_closing import close_dead_lanes
from libs.store.lanes import LaneConflict, LaneWriter, checks_sound
from libs.store.notify import Notifier
from libs.store.pages import read_page
from libs.store.pool import Connection, Target
from tests.integration.store.lanes_support import (
    HeldCommits,
    backend_of,
    delta,
    deltas,
    ledger_of,
    listened,
    opened,
    seqs,
    trade,
    writer_of,
)


async def stored_seqs(conn: Connection) -> list[int]:
    """Every stored delta's seq, sorted."""
    rows = await conn.fetch("select seq from orderbook_deltas order by seq")
    return [row["seq"] for row in rows]


async def test_a_batch_stands_with_its_ledger_row(gatherer_db: Target) -> None:
    """Rows of every table are stored under the batch_id of one ledger row that says what they are."""
    async with opened(gatherer_db) as (pool, conn):
        writer = writer_of(pool)
        batch = seal({"orderbook_deltas": [delta(1), delta(2)], "listen_ranges": [listened(1, 2)]})
        done = await writer.write(batch)
        assert (done.lane, done.batch_no) == (writer.lane, 1)
        (row,) = await ledger_of(conn, writer.lane)
        assert row["batch_id"] == done.batch_id
        assert row["table_names"] == ["orderbook_deltas", "listen_ranges"]
        assert row["row_counts"] == [2, 1]
        assert tuple(row["row_hashes"]) == batch.digest.row_hashes
        assert row["times_from"] == [table.time_from for table in batch.tables]
        assert json.loads(row["sids"])[0]["to"] == 2
        found = await conn.fetch("select * from orderbook_deltas order by seq")
        assert [tuple(r.values()) for r in found] == [
            (done.batch_id, *delta(1)),
            (done.batch_id, *delta(2)),
        ]
        ranges = await conn.fetchrow("select batch_id, row_no, seq_from, seq_to from listen_ranges")
        assert ranges is not None
        assert tuple(ranges.values()) == (done.batch_id, 1, 1, 2)
        await writer.close()


async def test_numbers_run_on_and_close_records_the_last(gatherer_db: Target) -> None:
    """Batches of a lane are 1, 2, 3; closing records the last number; the notifier hears of each commit."""
    async with opened(gatherer_db) as (pool, conn):
        notifier = Notifier(pool)
        instance = uuid4()
        writer = LaneWriter(
            pool, family=Family.TRADES, process="p", instance=instance, notifier=notifier
        )
        await writer.open()
        await writer.open()
        for number in (1, 2, 3):
            assert (await writer.write(seal({"trades": [trade(number)]}))).batch_no == number
        assert await notifier.send_once()
        await writer.close()
        row = await conn.fetchrow("select * from lanes")
        assert row is not None
        assert (row["lane"], row["family"], row["process"], row["instance"], row["last_batch_no"]) == (
            writer.lane, "trades", "p", instance, 3,
        )  # fmt: skip
        assert row["closed_at"] is not None


async def test_a_connection_lost_before_commit_leaves_nothing(
    gatherer_db: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Backend killed between COPY and COMMIT: nothing stands; the same batch then commits once, same number."""
    async with opened(gatherer_db) as (pool, conn):
        writer = writer_of(pool)
        await writer.write(deltas(1))
        commit, pid = asyncpg.transaction.Transaction.commit, await backend_of(writer)

        async def killed(self: asyncpg.transaction.Transaction) -> None:
            await conn.fetchval("select pg_terminate_backend($1, 5000)", pid)
            await commit(self)

        with monkeypatch.context() as patch:
            patch.setattr(asyncpg.transaction.Transaction, "commit", killed)
            with pytest.raises(StoreUnavailable):
                await writer.write(deltas(2))
        assert await stored_seqs(conn) == [1]
        assert (await writer.write(deltas(2))).batch_no == 2
        assert (await writer.write(deltas(3))).batch_no == 3
        assert await stored_seqs(conn) == [1, 2, 3]
        await writer.close()


async def test_a_confirmation_lost_after_commit_is_found(
    gatherer_db: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Backend killed right after COMMIT: the repeated batch is found under its number, with the batch_id it has."""
    async with opened(gatherer_db) as (pool, conn):
        writer = writer_of(pool)
        await writer.open()
        commit, pid = asyncpg.transaction.Transaction.commit, await backend_of(writer)

        async def unheard(self: asyncpg.transaction.Transaction) -> None:
            await commit(self)
            await conn.fetchval("select pg_terminate_backend($1, 5000)", pid)
            raise asyncpg.ConnectionDoesNotExistError("killed")

        with monkeypatch.context() as patch:
            patch.setattr(asyncpg.transaction.Transaction, "commit", unheard)
            with pytest.raises(StoreUnavailable):
                await writer.write(deltas(1))
        assert await stored_seqs(conn) == [1]
        done = await writer.write(deltas(1))
        (row,) = await ledger_of(conn, writer.lane)
        assert (done.batch_no, done.batch_id) == (1, row["batch_id"])
        assert (await writer.write(deltas(2))).batch_no == 2
        assert await stored_seqs(conn) == [1, 2]
        await writer.close()


@pytest.mark.parametrize("outcome", ["commits", "rolls back"])
async def test_a_commit_still_running_is_waited_for(gatherer_db: Target, outcome: str) -> None:
    """The client is gone while its COMMIT still runs: the repetition waits for it and stands exactly once after it."""
    async with opened(gatherer_db) as (pool, conn):
        commits = HeldCommits(conn)
        await commits.install()
        writer = writer_of(pool)
        await writer.open()
        pid = await backend_of(writer)
        await commits.hold()
        async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
            first = tasks.create_task(writer.write(deltas(1)))
            await commits.until_waiting()
            first.cancel()
            await asyncio.wait([first])
            again = tasks.create_task(writer.write(deltas(1)))
            blocked = (
                "select count(*) from pg_locks where locktype = 'transactionid' and not granted"
            )
            while not await conn.fetchval(blocked):
                await conn.execute("select pg_sleep(0.01)")
            assert not again.done()
            if outcome == "rolls back":
                await conn.execute("select pg_terminate_backend($1)", pid)
            await commits.let_go()
        assert again.result().batch_no == 1
        assert await stored_seqs(conn) == [1]
        assert [row["batch_no"] for row in await ledger_of(conn, writer.lane)] == [1]
        await writer.close()


async def test_another_batch_under_a_number_in_doubt_is_refused(
    gatherer_db: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a commit is in doubt only the same batch may be offered: a number never has two contents."""
    async with opened(gatherer_db) as (pool, conn):
        writer = writer_of(pool)
        await writer.open()

        async def lost(self: asyncpg.transaction.Transaction) -> None:
            raise asyncpg.ConnectionDoesNotExistError("lost")

        with monkeypatch.context() as patch:
            patch.setattr(asyncpg.transaction.Transaction, "commit", lost)
            with pytest.raises(StoreUnavailable):
                await writer.write(deltas(1))
        with pytest.raises(LaneConflict, match="in doubt"):
            await writer.write(deltas(2))
        assert (await writer.write(deltas(1))).batch_no == 1
        assert await stored_seqs(conn) == [1]
        await writer.close()


async def test_a_second_writer_on_the_lane_stops_us(gatherer_db: Target) -> None:
    """Our next number held by another batch is a conflict, not to be retried."""
    async with opened(gatherer_db) as (pool, conn):
        ours, other = writer_of(pool), writer_of(pool)
        await ours.write(deltas(1))
        other.lane, other.confirmed = ours.lane, 1
        await other.write(deltas(2))
        with pytest.raises(LaneConflict) as caught:
            await ours.write(deltas(3))
        assert not caught.value.retryable
        assert await stored_seqs(conn) == [1, 2]
        await ours.close()
        await other.close()


async def test_a_database_gone_back_loses_the_lane(gatherer_db: Target) -> None:
    """Restored from an older copy (last committed below confirmed): the lane is left; the new one starts at 1."""
    async with opened(gatherer_db) as (pool, conn):
        writer = writer_of(pool)
        for number in (1, 2, 3):
            await writer.write(deltas(number))
        old = writer.lane
        await conn.execute("delete from ingest_batches where batch_no > 1")
        await conn.execute("delete from orderbook_deltas where seq > 1")
        for _ in range(2):
            with pytest.raises(LaneLost) as caught:
                await writer.write(deltas(4))
            assert caught.value.reason == "database_went_back"
        await writer.reopen()
        done = await writer.write(deltas(4))
        assert (done.batch_no, done.lane) == (1, writer.lane)
        assert done.lane != old
        closed = await conn.fetchval("select last_batch_no from lanes where lane = $1", old)
        assert closed == 1
        assert await stored_seqs(conn) == [1, 4]
        await writer.close()


@pytest.mark.parametrize("gone", ["ingest_batches", "orderbook_deltas"])
async def test_a_table_that_is_gone_for_a_while_is_waited_for(
    gatherer_db: Target, gone: str
) -> None:
    """A lane that is open counts the database as away and says what is missing; the same batch is then its next number."""
    async with opened(gatherer_db) as (pool, conn):
        writer = writer_of(pool)
        await writer.write(deltas(1))
        await conn.execute(f"alter table {gone} rename to elsewhere")
        for _ in range(2):
            with pytest.raises(SchemaAway, match=gone):
                await writer.write(deltas(2))
        await conn.execute(f"alter table elsewhere rename to {gone}")
        assert (await writer.write(deltas(2))).batch_no == 2
        assert await stored_seqs(conn) == [1, 2]
        await writer.close()


async def test_a_loss_shows_at_the_next_connection(gatherer_db: Target) -> None:
    """Also a writer with nothing confirmed since looks at the lane first when it connects again."""
    async with opened(gatherer_db) as (pool, conn):
        writer = writer_of(pool)
        await writer.write(deltas(1))
        await conn.fetchval("select pg_terminate_backend($1, 5000)", await backend_of(writer))
        await conn.execute("delete from ingest_batches")
        await conn.execute("delete from lanes")
        with pytest.raises(StoreUnavailable):
            await writer.write(deltas(2))
        with pytest.raises(LaneLost) as caught:
            await writer.write(deltas(2))
        assert caught.value.reason == "unknown_lane"
        await writer.reopen()
        assert (await writer.write(deltas(2))).batch_no == 1
        await writer.close()


async def test_a_successor_closes_the_lane(gatherer_db: Target) -> None:
    """The next start of a process closes the dead one's lanes, not its own; a writer on a closed lane leaves it."""
    async with opened(gatherer_db) as (pool, conn):
        dead, successor = uuid4(), uuid4()
        old, new = writer_of(pool, "c", dead), writer_of(pool, "c", successor)
        other = writer_of(pool, "another", dead)
        await old.write(deltas(1))
        await new.open()
        await other.open()
        closed = await close_dead_lanes(conn, process="c", survivor=successor)
        assert closed == [old.lane]
        with pytest.raises(LaneLost) as caught:
            await old.write(deltas(2))
        assert caught.value.reason == "closed"
        await old.reopen()
        assert (await old.write(deltas(2))).batch_no == 1
        assert set(await close_dead_lanes(conn, instance=dead)) == {old.lane, other.lane}
        assert await close_dead_lanes(conn, instance=dead) == []
        assert (await new.write(deltas(3))).batch_no == 1
        for writer in (old, new, other):
            await writer.close()


async def test_closing_waits_for_a_commit_that_runs(gatherer_db: Target) -> None:
    """last_batch_no counts the batch whose commit was running when the successor came."""
    async with opened(gatherer_db) as (pool, conn):
        commits = HeldCommits(conn)
        await commits.install()
        instance = uuid4()
        writer = writer_of(pool, instance=instance)
        await writer.write(deltas(1))
        await commits.hold()
        async with asyncio.timeout(60), pool.acquire() as beside, asyncio.TaskGroup() as tasks:
            running = tasks.create_task(writer.write(deltas(2)))
            await commits.until_waiting()
            closing = tasks.create_task(close_dead_lanes(beside, instance=instance))
            while not await conn.fetchval(
                "select count(*) from pg_locks where not granted and locktype <> 'advisory'"
            ):
                await conn.execute("select pg_sleep(0.01)")
            assert not closing.done()
            await commits.let_go()
        assert running.result().batch_no == 2
        assert closing.result() == [writer.lane]
        assert await conn.fetchval("select last_batch_no from lanes") == 2
        await writer.close()


async def test_a_batch_in_doubt_that_stands_on_a_closed_lane_is_confirmed(
    gatherer_db: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Committed, unheard, then closed by a successor: the repetition is told of its number, the next batch of the loss."""
    async with opened(gatherer_db) as (pool, conn):
        instance = uuid4()
        writer = writer_of(pool, instance=instance)
        await writer.open()
        commit = asyncpg.transaction.Transaction.commit

        async def unheard(self: asyncpg.transaction.Transaction) -> None:
            await commit(self)
            raise asyncpg.ConnectionDoesNotExistError("lost")

        with monkeypatch.context() as patch:
            patch.setattr(asyncpg.transaction.Transaction, "commit", unheard)
            with pytest.raises(StoreUnavailable):
                await writer.write(deltas(1))
        await close_dead_lanes(conn, instance=instance)
        assert (await writer.write(deltas(1))).batch_no == 1
        with pytest.raises(LaneLost):
            await writer.write(deltas(2))
        assert await stored_seqs(conn) == [1]
        await writer.close()


async def test_a_refused_row_leaves_the_writer_usable(gatherer_db: Target) -> None:
    """An error inside the transaction rolls it back whole; the writer goes on with the same number."""
    async with opened(gatherer_db) as (pool, conn):
        writer = writer_of(pool)
        await writer.write(deltas(1))
        await conn.execute("alter table orderbook_deltas add constraint no_two check (seq <> 2)")
        with pytest.raises(asyncpg.CheckViolationError):
            await writer.write(deltas(2))
        assert (await writer.write(deltas(3))).batch_no == 2
        assert await stored_seqs(conn) == [1, 3]
        await writer.close()


@pytest.mark.parametrize("parameter", ["fsync", "synchronous_commit"])
async def test_a_server_that_may_lose_commits_is_refused(
    gatherer_db: Target, parameter: str
) -> None:
    """With fsync or synchronous_commit off a server is refused by the parameter's name, not retried."""
    async with opened(gatherer_db) as (pool, conn):
        await checks_sound(conn)
        if parameter == "fsync":
            await conn.execute("alter system set fsync = off")
        else:
            await conn.execute(
                f'alter database "{gatherer_db.database}" set synchronous_commit = off'
            )
        await conn.execute("select pg_reload_conf()")
        try:
            async with asyncio.timeout(60), opened(gatherer_db) as (_, fresh):
                while await fresh.fetchval("select current_setting($1)", parameter) != "off":
                    await fresh.execute("select pg_sleep(0.01)")
            with pytest.raises(StoreUnsafe, match=parameter) as caught:
                await writer_of(pool).open()
            assert not caught.value.retryable
        finally:
            await conn.execute("alter system reset fsync")
            await conn.execute("select pg_reload_conf()")


async def test_four_writers_and_a_reader_skip_and_double_nothing(gatherer_db: Target) -> None:
    """Four lanes at once, a transaction held open all the time, a reader behind them: every row exactly once."""
    per_lane = 60
    async with opened(gatherer_db) as (pool, conn), opened(gatherer_db) as (_, reader):
        writers = [writer_of(pool, f"c-{n}") for n in range(4)]

        async def fill(place: int, writer: LaneWriter) -> None:
            for number in range(per_lane):
                size = 1 + (number * 7 + place) % 5
                first = (place * per_lane + number) * 10
                await writer.write(deltas(first, size))
            await writer.close()

        await conn.execute("begin")
        await conn.execute("create table held_open (one int)")
        read: list[int] = []
        numbers: dict[object, list[int]] = {}
        cursors: dict[UUID, int] = {}
        async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
            filling = [tasks.create_task(fill(n, writer)) for n, writer in enumerate(writers)]
            while True:
                finished = all(task.done() for task in filling)
                page = await read_page(reader, cursors, rows_max=37)
                for batch in page.batches:
                    numbers.setdefault(batch.lane, []).append(batch.batch_no)
                read += seqs(page.batches)
                cursors |= {lane.lane: lane.read for lane in page.lanes}
                if finished and not page.batches:
                    break
        await conn.execute("rollback")
        expected = [
            (place * per_lane + number) * 10 + n
            for place in range(4)
            for number in range(per_lane)
            for n in range(1 + (number * 7 + place) % 5)
        ]
        assert sorted(read) == expected
        assert all(found == list(range(1, per_lane + 1)) for found in numbers.values())
        assert (await read_page(reader, cursors, 37)).lanes == []
