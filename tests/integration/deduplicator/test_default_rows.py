"""Rows whose time is far from their receipt: told, archived, moved when their partition is made, never dropped unseen."""

import asyncio
import random
from pathlib import Path

from libs.marketdata.tables import ORDERBOOK_DELTAS
from libs.marketdata.units import DAY, HOUR
from libs.store.default_rows import count_default_rows
from libs.store.dropped import range_of
from libs.store.partitions import Horizon, ensure_partitions
from libs.store.pool import Connection
from libs.telemetry.metrics import Metrics
from services.deduplicator.default_alarm import DefaultAlarm
from tests.integration.deduplicator.conftest import Databases
from tests.integration.deduplicator.test_reopening import (
    LATE,
    archive_of,
    caught_up,
    truth_at,
    waits,
)
from tests.integration.deduplicator.world import (
    CLOCK,
    event_kinds,
    hear,
    keys,
    merged_keys,
    running,
)
from tests.support.postgres import plain_only, with_timescale

EARLIER = LATE - 400 * DAY
"""More than a year before anybody listened."""


def figure(metrics: Metrics, table: str) -> float:
    return float(metrics.default_partition_rows.labels(table=table)._value.get())


async def test_the_alarm_speaks_once_per_change(databases: Databases) -> None:
    """When rows come and when they are gone, not at every look, nor again after a restart; the figure is always there."""
    metrics, conn = Metrics(), databases.conn
    alarm = DefaultAlarm(metrics)
    for rows in ({}, {"trades": 2}, {"trades": 3}):
        await alarm.note(conn, rows)
    assert figure(metrics, "trades") == 3
    again = DefaultAlarm(metrics)
    for rows in ({"trades": 3}, {"trades": 3, "tickers": 1}, {"tickers": 1}, {}, {}):
        await again.note(conn, rows)
    assert figure(metrics, "trades") == figure(metrics, "gaps") == 0
    assert await event_kinds(conn) == [
        "default_partition_filled", "default_partition_filled", "default_partition_emptied",
        "default_partition_emptied",
    ]  # fmt: skip


async def far(databases: Databases, zone: str, number: int) -> set[object]:
    """Have a zone commit changes of more than a year ago that it received just now."""
    rows = [
        row._replace(received_at=CLOCK.now() - random.Random(number).randrange(HOUR))
        for row in hear(truth_at(EARLIER, number))
    ]
    await databases.zones[zone].write(rows)
    return set(keys(rows))


async def test_far_rows_are_told_archived_and_opened_like_any_others(
    databases: Databases, tmp_path: Path
) -> None:
    """Retention leaves the default partition alone; once more rows of their hour come, they get a partition and go."""
    conn = databases.conn
    async with archive_of(databases, tmp_path) as archive:
        await databases.zones["a"].write(hear(truth_at(LATE)))
        everything = set(keys(hear(truth_at(LATE))))
        async with running(databases.gatherers, databases.production) as deduplicator:
            first = await far(databases, "a", 1)
            await deduplicator.drained()
            metrics = deduplicator.runtime.metrics
            await deduplicator.until(lambda _: figure(metrics, "orderbook_deltas") > 0)
            async with asyncio.timeout(60):
                # The figure is set before the event is written.
                while "default_partition_filled" not in await event_kinds(conn):  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            await archive.export()
            await archive.retain()
            # What lay in a partition of its own went (a chunk is always one), what lay in the default one is still here.
            assert set(await merged_keys(conn)) == (set() if with_timescale() else first)
            assert set(await archive.deltas()) == everything | first
            second = await far(databases, "c", 2)
            await deduplicator.until(waits)
            await caught_up(deduplicator, archive)
            assert sorted(await merged_keys(conn)) == sorted(first | second)  # type: ignore[type-var]
            if not with_timescale():
                await deduplicator.until(lambda _: figure(metrics, "orderbook_deltas") == 0)
            await archive.export()
            await archive.drop()
        found = await archive.deltas()
        assert len(found) == len(set(found)) and set(found) == everything | first | second


async def waiting(conn: Connection) -> dict[str, int]:
    return await count_default_rows(conn, "production", CLOCK.now())


@plain_only
async def test_rows_move_when_their_partition_is_made(databases: Databases, tmp_path: Path) -> None:
    """Archived before or after: each is in one object, and its partition goes by the count."""
    conn, hour = databases.conn, range_of(ORDERBOOK_DELTAS, LATE)
    async with archive_of(databases, tmp_path) as archive:
        async with running(databases.gatherers, databases.production) as deduplicator:
            rows = [row._replace(received_at=CLOCK.now()) for row in hear(truth_at(LATE))]
            await databases.zones["a"].write(rows[:30])
            await deduplicator.drained()
            await archive.export()
            assert await waiting(conn) == {"orderbook_deltas": 30}
            await archive.retain()
            await ensure_partitions(conn, "production", hour.start, Horizon(0, 0))
            assert await waiting(conn) == {}
            await databases.zones["a"].write(rows[30:])
            await deduplicator.drained()
        await archive.export()
        assert len(await archive.deltas(1)) == len(rows) - 30
        await archive.drop()
        assert sorted(await archive.deltas()) == sorted(keys(rows))
