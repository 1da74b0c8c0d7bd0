"""Increments of old minutes are summed in place, and nothing that is read of them changes."""

import asyncio
import random

from libs.marketdata.units import MINUTE
from libs.store.coverage_folding import fold_increments
from libs.store.pool import Connection, Target, connect

NOON = 28_000_000 * MINUTE
VIEWS = (
    "SELECT * FROM coverage_by_minute WHERE facts <> 0 OR late_facts <> 0 ORDER BY 1, 2, 3",
    "SELECT * FROM lag_by_minute ORDER BY 1, 2, 3",
)


async def _fill(conn: Connection, merges: int) -> None:
    rng = random.Random(7)
    for merge_no in range(merges):
        minute = NOON + rng.randrange(3) * MINUTE
        await conn.execute(
            "INSERT INTO coverage VALUES ($1, 'trades', $2, $3, $4, $5)",
            merge_no, minute, rng.choice([[1], [1, 2]]), rng.random() < 0.2, rng.randint(-5, 9),
        )  # fmt: skip
        buckets = sorted(rng.sample(range(100), rng.randint(1, 4)))
        counts = [rng.randint(1, 50) for _ in buckets]
        await conn.execute(
            "INSERT INTO merge_lags VALUES ($1, $2, 'trades', $3, $4, $5, $6)",
            merge_no, rng.randint(1, 2), minute, rng.randint(1, 9) * 10**6, buckets, counts,
        )  # fmt: skip


async def _seen(conn: Connection) -> list[list[tuple[object, ...]]]:
    return [[tuple(row) for row in await conn.fetch(view)] for view in VIEWS]


async def _rows(conn: Connection) -> list[int]:
    return [await conn.fetchval(f"SELECT count(*) FROM {t}") for t in ("coverage", "merge_lags")]


async def test_views_say_the_same_after_folding(production_db: Target) -> None:
    """One row for each key of a folded minute; the youngest minute is left alone; a second turn finds nothing."""
    async with connect(production_db) as conn:
        await _fill(conn, 120)
        before = await _seen(conn)
        young = await conn.fetchval(
            "SELECT count(*) FROM merge_lags WHERE minute = $1", NOON + 2 * MINUTE
        )
        assert await fold_increments(conn, NOON, NOON + 2 * MINUTE) == 2
        assert await _seen(conn) == before
        coverage, lags = await _rows(conn)
        assert lags == 4 + young
        assert await fold_increments(conn, NOON, NOON + 2 * MINUTE) == 0
        await conn.execute("INSERT INTO coverage VALUES (999, 'trades', $1, '{1}', false, 3)", NOON)
        assert await fold_increments(conn, NOON, NOON + 2 * MINUTE) == 1
        assert await _rows(conn) == [coverage, lags]


async def test_two_who_fold_at_once_lose_nothing(production_db: Target) -> None:
    """Whoever comes second finds the sums."""
    async with connect(production_db) as one, connect(production_db) as two:
        await _fill(one, 80)
        before = await _seen(one)
        span = (NOON, NOON + 3 * MINUTE)
        await asyncio.gather(fold_increments(one, *span), fold_increments(two, *span))
        await fold_increments(one, *span)
        assert await _seen(one) == before
