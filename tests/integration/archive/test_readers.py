"""What the archive holds can be read by the tools people have, in one line, and is what production holds."""

import asyncio
import datetime as dt
import re
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pytest

from libs.archive.objects import ObjectStore
from libs.marketdata.tables import GATHERER_TABLES, Table, production_columns
from libs.marketdata.units import DAY, HOUR
from libs.runtime.clock import SystemClock
from libs.runtime.health import HealthState
from libs.runtime.service import Runtime
from libs.store.leases import Lease
from libs.store.pool import Pool, Target, open_pool
from libs.telemetry.metrics import Metrics
from services.archiver.settings import ArchiverSettings
from services.archiver.tasks import Archiver

TABLES = ("orderbook_deltas", "trades", "orderbook_snapshots")
CONNECTION = uuid.UUID(int=7)
MOMENT = 1_790_000_000_000_001
"""Microseconds, odd, so that rounding to milliseconds would show."""
LADDER = [[1_000, 12_345], [52_500, 2**40]]


@pytest.fixture
async def pool(production_db: Target) -> AsyncIterator[Pool]:
    async with open_pool(production_db) as opened:
        yield opened


async def insert(pool: Pool, table: str, **values: Any) -> None:
    """Insert one row as the deduplicator would have merged it, first in number 1."""
    values |= {"gatherer": 1, "merge_no": 1}
    places = ", ".join(f"${number}" for number in range(1, len(values) + 1))
    await pool.execute(
        f"INSERT INTO {table} ({', '.join(values)}) VALUES ({places})", *values.values()
    )


async def merge_rows(pool: Pool) -> None:
    """Rows with what readers stumble over: negatives, large integers, UUIDs, NULLs, ladders, quotes and signs."""
    for number in range(40):
        await insert(
            pool, "orderbook_deltas", exchange_ts=MOMENT + number, received_at=MOMENT + 2 * number,
            size_delta=-(2**40) - number if number % 2 else number + 1, seq=2**33 + number, price=52_500 + number,
            occurrence=1, sid=3, side=bool(number % 3), connection=CONNECTION, ticker=f"KX-{number % 4}",
        )  # fmt: skip
    for number, text in enumerate(('say "so", twice', "Zürich\nnext")):
        streamed = {
            "connection": CONNECTION,
            "sid": 4,
            "seq": 9,
            "sent_at": MOMENT,
            "is_block": True,
        }
        await insert(
            pool, "trades", exchange_ts=MOMENT + number, received_at=MOMENT + 5, size=2_500, yes_price=33_000,
            no_price=67_000, taker_side=False, trade_id=text, ticker="KX-é", **(streamed if number else {}),
        )  # fmt: skip
    books: tuple[tuple[Any, Any], ...] = ((LADDER, []), (None, None))
    for number, (yes, no) in enumerate(books):
        await insert(
            pool, "orderbook_snapshots", observed_at=MOMENT + number, received_at=MOMENT, content_hash=-(2**62),
            observed_is_sent=False, is_first=True, source="rest", ticker="KX-1", requested_at=MOMENT - 1,
            yes=yes, no=no,
        )  # fmt: skip
    await pool.execute(
        "INSERT INTO writer_lease (epoch, holder, expires_at, merge_no) VALUES (1, $1, now(), 1)"
        " ON CONFLICT (one) DO UPDATE SET merge_no = excluded.merge_no",
        uuid.UUID(int=2),
    )


async def export(
    pool: Pool, root: Path, tables: tuple[str, ...] = TABLES, objects: int = len(TABLES)
) -> None:
    """Archive every window of these tables."""
    clock, metrics = SystemClock(), Metrics()
    runtime = Runtime(clock, asyncio.Event(), HealthState("archiver", "", clock, metrics), metrics)
    lease = Lease(pool, "archiver", uuid.uuid4(), 60.0)
    assert await lease.take_once()
    own = ArchiverSettings(root=str(root), tables=tables)
    archiver = Archiver(own, pool, ObjectStore(own.root), runtime, lease)
    assert await archiver.export_once(closing=True) == objects


def plain(value: Any) -> Any:
    """One value, whatever a reader makes of it: UUIDs as text, sequences as tuples, every kind of missing as None."""
    if isinstance(value, uuid.UUID):
        return str(value)
    if isinstance(value, list | tuple | np.ndarray):
        return tuple(plain(item) for item in value)
    return None if value is pd.NA else value


def by_key(rows: Any) -> list[tuple[Any, ...]]:
    return sorted((tuple(plain(value) for value in row) for row in rows), key=repr)


async def stored(pool: Pool, table: Table) -> list[tuple[Any, ...]]:
    """The table's rows as production has them."""
    names = ", ".join(f'"{column.name}"' for column in production_columns(table))
    return by_key(await pool.fetch(f"SELECT {names} FROM {table.name}"))


