"""A connector under the fault menu: faults go in over HTTP, what came of them is read from journals and database."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import aiohttp

from libs.flow.placement import CHANNELS, kind_of
from libs.marketdata.rows import ROW_TYPES, GapRow, RejectedFrameRow, SnapshotRow
from libs.runtime.sections import SlotSettings
from libs.runtime.service import Runtime
from libs.store.pool import Target
from services.local.config_files import capture_filter
from services.simulator.journal import Journal
from services.simulator.server import SimulatorServer
from tests.integration.connector.world import Zone, place, running_zone

SILENCE_S, ANSWER_S, PROBE_S = 2.5, 4.0, 1.0
"""A dead connection shows by its silence, well before a probe that is asked after a second is overdue."""
LATE_S_MAX, LATE_FOR_S = 1.5, 0.5
BACKOFF_S_MAX = 0.4
TABLES = (
    "orderbook_deltas", "trades", "tickers", "market_lifecycle", "orderbook_snapshots", "snapshot_cuts",
    "listen_ranges", "listen_opened", "listen_closed", "gaps", "rejected_frames",
)  # fmt: skip
"""What the verdict and the cases read."""
MARKET: dict[str, Any] = {
    "closing_share": 0.0, "combo_share": 0.0, "pause_every_s": 0.4, "news_every_s": 1.0, "ping_s": 0.5,
}  # fmt: skip
"""Markets that stay open, and lifecycle messages every moment."""


wanted = capture_filter().may_want
"""Whether a market is captured: combos, which come by chance, are not."""


class Aimed(NamedTuple):
    """A fault aimed at one connection: its number, the exchange's number of the connection, and our name for it."""

    number: int
    line: int
    connection: UUID


@dataclass(slots=True)
class Found:
    """What a finished run left: committed rows by table, the lines of both journals, and the settings of a session.

    It is a database to the union of tests.simulation.production, whose ladders are tuples.
    """

    tables: dict[str, list[Any]]
    market: list[bytes]
    session: list[bytes]
    journal: list[dict[str, Any]] = field(init=False)

    def __post_init__(self) -> None:
        self.journal = [json.loads(line) for line in self.session]

    def rows(self, table: str) -> list[Any]:
        return self.tables[table]

    def hits(self, number: int) -> list[dict[str, Any]]:
        """What a fault hit, one line of the session journal each."""
        return [e for e in self._faults("hit") if e.get("number") == number]

    def count(self, number: int) -> int:
        """How often a fault hit, also where a hit has no line of its own."""
        return next(int(e["hits"]) for e in self._faults("end") if e["number"] == number)

    @property
    def kinds(self) -> set[str]:
        """Kinds of the faults that began."""
        return {str(e["fault"]) for e in self._faults("begin")}

    def _faults(self, phase: str) -> list[dict[str, Any]]:
        return [e for e in self.journal if e["kind"] == "fault" and e["phase"] == phase]

    def gaps(self, connection: UUID, reason: str) -> list[GapRow]:
        return [g for g in self.rows("gaps") if g.connection == connection and g.reason == reason]

    def skipped(self, connection: UUID) -> set[int]:
        """Numbers of a connection that the gap rows say did not come."""
        gaps = (g for g in self.gaps(connection, "seq") if g.seq_from is not None)
        return {n for g in gaps for n in range(g.seq_from or 0, (g.seq_to or 0) + 1)}

    def rejected(self, connection: UUID) -> list[RejectedFrameRow]:
        return [r for r in self.rows("rejected_frames") if r.connection == connection]

    def snapshots(self, connection: UUID) -> list[SnapshotRow]:
        return [r for r in self.rows("orderbook_snapshots") if r.connection == connection]


Check = Callable[[Found], None]
"""Looks at what a case left, after the end."""


class Shared:
    """One connection to the database for cases that run side by side: each waits for its turn."""

    def __init__(self, conn: Any) -> None:
        self._conn = conn
        self._turn = asyncio.Lock()

    async def fetch(self, query: str, *values: Any) -> Any:
        async with self._turn:
            return await self._conn.fetch(query, *values)

    async def fetchval(self, query: str, *values: Any) -> Any:
        async with self._turn:
            return await self._conn.fetchval(query, *values)

    async def place(self, slots: list[tuple[str, str]]) -> None:
        async with self._turn:
            await place(self._conn, slots)


