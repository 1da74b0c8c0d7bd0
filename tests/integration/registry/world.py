"""A zone for the registry: a simulated exchange, a fresh database, and the registry running in this process."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import asyncpg

from libs.exchange.keyfiles import make_key_pair
from libs.runtime.clock import Clock, SystemClock
from libs.runtime.health import HealthState
from libs.runtime.secret import Secret
from libs.runtime.sections import (
    BatchSettings,
    CaptureSettings,
    ExchangeSettings,
    SlotSettings,
    StoreSettings,
)
from libs.runtime.service import Runtime, orderly
from libs.store.pool import Target
from libs.telemetry.metrics import Metrics
from services.connector.service import run as run_connector
from services.connector.settings import ConnectorSettings as ShardSettings
from services.connector.settings import Settings as ConnectorSettings
from services.registry.service import run
from services.registry.settings import RegistrySettings, Settings
from services.simulator.changes import Lifecycle
from services.simulator.faults.active import Active
from services.simulator.faults.entries import read_entry
from services.simulator.server import SimulatorServer, running_simulator
from services.simulator.settings import KeySettings, SimulatorSettings

QUICK = RegistrySettings(
    incremental_s=0.3, lifecycle_poll_ms=50, status_s=0.3, schedule_s=60.0, read_share=1.0, cache_s=0.3,
    lease_s=3.0, housekeeping_s=0.5,
)  # fmt: skip


@dataclass
class Zone:
    """What a test holds: the exchange, the database, the settings, and the running registry's runtime."""

    simulator: SimulatorServer
    target: Target
    settings: Settings
    conn: Any

    @asynccontextmanager
    async def registry(self, **changes: Any) -> AsyncIterator[Runtime]:
        """Run the registry until the block ends, then stop it as a signal would."""
        async with self.service("registry", run, replace(self.settings, **changes)) as runtime:
            yield runtime

    @asynccontextmanager
    async def service(
        self, name: str, work: Callable[[Any, Runtime], Awaitable[None]], settings: Any
    ) -> AsyncIterator[Runtime]:
        """Run a service from ready until the block ends."""
        clock: Clock = SystemClock()
        metrics = Metrics("a")
        runtime = Runtime(clock, asyncio.Event(), HealthState(name, "a", clock, metrics), metrics)
        task = asyncio.ensure_future(orderly(work(settings, runtime), runtime.stop))
        try:
            await self.until(lambda: runtime.health.ready or task.done())
            if task.done():
                task.result()
            yield runtime
        finally:
            runtime.stop.set()
            async with asyncio.timeout(120):
                await task

    @asynccontextmanager
    async def connector(
        self,
        shard: str = "connector-a-1",
        *,
        grace_s: float = 0.1,
        slots: SlotSettings | None = None,
        extra_connections_max: int = 4,
    ) -> AsyncIterator[Runtime]:
        """Run a connector beside, from when it has slots and is ready until the block ends: before the first plan none is missing."""
        own = self.settings
        settings = ConnectorSettings(
            zone="a", exchange=own.exchange, store=own.store, slots=slots or own.slots, capture=own.capture,
            connector=ShardSettings(
                shard, plan_s=0.2, settle_s=0.2, heartbeat_s=0.5, probe_s=1.0, grace_s=grace_s,
                extra_connections_max=extra_connections_max,
            ),
            batches=BatchSettings(snapshots_age_ms=50),
        )  # fmt: skip
        async with self.service("connector", run_connector, settings) as runtime:
            await self.until(lambda: runtime.health.ready and runtime.health.document()["slots"])
            yield runtime

    def inject(self, **fault: Any) -> Active:
        """Let a fault of the exchange begin now."""
        simulation = self.simulator.simulation
        return simulation.faults.inject(read_entry(fault), self.simulator.clock.now())

    def publish(self, *changes: Lifecycle) -> None:
        """Let the exchange change now and tell whoever listens."""
        now = self.simulator.clock.now()
        self.simulator.exchange.publish(changes, now // 1_000)

    async def until(self, holds: Callable[[], Any], timeout_s: float = 60.0) -> None:
        """Wait until something holds, looking every 20 ms; it may be a coroutine function."""
        async with asyncio.timeout(timeout_s):
            while True:
                found = holds()
                if asyncio.iscoroutine(found):
                    found = await found
                if found:
                    return
                await asyncio.sleep(0.02)

    async def value(self, query: str, *arguments: Any) -> Any:
        """Return one value of the zone's database."""
        return await self.conn.fetchval(query, *arguments)


@asynccontextmanager
async def running_zone(
    target: Target, directory: Path, capture: CaptureSettings | None = None, **simulated: Any
) -> AsyncIterator[Zone]:
    """Run a quiet simulator with these settings over a fresh database."""
    private, public = make_key_pair(directory)
    quiet = {
        "port": 0,
        "markets": 40,
        "rate": 20.0,
        "new_market_every_s": 0.0,
        "closing_share": 0.0,
        "pause_every_s": 0.0,
    }
    world = SimulatorSettings(keys=(KeySettings("key", str(public)),), **(quiet | simulated))
    async with running_simulator(world) as simulator:
        exchange = ExchangeSettings(
            api_key_id="key", private_key_file=str(private), environment="simulator",
            rest_url=simulator.rest_url, ws_url=simulator.ws_url, reads_per_s=500.0,
        )  # fmt: skip
        # The services' own role, so that what they may not do shows here.
        store = StoreSettings(
            database=target.database, user="kd_writer", password=Secret(target.password), host=target.host,
            port=target.port,
        )  # fmt: skip
        settings = Settings(
            zone="a", exchange=exchange, store=store, slots=SlotSettings(8, 1, 1, 1, 50),
            capture=capture or CaptureSettings(), registry=QUICK,
        )  # fmt: skip
        conn = await asyncpg.connect(
            host=target.host, port=target.port, database=target.database, user=target.user,
            password=target.password,
        )  # fmt: skip
        try:
            yield Zone(simulator, target, settings, conn)
        finally:
            await conn.close()
