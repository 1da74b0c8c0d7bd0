"""A small world with a known truth: markets, three gatherers that each miss something, and what they committed.

Streams number occurrences and positions themselves, as a connector does: never from the truth.
"""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID, uuid4

from libs.marketdata.rows import DeltaRow, GapRow, ListenRangeRow, TickerRow, TradeRow
from libs.marketdata.tables import Family
from libs.marketdata.units import MILLISECOND, MINUTE
from libs.runtime.clock import SystemClock
from libs.runtime.health import HealthState
from libs.runtime.secret import Secret
from libs.runtime.sections import GathererSource, StoreSettings
from libs.runtime.service import Runtime
from libs.store.batches import seal
from libs.store.errors import LaneLost, StoreUnavailable
from libs.store.lanes import LaneWriter
from libs.store.pool import Connection, Pool, Target, connect
from libs.telemetry.metric_kinds import PREFIX
from libs.telemetry.metrics import Metrics
from services.deduplicator.service import run
from services.deduplicator.settings import DeduplicatorSettings, Settings

CLOCK = SystemClock()
Change = tuple[str, int, int, bool, int]
"""ticker, exchange_ts, price, side, size_delta."""
Key = tuple[str, int, int, bool, int, int]
KEY_COLUMNS = "ticker, exchange_ts, price, side, size_delta, occurrence"

FAST = DeduplicatorSettings(
    poll_ms=20,
    poll_ms_min=2,
    page_rows=200,
    transaction_rows=600,
    lease_s=1.5,
    backoff_s_min=0.05,
    backoff_s_max=0.2,
    ack_s=0.05,
    agreement_sample=1,
    housekeeping_s=0.1,
    grace_s=10,
)


def make_truth(seed: int, changes: int, markets: int = 4) -> list[Change]:
    """Changes in order of time: bursts within a millisecond, identical ones among them."""
    rng = random.Random(seed)
    moment = CLOCK.now() // MINUTE * MINUTE - 2 * MINUTE
    truth: list[Change] = []
    while len(truth) < changes:
        moment += rng.choice([1, 1, 2, 7]) * MILLISECOND
        ticker = f"MARKET-{rng.randrange(markets)}"
        for _ in range(rng.choice([1, 1, 1, 2, 4])):
            price, side = rng.choice([50_000, 51_000]), rng.random() < 0.5
            truth.append((ticker, moment, price, side, rng.choice([100, -100])))
    return truth[:changes]


def hear(truth: Sequence[Change], spans: Iterable[tuple[int, int]] = ()) -> list[DeltaRow]:
    """Return one connection's rows of the truth without these spans of indices; each span ends every stream."""
    missing = sorted(spans)
    rows: list[DeltaRow] = []
    connection, seen = uuid4(), Counter[Change]()
    first: dict[str, int] = {}
    places: dict[str, tuple[int, int]] = {}
    for index, change in enumerate(truth):
        if any(start <= index < end for start, end in missing):
            seen.clear()
            first.clear()
            continue
        ticker, moment, price, side, size = change
        seen[change] += 1
        first.setdefault(ticker, moment)
        last, pos = places.get(ticker, (0, 0))
        pos = pos + 1 if last == moment else 1
        places[ticker] = (moment, pos)
        rows.append(
            DeltaRow(
                moment, moment + 900, size, index + 1, price, seen[change], 1, side, connection, ticker,
                moment + 300, None if first[ticker] == moment else pos,
            )
        )  # fmt: skip
    return rows


def keys(rows: Iterable[DeltaRow]) -> set[Key]:
    """The identities of these rows."""
    return {(r.ticker, r.exchange_ts, r.price, r.side, r.size_delta, r.occurrence) for r in rows}


def true_keys(truth: Iterable[Change]) -> set[Key]:
    """The identities a stream that heard everything would give."""
    seen = Counter[Change]()
    found = set()
    for change in truth:
        seen[change] += 1
        found.add((*change, seen[change]))
    return found


def trade(number: int, moment: int, **changes: Any) -> TradeRow:
    """A trade that came by REST."""
    row = TradeRow(
        moment, moment + 500, 100, 40_000, 60_000, True, f"trade-{number}", "MARKET-0",
        None, None, None, None, None,
    )  # fmt: skip
    return row._replace(**changes)