@dataclass(slots=True)
class FaultRun:
    """A running exchange and connector, and the door to the faults."""

    simulator: SimulatorServer
    conn: Shared
    runtime: Runtime
    http: aiohttp.ClientSession
    listing: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Who lets markets be created looks for those that are new: one at a time."""

    # --- faults ---

    async def post(self, *entries: dict[str, Any]) -> tuple[int, Any]:
        """Send faults to the control door; returns status and answer."""
        body: Any = entries[0] if len(entries) == 1 else list(entries)
        async with self.http.post(f"{self.simulator.control_url}/faults", json=body) as answer:
            return answer.status, await answer.json()

    async def inject(self, **entry: Any) -> int:
        """Let a fault begin and return its number."""
        status, told = await self.post(entry)
        assert status == 201, told
        return int(told["begun"][0]["number"])

    async def aim(self, slot: str, **entry: Any) -> Aimed:
        """Let a fault begin that hits the connection of one slot."""
        connection = self.connection(slot)
        assert connection is not None
        line = await self.line(slot)
        on = {"connection": line} | entry.pop("on", {})
        return Aimed(await self.inject(on=on, **entry), line, connection)

    async def line(self, slot: str) -> int:
        """The exchange's number of a slot's newest connection."""
        markets = await self.markets(slot)
        name = CHANNELS[kind_of(slot)][0]
        found = [
            line.number
            for line in self.simulator.simulation.lines.values()
            for subscription in line.session.subscriptions.values()
            if subscription.channel == name
            and (not markets or markets[0] in (subscription.tickers or ()))
        ]
        return max(found)

    # --- what can be waited for ---

    def slot(self, name: str) -> dict[str, Any]:
        """A slot as /health shows it."""
        found: dict[str, Any] = self.runtime.health.document()["slots"][name]
        return found

    def connection(self, slot: str) -> UUID | None:
        """The name of the slot's (first) connection, None while there is none."""
        name = self.slot(slot)["connection"]
        return UUID(name) if name else None

    def has_other(self, slot: str, before: UUID) -> bool:
        """True when the slot is heard on another connection."""
        return bool(self.slot(slot)["heard"]) and self.connection(slot) not in (None, before)

    def is_heard(self) -> bool:
        """True when every slot is."""
        slots = self.runtime.health.document()["slots"].values()
        return all(slot["heard"] and not slot["error"] for slot in slots)

    def metric(self, name: str, **labels: str) -> float:
        """A figure of /metrics; 0 before it was counted."""
        registry, labels = self.runtime.metrics.registry, {"zone": "a", **labels}
        return registry.get_sample_value(f"kalshi_data_{name}", labels) or 0.0

    def metric_sum(self, name: str) -> float:
        """A figure of /metrics over all its labels."""
        families = self.runtime.metrics.registry.collect()
        samples = (sample for family in families for sample in family.samples)
        return sum(sample.value for sample in samples if sample.name == f"kalshi_data_{name}")

    async def place(self, tickers: list[str], slot: str) -> None:
        """Do what the registry does with new markets: put them on a slot."""
        await self.conn.place([(ticker, slot) for ticker in tickers])

    async def markets(self, slot: str) -> list[str]:
        """Tickers of an order-book slot."""
        rows = await self.conn.fetch("select ticker from markets where slot = $1 order by 1", slot)
        return [row[0] for row in rows]

    async def count(self, where: str, *values: Any, table: str) -> int:
        """Committed rows of a table for which a condition holds."""
        return int(await self.conn.fetchval(f"select count(*) from {table} where {where}", *values))

    async def until(
        self, holds: Callable[[], bool | Awaitable[bool]], timeout_s: float = 60.0
    ) -> None:
        """Wait until something holds, looking every 50 ms."""
        async with asyncio.timeout(timeout_s):
            while True:
                found = holds()
                if found if isinstance(found, bool) else await found:
                    return
                await asyncio.sleep(0.05)

    async def heard_for(self, seconds: float) -> None:
        """Wait until everything is heard, and deltas of so much later are committed."""
        await self.until(self.is_heard)
        moment = self.simulator.clock.now() + int(seconds * 1_000_000)

        async def is_there() -> bool:
            newest = await self.conn.fetchval("select max(exchange_ts) from orderbook_deltas")
            return bool(newest and newest > moment)

        await self.until(is_there)

    # --- the end ---

    async def stop_exchange(self) -> None:
        """End publishing, over HTTP; every sid has said something once more then."""
        async with self.http.post(f"{self.simulator.control_url}/stop") as answer:
            assert answer.status == 200

    async def find(self) -> Found:
        """Read what the run left; the connector has ended."""
        tables = {name: await rows(self.conn, name) for name in TABLES}
        tables["orderbook_snapshots"] = [
            r._replace(yes=_ladder(r.yes), no=_ladder(r.no)) for r in tables["orderbook_snapshots"]
        ]
        return Found(
            tables, _lines(self.simulator.market_journal), _lines(self.simulator.session_journal)
        )


def _lines(journal: Journal) -> list[bytes]:
    journal.flush()
    return journal.path.read_bytes().splitlines()


async def rows(conn: Shared, table: str) -> list[Any]:
    """Return every committed row of a table."""
    row_type: Any = ROW_TYPES[table]
    columns = ", ".join(row_type._fields)
    return [row_type(*row) for row in await conn.fetch(f"select {columns} from {table}")]


def _ladder(levels: Any) -> Any:
    return None if levels is None else tuple(map(tuple, levels))


@asynccontextmanager
async def faulty_zone(
    target: Target, directory: Path, orderbooks: int, **simulated: Any
) -> AsyncIterator[Zone]:
    """A zone with settings so quick that every watchdog is seen at work within seconds."""
    slots = SlotSettings(orderbook=orderbooks, ticker=1, trade=1, lifecycle=1, connections_max=50)
    async with running_zone(target, directory, slots=slots, **MARKET | simulated) as zone:
        exchange = replace(
            zone.settings.exchange, silence_s_max=SILENCE_S, late_s_max=LATE_S_MAX, late_for_s=LATE_FOR_S,
            backoff_s_max=BACKOFF_S_MAX, limited_s_max=BACKOFF_S_MAX,
        )  # fmt: skip
        own = replace(zone.settings.connector, probe_s=PROBE_S, answer_s=ANSWER_S)
        zone.settings = replace(zone.settings, exchange=exchange, connector=own)
        yield zone


class Case(NamedTuple):
    """A kind of the menu, the slot it is aimed at ("": everyone), what is done, and what is asserted at the end."""

    kind: str
    slot: str
    carry_out: Callable[[FaultRun, str], Awaitable[Check]]

    async def begin(self, run: FaultRun) -> Check:
        """Carry it out; what did not happen in time is told with its case."""
        try:
            return await self.carry_out(run, self.slot)
        except TimeoutError as error:
            told = run.slot(self.slot) if self.slot else run.runtime.health.document()
            raise AssertionError(f"{self.kind} on {self.slot or 'everyone'}: {told}") from error
