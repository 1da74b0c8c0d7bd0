"""What the disk spool costs: `python -m tests.benchmarks.bench_spool [directory] [seconds]`.

Appending per batch and row under each fsync policy, what the event loop feels of it, reading back, and reading back into
a real PostgreSQL of its own through a lane. Bounded: the seconds (12 by default) are shared by the cases.
"""

import asyncio
import itertools
import shutil
import sys
import time
from pathlib import Path
from tempfile import mkdtemp
from uuid import UUID, uuid4

from libs.marketdata.tables import Family
from libs.store.lanes import LaneWriter
from libs.store.pool import open_pool
from libs.store.spool import FamilySpool, FsyncPolicy, SpoolFull, SpoolLimits
from libs.store.spool_format import Record, RunHeader, pack_record
from libs.store.spool_notes import Cursor
from tests.benchmarks.bench_lanes import batches

HEADER = RunHeader("bench", "", "bench", str(uuid4()), "deltas", str(uuid4()), 1)
CASES = 10
BYTES_MAX = 2 << 30


def records(rows: int, count: int = 8) -> list[Record]:
    """Records of that many deltas."""
    return [
        Record(number, 1, sealed)
        for number, sealed in enumerate(itertools.islice(batches(rows), count), 1)
    ]


def spool_in(directory: Path, policy: FsyncPolicy) -> FamilySpool:
    """An empty spool."""
    spool = FamilySpool(directory, Family.DELTAS, SpoolLimits(BYTES_MAX, 1 << 30, policy))
    spool.find()
    return spool


def append(spool: FamilySpool, given: list[Record], seconds: float, chunk: int) -> int:
    """Append for that long, so many records at once; the policy `interval` syncs every second."""
    begin = synced = time.perf_counter()
    number = 0
    while (now := time.perf_counter()) - begin < seconds:
        group = []
        for _ in range(chunk):
            number += 1
            record = given[number % len(given)]
            group.append(Record(number, record.first_at, record.sealed))
        try:
            spool.append(HEADER, group, bytes, Cursor(0, UUID(int=0), 0))
        except SpoolFull:
            break
        if now - synced > 1 and spool.run is not None:
            synced = now
            spool.run.sync()
    return number


def append_case(
    directory: Path, policy: FsyncPolicy, rows: int, chunk: int, seconds: float
) -> None:
    """Print what appending costs."""
    given = records(rows)
    spool = spool_in(directory / f"{policy}-{rows}-{chunk}", policy)
    begin = time.perf_counter()
    done = append(spool, given, seconds, chunk)
    spent = time.perf_counter() - begin
    size = spool.size_bytes / max(done, 1)
    print(
        f"append {policy:<8} {rows:>5} rows a batch, {chunk:>2} at once: {1000 * spent / done:>7.3f} ms a batch,"
        f" {1e6 * spent / done / rows:>6.2f} us a row, {done * size / spent / 1e6:>6.0f} MB/s,"
        f" {size / rows:.0f} bytes a row"
    )
    if spool.run is not None:
        spool.drop(spool.run)


def read_case(directory: Path, rows: int, seconds: float) -> None:
    """Print how fast records come back, checked and unpacked."""
    spool = spool_in(directory / f"read-{rows}", "never")
    done = append(spool, records(rows), seconds / 2, 4)
    assert spool.run is not None
    begin, found = time.perf_counter(), 0
    while items := spool.run.read(8 << 20):
        found += len(items)
    spent = time.perf_counter() - begin
    assert found == done
    print(f"read   {rows:>14} rows a batch: {found * rows / spent:>12,.0f} rows/s")
    spool.drop(spool.run)


async def lag_case(directory: Path, seconds: float) -> None:
    """Print how late the event loop wakes while a thread appends batches of 5000 rows."""
    spool = spool_in(directory / "lag", "interval")
    given = records(5000)
    work = asyncio.ensure_future(asyncio.to_thread(append, spool, given, seconds, 1))
    lags = []
    while not work.done():
        begin = time.perf_counter()
        await asyncio.sleep(0.001)
        lags.append(time.perf_counter() - begin - 0.001)
    lags.sort()
    print(
        f"event loop beside it, appending without a pause ({await work} batches):"
        f" late by {1000 * lags[len(lags) // 2]:.2f} ms median,"
        f" {1000 * lags[int(len(lags) * 0.99)]:.2f} ms p99, {1000 * lags[-1]:.2f} ms at most"
    )
    assert spool.run is not None
    spool.drop(spool.run)


async def replay_case(directory: Path, rows: int, seconds: float) -> None:
    """Print how fast what lies on the disk gets into a database, without the bound of the settings."""
    from services.local.postgres import EmbeddedPostgres
    from services.migrate.migration import Migration, migrate_all

    server = EmbeddedPostgres(directory / "server")
    try:
        await server.start()
        target = await server.create_database("bench")
        await migrate_all([Migration(target, "gatherer", "a")])
        spool = spool_in(directory / f"replay-{rows}", "never")
        append(spool, records(rows), 0.5, 4)
        assert spool.run is not None
        async with open_pool(target) as pool:
            lane = LaneWriter(pool, family=Family.DELTAS, process="bench", instance=uuid4())
            begin, done = time.perf_counter(), 0
            while time.perf_counter() - begin < seconds:
                for item in await asyncio.to_thread(spool.run.read, 8 << 20):
                    assert isinstance(item, Record)
                    await lane.write(item.sealed)
                    done += rows
            print(
                f"replay {rows:>14} rows a batch: {done / (time.perf_counter() - begin):>12,.0f} rows/s into PostgreSQL"
            )
    finally:
        await server.kill()


def main(directory: Path, seconds: float) -> None:
    """Run all cases in a directory of their own below this one."""
    place = Path(mkdtemp(prefix="kalshi-data-bench-", dir=directory))
    place.chmod(0o755)
    each = seconds / CASES
    given = records(5000)
    begin = time.perf_counter()
    for record in given:
        pack_record(record)
    print(
        f"pack alone, 5000 rows a batch: {1000 * (time.perf_counter() - begin) / len(given):.3f} ms"
    )
    try:
        policies: tuple[FsyncPolicy, ...] = ("never", "interval", "always")
        for policy in policies:
            append_case(place, policy, 5000, 1, each)
            append_case(place, policy, 100, 1, each)
        append_case(place, "always", 100, 16, each)
        for rows in (5000, 100):
            read_case(place, rows, each)
        asyncio.run(lag_case(place, each))
        for rows in (5000, 500):
            asyncio.run(replay_case(place, rows, each))
    finally:
        shutil.rmtree(place, ignore_errors=True)


if __name__ == "__main__":
    main(
        Path(sys.argv[1]) if len(sys.argv) > 1 else Path("/var/tmp"),
        float(sys.argv[2]) if len(sys.argv) > 2 else 12.0,
    )
