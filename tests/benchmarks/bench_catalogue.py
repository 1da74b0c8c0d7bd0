"""What a catalogue of a million markets costs the registry: listing, restart, pages for people, the connectors' lists.

    python -m tests.benchmarks.bench_catalogue [markets [reads_per_s]]        default: 100,000 markets, as fast as it goes
    python -m tests.benchmarks.bench_catalogue created [at_once]              default: 10,000 markets at once

The second measures from a market's creation until it is wanted in the catalogue and until a connector hears its book: of
ten new markets a second, then of many created in one moment.

A simulated exchange, a PostgreSQL server with safe settings, the registry and the connector, each a process of its own.
With reads_per_s the account has that many reads and the registry its share of 0.4. Bounded: 20 minutes a phase. Prints
seconds, MB of memory (the registry's peak), rows a second and milliseconds.
"""

import asyncio
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import yaml

from libs.exchange.keyfiles import make_key_pair
from libs.runtime.clock import SystemClock
from libs.store.control import slot_markets
from libs.store.pool import Target, connect
from services.local.ports import free_port
from services.local.postgres import EmbeddedPostgres
from services.migrate.migration import Migration, migrate_all

PHASE_S_MAX = 1200.0
SLOTS = 144
PAGES = {
    "first page": "limit=100",
    "a common status, far in": "limit=100&status=active&after=KXH",
    "a rare status": "limit=100&status=determined",
    "a slot": "limit=100&slot=orderbook/3",
    "a prefix": "limit=100&prefix=KXNFL",
}


def tell(name: str, *figures: str) -> None:
    sys.stdout.write(f"{name:34}" + "".join(f"{figure:>22}" for figure in figures) + "\n")
    sys.stdout.flush()


