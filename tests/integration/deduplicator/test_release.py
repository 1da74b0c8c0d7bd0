"""From a commit at a gatherer to the day its partition goes: merged, copied, 72 h later released, dropped, forgotten."""

from collections.abc import Sequence
from dataclasses import replace
from uuid import UUID

import pytest

from libs.marketdata.rows import DeltaRow
from libs.marketdata.tables import Family
from libs.marketdata.units import HOUR
from libs.store.ledger_retention import trim_ledger
from libs.store.partition_drop import drop_partitions_released
from libs.store.partitions import ensure_partitions
from libs.store.pool import Connection, connect
from services.deduplicator.housekeeping import Housekeeping
from tests.integration.deduplicator.conftest import Databases
from tests.integration.deduplicator.world import (
    CLOCK,
    FAST,
    event_kinds,
    hear,
    keys,
    make_truth,
    merged_keys,
    running,
)

REAL = replace(FAST, cursor_copy_s=3600.0, release_after_s=259_200.0)
"""The figures of the model; the copies are made older instead."""
NOW = CLOCK.now()
"""From which all hours are counted, also when the next one begins meanwhile."""


def earlier(rows: Sequence[DeltaRow], hours: int) -> list[DeltaRow]:
    """The same rows that many hours before NOW; all of them lie in the first second of a minute, so in one hour."""
    by = (rows[0].exchange_ts // HOUR - NOW // HOUR + hours) * HOUR
    return [
        row._replace(
            exchange_ts=row.exchange_ts - by,
            received_at=row.received_at - by,
            sent_at=row.received_at - by,
        )
        for row in rows
    ]


class Turns:
    """Counts the turns in which cursors were copied and releases looked for."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.done = 0
        release_once = Housekeeping.release_once

        async def counted(housekeeping: Housekeeping) -> None:
            await release_once(housekeeping)
            self.done += 1

        patch.setattr(Housekeeping, "release_once", counted)

    async def merge_all(self, databases: Databases) -> None:
        """Run a deduplicator until all is merged and a turn has come after it; what it releases is written at its end."""
        async with running(databases.gatherers, databases.production, REAL) as deduplicator:
            await deduplicator.drained()
            before = self.done
            await deduplicator.until(lambda _: self.done > before + 1)


async def age_copies(databases: Databases, hours: float) -> None:
    """Let that much time have passed since every copy of the cursors."""
    await databases.conn.execute(
        "UPDATE sync_cursor_copies SET copied_at = copied_at - $1::float8 * interval '1 hour'",
        hours,
    )


async def released(conn: Connection) -> dict[UUID, int]:
    """What retention of a gatherer may forget."""
    rows = await conn.fetch("SELECT lane, released_batch_no FROM lane_releases")
    return {row["lane"]: row["released_batch_no"] for row in rows}


async def hours_dropped(conn: Connection) -> set[int]:
    """Let every released partition go; return how many hours ago those of deltas were."""
    gone = await drop_partitions_released(conn, CLOCK.now())
    now = NOW // HOUR
    return {now - p.start // HOUR for p in gone.dropped if p.table == "orderbook_deltas"}


async def test_a_partition_goes_when_the_copy_of_cursors_that_has_its_batches_is_72_hours_old(
    databases: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not what is merged now is released, but what that copy says; production keeps all, and nothing is read again."""
    rows = hear(make_truth(91, 400))
    old, newer = earlier(rows[:200], 5), earlier(rows[200:], 3)
    zone, turns = databases.zones["a"], Turns(monkeypatch)
    async with connect(databases.gatherers["a"]) as conn:
        for hours in (3, 5):
            await ensure_partitions(conn, "gatherer", NOW - hours * HOUR)
        await zone.write(old)
        lane, copied = zone.writers[Family.DELTAS].lane, zone.writers[Family.DELTAS].confirmed
        await turns.merge_all(databases)
        # The copy of this start may be older than the merge: the next one is not.
        await databases.conn.execute("DELETE FROM sync_cursor_copies")
        await turns.merge_all(databases)
        await age_copies(databases, 71.5)
        await zone.write(newer)
        await turns.merge_all(databases)
        assert await released(conn) == {}
        assert await hours_dropped(conn) & {3, 5} == set()
        copies = "SELECT count(DISTINCT copied_at) FROM sync_cursor_copies"
        assert await databases.conn.fetchval(copies) == 2
        await age_copies(databases, 0.6)
        await turns.merge_all(databases)
        assert await released(conn) == {lane: copied}
        assert copied < zone.writers[Family.DELTAS].confirmed
        assert await hours_dropped(conn) & {3, 5} == {5}
        assert await conn.fetchval("SELECT count(*) FROM orderbook_deltas") == 200
        marked = "SELECT max(batch_no) FROM ingest_batches WHERE dropped_at IS NOT NULL"
        assert await conn.fetchval(marked) == copied
        await trim_ledger(conn, 0.0)
        assert await conn.fetchval("SELECT min(batch_no) FROM ingest_batches") == copied + 1
        await zone.write(rows[:50])
        await turns.merge_all(databases)
    merged = await merged_keys(databases.conn)
    assert sorted(merged) == sorted(keys(old) | keys(newer) | keys(rows[:50]))
    assert await event_kinds(databases.conn) == ["gatherer_admitted"] * 3
    assert await databases.conn.fetchval("SELECT count(*) FROM gaps") == 0
