"""Deaths that nobody told: whatever came between a process's end and its successor, a hole has its cause, once."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from libs.marketdata.rows import (
    DeltaRow,
    GapRow,
    ListenClosedRow,
    ListenOpenedRow,
    ListenRangeRow,
    gap,
)
from libs.marketdata.tables import Family
from libs.runtime.clock import ManualClock
from libs.store import control
from libs.store.batches import seal
from libs.store.errors import StoreUnavailable
from libs.store.lanes import LaneWriter
from libs.store.pool import Connection, Pool, Target, connect, open_pool
from libs.store.scribe import Scribe
from libs.telemetry.metrics import Metrics
from services.connector.successor import succeed
from services.registry.deaths import Deaths
from services.registry.housekeeping import Housekeeper
from tests.integration.registry.world import running_zone
from tests.unit.registry.factories import NOW

ONE, TWO, THREE, FOUR = (UUID(int=n) for n in range(1, 5))
POD = "connector-a-7d9f-x2x4v"
Rows = dict[str, Sequence[tuple[object, ...]]]


def heard(connection: UUID, channel: str = "orderbook_delta", seq_to: int = 5) -> ListenRangeRow:
    return ListenRangeRow(NOW, 1, seq_to, 1, 9, 0, 1, 0, connection, channel)


def closed(connection: UUID, reason: str, ticker: str | None = None) -> ListenClosedRow:
    return ListenClosedRow(NOW, 5, 9, 1, 1, 0, connection, "orderbook_delta", reason, ticker)


LEFT_OPEN: Rows = {
    "listen_ranges": [heard(ONE), heard(TWO), heard(THREE), heard(FOUR)],
    "listen_opened": [
        ListenOpenedRow(NOW, 1, 1, 0, 1, 1, 0, ONE, "orderbook_delta", "orderbook/7", "A")
    ],
    "orderbook_deltas": [DeltaRow(1, NOW, 100, 3, 100, 1, 1, True, TWO, "B", 2, None)],
    # A stream's end is not its sid's, nor is a restart; FOUR was ended.
    "listen_closed": [closed(ONE, "unsubscribed", "A"), closed(TWO, "seq"), closed(FOUR, "stop")],
}
UNCLOSED = {ONE, TWO, THREE}


@dataclass
class World:
    """A zone's database, and a registry's parts that look at it."""

    pool: Pool
    conn: Connection

    async def hear(
        self, rows: Rows, process: str = POD, instance: UUID | None = None
    ) -> LaneWriter:
        """Write as a connector does, and leave the lane open."""
        lane = LaneWriter(
            self.pool, family=Family.DELTAS, process=process, instance=instance or uuid4()
        )
        await lane.write(seal(rows))
        return lane

    async def bury(self) -> None:
        """Close the lanes of the dead as the registry's housekeeping does."""
        await self.conn.execute("update shards set expires_at = expires_at - interval '1 hour'")
        await self.conn.execute("update lanes set opened_at = opened_at - interval '1 hour'")
        await Housekeeper(self.pool, ManualClock(NOW), uuid4(), 0.0, 3600.0).round_once()
        assert await self.conn.fetchval("select bool_and(closed_at is not null) from lanes")

    async def pass_time(self) -> None:
        """Let two minutes pass over the lanes that are closed."""
        await self.conn.execute("update lanes set closed_at = closed_at - interval '2 minutes'")

    def scribe(self) -> Scribe:
        lane = LaneWriter(self.pool, family=Family.REST, process="registry", instance=uuid4())
        return Scribe(lane, "rest", now=lambda: NOW + 7, stop=asyncio.Event(), metrics=Metrics("a"))

    async def registry(self, turns: int = 2) -> int:
        """Begin a new registry, which knows nothing; return of how many sids it told in its turns."""
        scribe = self.scribe()
        deaths = Deaths(self.pool, scribe, lambda: NOW + 7)
        for _ in range(turns):
            await deaths.tell_once()
        await scribe.close()
        return int(deaths.facts()["deaths_told"])

    async def gaps(self) -> list[GapRow]:
        rows = await self.conn.fetch(f"select {', '.join(GapRow._fields)} from gaps")
        return sorted((GapRow(*row) for row in rows), key=lambda row: str(row.connection))


@asynccontextmanager
async def world(target: Target) -> AsyncIterator[World]:
    async with open_pool(target) as pool, connect(target) as conn:
        await conn.execute(
            "insert into markets (ticker, event_ticker, series_ticker, status, is_combo, wanted, slot, updated_at,"
            " content_hash, body) values ('B', 'B', 'B', 'active', false, true, 'orderbook/8', 0, 0, '{}')"
        )
        yield World(pool, conn)
        pool.terminate()


def bare(row: GapRow) -> GapRow:
    """The row without when and in which place it was written."""
    return row._replace(received_at=0, received_to=0, row_no=0)


async def test_a_pod_without_a_successor_is_told_of_once(gatherer_db: Target) -> None:
    """Not before a minute, then with the rows that a successor would write; no later turn or registry adds any."""
    async with world(gatherer_db) as zone:
        instance = uuid4()
        await zone.hear(LEFT_OPEN, instance=instance)
        await control.register(zone.conn, POD, instance, template_hash="", capacity=1)
        trial = zone.conn.transaction(isolation="read_committed")
        await trial.start()
        wanted = await succeed(zone.conn, POD, uuid4(), NOW)
        await trial.rollback()
        assert {row.connection for row in wanted} == UNCLOSED
        assert await succeed(zone.conn, "connector-a-7d9f-other", uuid4(), NOW) == []
        await zone.bury()
        assert await zone.registry() == 0
        await zone.pass_time()
        assert [await zone.registry(), await zone.registry()] == [3, 0]
        told = await zone.gaps()
        assert [bare(row) for row in told] == [bare(row) for row in wanted]
        assert [row.slot for row in told] == ["orderbook/7", "orderbook/8", ""]
        assert {(row.received_at, row.detail) for row in told} == {(NOW + 7, POD)}
        ended = "select (extract(epoch from max(closed_at)) * 1000000)::bigint from lanes where process = $1"
        assert {row.received_to for row in told} == {await zone.conn.fetchval(ended, POD)}


