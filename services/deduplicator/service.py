"""Composition of the deduplicator: one reader per zone, the one writer, housekeeping; and how they end."""

import asyncio
from typing import Any

from libs.runtime.service import EternalTasks, Runtime
from libs.store.errors import SchemaMismatch, StoreUnavailable
from libs.store.merger import ProductionWriter
from libs.store.pool import Target, connect, wait_until_there
from libs.store.schema import check_level
from libs.store.waiting import first_of
from libs.telemetry.logging import get_logger
from services.deduplicator.board import Board, Feed
from services.deduplicator.completeness import Completeness
from services.deduplicator.housekeeping import Housekeeping
from services.deduplicator.partitions import PartitionKeeper
from services.deduplicator.reader import GathererReader
from services.deduplicator.reopening import ReopeningDesk
from services.deduplicator.settings import Settings
from services.deduplicator.tasks import Merging

log = get_logger(__name__)

HEALTHY_POLL_S = 0.2


async def run(settings: Settings, runtime: Runtime) -> None:
    """Be the deduplicator until stop, then merge what reachable gatherers still hold, within the grace."""
    own, production = settings.deduplicator, settings.production.target()
    board = Board([source.zone for source in settings.gatherers], pages_ahead=own.pages_ahead)
    writer = ProductionWriter(production, ttl_s=own.lease_s, timeout_s=own.transaction_s_max)
    partitions = PartitionKeeper(production, runtime.clock)
    merging = Merging(board, writer, own, runtime.clock, runtime.metrics, partitions)
    _describe(runtime, board, merging, writer)
    if not await _production_there(production, runtime):
        return
    readers = [
        GathererReader(source, board, writer, own, runtime.clock, runtime.metrics)
        for source in settings.gatherers
    ]
    try:
        async with runtime.tasks() as tasks:
            working = [
                _start_reader(tasks, reader, source.zone, runtime.stop)
                for reader, source in zip(readers, settings.gatherers, strict=True)
            ]
            working.append(tasks.start("merge", merging.run(runtime.stop)))
            keeper = Housekeeping(
                board, writer, production, own, runtime.clock, partitions, runtime.metrics
            )
            working.append(tasks.start("housekeeping", keeper.run(runtime.stop)))
            working.append(tasks.start("summaries", keeper.run_summaries(runtime.stop)))
            desk = ReopeningDesk(board, production, runtime.clock, runtime.metrics)
            working.append(tasks.start("reopenings", desk.run(runtime.stop)))
            judge = Completeness(
                board, merging.room, writer, production, runtime.clock, runtime.metrics
            )
            working.append(tasks.start("completeness", judge.run(runtime.stop)))
            tasks.start("readiness", _watch_readiness(runtime, board, merging))
            tasks.start("grace", _end_after_grace(runtime.stop, working, own.grace_s))
        await writer.release()
    finally:
        # Whoever crashes leaves the lease to its end, as one that is killed does.
        await writer.close()


def _start_reader(
    tasks: EternalTasks, reader: GathererReader, zone: str, stop: asyncio.Event
) -> asyncio.Task[None]:
    return tasks.start(f"read-{zone}", reader.run(stop))


async def _end_after_grace(
    stop: asyncio.Event, working: list[asyncio.Task[None]], grace_s: float
) -> None:
    """Once stop is set the readers and the writer may finish what is there; then they are ended."""
    await stop.wait()
    _, late = await asyncio.wait(working, timeout=grace_s)
    for task in late:
        log.warning("not_drained_in_grace", task=task.get_name(), grace_s=grace_s)
        task.cancel()


async def _production_there(production: Target, runtime: Runtime) -> bool:
    """Wait for production and for a schema that fits, saying what is waited for; False when stop came first."""
    said = ""

    def tell(reason: str) -> None:
        runtime.health.set_ready(False, f"waiting for production ({reason})")

    tell(production.address)
    while not runtime.stop.is_set():
        try:
            # A refused login too: production's migration, which makes the role, may be under way.
            await wait_until_there(production, stop=runtime.stop, patient=True, tell=tell)
            async with connect(production) as conn:
                await check_level(conn, "production")
        except (StoreUnavailable, SchemaMismatch) as error:
            if not runtime.stop.is_set() and str(error) != said:
                said = str(error)
                log.warning("waiting", waiting_for=said)
            tell(f"{production.address}: {error}")
            await first_of(runtime.stop, timeout_s=1.0)
        else:
            return True
    return False


async def _watch_readiness(runtime: Runtime, board: Board, merging: Merging) -> None:
    """Ready = production is ours and at least one gatherer is being read."""
    said = ""
    while not runtime.stop.is_set():
        is_reading = any(feed.status == "reading" for feed in board.feeds.values())
        reason = merging.waiting_for or ("" if is_reading else "at least one healthy gatherer")
        runtime.health.set_ready(not reason, f"waiting for {reason}" if reason else "")
        if reason and reason != said and board.ready.is_set():
            log.warning("waiting", waiting_for=reason)
        said = reason
        await first_of(runtime.stop, timeout_s=HEALTHY_POLL_S)


def _describe(runtime: Runtime, board: Board, merging: Merging, writer: ProductionWriter) -> None:
    """Put into /health what the live table and operators look at."""
    put = runtime.health.set
    put("rows_inserted", merging.inserted.total)
    put("duplicates", merging.duplicates.total)
    put("inserted", lambda: dict(merging.inserted))
    put("duplicates_by_table", lambda: dict(merging.duplicates))
    put("conflicts", lambda: merging.conflicts)
    put("disagreements", lambda: merging.disagreements)
    put("merges", lambda: merging.merges)
    put("merge_no", lambda: writer.merge_no)
    put("epoch", lambda: writer.epoch)
    put("identities", lambda: merging.identities)
    put("drained_at", lambda: board.drained_at)
    put("drained", lambda: board.drained_at is not None)
    put(
        "gatherers",
        lambda: {
            zone: _feed_facts(feed, runtime.clock.now()) for zone, feed in board.feeds.items()
        },
    )


def _feed_facts(feed: Feed, now: int) -> dict[str, Any]:
    """One gatherer's line: lag in milliseconds, times in microseconds since the epoch."""
    return {
        "status": feed.status,
        "identity": feed.identity,
        "gatherer": feed.gatherer,
        "lag_ms": None if feed.merged_at is None else (now - feed.merged_at) // 1000,
        "merged_at": feed.merged_at,
        "rows_read": feed.rows_read,
        "batches_behind": feed.batches_behind,
        "pages_waiting": feed.waiting,
        "drained_at": feed.drained_at,
        "last_error": feed.last_error,
    }
