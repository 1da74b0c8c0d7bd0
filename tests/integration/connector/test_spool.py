"""The disk spool between a real exchange and a real database: nothing lost, nothing reordered, every drop a gap."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from libs.marketdata.listening import holes, union
from libs.runtime.service import Runtime
from libs.store import steady
from libs.store.pool import Target
from services.connector.settings import SpoolSettings
from services.local.postgres import EmbeddedPostgres
from services.local.postgres_process import running_in
from tests.integration.connector.test_away import check_nothing_lost, check_order
from tests.integration.connector.test_capture import check
from tests.integration.connector.world import Zone, running_zone

S = 1_000_000
ROOT = Path(__file__).parents[3]
EAGER = SpoolSettings(
    bytes_max=64 << 20, free_bytes_min=0, rows_high=60, rows_low=10, age_s_max=0.5
)

ALONE: dict[str, Any] = {"grace_s": 0.1, "wait_ready": False}
"""A connector to which nobody succeeds, and of which rows are waited for."""


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Writers look for their database twice a second."""
    monkeypatch.setattr(steady, "WAIT_S_MAX", 0.5)


def spooled(runtime: Runtime, what: str = "batches") -> int:
    """What lies on the disk, over all families."""
    found: Any = runtime.health.document().get("spool", {})
    return int(sum(family[what] for family in found.values()))


def tiny(zone: Zone) -> None:
    """Memory for almost nothing."""
    zone.settings = replace(
        zone.settings,
        batches=replace(
            zone.settings.batches, buffer_rows_max=1500, deltas_rows=60, trades_rows=30
        ),
    )


async def test_a_database_away_under_load_goes_to_the_disk_and_comes_back(
    postgres_server: EmbeddedPostgres, gatherer_db: Target, tmp_path: Path
) -> None:
    """Some hundred rows with almost no memory: all of it comes back in its order, without a gap, and the spool is empty."""
    async with asyncio.timeout(120), running_zone(gatherer_db, tmp_path) as zone:
        tiny(zone)
        async with zone.connector(**ALONE, state_dir=str(tmp_path / "s"), spool=EAGER) as runtime:
            await zone.until(lambda: zone.has_rows(orderbook_deltas=200, trades=1, tickers=1))
            started = max(r.sent_at for r in await zone.rows("listen_opened")) + S
            async with zone.database_away(postgres_server):
                await zone.until(lambda: spooled(runtime) > 10 and spooled(runtime, "rows") > 500)
            await zone.until(lambda: not spooled(runtime, "bytes"))
            before = await zone.conn.fetchval("select count(*) from orderbook_deltas")
            await zone.until(lambda: zone.has_rows(orderbook_deltas=before + 100))
            await zone.stop_publishing()
        await check_order(zone)
        await check_nothing_lost(zone, started)
        assert {g.reason for g in await zone.rows("gaps")} == set()
        assert [path for path in (tmp_path / "s").rglob("*") if path.suffix == ".seg"] == []


def environment(zone: Zone, state: Path, **spool: str) -> dict[str, str]:
    """The variables of a connector process as the zone's own connectors are set."""
    exchange, store = zone.settings.exchange, zone.settings.store
    values = {
        "ZONE": "a", "HEALTH__PORT": "0", "METRICS__PORT": "0", "HEALTH__HOST": "127.0.0.1", "METRICS__HOST": "127.0.0.1",
        "SLOTS__ORDERBOOK": "2", "SLOTS__TICKER": "1", "SLOTS__TRADE": "1", "SLOTS__LIFECYCLE": "1",
        "SLOTS__CONNECTIONS_MAX": "50", "EXCHANGE__API_KEY_ID": exchange.api_key_id,
        "EXCHANGE__PRIVATE_KEY_FILE": exchange.private_key_file, "EXCHANGE__ENVIRONMENT": "simulator",
        "EXCHANGE__REST_URL": exchange.rest_url, "EXCHANGE__WS_URL": exchange.ws_url,
        "STORE__DATABASE": store.database, "STORE__USER": store.user, "STORE__PASSWORD": store.password.reveal(),
        "STORE__HOST": store.host, "STORE__PORT": str(store.port), "BATCHES__DELTAS_ROWS": "60",
        "CONNECTOR__SHARD": "connector-a-1", "CONNECTOR__PLAN_S": "0.2", "CONNECTOR__SETTLE_S": "0.3",
        "CONNECTOR__HEARTBEAT_S": "0.5", "CONNECTOR__PROBE_S": "1.0", "CONNECTOR__STATE_DIR": str(state),
        "CONNECTOR__SPOOL__FREE_BYTES_MIN": "0", "CONNECTOR__SPOOL__ROWS_HIGH": "60", "CONNECTOR__SPOOL__ROWS_LOW": "10",
        "CONNECTOR__SPOOL__AGE_S_MAX": "0.5",
    } | {f"CONNECTOR__SPOOL__{name}": value for name, value in spool.items()}  # fmt: skip
    return os.environ | {f"KALSHI_DATA_{name}": value for name, value in values.items()}