@pytest.mark.parametrize("name", TABLES)
async def test_duckdb_reads_what_production_holds(pool: Pool, tmp_path: Path, name: str) -> None:
    """One line over the folder; every column, every value, no column beside ours."""
    table = GATHERER_TABLES[name]
    await merge_rows(pool)
    await export(pool, tmp_path)
    found = duckdb.connect().execute(
        f"SELECT * FROM read_parquet('{tmp_path}/{name}/**/*.parquet', hive_partitioning = false)"
    )
    assert [c[0] for c in found.description] == [c.name for c in production_columns(table)]
    assert by_key(found.fetchall()) == await stored(pool, table)


async def test_duckdb_prunes_by_date_and_hour(pool: Pool, tmp_path: Path) -> None:
    """The folders' names are columns of a query, and sums are exact."""
    await merge_rows(pool)
    await export(pool, tmp_path)
    found = (
        duckdb.connect()
        .execute(
            f"SELECT count(*), sum(size_delta) FROM read_parquet('{tmp_path}/orderbook_deltas/**/*.parquet',"
            " hive_partitioning = true) WHERE date = '2026-09-21' AND ticker = 'KX-1'"
        )
        .fetchone()
    )
    row = await pool.fetchrow(
        "SELECT count(*), sum(size_delta) FROM orderbook_deltas WHERE ticker = 'KX-1'"
    )
    assert row is not None
    assert found == (10, int(row["sum"]))


README = Path(__file__).parents[3] / "README.md"
MARKET = "KXBTCD-26SEP2117-T60000"


def readme_code(language: str) -> str:
    """The one block of this language in README's section about reading the archive."""
    section = README.read_text().partition("## Read the archive\n")[2].partition("\n## ")[0]
    (block,) = re.findall(rf"```{language}\n(.*?)```", section, re.DOTALL)
    assert MARKET in block
    return str(block)


async def some_market(pool: Pool, root: Path) -> None:
    """A market's trades and changes in two hours of the README's day, other ones beside; what is no part lies there too."""
    day = MOMENT - MOMENT % DAY
    for number in range(12):
        ticker, at = MARKET if number % 3 else "OTHER", day + number * HOUR // 2
        await insert(
            pool, "trades", exchange_ts=at, received_at=at, size=100 * number, yes_price=33_000, no_price=67_000,
            taker_side=True, trade_id=f"t{number:02}", ticker=ticker,
        )  # fmt: skip
        await insert(
            pool, "orderbook_deltas", exchange_ts=at, received_at=at, size_delta=5, seq=1, price=1, occurrence=1, sid=1,
            side=True, connection=CONNECTION, ticker=ticker,
        )  # fmt: skip
    await pool.execute("UPDATE writer_lease SET merge_no = 1")
    tables = ("orderbook_deltas", "trades")
    await export(pool, root, tables, objects=12)
    for name in tables:
        path = min((root / name).rglob("*.parquet"))
        path.with_name(f"{path.stem}-0123456789abcdef.superseded").write_bytes(b"no part of it")


async def test_the_sql_of_the_readme_runs(
    pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Word for word, in DuckDB, over a real archive; an object that no manifest names is left out by the last one."""
    await some_market(pool, tmp_path)
    orphan = min((tmp_path / "orderbook_deltas").rglob("*.parquet"))
    orphan.with_name("orderbook_deltas-1-2-m9.parquet").write_bytes(orphan.read_bytes())
    monkeypatch.chdir(tmp_path)
    connection, found = duckdb.connect(), []
    for statement in filter(str.strip, readme_code("sql").split(";")):
        found.append(connection.execute(statement).fetchall())
    trades, by_hour, _, count = found
    start = dt.datetime(2026, 9, 21)  # noqa: DTZ001 - DuckDB gives UTC without saying so
    assert trades == [
        (start + n * dt.timedelta(minutes=30), 0.33, float(n)) for n in range(12) if n % 3
    ]
    assert [row[2] for row in by_hour] == [4, 2, 2, 2, 2, 2]
    assert count == [(12,)]


async def test_the_python_of_the_readme_runs(
    pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Word for word, in pandas."""
    await some_market(pool, tmp_path)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(readme_code("python"), names)
    assert sorted(names["trades"]["trade_id"]) == [f"t{n:02}" for n in range(12) if n % 3]
    assert list(names["by_hour"]) == [2] * 6


@pytest.mark.parametrize("name", TABLES)
async def test_pandas_reads_what_production_holds(pool: Pool, tmp_path: Path, name: str) -> None:
    """One line on an object; integers stay integers where some are missing."""
    table = GATHERER_TABLES[name]
    await merge_rows(pool)
    await export(pool, tmp_path)
    (path,) = (tmp_path / name).rglob("*.parquet")
    found = pd.read_parquet(path, dtype_backend="pyarrow", partitioning=None)
    assert list(found.columns) == [column.name for column in production_columns(table)]
    assert by_key(found.itertuples(index=False, name=None)) == await stored(pool, table)
