"""What a connector's memory costs, by market and by connection: one real process against the real simulator.

    python -m tests.benchmarks.bench_memory [--markets N ...] [--connections N ...]

For every pair: a zone with one connector, its resident memory when every first snapshot has been seen and written. The
figures by market are against no market with as many connections, those by connection against the fewest of them.
"""

import argparse
import asyncio
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from services.local.topology import connector_process
from tests.soak.ground import ZONE, Ground, Terms, running_ground, start_service

CALM_S = 5.0
GIVE_UP_S = 600.0
OTHERS = 3
"""Connections beside those of order books: ticker, trade, lifecycle."""


@dataclass(frozen=True, slots=True)
class Reading:
    """Resident memory in bytes, of the connector and of the registry beside it; seconds until all was seen."""

    markets: int
    connections: int
    connector: int
    registry: int
    seen_s: float


async def read(markets: int, orderbook: int, directory: Path, console: Console) -> Reading:
    """Measure one pair."""
    slots = {
        "orderbook": orderbook,
        "ticker": 1,
        "trade": 1,
        "lifecycle": 1,
        "connections_max": orderbook + 50,
    }
    still = {
        "combo_share": 0.0,
        "new_market_every_s": 0.0,
        "closing_share": 0.0,
        "rate": 0.0,
        "tier": "none",
    }
    terms = Terms(
        gatherer={"slots": slots, "connector": {"subscribe_chunk": 500}},
        simulated={"markets": markets, **still},
    )  # fmt: skip
    async with running_ground(terms, directory, console, is_kept=False) as ground:
        await start_service(ground, "registry")

        async def listed() -> bool:
            return int(await ground.value("select count(*) from markets where wanted")) >= markets

        await ground.until(listed, GIVE_UP_S, "listed")
        config, run = ground.run.configs.paths[ZONE], ground.run
        spec = connector_process(ZONE, config, run.shards, 1)
        await run.supervisor.start([spec])

        async def seen() -> bool:
            health = await run.health(spec.name)
            counts = health.get("subscriptions", {})
            return counts.get("seen", 0) >= markets + OTHERS and not sum(
                health["buffer_rows"].values()
            )

        seen_s = await ground.until(seen, GIVE_UP_S, "seen")
        await ground.rest(CALM_S)
        health = await run.health(spec.name)
        connections = int(health["connections"])
        found = Reading(
            markets, connections, rss(ground, spec.name), rss(ground, f"registry-{ZONE}"), seen_s
        )
    console.print(f"  {found}")
    return found


def rss(ground: Ground, name: str) -> int:
    """Return a process's resident memory, bytes."""
    status = Path(f"/proc/{ground.run.supervisor.children[name].process.pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024


def table_of(readings: list[Reading]) -> Table:
    """Draw them; figures by market and by connection where there is something to compare with."""
    table = Table(title="Resident memory of one connector", title_justify="left")
    for heading in (
        "markets",
        "connections",
        "connector MB",
        "bytes a market",
        "KB a connection",
        "registry MB",
        "all seen s",
    ):
        table.add_column(heading, justify="right")
    for r in readings:
        empty = [e for e in readings if e.markets == 0 and e.connections == r.connections]
        fewer = [f for f in readings if f.markets == r.markets and f.connections < r.connections]
        by_market = (
            f"{(r.connector - empty[0].connector) / r.markets:,.0f}" if r.markets and empty else "-"
        )
        by_connection = (
            f"{(r.connector - fewer[0].connector) / (r.connections - fewer[0].connections) / 1024:,.0f}"
            if fewer
            else "-"
        )
        table.add_row(
            f"{r.markets:,}", str(r.connections), f"{r.connector / 1e6:,.0f}", by_market, by_connection,
            f"{r.registry / 1e6:,.0f}", f"{r.seen_s:.1f}",
        )  # fmt: skip
    return table


async def measure(markets: list[int], connections: list[int], directory: Path) -> None:
    """Measure every pair and print the table."""
    console = Console(width=130, highlight=False)
    pairs = [(count, orderbook) for count in markets for orderbook in connections]
    found = [await read(*pair, directory / "run", console) for pair in pairs]
    console.print(table_of(found))


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.bench_memory", description=__doc__
    )
    parser.add_argument("--markets", type=int, nargs="+", default=[0, 10_000, 100_000])
    parser.add_argument(
        "--connections", type=int, nargs="+", default=[8, 144], help="order-book connections"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-memory-") as directory:
        # The servers' own user must reach it.
        Path(directory).chmod(0o755)
        chosen = sorted(arguments.markets), sorted(arguments.connections)
        asyncio.run(measure(*chosen, Path(directory)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