@asynccontextmanager
async def killed_at_the_end(zone: Zone, state: Path, **spool: str) -> AsyncIterator[None]:
    """Run a connector as a process of its own, and kill it without a word when the block ends."""
    with (state.parent / "connector.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "services.connector", cwd=ROOT, stdout=log, stderr=log,
            env=environment(zone, state, **spool),
        )  # fmt: skip
    try:
        yield
    finally:
        process.send_signal(signal.SIGKILL)
        await process.wait()


def spool_bytes(state: Path, family: str = "deltas") -> int:
    return sum(path.stat().st_size for path in (state / "spool").glob(f"*/{family}/*/*.seg"))


async def replayed(zone: Zone, lanes: set[Any]) -> int:
    """Deltas that came back on other lanes than these."""
    return int(
        await zone.conn.fetchval(
            "select count(*) from orderbook_deltas join ingest_batches using (batch_id) where lane <> all($1::uuid[])"
            " and connection in (select connection from orderbook_deltas join ingest_batches using (batch_id)"
            " where lane = any($1::uuid[]))", list(lanes),
        )
    )  # fmt: skip


async def test_a_spool_outlives_its_process_and_the_one_that_replays_it(
    postgres_server: EmbeddedPostgres, gatherer_db: Target, tmp_path: Path
) -> None:
    """Killed while the database is away, killed again in the middle of the replay: the third commits the rest, once."""
    state = tmp_path / "state"
    async with asyncio.timeout(120), running_zone(gatherer_db, tmp_path) as zone:
        async with killed_at_the_end(zone, state):
            await zone.until(lambda: zone.has_rows(orderbook_deltas=200, trades=1, tickers=1))
            started = max(r.sent_at for r in await zone.rows("listen_opened")) + S
            await postgres_server.stop()
            await zone.until(lambda: spool_bytes(state) > 120_000)

        async with zone.database_away(postgres_server):
            pass
        first = {r["lane"] for r in await zone.conn.fetch("select lane from lanes")}
        dead = {r.connection for r in await zone.rows("orderbook_deltas")}
        async with killed_at_the_end(zone, state, REPLAY_ROWS_PER_S="150"):

            async def begun() -> bool:
                return await replayed(zone, first) > 100

            await zone.until(begun)
            assert spool_bytes(state)
        async with zone.connector(state_dir=str(state), grace_s=0.1) as runtime:
            await zone.until(lambda: not spooled(runtime, "inherited_bytes"))
            await zone.stop_publishing()

        await check(zone)
        await check_once(zone, dead)
        await check_heard_to_the_end(zone, dead, started)


async def check_once(zone: Zone, dead: set[Any]) -> None:
    """The dead process's frames stand there once each, without a hole."""
    rows = [r for r in await zone.rows("orderbook_deltas") if r.connection in dead]
    assert len(rows) == len({(r.connection, r.sid, r.seq) for r in rows})
    ranges: dict[Any, list[tuple[int, int]]] = {}
    for found in await zone.rows("listen_ranges"):
        if found.connection in dead:
            key = found.connection, found.sid
            ranges.setdefault(key, []).append((found.seq_from, found.seq_to + 1))
    assert ranges
    assert all(len(union(spans)) == 1 for spans in ranges.values())


async def check_heard_to_the_end(zone: Zone, dead: set[Any], started: int) -> None:
    """Claims reach to the kill, and the cause of what follows names the last frame that was kept."""
    ends: dict[Any, int] = {}
    for found in await zone.rows("listen_ranges"):
        if found.connection in dead:
            ends[found.connection, found.sid] = max(
                found.sent_to, ends.get((found.connection, found.sid), 0)
            )
    gaps = {(g.connection, g.sid): g for g in await zone.rows("gaps") if g.reason == "process_died"}
    assert ends.keys() <= gaps.keys()
    assert {key: gaps[key].from_ts for key in ends} == ends
    assert min(ends.values()) > started + S


def dropped(runtime: Runtime) -> int:
    found: Any = runtime.health.document()["buffer"]
    return int(sum(family["dropped_rows"] for family in found.values()))


