"""Rows a second through a lane and back: `python -m tests.benchmarks.bench_lanes [seconds]`.

Starts a server of its own, with safe settings, and prints one line per case. Bounded: the seconds (10 by default) are
shared by the cases.
"""

import asyncio
import itertools
import shutil
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from tempfile import mkdtemp
from uuid import UUID, uuid4

from libs.marketdata.rows import DeltaRow
from libs.marketdata.tables import Family
from libs.store.batches import SealedBatch, seal
from libs.store.lanes import LaneWriter
from libs.store.pages import read_page
from libs.store.pool import Pool, Target, connect, open_pool
from libs.store.summaries import Summaries

START = 1_700_006_400_000_000
CASES = 6


def batches(rows: int) -> Iterator[SealedBatch]:
    """Sealed batches of that many deltas, one millisecond of the exchange after the other."""
    connection = UUID("01890000-0000-7000-8000-000000000001")
    for number in itertools.count():
        at = START + number * 1000
        yield seal(
            {
                "orderbook_deltas": [
                    DeltaRow(
                        at, at, -100, n, 1000 * (n % 99), 1, 1, True, connection, f"KXTICKER-{n % 300}", at, 1
                    )
                    for n in range(rows)
                ]
            }
        )  # fmt: skip


async def repeat(seconds: float, once: Callable[[], Awaitable[int]]) -> float:
    """Do it again and again for that long; return the rows a second it says it did."""
    rows, begin = 0, time.perf_counter()
    while (spent := time.perf_counter() - begin) < seconds:
        done = await once()
        rows += done
        if not done:
            break
    return rows / (time.perf_counter() - begin if rows else max(spent, 1e-9))


async def write_case(pool: Pool, rows: int, seconds: float) -> None:
    """One writer; sealing apart, since the connector packs rows while the last batch is on its way."""
    writer = LaneWriter(pool, family=Family.DELTAS, process="bench", instance=uuid4())
    given = list(itertools.islice(batches(rows), 8))
    numbers = itertools.count()

    async def once() -> int:
        await writer.write(given[next(numbers) % len(given)])
        return rows

    speed = await repeat(seconds, once)
    print(f"write {rows:>5} rows a batch: {speed:>9,.0f} rows/s, {speed / rows:,.0f} batches/s")
    await writer.close()


async def read_case(target: Target, rows_max: int, seconds: float) -> None:
    """One reader from the beginning, in pages of at most rows_max rows."""
    cursors: dict[UUID, int] = {}
    async with connect(target) as conn:

        async def once() -> int:
            page = await read_page(conn, cursors, rows_max)
            cursors.update({lane.lane: lane.read for lane in page.lanes})
            return sum(len(rows) for batch in page.batches for rows in batch.rows.values())

        print(f"read  {rows_max:>5} rows a page:  {await repeat(seconds, once):>9,.0f} rows/s")


async def seal_case(seconds: float) -> None:
    """Packing and hashing alone."""
    source = batches(5000)

    async def once() -> int:
        return next(source).rows

    print(f"seal   5000 rows a batch: {await repeat(seconds, once):>9,.0f} rows/s (rows built too)")


async def bench(target: Target, seconds: float) -> None:
    """Run all cases on a migrated, empty gatherer database."""
    each = seconds / CASES
    await seal_case(each)
    async with open_pool(target) as pool:
        for rows in (500, 5000):
            await write_case(pool, rows, each)
    async with connect(target) as conn:
        begin = time.perf_counter()
        ranges = await Summaries().keep_up(conn)
        print(f"summaries: {ranges} ranges in {time.perf_counter() - begin:.2f} s")
    for rows_max in (500, 5000, 50_000):
        await read_case(target, rows_max, each)


async def main(seconds: float) -> None:
    """Start a server, migrate, run, remove."""
    from services.local.postgres import EmbeddedPostgres
    from services.migrate.migration import Migration, migrate_all

    directory = Path(mkdtemp(prefix="kalshi-data-bench-"))
    directory.chmod(0o755)  # noqa: ASYNC240 - nothing runs beside it
    server = EmbeddedPostgres(directory / "server")
    try:
        await server.start()
        target = await server.create_database("bench")
        await migrate_all([Migration(target, "gatherer", "a")])
        await bench(target, seconds)
    finally:
        await server.kill()
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    asyncio.run(main(float(sys.argv[1]) if len(sys.argv) > 1 else 10.0))
