"""kill -9 of the real process at random moments while three zones are written: production ends exact."""

import asyncio
import random
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from libs.marketdata.tables import Family
from libs.runtime.health import fetch_health
from libs.store.pool import Target, connect
from services.local.ports import free_ports
from tests.integration.deduplicator.conftest import Databases
from tests.integration.deduplicator.world import (
    CLOCK,
    FAST,
    Zone,
    hear,
    keys,
    make_truth,
    merged_keys,
    ticker,
    trade,
)
from tests.support.forked import Forked

KILLS = 10
"""`make soak` has two hundred, over the whole topology."""
CHANGES_A_TURN = 75
OWN = replace(FAST, page_rows=20, transaction_rows=40, lease_s=0.3)


@pytest.fixture
def directory() -> Iterator[Path]:
    """Where configuration and log stand; the log is shown when a test fails."""
    with tempfile.TemporaryDirectory(prefix="kalshi-data-killed-") as found:
        yield Path(found)
        for log in Path(found).glob("*.log"):
            sys.stdout.write(log.read_text())


def config_of(
    databases: Databases, health: int = 8080, metrics: int = 9090, lease_s: float = OWN.lease_s
) -> dict[str, Any]:
    """The configuration file of a deduplicator over these databases."""
    gatherers = databases.gatherers.items()
    return {
        "gatherers": [{"zone": zone, "store": _store(db)} for zone, db in gatherers],
        "production": _store(databases.production),
        "deduplicator": {**asdict(OWN), "lease_s": lease_s},
        "health": {"host": "127.0.0.1", "port": health},
        "metrics": {"host": "127.0.0.1", "port": metrics},
        "log": {"format": "json", "level": "info"},
    }


def _store(target: Target) -> dict[str, Any]:
    return {
        "host": target.host, "port": target.port, "database": target.database, "user": target.user,
        "password": target.password,
    }  # fmt: skip


class Deduplicator:
    """The real process over these databases, started and killed again and again."""

    def __init__(
        self,
        databases: Databases,
        directory: Path,
        name: str = "first",
        lease_s: float = OWN.lease_s,
    ) -> None:
        self.log = directory / f"{name}.log"
        self._config = directory / f"{name}.yaml"
        self._port, metrics = free_ports(2)
        document = config_of(databases, self._port, metrics, lease_s)
        self._config.write_text(yaml.safe_dump(document))

    def start(self) -> Forked:
        """Start one."""
        return Forked(("run", "deduplicator", "--config", str(self._config)), self.log)

    async def health(self) -> dict[str, Any]:
        """Its /health; empty while it cannot be asked."""
        try:
            return await fetch_health(self._port)
        except (OSError, ValueError):
            return {}

    async def until(self, holds: Callable[[dict[str, Any]], Any]) -> None:
        """Return once its /health fulfils a condition."""
        async with asyncio.timeout(60):
            while not holds(await self.health()):  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.01)

    async def drained(self) -> None:
        """Return once everything committed by now is merged."""
        asked = CLOCK.now()
        await self.until(lambda health: (health.get("drained_at") or 0) > asked)


async def write(zone: Zone, rows: list[Any], turn: int) -> None:
    """Commit a turn's deltas in small batches, and trades and tickers that all zones hear."""
    now = CLOCK.now()
    trades = [trade(number, now) for number in range(turn * 3, turn * 3 + 5)]
    await zone.write_other("trades", trades, Family.TRADES)
    await zone.write(rows, batch_max=15)
    moment = now // 60_000_000 * 60_000_000
    tickers = [ticker(number, moment) for number in range(turn * 3, turn * 3 + 5)]
    await zone.write_other("tickers", tickers, Family.TRADES)


async def until_merges(databases: Databases, count: int) -> None:
    """Return once so many transactions are committed."""
    async with asyncio.timeout(60):
        while await databases.conn.fetchval("SELECT count(*) FROM merges") < count:
            await databases.conn.execute("SELECT pg_sleep(0.001)")


@asynccontextmanager
async def running(deduplicator: Deduplicator) -> AsyncIterator[Forked]:
    """The last one, which merges the rest and stops in order."""
    process = deduplicator.start()
    try:
        yield process
        assert await process.stop() == 0, deduplicator.log.read_text()
    finally:
        if process.alive:
            await process.kill()


