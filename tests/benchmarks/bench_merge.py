"""Arriving rows a second when three zones are merged; run with pytest tests/benchmarks/bench_merge.py -s.

Everything is on one machine: the server of all four databases, the reader's count and hash, the decoding, the merge.
The pure room alone is measured too, so that it shows where the time goes. Each part is bounded to a few seconds.
"""

import asyncio
import time
from contextlib import AsyncExitStack
from dataclasses import replace

from libs.marketdata.binary import codec
from libs.store.merge_transaction import Merged
from libs.store.pool import open_pool
from services.deduplicator.settings import DeduplicatorSettings
from tests.integration.deduplicator.world import Zone, hear, make_truth, running
from tests.support.postgres import NewDatabase, new_database, postgres_server
from tests.unit.deduplicator.support import arrival, batch, room

__all__ = ["new_database", "postgres_server"]

ROWS = 60_000
BATCH = 500


def test_rate_of_the_pure_room() -> None:
    """Identities, coverage and staging of three copies, without any database."""
    rows = hear(make_truth(1, ROWS, markets=200))
    payloads = list(map(codec("orderbook_deltas").encode, rows))
    pages = []
    for start in range(0, ROWS, 5000):
        page = replace(batch(1, orderbook_deltas=[]))
        page.rows["orderbook_deltas"] = rows[start : start + 5000]
        page.payloads["orderbook_deltas"] = payloads[start : start + 5000]
        pages.append(page)
    merge = room(identities_max=10_000_000, agreement_sample=16)
    began = time.perf_counter()
    for page in pages:
        for gatherer in (1, 2, 3):
            plan = merge.plan([arrival(gatherer, page)])
            plan.transaction.settle({})
            merge.confirm(Merged(1, {}, {}, ()), rows[-1].exchange_ts)
    elapsed = time.perf_counter() - began
    print(
        f"\npure room: {3 * ROWS / elapsed:,.0f} arriving rows/s, {elapsed / 3 / ROWS * 1e6:.2f} us a row"
    )


async def test_rate_of_three_copies(new_database: NewDatabase) -> None:
    """A backlog of three whole copies is merged to its end."""
    targets = {
        zone: await asyncio.to_thread(new_database, "gatherer", zone) for zone in ("a", "b", "c")
    }
    production = await asyncio.to_thread(new_database, "production")
    rows = hear(make_truth(1, ROWS, markets=200))
    async with AsyncExitStack() as stack:
        for seed, target in enumerate(targets.values()):
            zone = Zone(await stack.enter_async_context(open_pool(target)), seed)
            for start in range(0, ROWS, BATCH):
                await zone.write_together(rows[start : start + BATCH], ())
            await zone.close()
        began = time.perf_counter()
        async with running(
            targets, production, DeduplicatorSettings(housekeeping_s=3600)
        ) as merging:
            await merging.drained()
            elapsed = time.perf_counter() - began
            health = merging.health
    assert health["rows_inserted"] == ROWS
    print(
        f"\nthree copies: {3 * ROWS / elapsed:,.0f} arriving rows/s,"
        f" {health['merges']} transactions, {elapsed:.2f} s"
    )