async def test_what_a_full_spool_drops_is_exactly_the_gap(
    postgres_server: EmbeddedPostgres, gatherer_db: Target, tmp_path: Path
) -> None:
    """Some ten kilobytes and a little memory: the hole in a sid's ranges is its gap row, and hearing goes on behind it.

    The database goes away once more, and the connector ends without it: the next one commits what it left.
    """
    own: dict[str, Any] = {
        "state_dir": str(tmp_path / "state"), "flush_s": 0.5, "spool": replace(EAGER, bytes_max=120_000),
    } | ALONE  # fmt: skip
    async with asyncio.timeout(120), running_zone(gatherer_db, tmp_path) as zone:
        tiny(zone)
        zone.settings = replace(
            zone.settings, batches=replace(zone.settings.batches, buffer_rows_max=200)
        )
        async with AsyncExitStack() as absence:
            async with zone.connector(**own) as runtime:
                await zone.until(lambda: zone.has_rows(orderbook_deltas=200))
                async with zone.database_away(postgres_server):
                    await zone.until(lambda: dropped(runtime) > 300)
                await zone.until(lambda: not spooled(runtime, "bytes"))
                before = await zone.conn.fetchval("select count(*) from orderbook_deltas")
                await zone.until(lambda: zone.has_rows(orderbook_deltas=before + 1000))
                # While a machine stands still more may be dropped, of which the rows are on their way.
                await zone.until(lambda: is_told(zone, runtime))
                lost = dropped(runtime)
                await absence.enter_async_context(zone.database_away(postgres_server))
                await zone.until(lambda: spooled(runtime, "rows") > 100)
            assert spool_bytes(tmp_path / "state")
        await check_drops(zone, lost, "spool_full")
        async with zone.connector(**own | {"wait_ready": True}) as runtime:
            await zone.until(lambda: not spooled(runtime, "inherited_bytes"))
            await zone.stop_publishing()
        await check(zone)
        assert {g.reason for g in await zone.rows("gaps")} == {"spool_full"}
        assert not spool_bytes(tmp_path / "state")


async def is_told(zone: Zone, runtime: Runtime) -> bool:
    """True when gap rows tell of all that was dropped."""
    told = "select coalesce(sum(rows_lost), 0) from gaps where reason = 'spool_full'"
    return bool(await zone.conn.fetchval(told) == dropped(runtime))


async def check_drops(zone: Zone, lost: int, *reasons: str) -> None:
    """Every hole of a sid is one gap row with its numbers and times, all rows are counted, and claims go on behind."""
    gaps = [g for g in await zone.rows("gaps") if g.reason in reasons]
    assert sum(g.rows_lost for g in gaps) == lost
    ranges: dict[Any, list[Any]] = {}
    for found in await zone.rows("listen_ranges"):
        ranges.setdefault((found.connection, found.sid), []).append(found)
    said: dict[Any, list[tuple[int, int]]] = {(g.connection, g.sid): [] for g in gaps}
    for g in gaps:
        said[g.connection, g.sid].append((g.seq_from, g.seq_to + 1))
    books = [g for g in gaps if g.channel == "orderbook_delta" and g.connection is not None]
    assert books
    for key, found in ranges.items():
        spans = union((r.seq_from, r.seq_to + 1) for r in found)
        assert holes(spans, spans[0][0], spans[-1][1]) == union(said.get(key, []))
    claims = await zone.claims()
    behind = max(g.to_ts for g in books)
    wanted = {r[0] for r in await zone.conn.fetch("select ticker from markets")}
    assert {
        c.ticker for c in claims if c.channel == "orderbook_delta" and c.to_ts > behind
    } == wanted


@contextmanager
def frozen(server: EmbeddedPostgres) -> Iterator[None]:
    """A database that takes connections and answers nothing."""
    pids = running_in(server.data)
    try:
        tell(pids, signal.SIGSTOP)
        yield
    finally:
        tell(pids, signal.SIGCONT)


def tell(pids: Iterable[int], number: int) -> None:
    """Send a signal; a process that was about to end may be gone."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


async def test_a_database_that_answers_nothing_does_not_hold_a_drain(
    postgres_server: EmbeddedPostgres, gatherer_db: Target, tmp_path: Path
) -> None:
    """Grace and flush over, the connector ends, and what it holds lies on the disk."""
    own = ALONE | {"grace_s": 0.5, "flush_s": 1.0, "state_dir": str(tmp_path / "s"), "spool": EAGER}
    async with asyncio.timeout(120), running_zone(gatherer_db, tmp_path) as zone:
        async with AsyncExitStack() as connector:
            runtime = await connector.enter_async_context(zone.connector(**own))
            await zone.until(lambda: zone.has_rows(orderbook_deltas=100))
            with frozen(postgres_server):
                asked = runtime.clock.monotonic()
                await connector.aclose()
                assert runtime.clock.monotonic() - asked < 20
        assert spool_bytes(tmp_path / "s")