async def test_a_running_registry_tells(gatherer_db: Target, tmp_path: Path) -> None:
    """As the services' own role, with the number in /health."""
    async with world(gatherer_db) as zone, running_zone(gatherer_db, tmp_path) as running:
        lane = await zone.hear(LEFT_OPEN)
        await lane.close()
        await zone.pass_time()
        async with running.registry() as runtime:
            house: Any = lambda: runtime.health.document()["house"]  # noqa: E731
            await running.until(lambda: house()["deaths_told"] == 3)
        assert {row.connection for row in await zone.gaps()} == UNCLOSED


async def test_a_successor_that_was_killed_before_it_told(gatherer_db: Target) -> None:
    """It closed the lanes and no more; the third of the name finds none open."""
    async with world(gatherer_db) as zone:
        await zone.hear(LEFT_OPEN)
        assert len(await succeed(zone.conn, POD, uuid4(), NOW)) == 3
        assert await succeed(zone.conn, POD, uuid4(), NOW) == []
        await zone.pass_time()
        assert [await zone.registry(), await zone.registry()] == [3, 0]
        assert {row.connection for row in await zone.gaps()} == UNCLOSED


async def test_what_a_successor_told_is_not_told_again(gatherer_db: Target) -> None:
    """Wherever its rows stand; and what it did not come to tell is told."""
    async with world(gatherer_db) as zone:
        await zone.hear(LEFT_OPEN)
        instance = uuid4()
        gaps = await succeed(zone.conn, POD, instance, NOW)
        await zone.hear({"gaps": gaps[:2]}, instance=instance)
        await zone.bury()
        await zone.pass_time()
        assert [await zone.registry(), await zone.registry()] == [1, 0]
        assert {row.connection for row in await zone.gaps()} == UNCLOSED


async def test_what_was_closed_is_not_told(gatherer_db: Target) -> None:
    """In its own batch or in a later one, whoever closed the lane; nor are lanes that hold no claim at all."""
    async with world(gatherer_db) as zone:
        instance = uuid4()
        orderly = await zone.hear({"listen_ranges": [heard(ONE), heard(TWO)]}, instance=instance)
        await orderly.write(seal({"listen_closed": [closed(ONE, "stop")]}))
        await orderly.close()
        await zone.hear({"listen_closed": [closed(TWO, "stop")]}, instance=instance)
        await zone.hear({"orderbook_deltas": LEFT_OPEN["orderbook_deltas"]}, "poller")
        await zone.bury()
        await zone.pass_time()
        assert await zone.registry() == 0
        assert await zone.gaps() == []


async def test_who_was_wrongly_taken_for_dead_is_told_of_when_he_dies(gatherer_db: Target) -> None:
    """While the instance has an open lane it lives; a row of an earlier end does not stand for the real one."""
    async with world(gatherer_db) as zone:
        instance = uuid4()
        first = await zone.hear({"listen_ranges": [heard(ONE)]}, instance=instance)
        await first.close()
        await zone.pass_time()
        second = await zone.hear({"listen_ranges": [heard(ONE, seq_to=8)]}, instance=instance)
        assert await zone.registry() == 0
        early = gap(NOW, "orderbook_delta", "process_died", seq_from=5, connection=ONE, sid=1)
        await zone.hear({"gaps": [early]}, "connector-other")
        await second.close()
        await zone.pass_time()
        assert [await zone.registry(), await zone.registry()] == [1, 0]
        assert [row.seq_from for row in await zone.gaps()] == [5, 8]


async def test_what_was_not_committed_is_told_in_the_next_turn(
    gatherer_db: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Remembered is only what stands in the database, and nothing once the database went back."""
    async with world(gatherer_db) as zone:
        await (await zone.hear(LEFT_OPEN)).close()
        await zone.pass_time()
        scribe = zone.scribe()
        deaths = Deaths(zone.pool, scribe, lambda: NOW)
        with monkeypatch.context() as away:
            away.setattr(scribe, "write", _away)
            with pytest.raises(StoreUnavailable):
                await deaths.tell_once()
        assert deaths.told == 0
        await deaths.tell_once()
        assert deaths.told == 3
        await zone.conn.execute("truncate gaps")
        await deaths.tell_once()
        assert deaths.told == 3
        deaths.forget()
        await deaths.tell_once()
        assert (deaths.told, len(await zone.gaps())) == (6, 3)
        await scribe.close()


async def _away(*_: Any) -> None:
    raise StoreUnavailable("away")


async def test_lanes_without_their_batches_are_left_alone(gatherer_db: Target) -> None:
    """Retention, or a copy of the database, may have taken the ledger's rows or the claims."""
    async with world(gatherer_db) as zone:
        for table in ("listen_ranges", "ingest_batches"):
            await (await zone.hear(LEFT_OPEN)).close()
            await zone.conn.execute(f"truncate {table}")
            await zone.pass_time()
            assert await zone.registry() == 0
        await (await zone.hear(LEFT_OPEN)).close()
        await zone.conn.execute("update lanes set closed_at = closed_at - interval '25 hours'")
        assert await zone.registry() == 0
