"""The product's deduplicator in virtual time: its readers, board, merge room and writer over servers in memory.

Its connections are made where the driver would make them; everything above is the real code.
"""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from random import Random
from typing import Any
from unittest.mock import patch

import asyncpg

from libs.runtime.clock import Clock
from libs.runtime.secret import Secret
from libs.runtime.sections import GathererSource, StoreSettings
from libs.store.merger import ProductionWriter
from services.deduplicator.board import Board
from services.deduplicator.reader import GathererReader
from services.deduplicator.settings import DeduplicatorSettings
from services.deduplicator.tasks import Merging
from tests.simulation.database import MemoryDatabase
from tests.simulation.gatherer import metrics
from tests.simulation.ledger import LedgerConnection
from tests.simulation.server import ProductionServer
from tests.simulation.speaking import ProductionConnection

LEASE_S = 2.0
SETTINGS = DeduplicatorSettings(
    poll_ms=1000,
    poll_ms_min=20,
    page_rows=80,
    transaction_rows=200,
    pages_ahead=2,
    lease_s=LEASE_S,
    backoff_s_min=0.1,
    backoff_s_max=1.0,
    ack_s=1.0,
    agreement_sample=1,
)
AWAY_S = 0.05
"""How long it takes to find out that a server is away, seconds."""
DRAINED_S_MAX = 60.0
"""How long it may take to merge everything once nothing is wrong any more, seconds."""


class _NoPool:
    """Wake-ups do not come: whoever merges polls."""

    async def acquire(self, timeout: float = 0) -> Any:  # noqa: ASYNC109 - as the driver's
        raise ConnectionRefusedError("nobody listens here")

    async def close(self) -> None:
        """There is nothing to close."""


class Servers:
    """Every server a deduplicator speaks with, by the name of its database."""

    def __init__(
        self, production: ProductionServer, zones: Mapping[str, MemoryDatabase], seed: str
    ) -> None:
        self._production, self._zones = production, zones
        self._chance = Random(f"{seed} ledgers")

    async def connect(self, *, database: str, **_: Any) -> Any:
        """As asyncpg.connect."""
        if database == "production":
            if self._production.away:
                await asyncio.sleep(AWAY_S)
                raise ConnectionRefusedError("production is away")
            return ProductionConnection(self._production)
        gatherer = self._zones[database]
        if gatherer.away:
            await asyncio.sleep(AWAY_S)
            raise ConnectionRefusedError("the gatherer is away")
        return LedgerConnection(database, gatherer, self._chance)

    async def create_pool(self, **_: Any) -> _NoPool:
        """As asyncpg.create_pool."""
        return _NoPool()

    @contextmanager
    def reached(self) -> Iterator[None]:
        """Stand where the driver stands."""
        with (
            patch.object(asyncpg, "connect", self.connect),
            patch.object(asyncpg, "create_pool", self.create_pool),
        ):
            yield


class Deduplicator:
    """One life of the process.

    Attributes:
        board: what it knows of each zone.
    """

    def __init__(self, zones: Mapping[str, MemoryDatabase], clock: Clock) -> None:
        self.board = Board(list(zones), pages_ahead=SETTINGS.pages_ahead)
        self._writer = ProductionWriter(
            _store("production").target(), ttl_s=LEASE_S, timeout_s=10.0
        )
        self.merging = Merging(self.board, self._writer, SETTINGS, clock, metrics())
        self._readers = [
            GathererReader(GathererSource(zone, _store(zone)), self.board, self._writer, SETTINGS, clock, metrics())
            for zone in zones
        ]  # fmt: skip
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        stop = asyncio.Event()
        try:
            async with asyncio.TaskGroup() as group:
                for reader in self._readers:
                    group.create_task(reader.run(stop))
                group.create_task(self.merging.run(stop))
        finally:
            await self._writer.close()

    async def kill(self) -> None:
        """End it where it stands.

        Raises:
            BaseExceptionGroup: it had ended by itself before, which it never should.
        """
        self._task.cancel()
        await asyncio.wait((self._task,))
        if not self._task.cancelled():
            self._task.result()

    def is_drained(self, since: int) -> bool:
        """True when every gatherer's ledger was merged to its end at a moment after `since`, microseconds."""
        drained = self.board.drained_at
        return drained is not None and drained > since


class Deduplication:
    """Whoever merges: usually one process, now and then two or none.

    Attributes:
        production: what it merges into. alive: its processes, the oldest first.
    """

    def __init__(self, zones: Mapping[str, MemoryDatabase], clock: Clock, seed: str) -> None:
        self.production = ProductionServer(Random(f"{seed} production"))
        self.alive: list[Deduplicator] = []
        self.servers = Servers(self.production, zones, seed)
        self._zones, self._clock = zones, clock
        self.disagreements = 0
        self.merges = 0

    def start(self) -> None:
        self.alive.append(Deduplicator(self._zones, self._clock))

    async def kill(self) -> None:
        """End the oldest process, if there is any."""
        if self.alive:
            dead = self.alive.pop(0)
            self.disagreements += dead.merging.disagreements
            self.merges += dead.merging.merges
            await dead.kill()

    async def drain(self) -> bool:
        """Merge everything, then end every process; False when that does not come about."""
        if not self.alive:
            self.start()
        since, loop = self._clock.now(), asyncio.get_running_loop()
        until = loop.time() + DRAINED_S_MAX
        while not any(one.is_drained(since) for one in self.alive) and loop.time() < until:  # noqa: ASYNC110
            await asyncio.sleep(0.5)
        is_drained = loop.time() < until
        while self.alive:
            await self.kill()
        return is_drained


def _store(database: str) -> StoreSettings:
    return StoreSettings(database=database, user="", password=Secret(""), host="memory", port=1)
