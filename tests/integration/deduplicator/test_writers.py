"""What writers do to their transactions: held open, rolled back, cut in COMMIT. Nothing is skipped, nothing doubled."""

import asyncio
from collections import Counter
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from asyncpg.transaction import Transaction

from libs.marketdata.tables import Family
from libs.store.errors import StoreUnavailable
from libs.store.pool import Connection, connect
from tests.integration.deduplicator.conftest import Databases
from tests.integration.deduplicator.world import (
    CLOCK,
    Zone,
    hear,
    keys,
    make_truth,
    merged_keys,
    running,
    ticker,
    true_keys,
)
from tests.integration.store.lanes_support import HeldCommits


async def hold_only(conn: Connection, lane: UUID) -> HeldCommits:
    """Let the commits of one lane wait, inside the server; those of others go on."""
    commits = HeldCommits(conn)
    await commits.install()
    await conn.execute("drop trigger held on ingest_batches")
    await conn.execute(
        "create constraint trigger held after insert on ingest_batches deferrable initially deferred"
        f" for each row when (new.lane = '{lane}') execute function wait_at_commit()"
    )
    await commits.hold()
    return commits


async def test_a_transaction_held_open_delays_nobody_and_nothing_of_it_is_skipped(
    databases: Databases,
) -> None:
    """While one batch hangs in its COMMIT, later ones of other lanes and zones are merged; then it follows."""
    truth = make_truth(71, 900)
    rows = hear(truth)
    zone, other = databases.zones["a"], Zone(databases.zones["a"].pool, 71)
    async with (
        running(databases.gatherers, databases.production) as deduplicator,
        connect(databases.gatherers["a"]) as conn,
        asyncio.TaskGroup() as tasks,
    ):
        await zone.write(rows[:100])
        commits = await hold_only(conn, zone.writers[Family.DELTAS].lane)
        held = tasks.create_task(zone.write(rows[100:200], batch_max=0))
        await commits.until_waiting()
        # The same database's other lanes, committed later with larger numbers of the database.
        await other.write(rows[300:700])
        await zone.write_other("tickers", [ticker(1, CLOCK.now())], Family.TRADES)
        await databases.zones["b"].write(rows[400:800])
        await databases.zones["c"].write(rows[600:])
        await deduplicator.drained()
        expected = keys(rows[:100]) | keys(rows[300:])
        assert sorted(await merged_keys(databases.conn)) == sorted(expected)
        assert await databases.conn.fetchval("SELECT count(*) FROM tickers") == 1
        assert not held.done()
        await commits.let_go()
        await held
        await zone.write(rows[200:300])
        await deduplicator.drained()
    await other.close()
    assert sorted(await merged_keys(databases.conn)) == sorted(true_keys(truth))


class Shaky:
    """Every fiftieth flush of a gatherer's writer fails, each time at another place.

    Before the ledger row, after it, after the rows, at a COMMIT that the server never gets, at one whose answer is lost.
    """

    PLACES = ("ledger", "copy", "rows", "commit", "answer")
    EVERY = 50

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._fetchval = asyncpg.Connection.fetchval
        self._copy = asyncpg.Connection.copy_to_table
        self._commit = Transaction.commit
        self._flushes = 0
        self._place = ""
        self._conn: Any = None
        self.failed = Counter[str]()
        shaky = self

        async def fetchval(conn: Any, query: str, *args: Any, **more: Any) -> Any:
            if "insert into ingest_batches" in query:
                shaky.choose(conn)
                await shaky.maybe_end(conn, "ledger")
                found = await shaky._fetchval(conn, query, *args, **more)
                await shaky.maybe_end(conn, "copy")
                return found
            return await shaky._fetchval(conn, query, *args, **more)

        async def copy(conn: Any, table_name: str, **more: Any) -> str:
            done = await shaky._copy(conn, table_name, **more)
            await shaky.maybe_end(conn, "rows")
            return done

        async def commit(transaction: Any) -> None:
            await shaky.maybe_end(transaction._connection, "commit")
            await shaky._commit(transaction)
            await shaky.maybe_end(transaction._connection, "answer")

        patch.setattr(asyncpg.Connection, "fetchval", fetchval)
        patch.setattr(asyncpg.Connection, "copy_to_table", copy)
        patch.setattr(Transaction, "commit", commit)

    def choose(self, conn: Any) -> None:
        """Decide about the flush that begins on this connection."""
        self._flushes += 1
        turn, left = divmod(self._flushes, self.EVERY)
        self._conn = conn
        self._place = "" if left else self.PLACES[turn % len(self.PLACES)]

    async def maybe_end(self, conn: Any, place: str) -> None:
        """End the writer's backend here, if here it is to be."""
        if place == self._place and conn is self._conn:
            self._place = ""
            self.failed[place] += 1
            await conn.execute("select pg_terminate_backend(pg_backend_pid())")


async def test_two_percent_of_the_flushes_fail_and_are_repeated(
    databases: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real writer repeats each one under its number, whether or not it was committed; all of it is merged once."""
    truth = make_truth(72, 1800)
    heard = [hear(truth, [(n * 600, n * 600 + 90)]) for n in range(3)]
    shaky = Shaky(monkeypatch)

    async def flush_all(zone: Zone, rows: list[Any]) -> None:
        for first in range(0, len(rows), 10):
            while True:
                try:
                    await zone.write(rows[first : first + 10], batch_max=0)
                    break
                except StoreUnavailable:
                    continue

    async with running(databases.gatherers, databases.production) as deduplicator:
        # One after the other, or a flush that is chosen would fail in another's transaction.
        for zone, rows in zip(databases.zones.values(), heard, strict=True):
            await flush_all(zone, rows)
        await deduplicator.drained()
    assert set(shaky.failed) == set(Shaky.PLACES)
    assert sum(shaky.failed.values()) >= 10
    assert sorted(await merged_keys(databases.conn)) == sorted(true_keys(truth))
    for zone, target, rows in zip(
        databases.zones.values(), databases.gatherers.values(), heard, strict=True
    ):
        writer = zone.writers[Family.DELTAS]
        assert writer.confirmed == (len(rows) + 9) // 10
        async with connect(target) as conn:
            assert await conn.fetchval("SELECT count(*) FROM lanes") == 1
            assert await conn.fetchval("SELECT count(*) FROM orderbook_deltas") == len(rows)
        cursor = "SELECT batch_no FROM sync_cursors WHERE lane = $1"
        assert await databases.conn.fetchval(cursor, writer.lane) == writer.confirmed
