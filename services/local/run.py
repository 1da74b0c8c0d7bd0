"""One run of the whole topology on this machine: servers, processes, the order in which they start and stop."""

import asyncio
import contextlib
import json
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from libs.exchange.keyfiles import make_key_pair
from libs.marketdata.units import SECOND
from libs.runtime.clock import Clock
from libs.runtime.health import fetch_health
from libs.store.pool import Target
from libs.telemetry.logging import get_logger
from services.local.config_files import ConfigFiles
from services.local.control import SimulatorControl
from services.local.ports import free_port
from services.local.postgres import EmbeddedPostgres
from services.local.processes import ProcessFailed, ProcessSpec, Supervisor
from services.local.state_dir import exclusive, forget
from services.local.topology import (
    CONNECTORS_PER_ZONE,
    PRODUCTION,
    Exchange,
    Server,
    process,
    production_processes,
    zone_processes,
)

log = get_logger(__name__)

DATABASE = "kalshi"
START_S_MAX = 60.0
MIGRATE_S_MAX = 120.0
STOP_S_MAX = 30.0


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line asked for; times in seconds."""

    state_dir: Path
    zones: tuple[str, ...]
    environment: str = "simulator"
    api_key_id: str = ""
    private_key_file: Path | None = None
    window_s: float = 3600.0
    seed: int = 1
    opens_in_s: float = 0.0
    """The simulated exchange begins to trade so long after its start: gatherers can be there from the first order."""
    fresh: bool = False
    """Forget what an earlier run left in the directory."""
    connectors: int = CONNECTORS_PER_ZONE
    """Connectors of each zone."""
    gatherer: Mapping[str, Any] = field(default_factory=dict)
    """Settings of every zone's processes, over config/gatherer.local.yaml."""
    simulated: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the simulator's section, over config/simulator.local.yaml."""
    sync_init: bool = True
    """Wait for the disk when a server's directory is made; False where the directory does not outlive the run."""