@contextmanager
def process(service: str, config: Path, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a service until the block ends."""
    with log.open("ab") as out:
        command = [sys.executable, "-m", f"services.{service}", "--config", str(config)]
        running = subprocess.Popen(command, stdout=out, stderr=out)
        try:
            yield running
        finally:
            running.terminate()
            running.wait(30)


def get(port: int, path: str) -> Any:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=60) as answer:
        return json.load(answer)


def memory_mb(pid: int, field: str = "VmHWM") -> float:
    """Return a figure of the process's memory; VmHWM is its peak."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    return 0.0


async def until_ready(running: subprocess.Popen[bytes], port: int) -> tuple[float, dict[str, Any]]:
    """Wait for /health to say ready; return the seconds since the call and the document."""
    began, said = time.perf_counter(), 0.0
    while time.perf_counter() - began < PHASE_S_MAX:
        assert running.poll() is None, "the process ended; see its log"
        try:
            document = await asyncio.to_thread(get, port, "/health")
        except OSError:
            document = {}
        if document.get("ready"):
            return time.perf_counter() - began, document
        if time.perf_counter() - said > 15 and document:
            said = time.perf_counter()
            listing = document.get("listing")
            sys.stderr.write(f"{said - began:6.0f} s  {memory_mb(running.pid):.0f} MB  {listing}\n")
        await asyncio.sleep(0.25)
    raise TimeoutError("not ready in time; see the process's log")


@asynccontextmanager
async def database(directory: Path) -> AsyncIterator[Target]:
    server = EmbeddedPostgres(directory / "server", sync_init=False)
    try:
        await server.start()
        target = await server.create_database("gatherer")
        await migrate_all([Migration(target, "gatherer", "a")])
        yield target
    finally:
        await server.kill()


def write_configs(
    directory: Path, markets: int, reads: float, target: Target, **changes: object
) -> dict[str, int]:
    """Write the processes' files; return the ports where they answer. changes: of the simulator's settings."""
    private, public = make_key_pair(directory)
    names = ("rest", "simulator", "metrics", "registry", "scrape", "connector", "scrape2")
    ports = {name: free_port() for name in names}
    host = "127.0.0.1"
    simulated = {
        "port": ports["rest"], "markets": markets, "rate": 0, "new_market_every_s": 0, "closing_share": 0,
        "pause_every_s": 0, "news_every_s": 0, "tier": "none", "keys": [{"key_id": "key", "public_key_file": str(public)}],
        "journal_dir": str(directory / "journal"), **changes,
    }  # fmt: skip
    quiet = {"format": "json", "level": "info"}
    (directory / "simulator.yaml").write_text(yaml.safe_dump({
        "health": {"host": host, "port": ports["simulator"]}, "metrics": {"host": host, "port": ports["metrics"]},
        "log": quiet, "simulator": simulated,
    }))  # fmt: skip
    base = f"{host}:{ports['rest']}"
    gatherer = {
        "zone": "a", "health": {"host": host, "port": ports["registry"]},
        "metrics": {"host": host, "port": ports["scrape"]}, "log": quiet,
        "exchange": {
            "environment": "simulator", "rest_url": f"http://{base}/trade-api/v2", "ws_url": f"ws://{base}/trade-api/ws/v2",
            "api_key_id": "key", "private_key_file": str(private), "reads_per_s": reads,
        },
        "store": {
            "host": target.host, "port": target.port, "database": target.database, "user": target.user,
            "password": target.password,
        },
        "slots": {"orderbook": SLOTS, "ticker": 2, "trade": 2, "lifecycle": 2, "connections_max": 200},
        "capture": {"combos": True}, "connector": {"shard": "connector-a-1", "grace_s": 0.1},
    }  # fmt: skip
    (directory / "gatherer.yaml").write_text(yaml.safe_dump(gatherer))
    beside = {
        "health": {"host": host, "port": ports["connector"]},
        "metrics": {"host": host, "port": ports["scrape2"]},
    }
    slots = {
        "slots": {"orderbook": 8, "ticker": 1, "trade": 1, "lifecycle": 2, "connections_max": 50}
    }
    (directory / "connector.yaml").write_text(yaml.safe_dump(gatherer | beside | slots))
    (directory / "small.yaml").write_text(yaml.safe_dump(gatherer | slots))
    return ports


async def sizes(target: Target) -> None:
    async with connect(target) as conn:
        await conn.execute("vacuum analyze markets")
        rows = await conn.fetch(
            "select relname, pg_total_relation_size(oid) / 1048576 as mb from pg_class"
            " where relname in ('markets', 'events', 'slot_versions') order by relname"
        )
        versions = await conn.fetchval("select count(*) from market_versions")
        size = await conn.fetchval("select pg_database_size(current_database()) / 1048576")
    tell(
        "database",
        f"{size} MB",
        *(f"{row[0]} {row[1]} MB" for row in rows),
        f"{versions:,} versions",
    )


async def pages(port: int) -> None:
    for name, query in PAGES.items():
        times: list[float] = []
        found: dict[str, Any] = {}
        for _ in range(3):
            at = time.perf_counter()
            found = await asyncio.to_thread(get, port, f"/debug/markets?{query}")
            times.append(time.perf_counter() - at)
        tell(f"/debug/markets, {name}", f"{times[0] * 1e3:.0f} ms first", f"{min(times) * 1e3:.0f} ms best",
             f"{len(found['markets'])} markets")  # fmt: skip


async def lists(target: Target) -> None:
    """Read every slot's list as connectors do when they start."""
    async with connect(target) as conn:
        times, markets = [], 0
        for slot in range(SLOTS):
            at = time.perf_counter()
            markets += len(await slot_markets(conn, f"orderbook/{slot}"))
            times.append(time.perf_counter() - at)
    tell(f"lists of {SLOTS} slots", f"{sum(times):.2f} s", f"median {statistics.median(times) * 1e3:.0f} ms",
         f"longest {max(times) * 1e3:.0f} ms", f"{markets:,} markets")  # fmt: skip


async def registry_phases(
    directory: Path, ports: dict[str, int], target: Target, markets: int
) -> None:
    config, log = directory / "gatherer.yaml", directory / "registry.log"
    for phase in ("first listing", "restart"):
        with process("registry", config, log) as running:
            seconds, document = await until_ready(running, ports["registry"])
            listing = document["listing"]
            figures = [f"{seconds:.1f} s", f"{memory_mb(running.pid):.0f} MB peak"]
            if phase == "first listing":
                figures.append(f"{markets / seconds:,.0f} markets/s")
            tell(
                phase,
                *figures,
                f"{document['exchange']['requests']} requests",
                f"full {listing['full']}",
            )
            if phase == "restart":
                await sizes(target)
                await pages(ports["registry"])
                await lists(target)
                tell("registry afterwards", f"{memory_mb(running.pid, 'VmRSS'):.0f} MB",
                     f"{memory_mb(running.pid):.0f} MB peak")  # fmt: skip


async def watch_created(target: Target, since: int, until: int, seconds: float) -> dict[str, int]:
    """See when markets created from `since` on become wanted, until there are `until`; at most that many seconds."""
    seen: dict[str, int] = {}
    clock, end = SystemClock(), time.perf_counter() + seconds
    async with connect(target) as conn:
        while len(seen) < until and time.perf_counter() < end:
            rows = await conn.fetch(
                "select ticker from markets where wanted and created_at >= $1", since
            )
            now = clock.now()
            for row in rows:
                seen.setdefault(row[0], now)
            await asyncio.sleep(0.02)
    return seen


def quantiles(name: str, lags: list[float]) -> None:
    if len(lags) < 2:
        tell(name, "too few")
        return
    cuts = statistics.quantiles(lags, n=100)
    tell(
        name,
        f"{len(lags):,} markets",
        f"p50 {cuts[49]:.2f} s",
        f"p99 {cuts[98]:.2f} s",
        f"max {max(lags):.2f} s",
    )


async def tell_created(target: Target, name: str, seen: dict[str, int], heard_s: float) -> None:
    """Wait until a connector hears them all, at most so many seconds, and tell both lags."""
    query = """
        select m.ticker, m.created_at, min(o.sent_at) as heard_at from markets m
        left join listen_opened o on o.ticker = m.ticker where m.ticker = any($1) group by 1, 2
    """
    end = time.perf_counter() + heard_s
    async with connect(target) as conn:
        while True:
            rows = await conn.fetch(query, list(seen))
            if all(row["heard_at"] for row in rows) or time.perf_counter() > end:
                break
            await asyncio.sleep(0.2)
    quantiles(f"{name}: wanted", [(seen[row["ticker"]] - row["created_at"]) / 1e6 for row in rows])
    heard = [(row["heard_at"] - row["created_at"]) / 1e6 for row in rows if row["heard_at"]]
    quantiles(f"{name}: heard", heard)


async def created(at_once: int) -> None:
    """Ten markets a second for twenty seconds, then many at once."""
    async with _exchange(200, 20.0, new_market_every_s=0.1, combo_share=0.0) as (
        directory,
        ports,
        target,
    ):
        small, log = directory / "small.yaml", directory / "registry.log"
        with (
            process("registry", small, log) as r,
            process("connector", directory / "connector.yaml", log) as c,
        ):
            await until_ready(r, ports["registry"])
            await until_ready(c, ports["connector"])
            clock = SystemClock()
            seen = await watch_created(target, clock.now(), 200, 60.0)
            await tell_created(target, "10 new markets/s", seen, 20.0)
            body = json.dumps({"fault": "create_markets", "count": at_once}).encode()
            since = clock.now()
            url = f"http://127.0.0.1:{ports['rest']}/control/faults"
            await asyncio.to_thread(lambda: urllib.request.urlopen(url, body, 30).close())
            seen = await watch_created(target, since, at_once, 120.0)
            await tell_created(target, f"{at_once:,} at once", seen, 60.0)
            document = await asyncio.to_thread(get, ports["registry"], "/health")
            tell("registry", f"{memory_mb(r.pid):.0f} MB peak", str(document["looks"]))


@asynccontextmanager
async def _exchange(
    markets: int, reads: float, **changes: object
) -> AsyncIterator[tuple[Path, dict[str, int], Target]]:
    """Run an exchange and a migrated database."""
    directory = Path(mkdtemp(prefix="bench-catalogue-"))
    directory.chmod(0o755)  # noqa: ASYNC240 - nothing runs beside it
    try:
        async with database(directory) as target:
            ports = write_configs(directory, markets, reads, target, **changes)
            log = directory / "simulator.log"
            with process("simulator", directory / "simulator.yaml", log) as running:
                seconds, _ = await until_ready(running, ports["simulator"])
                memory = memory_mb(running.pid)
                tell(f"exchange of {markets:,} markets", f"{seconds:.1f} s", f"{memory:.0f} MB")
                yield directory, ports, target
    finally:
        if not os.environ.get("KALSHI_BENCH_KEEP"):
            shutil.rmtree(directory, ignore_errors=True)


async def measure(markets: int, reads: float) -> None:
    async with _exchange(markets, reads) as (directory, ports, target):
        await registry_phases(directory, ports, target, markets)


def main() -> None:
    if sys.argv[1:2] == ["created"]:
        asyncio.run(created(int(sys.argv[2]) if len(sys.argv) > 2 else 10_000))
        return
    markets = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    reads = float(sys.argv[2]) if len(sys.argv) > 2 else 1_000.0
    asyncio.run(measure(markets, reads))


if __name__ == "__main__":
    main()
