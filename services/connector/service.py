"""Composition root of the connector: what is opened, in which order, what runs, and how it ends."""

import asyncio
import functools
import gc
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID, uuid4

from libs.exchange.environments import resolve_endpoints
from libs.exchange.errors import EndpointInvalid
from libs.exchange.signing import load_signer
from libs.exchange.transport import TransportSettings
from libs.marketdata.rows import GapRow
from libs.marketdata.tables import Family
from libs.runtime.clock import Clock
from libs.runtime.errors import ConfigInvalid
from libs.runtime.secret import current
from libs.runtime.service import EternalTasks, Runtime
from libs.store import control
from libs.store.borrowing import borrow
from libs.store.errors import StoreError, StoreUnavailable
from libs.store.lanes import LaneWriter
from libs.store.notify import Listener, Notifier
from libs.store.pages import read_identity
from libs.store.planner import Planner
from libs.store.pool import Pool, open_pool
from libs.store.schema import check_level
from libs.telemetry.logging import get_logger
from services.connector import tasks
from services.connector.buffer import Buffer
from services.connector.draining import live_until_stopped
from services.connector.holdings import Holdings
from services.connector.outlets import Outlets
from services.connector.pipeline import Pipeline
from services.connector.remembered import recall
from services.connector.report import describe, keep_reporting
from services.connector.settings import Settings
from services.connector.slot import Wiring
from services.connector.spools import Spools
from services.connector.storage import Storage, keep_looking
from services.connector.successor import succeed
from services.connector.tasks import Shard
from services.connector.wiring import Budget

log = get_logger(__name__)

GC_THRESHOLD = (200_000, 50, 100)
"""Collect rarely: rows make no cycles, and what lives long is frozen (20 to 30 % of a saturated process)."""
RETRY_S = 1.0
LET_GO_S = 2.0
"""Seconds that loops which ask the database have to end by themselves when everything else has ended."""


async def run(settings: Settings, runtime: Runtime) -> None:
    """Run the connector until SIGTERM and the hand-over after it.

    Raises:
        AuthRejected, SchemaMismatch, StoreConflict, ConfigInvalid: the process ends.
    """
    own = settings.connector
    wiring_of = _wiring_factory(settings, runtime)
    remembered = recall(Path(own.state_dir), own.shard) if own.state_dir else {}
    try:
        async with open_pool(
            settings.store.target(), wait=not remembered, patient=True, stop=runtime.stop,
            application=own.shard, tell=functools.partial(_tell, runtime),
        ) as pool:  # fmt: skip
            await _run_with_pool(settings, runtime, pool, wiring_of, remembered)
    except StoreUnavailable:
        if not runtime.stop.is_set():
            raise


def _tell(runtime: Runtime, reason: str) -> None:
    runtime.health.set_ready(False, f"waiting for the database: {reason}")


def _wiring_factory(settings: Settings, runtime: Runtime) -> "WiringFactory":
    """Check what can be wrong with the exchange's settings before anything is opened.

    Raises:
        ConfigInvalid, AuthRejected: it is wrong.
    """
    exchange = settings.exchange
    try:
        endpoints = resolve_endpoints(exchange.environment, exchange.rest_url, exchange.ws_url)
    except EndpointInvalid as error:
        raise ConfigInvalid(error.faults) from error
    load_signer(current(exchange.api_key_id), exchange.private_key_file)
    return WiringFactory(settings, runtime, endpoints.ws_url)


class WiringFactory:
    """Makes what slots share, once the pipelines are there."""

    def __init__(self, settings: Settings, runtime: Runtime, url: str) -> None:
        self._settings = settings
        self._runtime = runtime
        self._url = url

    def make(self, outlets: Outlets, pipelines: dict[Family, Pipeline]) -> Wiring:
        exchange = self._settings.exchange
        return Wiring(
            url=self._url,
            # Read again at every connection, so that a rotated key needs no restart.
            signer=lambda: load_signer(current(exchange.api_key_id), exchange.private_key_file),
            clock=self._runtime.clock,
            metrics=self._runtime.metrics,
            outlets=outlets,
            pipelines=pipelines,
            session=self._settings.session(),
            transport=TransportSettings(
                connect_timeout_s=exchange.connect_timeout_s,
                frame_bytes_max=exchange.frame_bytes_max,
            ),
            backoff_s_min=exchange.backoff_s_min,
            backoff_s_max=exchange.backoff_s_max,
            limited_s_max=exchange.limited_s_max,
            silence_s_max=exchange.silence_s_max,
            stable_s=exchange.stable_s,
            late_s_max=exchange.late_s_max,
            late_for_s=exchange.late_for_s,
            extra=Budget(0),  # until some are reserved
        )