async def test_the_process_killed_at_random_moments_ends_exact(
    databases: Databases, directory: Path
) -> None:
    """Before its first transaction, within one, between two: the next one goes on from what is committed."""
    chance, truth = random.Random(12), make_truth(12, KILLS * CHANGES_A_TURN)
    third = len(truth) // 3
    heard = [hear(truth, [(n * third, n * third + 100)]) for n in range(3)]
    deduplicator = Deduplicator(databases, directory)
    for turn in range(KILLS):
        process = deduplicator.start()
        done = await databases.conn.fetchval("SELECT count(*) FROM merges")
        share = slice(turn * CHANGES_A_TURN, (turn + 1) * CHANGES_A_TURN)
        async with asyncio.TaskGroup() as tasks:
            for zone, rows in zip(databases.zones.values(), heard, strict=True):
                tasks.create_task(write(zone, rows[share], turn))
            await until_merges(databases, done + chance.choice([0, 1, 1, 2, 3]))
            await process.kill()
    async with running(deduplicator):
        await deduplicator.drained()
    expected = set().union(*(keys(rows[: KILLS * CHANGES_A_TURN]) for rows in heard))
    assert sorted(await merged_keys(databases.conn)) == sorted(expected)
    await check_the_books(databases, len(expected))


async def check_the_books(databases: Databases, deltas: int) -> None:
    """Counts, coverage, cursors and the numbers of the merges all say the same."""
    conn = databases.conn
    ids = [row["trade_id"] for row in await conn.fetch("SELECT trade_id FROM trades")]
    assert sorted(ids) == sorted(f"trade-{number}" for number in range(KILLS * 3 + 2))
    hashes = await conn.fetch("SELECT DISTINCT content_hash FROM tickers")
    assert {row["content_hash"] for row in hashes} == set(range(KILLS * 3 + 2))
    tickers = await conn.fetchval("SELECT count(*) FROM tickers")
    counts = {"orderbook_deltas": deltas, "trades": len(ids), "tickers": tickers}
    facts = await conn.fetch(
        "SELECT table_name, sum(facts)::bigint FROM coverage WHERE NOT is_late GROUP BY table_name"
    )
    assert dict(map(tuple, facts)) == counts
    assert await conn.fetchval("SELECT sum(rows_inserted) FROM merges") == sum(counts.values())
    merges = await conn.fetch("SELECT merge_no FROM merges ORDER BY merged_at")
    numbers = [row["merge_no"] for row in merges]
    assert numbers == sorted(set(numbers))
    assert numbers[-1] == await conn.fetchval("SELECT merge_no FROM writer_lease")
    used = await conn.fetch("SELECT DISTINCT merge_no FROM orderbook_deltas")
    assert {row["merge_no"] for row in used} <= set(numbers)
    cursors = {
        row["lane"]: row["batch_no"] for row in await conn.fetch("SELECT * FROM sync_cursors")
    }
    for target in databases.gatherers.values():
        async with connect(target) as gatherer:
            ledger = await gatherer.fetch(
                "SELECT lane, max(batch_no) AS last, count(*) AS n FROM ingest_batches GROUP BY lane"
            )
        assert len(ledger) == 2
        for row in ledger:
            assert cursors[row["lane"]] == row["last"] == row["n"]


WAITS = "waiting for the lease of another deduplicator"


async def test_a_writer_that_stood_still_finds_another_in_its_place_and_writes_nothing(
    databases: Databases, directory: Path
) -> None:
    """Stopped in its tracks for longer than its lease; awake again it is fenced, waits, and follows when that one dies."""
    truth = make_truth(19, 600)
    rows, zones = hear(truth), databases.zones
    # Long enough that neither loses it to a busy machine.
    first, second = (Deduplicator(databases, directory, name, 5.0) for name in ("first", "second"))
    async with running(first) as sleeper:
        await first.until(lambda health: health.get("epoch") == 1)
        await zones["a"].write(rows[:200])
        await first.drained()
        sleeper.send(signal.SIGSTOP)
        rival = second.start()
        try:
            await second.until(lambda health: health.get("epoch") == 2)
            await zones["b"].write(rows[:400])
            await second.drained()
            sleeper.send(signal.SIGCONT)
            await first.until(lambda health: health.get("reason") == WAITS)
            await zones["c"].write(rows[300:500])
            await second.drained()
            await first.until(lambda health: health.get("epoch") == 1)
        finally:
            await rival.kill()
        await zones["a"].write(rows[400:])
        await first.until(lambda health: health.get("epoch") == 3)
        await first.drained()
    assert sorted(await merged_keys(databases.conn)) == sorted(keys(rows))
    inserted = await databases.conn.fetchval("SELECT sum(rows_inserted) FROM merges")
    assert inserted == len(rows)
    log = first.log.read_text()
    assert "writer_stopped" in log and "epoch 2 holds production, ours was 1" in log
