"""What the tests of the ledger protocol share: rows, writers, and a commit that can be held."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID, uuid4

import asyncpg

from libs.marketdata.rows import DeltaRow, ListenRangeRow, TradeRow
from libs.marketdata.tables import Family
from libs.store.batches import SealedBatch, seal
from libs.store.lanes import LaneWriter
from libs.store.pages import ReadBatch
from libs.store.pool import Connection, Pool, Target, connect, open_pool

NOON = 1_700_006_400_000_000
"""An instant, microseconds since the epoch."""

CONNECTION = UUID("01890000-0000-7000-8000-000000000001")


def delta(number: int, *, exchange_ts: int = NOON) -> DeltaRow:
    """A delta told apart by its seq."""
    return DeltaRow(
        exchange_ts, NOON, -5400, number, 52_000, 1, 3, number % 2 == 0, CONNECTION, "TICKER-É", None, 4
    )  # fmt: skip


def listened(seq_from: int, seq_to: int) -> ListenRangeRow:
    """A claim as a connector hands it over: not numbered yet."""
    return ListenRangeRow(
        NOON, seq_from, seq_to, NOON, NOON, 1_000_000, 3, 0, CONNECTION, "orderbook_delta"
    )


def trade(number: int) -> TradeRow:
    """A trade that came by REST."""
    return TradeRow(
        NOON, NOON, 100, 40_000, 60_000, True, f"trade-{number}", "TICKER", None, None, None, None, None
    )  # fmt: skip


def deltas(first: int, count: int = 1) -> SealedBatch:
    """A batch of `count` deltas numbered from `first`."""
    return seal({"orderbook_deltas": [delta(n) for n in range(first, first + count)]})


def writer_of(
    pool: Pool, process: str = "connector-a-0", instance: UUID | None = None
) -> LaneWriter:
    """A writer of deltas."""
    return LaneWriter(pool, family=Family.DELTAS, process=process, instance=instance or uuid4())


def seqs(batches: list[ReadBatch]) -> list[int]:
    """The seq of every delta of these batches, in order."""
    return [row.seq for batch in batches for row in batch.rows.get("orderbook_deltas", [])]


async def backend_of(writer: LaneWriter) -> int:
    """The server's process behind a writer's connection."""
    assert writer._conn is not None
    return writer._conn.get_server_pid()


@asynccontextmanager
async def opened(target: Target) -> AsyncIterator[tuple[Pool, Connection]]:
    """A pool for writers and a connection beside it; writers that were not closed end with their connections."""
    async with open_pool(target) as pool, connect(target) as conn:
        yield pool, conn
        pool.terminate()


class HeldCommits:
    """Makes the COMMIT of every batch with `number` rows of ledger wait, inside the server, until let go."""

    KEY = 4711

    def __init__(self, conn: Connection) -> None:
        self._conn = conn

    async def install(self) -> None:
        """From now on commits of new ledger rows wait for `hold` to be over."""
        await self._conn.execute(
            "create or replace function wait_at_commit() returns trigger language plpgsql as"
            " $$ begin perform pg_advisory_xact_lock_shared(4711); return null; end $$"
        )
        await self._conn.execute(
            "create constraint trigger held after insert on ingest_batches deferrable initially deferred"
            " for each row execute function wait_at_commit()"
        )

    async def hold(self) -> None:
        """Commits begin to wait."""
        await self._conn.execute("select pg_advisory_lock(4711)")

    async def let_go(self) -> None:
        """Waiting commits go on."""
        await self._conn.execute("select pg_advisory_unlock(4711)")

    async def until_waiting(self, count: int = 1) -> None:
        """Return once that many commits wait; bounded by the caller's time-out."""
        query = "select count(*) from pg_locks where locktype = 'advisory' and objid = 4711 and not granted"
        while await self._conn.fetchval(query) < count:
            await self._conn.execute("select pg_sleep(0.01)")


async def ledger_of(conn: Connection, lane: UUID) -> list[asyncpg.Record]:
    """The ledger rows of a lane, in order."""
    return await conn.fetch("select * from ingest_batches where lane = $1 order by batch_no", lane)