class LocalRun:
    """The running topology. Entering it starts nothing; leaving it leaves nothing behind."""

    def __init__(self, options: Options, clock: Clock) -> None:
        self.options = options
        self.clock = clock
        self._dir = options.state_dir
        self._stack = AsyncExitStack()
        self.supervisor = Supervisor(self._dir / "logs")
        self.servers: dict[str, EmbeddedPostgres] = {}
        self.configs = ConfigFiles(self._dir / "config")
        self.simulator: SimulatorControl | None = None
        self.archive = self._dir / "archive"
        self.opens_at = 0
        self._killed_at: dict[str, int] = {}
        self._back_at: dict[str, int] = {}

    async def __aenter__(self) -> Self:
        self._stack.enter_context(exclusive(self._dir))
        if self.options.fresh:
            forget(self._dir)
        await self._stack.enter_async_context(self.supervisor)
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Stop what still runs, in order and within a bound; what does not stop is killed. Servers go last."""
        try:
            if self.supervisor.children:
                async with asyncio.timeout(2 * STOP_S_MAX):
                    await self.stop_in_order()
        except (ProcessFailed, TimeoutError) as error:
            if exc[0] is None:
                raise
            log.warning("stop_incomplete", error=str(error))
        finally:
            await self.supervisor.kill(list(self.supervisor.children))
            await self._stack.aclose()

    @property
    def zones(self) -> tuple[str, ...]:
        return self.options.zones

    @property
    def shards(self) -> Path:
        """Where every connector has a folder of its own."""
        return self._dir / "shards"

    @property
    def journal_dir(self) -> Path:
        """Where the simulator writes its journals."""
        return self._dir / "journal"

    @staticmethod
    def key_id(zone: str) -> str:
        """The API key id by which a zone signs in to the simulator."""
        return f"simulated-key-{zone}"

    def outage(self, zone: str) -> tuple[int, int]:
        """From the moment a zone lost its power to the moment it had it back, microseconds."""
        return self._killed_at[zone], self._back_at[zone]

    def note(self, event: str, zone: str = "") -> None:
        """Write one line of the life-cycle journal: what was done to whom, and when."""
        line = json.dumps({"at": self.clock.now(), "event": event, "zone": zone})
        with (self._dir / "lifecycle.jsonl").open("a") as file:
            file.write(line + "\n")

    def target(self, name: str, user: str = "postgres") -> Target:
        """Return where a zone's database, or production's, is."""
        return self.servers[name].target(DATABASE, user)

    async def start_databases(self) -> None:
        """Start every server, each with its own directory and port, and migrate them."""
        for name in (*self.zones, PRODUCTION):
            home = self._dir / f"postgres-{name}"
            if self.options.fresh:
                # Its home may be elsewhere, where the server's own user can reach it.
                EmbeddedPostgres(home).remove()
            server = EmbeddedPostgres(home, sync_init=self.options.sync_init)
            self.servers[name] = server
            self._stack.push_async_callback(server.stop)
        await asyncio.gather(*(self._prepare(server) for server in self.servers.values()))
        await self._migrate()
        await asyncio.gather(*(server.share_password() for server in self.servers.values()))

    @staticmethod
    async def _prepare(server: EmbeddedPostgres) -> None:
        await server.start(START_S_MAX)
        await server.create_database(DATABASE)

    async def _migrate(self) -> None:
        """Migrate all databases in one process.

        Raises:
            ProcessFailed: it did not end well; the message ends with its log.
        """
        arguments = ["migrate"]
        for name, server in self.servers.items():
            kind = "production" if name == PRODUCTION else f"gatherer:{name}"
            arguments += ["--target", f"{kind}={server.port}/{DATABASE}:{server.home / 'password'}"]
        spec = ProcessSpec("migrate", "services.cli", tuple(arguments), {}, health_port=0)
        await self.supervisor.start([spec])
        await self.supervisor.finish(spec.name, MIGRATE_S_MAX)

    def _server(self, name: str) -> Server:
        server = self.servers[name]
        return Server(server.port, DATABASE, server.home / "password")

    def write_configs(self, exchange: Exchange) -> None:
        """Write the configuration files of every zone and of production.

        Raises:
            TooManyConnections: the zones of one account need more than the exchange allows it.
        """
        zones = {zone: self._server(zone) for zone in self.zones}
        self.configs.write_gatherers(zones, exchange, self.options.gatherer)
        production = self._server(PRODUCTION)
        self.configs.write_production(zones, production, self.archive, self.options.window_s)

    def _opening(self) -> int:
        """When the simulated exchange begins to trade, microseconds, a whole second; 0: at once."""
        if not self.options.opens_in_s:
            return 0
        self.opens_at = self.clock.now() + int(self.options.opens_in_s * SECOND)
        self.opens_at -= self.opens_at % SECOND
        return self.opens_at

    async def start_simulator(self) -> Exchange:
        """Start the simulated exchange with one API key a zone; return how it is reached."""
        private, public = make_key_pair(self._dir / "keys")
        port = free_port()
        keys = {zone: self.key_id(zone) for zone in self.zones}
        own = {
            "host": "127.0.0.1",
            "port": port,
            "seed": self.options.seed,
            "epoch_us": self._opening(),
            "keys": [
                {"key_id": key, "public_key_file": str(public), "zone": zone}
                for zone, key in keys.items()
            ],
            "journal_dir": str(self.journal_dir),
            **self.options.simulated,
        }
        spec = process("simulator", "simulator", self.configs.write_simulator(own))
        await self.supervisor.start([spec])
        self.simulator = SimulatorControl(port)
        await self.until_ready([spec.name])
        return Exchange("simulator", self.simulator.rest_url, self.simulator.ws_url, keys, private)

    def real_exchange(self) -> Exchange:
        """Return how the real exchange is reached, with the user's own key."""
        key_file = self.options.private_key_file
        if key_file is None or not self.options.api_key_id:
            raise AssertionError("the command line asks for a key before it comes here")
        keys = dict.fromkeys(self.zones, self.options.api_key_id)
        return Exchange(self.options.environment, "", "", keys, key_file)

    async def start_zone(self, zone: str) -> None:
        config, count = self.configs.paths[zone], self.options.connectors
        await self.supervisor.start(zone_processes(zone, config, self.shards, count))
        self.note("zone_started", zone)

    async def start_production(self) -> None:
        await self.supervisor.start(production_processes(self.configs.paths[PRODUCTION]))

    def names(self, zone: str | None = None, service: str = "") -> list[str]:
        """Return the running processes of a zone, or whose name begins with the service's."""
        return [
            child.spec.name
            for child in self.supervisor.children.values()
            if (zone is None or child.spec.zone == zone) and child.spec.name.startswith(service)
        ]

    def spec(self, name: str) -> ProcessSpec:
        return self.supervisor.children[name].spec

    async def kill_zone(self, zone: str) -> None:
        """A power cut of one zone: kill -9 of its processes and of its PostgreSQL server; its directory stays."""
        self.note("zone_killed", zone)
        self._killed_at[zone] = self.clock.now()
        await asyncio.gather(self.supervisor.kill(self.names(zone)), self.servers[zone].kill())

    async def revive_zone(self, zone: str) -> None:
        """Power back: the server recovers by itself, then the zone's processes start as on any day."""
        self.note("zone_power_back", zone)
        self._back_at[zone] = self.clock.now()
        await self.servers[zone].start(START_S_MAX)
        await self.start_zone(zone)

    async def until_ready(self, names: list[str], within_s: float = START_S_MAX) -> None:
        """Wait until these processes say they are ready.

        Raises:
            ProcessFailed: one ended, or is not ready in time.
        """
        waiting = list(names)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while waiting:
                    self.supervisor.check()
                    waiting = [name for name in waiting if not await self.is_ready(name)]
                    await asyncio.sleep(0.1)
        if waiting:
            logs = self._dir / "logs"
            raise ProcessFailed(
                f"not ready after {within_s:.0f} s: {', '.join(waiting)}; see {logs}"
            )

    async def is_ready(self, name: str) -> bool:
        return bool((await self.health(name)).get("ready"))

    async def health(self, name: str) -> dict[str, Any]:
        """Return a process's /health; empty while it cannot be asked."""
        try:
            return await fetch_health(self.spec(name).health_port)
        except (OSError, ValueError, KeyError):
            return {}

    async def stop_in_order(self) -> None:
        """Capture first, then the merge, then the archive, then the exchange; each writes out what it holds.

        Raises:
            ProcessFailed: one did not end in order.
        """
        for service in ("poller", "registry", "connector", "deduplicator", "archiver", "simulator"):
            await self.supervisor.stop(self.names(service=service), STOP_S_MAX)