def ticker(number: int, moment: int) -> TickerRow:
    """A ticker told apart by its hash."""
    return TickerRow(
        moment, moment + 500, number, 1, 2, 3, 4, 5, 6, 7, number, 50_000, 49_000, 51_000, 1, uuid4(),
        "MARKET-0", None,
    )  # fmt: skip


def listened(seq_to: int, moment: int) -> ListenRangeRow:
    """A claim of frames 1 to seq_to."""
    return ListenRangeRow(
        moment, 1, seq_to, moment, moment, 1_000_000, 1, 0, uuid4(), "orderbook_delta"
    )


def gap(reason: str) -> GapRow:
    """A cause of a gap of all deltas."""
    return GapRow(
        CLOCK.now(), 1, "orderbook_delta", "", reason, "", None, None, None, None, None, None, None, None,
        None, None,
    )  # fmt: skip


class Zone:
    """One gatherer's writer: commits rows in batches of its own sizes."""

    def __init__(self, pool: Pool, seed: int) -> None:
        self._rng = random.Random(seed)
        self._process = f"connector-{seed}"
        self.pool = pool
        self.writers = {family: self._writer(family) for family in Family}

    def _writer(self, family: Family) -> LaneWriter:
        return LaneWriter(self.pool, family=family, process=self._process, instance=uuid4())

    async def write(self, rows: Sequence[DeltaRow], batch_max: int = 40) -> int:
        """Commit deltas in order, in batches of random size (0: in one); return how many batches."""
        batches = 0
        while rows:
            count = self._rng.randint(1, batch_max) if batch_max else len(rows)
            await self.writers[Family.DELTAS].write(seal({"orderbook_deltas": rows[:count]}))
            rows, batches = rows[count:], batches + 1
        return batches

    async def write_other(
        self, table: str, rows: Sequence[tuple[Any, ...]], family: Family
    ) -> None:
        """Commit rows of one table as one batch."""
        await self.writers[family].write(seal({table: rows}))

    async def write_together(
        self, rows: Sequence[DeltaRow], claims: Sequence[ListenRangeRow]
    ) -> None:
        """Commit deltas and the claims that speak of them as one batch."""
        batch = seal({"orderbook_deltas": rows, "listen_ranges": claims})
        await self.writers[Family.DELTAS].write(batch)

    async def go_on(self, rows: Sequence[DeltaRow], held: Sequence[DeltaRow] = ()) -> None:
        """Commit deltas as a connector does whose database may have been away or have gone back meanwhile.

        Args:
            held: what it still has of before, written first on a new lane if the old one is lost.
        """
        writer = self.writers[Family.DELTAS]
        batch = seal({"orderbook_deltas": rows})
        for _ in range(20):
            try:
                await writer.write(batch)
            except StoreUnavailable:
                continue
            except LaneLost as lost:
                await writer.reopen()
                await writer.write(seal({"gaps": [gap(lost.reason)]}))
                if held:
                    await writer.write(seal({"orderbook_deltas": held}))
                continue
            return
        raise AssertionError("the database does not come back")

    async def renew_lanes(self) -> None:
        """Begin anew, as a restarted process does."""
        self.writers = {family: self._writer(family) for family in Family}

    async def close(self) -> None:
        """Close the lanes."""
        for writer in self.writers.values():
            await writer.close()


def store_of(target: Target) -> StoreSettings:
    """The settings by which a service reaches this database."""
    return StoreSettings(
        database=target.database, user=target.user, password=Secret(target.password), host=target.host,
        port=target.port, connect_timeout_s=2.0,
    )  # fmt: skip


