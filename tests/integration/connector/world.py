"""A zone for connectors: a simulated exchange, a fresh database with its markets, connectors running in this process."""

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import asyncpg

from libs.exchange.keyfiles import make_key_pair
from libs.marketdata.listening import Claim, claims
from libs.marketdata.rows import ROW_TYPES
from libs.runtime.clock import SystemClock
from libs.runtime.health import HealthState
from libs.runtime.secret import Secret
from libs.runtime.sections import BatchSettings, ExchangeSettings, SlotSettings, StoreSettings
from libs.runtime.service import Runtime
from libs.store.pool import Target
from libs.telemetry.metrics import Metrics
from services.connector.service import run
from services.connector.settings import ConnectorSettings, Settings
from services.local.postgres import EmbeddedPostgres
from services.simulator.server import SimulatorServer, running_simulator
from services.simulator.settings import KeySettings, SimulatorSettings

SLOTS = SlotSettings(orderbook=2, ticker=1, trade=1, lifecycle=1, connections_max=50)
QUICK = ConnectorSettings(
    shard="connector-a-1",
    plan_s=0.2,
    settle_s=0.3,
    heartbeat_s=0.5,
    probe_s=1.0,
    flush_s=10,
    grace_s=1,
)


@dataclass
class Zone:
    """What a test holds: the exchange, the database, and the settings of a connector."""

    simulator: SimulatorServer
    target: Target
    settings: Settings
    conn: Any
    connectors: int = 0

    @asynccontextmanager
    async def connector(self, *, wait_ready: bool = True, **own: Any) -> AsyncIterator[Runtime]:
        """Run a connector, from ready on unless told otherwise, until the block ends; then stop it as a signal would.

        One that starts beside others has the grace to hand over to them; the first has nobody left at its end.
        """
        if self.connectors:
            own = {"grace_s": 20.0} | own
        self.connectors += 1
        clock, metrics = SystemClock(), Metrics("a")
        health = HealthState("connector", "a", clock, metrics)
        runtime = Runtime(clock, asyncio.Event(), health, metrics)
        settings = replace(self.settings, connector=replace(self.settings.connector, **own))
        task = asyncio.ensure_future(run(settings, runtime))
        try:
            await self.until(lambda: not wait_ready or _owns(runtime) or task.done())
            yield runtime
        finally:
            runtime.stop.set()
            self.connectors -= 1
            async with asyncio.timeout(120):
                await task

    async def until(self, holds: Callable[[], Any], timeout_s: float = 60.0) -> None:
        """Wait until something holds, looking every 20 ms; it may be a coroutine function."""
        async with asyncio.timeout(timeout_s):
            while True:
                found = holds()
                if inspect.isawaitable(found):
                    found = await found
                if found:
                    return
                await asyncio.sleep(0.02)

    @asynccontextmanager
    async def database_away(self, server: EmbeddedPostgres) -> AsyncIterator[None]:
        """Stop the server for the time of the block; afterwards it is back on its port, as it was."""
        await server.stop()
        try:
            yield
        finally:
            await server.start()
            self.conn = await _connect(self.target)

    async def has_rows(self, **tables: int) -> bool:
        """True when at least so many rows of each of these tables are committed."""
        for table, count in tables.items():
            if await self.conn.fetchval(f"select count(*) from {table}") < count:
                return False
        return True

    async def stop_publishing(self) -> None:
        """End the exchange's day once every market and channel has a claim: a short life under a wide margin leaves none."""
        await self.until(self._is_claimed)
        await self.simulator.stop_publishing()

    async def _is_claimed(self) -> bool:
        found = await self.claims()
        wanted = {r[0] for r in await self.conn.fetch("select ticker from markets")}
        books = {c.ticker for c in found if c.channel == "orderbook_delta"}
        return wanted <= books and {"trade", "ticker"} <= {c.channel for c in found}

    async def list_markets(self) -> None:
        """Do what the registry does: give every listed market a slot."""
        tickers = sorted(self.simulator.exchange.listings)
        slots = self.settings.slots.orderbook
        await place(self.conn, [(t, f"orderbook/{n % slots}") for n, t in enumerate(tickers)])

    async def rows(self, table: str) -> list[Any]:
        """Return every committed row of a table."""
        row_type: Any = ROW_TYPES[table]
        columns = ", ".join(row_type._fields)
        return [row_type(*row) for row in await self.conn.fetch(f"select {columns} from {table}")]

    async def claims(self) -> list[Claim]:
        """Return what the committed listening rows prove."""
        return claims(
            await self.rows("listen_ranges"),
            await self.rows("listen_opened"),
            await self.rows("listen_closed"),
        )


async def place(conn: Any, slots: list[tuple[str, str]]) -> None:
    """Do what the registry does with markets it does not know yet: give each ticker its slot, and tell the connectors."""
    await conn.executemany(
        "insert into markets (ticker, event_ticker, series_ticker, status, is_combo, wanted, slot, updated_at,"
        " content_hash, body) values ($1, $1, $1, 'active', false, true, $2, 0, 0, '{}')"
        " on conflict do nothing",
        slots,
    )
    await conn.execute(
        "insert into slot_versions select distinct slot, 1 from"
        " (select slot from markets union select slot from slot_versions) known on conflict (slot)"
        " do update set version = slot_versions.version + 1"
    )
    await conn.execute("select pg_notify('kd_markets', '')")


def _owns(runtime: Runtime) -> bool:
    document = runtime.health.document()
    return bool(document["ready"] and document.get("slots"))


@asynccontextmanager
async def running_zone(
    target: Target, directory: Path, *, slots: SlotSettings = SLOTS, **simulated: Any
) -> AsyncIterator[Zone]:
    """Run a simulator with these settings over a fresh database."""
    private, public = make_key_pair(directory)
    values = {
        "port": 0,
        "markets": 12,
        "rate": 300.0,
        "new_market_every_s": 0.0,
        "quiet_ms": 1500,
    } | simulated
    world = SimulatorSettings(keys=(KeySettings("key", str(public)),), **values)
    async with running_simulator(world) as simulator:
        exchange = ExchangeSettings(
            api_key_id="key", private_key_file=str(private), environment="simulator", rest_url=simulator.rest_url,
            ws_url=simulator.ws_url, backoff_s_min=0.1, backoff_s_max=1.0,
            limited_s_max=1.0,
        )  # fmt: skip
        # The services' own role, so that what they may not do shows here.
        store = StoreSettings(
            database=target.database, user="kd_writer", password=Secret(target.password), host=target.host,
            port=target.port, pool_size_max=12,
        )  # fmt: skip
        settings = Settings(
            zone="a",
            exchange=exchange,
            store=store,
            connector=QUICK,
            slots=slots,
            batches=BatchSettings(),
        )
        zone = Zone(simulator, target, settings, await _connect(target))
        try:
            await zone.list_markets()
            yield zone
        finally:
            await zone.conn.close()


async def _connect(target: Target) -> Any:
    return await asyncpg.connect(
        host=target.host,
        port=target.port,
        database=target.database,
        user=target.user,
        password=target.password,
    )