async def _run_with_pool(
    settings: Settings,
    runtime: Runtime,
    pool: Pool,
    factory: WiringFactory,
    remembered: dict[str, frozenset[str]],
) -> None:
    own = settings.connector
    capture = Capture.of(settings, runtime, pool)
    wiring = factory.make(capture.outlets, capture.pipelines)
    async with capture.spools as spools, runtime.tasks() as eternal, asyncio.TaskGroup() as slots:
        holdings = Holdings(own.shard, wiring, slots, settings.slot_names())
        shard = Shard(settings, runtime, pool, capture.instance, holdings, Planner(own.shard))
        describe(shard, wiring)
        runtime.health.set("spool", spools.describe)
        runtime.health.set("spool_fault", lambda: spools.fault)
        runtime.health.set("storage", capture.storage.describe)
        for name, tickers in remembered.items():
            holdings.serve(name, tickers)
        asking = _start_asking(eternal, shard, capture)
        _start_writing(eternal, shard, capture)
        eternal.start("report", keep_reporting(shard, wiring))
        gc.collect()
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLD)
        await shard.ended.wait()
        await _let_go(asking)


@dataclass(frozen=True, slots=True)
class Capture:
    """What a process's rows go through on their way to the database. instance: the UUID of this start of the process."""

    instance: UUID
    outlets: Outlets
    notifier: Notifier
    storage: Storage
    pipelines: dict[Family, Pipeline]
    spools: Spools

    @classmethod
    def of(cls, settings: Settings, runtime: Runtime, pool: Pool) -> "Capture":
        """Put it together; nothing of it runs yet."""
        own, instance = settings.connector, uuid4()
        outlets = Outlets(settings.limits(), own.rejected_bytes_per_hour)
        notifier, storage = Notifier(pool), Storage(own.storage_bytes_max)
        lane_of = functools.partial(_lane, pool, own.shard, instance, notifier)
        pipelines = {
            family: Pipeline(
                family,
                outlets,
                Buffer(family, settings.batches.buffer_rows_max),
                lane_of(family),
                runtime.clock,
                runtime.metrics,
                storage=storage,
            )
            for family in Family
        }
        write_gap = functools.partial(_write_gap, outlets, runtime.clock)
        spools = Spools(
            settings, runtime, instance, pipelines, lane_of=lane_of, write_gap=write_gap, pool=pool,
            storage=storage,
        )  # fmt: skip
        return cls(instance, outlets, notifier, storage, pipelines, spools)


def _start_asking(
    eternal: EternalTasks, shard: Shard, capture: Capture
) -> list[asyncio.Task[None]]:
    """Start the loops that ask the database about anything but rows."""
    ended, pool = shard.ended, shard.pool
    assignments = Listener(pool, control.ASSIGNMENTS)
    markets = Listener(pool, control.MARKETS)
    eternal.start("relay-markets", tasks.relay(shard, markets, assignments))
    looking = keep_looking(capture.storage, pool, shard.runtime, ended)
    return [
        eternal.start("notify-batches", capture.notifier.run(ended)),
        eternal.start("listen-assignments", assignments.run(ended)),
        eternal.start("listen-markets", markets.run(ended)),
        eternal.start("heartbeat", tasks.keep_heartbeat(shard)),
        eternal.start("follow", _begin(shard, capture.outlets, capture.spools, assignments)),
        eternal.start("storage", looking),
    ]


def _start_writing(eternal: EternalTasks, shard: Shard, capture: Capture) -> None:
    """Start what brings rows to the database, and what ends it."""
    writers = {
        family: eternal.start(f"write-{family.value}", pipeline.run())
        for family, pipeline in capture.pipelines.items()
    }
    for name, work in capture.spools.tasks(shard.ended):
        eternal.start(name, work)
    lifetime = live_until_stopped(shard, capture.pipelines, writers, capture.spools)
    eternal.start("lifetime", lifetime)


async def _let_go(tasks_left: list[asyncio.Task[None]]) -> None:
    """Give tasks a moment to end by themselves; a database that answers nothing does not hold the process any longer."""
    for task in (await asyncio.wait(tasks_left, timeout=LET_GO_S))[1]:
        task.cancel()


def _lane(pool: Pool, shard: str, instance: UUID, notifier: Notifier, family: Family) -> LaneWriter:
    return LaneWriter(pool, family=family, process=shard, instance=instance, notifier=notifier)


def _write_gap(outlets: Outlets, clock: Clock, row: GapRow) -> None:
    outlets.gap(row, clock.now())


async def _begin(shard: Shard, outlets: Outlets, spools: Spools, wake: Listener) -> None:
    """Wait for the database and its schema, settle what a dead predecessor left, then follow the control tables."""
    said = ""
    while not shard.ended.is_set():
        try:
            async with borrow(shard.pool, tasks.ACQUIRE_S_MAX) as conn:
                await check_level(conn, "gatherer")
                shard.fits.set()
                now = shard.runtime.clock.now()
                identity = str((await read_identity(conn)).identity)
                died = await succeed(conn, shard.name, shard.instance, now)
                for gap in spools.adopt(died, identity):
                    outlets.gap(gap, now)
            break
        except StoreError as error:
            if str(error) != said:
                said = str(error)
                shard.waits_for = f"waiting for the database: {said}"
                log.warning("waiting_for_database", reason=said)
            await asyncio.sleep(RETRY_S)
    await tasks.keep_following(shard, wake)