@dataclass
class Running:
    """A deduplicator in this process."""

    runtime: Runtime
    task: "asyncio.Task[None]"

    def metric(self, name: str, **labels: str) -> float:
        """The value of one of its metrics."""
        found = self.runtime.metrics.registry.get_sample_value(PREFIX + name, labels)
        return found or 0.0

    @property
    def health(self) -> dict[str, Any]:
        """Its /health document."""
        return self.runtime.health.document()

    async def started(
        self, holds: Callable[[dict[str, Any]], Any], timeout_s: float = 60.0
    ) -> None:
        """Return once its document fulfils a condition."""
        async with asyncio.timeout(timeout_s):
            while not holds(self.health):
                if self.task.done():
                    await self.task
                    raise AssertionError("the deduplicator has ended")
                await asyncio.sleep(0.005)

    async def until(self, holds: Callable[[dict[str, Any]], Any], timeout_s: float = 60.0) -> None:
        """Return once its document tells of gatherers and fulfils a condition."""
        await self.started(lambda health: "gatherers" in health and holds(health), timeout_s)

    async def drained(self, *zones: str) -> None:
        """Return once these zones (all by default) were read to their end after this moment, and merged."""
        asked = CLOCK.now()

        def all_drained(health: dict[str, Any]) -> bool:
            feeds = health.get("gatherers", {})
            moments = [feeds.get(zone, {}).get("drained_at") for zone in zones or feeds]
            return bool(feeds) and all(m is not None and m > asked for m in moments)

        await self.until(all_drained)

    async def stop(self) -> None:
        """Stop it as SIGTERM does."""
        self.runtime.stop.set()
        async with asyncio.timeout(60):
            await self.task

    async def kill(self) -> None:
        """End it where it stands, as kill -9 does: connections are dropped, nothing is tidied up."""
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


def start(
    gatherers: dict[str, Target],
    production: Target,
    own: DeduplicatorSettings = FAST,
    **changes: Any,
) -> Running:
    """Start a deduplicator over these databases."""
    settings = Settings(
        gatherers=tuple(GathererSource(zone, store_of(db)) for zone, db in gatherers.items()),
        production=store_of(production),
        deduplicator=replace(own, **changes),
    )
    metrics = Metrics()
    runtime = Runtime(
        CLOCK, asyncio.Event(), HealthState("deduplicator", "", CLOCK, metrics), metrics
    )
    return Running(runtime, asyncio.create_task(run(settings, runtime)))


@asynccontextmanager
async def running(
    gatherers: dict[str, Target],
    production: Target,
    own: DeduplicatorSettings = FAST,
    **changes: Any,
) -> AsyncIterator[Running]:
    """Run a deduplicator for the time of a block."""
    deduplicator = start(gatherers, production, own, **changes)
    try:
        yield deduplicator
        if not deduplicator.task.done():
            await deduplicator.stop()
    finally:
        await deduplicator.kill()


async def merged_keys(conn: Connection) -> list[Key]:
    """Every delta of production, by identity; a list, so that a doubled one would show."""
    rows = await conn.fetch(f"SELECT {KEY_COLUMNS} FROM orderbook_deltas")
    return [tuple(row) for row in rows]


async def coverage_of(conn: Connection, table: str) -> dict[tuple[int, ...], int]:
    """Distinct facts of a table by the gatherers that delivered them."""
    rows = await conn.fetch(
        "SELECT gatherers, sum(facts)::bigint AS facts FROM coverage WHERE table_name = $1 AND NOT is_late"
        " GROUP BY gatherers HAVING sum(facts) <> 0",
        table,
    )
    return {tuple(row["gatherers"]): row["facts"] for row in rows}


async def event_kinds(conn: Connection) -> list[str]:
    """The kinds of event rows, in order."""
    return [r["kind"] for r in await conn.fetch("SELECT kind FROM operational_events ORDER BY at")]


async def lanes_of(conn: Connection) -> list[UUID]:
    """The lanes of a gatherer."""
    return [row["lane"] for row in await conn.fetch("SELECT lane FROM lanes")]


async def copy_database(target: Target) -> None:
    """Keep a copy of a database as it is now, byte for byte; every connection to it ends."""
    async with connect(replace(target, database="postgres")) as server:
        await _without_clients(server, target.database)
        await server.execute(f"CREATE DATABASE {target.database}_older TEMPLATE {target.database}")
        await server.execute(f"ALTER DATABASE {target.database} WITH ALLOW_CONNECTIONS true")


async def restore_database(target: Target) -> None:
    """Put the copy in the database's place, as a restore from a backup does."""
    async with connect(replace(target, database="postgres")) as server:
        await _without_clients(server, target.database)
        await server.execute(f"DROP DATABASE {target.database}")
        await server.execute(f"ALTER DATABASE {target.database}_older RENAME TO {target.database}")


async def _without_clients(server: Connection, database: str) -> None:
    await server.execute(f"ALTER DATABASE {database} WITH ALLOW_CONNECTIONS false")
    ending = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = $1"
    while await server.fetchval(ending, database):
        await server.execute("SELECT pg_sleep(0.01)")
