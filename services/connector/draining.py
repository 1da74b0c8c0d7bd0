"""The end of a connector's life: hand the slots over, flush, close the lanes; what cannot be committed is kept on disk."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping

from libs.marketdata.tables import Family
from libs.store.borrowing import borrow_patiently
from libs.store.errors import StoreUnavailable
from libs.telemetry.logging import get_logger
from services.connector import tasks
from services.connector.pipeline import Pipeline
from services.connector.spools import Spools
from services.connector.tasks import Shard

log = get_logger(__name__)

HAND_OVER_S = 0.5
"""Seconds between two looks at what was taken over."""

Writers = Mapping[Family, asyncio.Task[None]]
Pipelines = Mapping[Family, Pipeline]


async def live_until_stopped(
    shard: Shard, pipelines: Pipelines, writers: Writers, spools: Spools
) -> None:
    """Wait for SIGTERM; hand the slots over, flush, close the lanes, and let everything end."""
    runtime, own, clock = shard.runtime, shard.settings.connector, shard.runtime.clock
    await runtime.stop.wait()
    until = clock.monotonic() + own.grace_s
    shard.draining = True
    runtime.health.set_ready(False, "draining")
    await _hand_over(shard, until)
    await shard.holdings.close("drained")
    await spools.settle(max(own.flush_s, until - clock.monotonic()))
    timeout_s = max(own.flush_s, until - clock.monotonic())
    late = await flush(pipelines, writers, timeout_s, before_rest=spools.write_down_held)
    if late:
        rows = {p.family.value: p.buffer.rows + p.batcher.count for p in pipelines.values()}
        log.error("rows_left_behind", **rows)
        for task in late:
            task.cancel()
        await asyncio.wait(late)
        await spools.keep_all()
    else:
        await _close(shard, pipelines, spools)
    shard.ended.set()


async def flush(
    pipelines: Pipelines,
    writers: Writers,
    timeout_s: float,
    *,
    before_rest: Callable[[Collection[Family]], Awaitable[None]] | None = None,
) -> set[asyncio.Task[None]]:
    """Let all writers end, `rest` last because it carries the others' gaps; return those that did not in time.

    Args:
        before_rest: is told which families ended with rows held back, as long as gaps of that can be written.
    """
    until = asyncio.get_running_loop().time() + timeout_s
    late: set[asyncio.Task[None]] = set()
    for families in ([f for f in pipelines if f is not Family.REST], [Family.REST]):
        if families == [Family.REST] and before_rest is not None:
            await before_rest([f for f in pipelines if writers[f].done() and pipelines[f].buffer])
        for family in families:
            pipelines[family].finish()
        left = max(0.0, until - asyncio.get_running_loop().time())
        late |= (await asyncio.wait([writers[f] for f in families], timeout=left))[1]
    return late


async def _hand_over(shard: Shard, until: float) -> None:
    """Keep capturing until every slot is live elsewhere or the grace is over: who is to take them may be about to start."""
    clock = shard.runtime.clock
    holdings = shard.holdings
    while (holdings.slots or holdings.leaving) and clock.monotonic() < until:
        try:
            async with asyncio.timeout(until - clock.monotonic()):
                await tasks.heartbeat_once(shard)
                async with borrow_patiently(shard.pool, tasks.ACQUIRE_S_MAX) as conn:
                    await shard.planner.give_up(conn)
        except StoreUnavailable as error:
            shard.away("drain", error)
        except TimeoutError:
            log.warning(
                "grace_over", slots=len(holdings.slots), reason="the database does not answer"
            )
        await asyncio.sleep(HAND_OVER_S)


async def _close(shard: Shard, pipelines: Pipelines, spools: Spools) -> None:
    """Close the lanes and deregister; what is held back is kept on disk for the next process, and is written down as a gap.

    What the disk does not take is gone: then the lanes stay open, and whoever closes them writes down where they ended.
    """
    held = [pipeline for pipeline in pipelines.values() if pipeline.buffer]
    if held:
        await spools.keep_all()
        log.warning("rows_held_back", **{p.family.value: len(p.buffer) for p in held})
    if rows := {p.family.value: p.buffer.rows for p in held if p.buffer.rows}:
        log.error("rows_left_behind", **rows)
        return
    try:
        async with asyncio.timeout(shard.settings.connector.flush_s):
            await _close_lanes(pipelines)
            if shard.registered:
                await tasks.end_lease(shard)
    except (StoreUnavailable, TimeoutError) as error:
        log.warning("lanes_left_open", error=str(error))


async def _close_lanes(pipelines: Pipelines) -> None:
    """Close them side by side: one that does not answer holds no other open.

    Raises:
        StoreUnavailable: of the first that could not be closed.
    """
    closing = (pipeline.lane.close() for pipeline in pipelines.values())
    for error in await asyncio.gather(*closing, return_exceptions=True):
        if error is not None:
            raise error
