"""Rows out of production into an object and back: nothing about them changes, in any table, whatever they hold."""

import random
import uuid
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from libs.archive.errors import ObjectUnreadable
from libs.archive.keys import Window
from libs.archive.parquet import arrow_schema, write_parquet
from libs.archive.reading import read_groups
from libs.marketdata.tables import (
    GATHERER_TABLES,
    ORDERBOOK_DELTAS,
    TRADES,
    Kind,
    Table,
    production_columns,
)
from libs.store.loading import load_rows
from libs.store.pool import Connection, Target, connect
from libs.store.windows import copy_window
from tests.support.postgres import NewDatabase

Row = tuple[Any, ...]
TEXTS = ("", "NULL", "\\N", 'say "so",', "Zürich\nnext\r\nlast", "a\\b", "t", "'", "é" * 30, "[1]")
ROWS = 60


@pytest.fixture
async def conn(production_db: Target) -> AsyncIterator[Connection]:
    async with connect(production_db) as opened:
        yield opened


def value(rng: random.Random, kind: Kind, number: int) -> Any:
    """One value of a kind, its extremes among them."""
    ladder = tuple((1000 * level, rng.choice([1, 2**40])) for level in range(rng.randrange(4)))
    match kind:
        case Kind.BOOL:
            return rng.random() < 0.5
        case Kind.UUID:
            return uuid.UUID(int=rng.getrandbits(128))
        case Kind.TEXT:
            return f"{number}{rng.choice(TEXTS)}" if rng.random() < 0.9 else rng.choice(TEXTS)
        case Kind.BYTES:
            return rng.choice([b"", b'\x00\xff\n,"', b"{}"])
        case Kind.LADDER:
            return ladder
        case _:
            bits = {Kind.INT2: 15, Kind.INT4: 31, Kind.INT8: 63}[kind]
            return rng.choice([-(2**bits), 2**bits - 1, 0, rng.randrange(2**15)])


def made(table: Table) -> list[Row]:
    """Rows of a table with distinct keys, within one hour, NULL wherever it may be."""
    rng = random.Random(table.name)
    rows: list[Row] = []
    for number in range(ROWS):
        row: list[Any] = []
        for column in production_columns(table):
            if column.name == table.time_column:
                row.append(1_790_000_000_000_001 + number)
            elif column.name == "merge_no":
                row.append(rng.choice([1, 2**40, 2**63 - 1]))
            elif column.nullable and rng.random() < 0.4:
                row.append(None)
            else:
                row.append(value(rng, column.kind, number))
        rows.append(tuple(row))
    return rows


def plain(found: Any) -> Any:
    return tuple(plain(one) for one in found) if isinstance(found, list | tuple) else found


async def stored(conn: Connection, table: Table) -> list[Row]:
    """The table's rows as the server has them, in the order of their time."""
    names = ", ".join(f'"{column.name}"' for column in production_columns(table))
    rows = await conn.fetch(f"SELECT {names} FROM {table.name} ORDER BY {table.time_column}")
    return [plain(tuple(row)) for row in rows]


async def archived(conn: Connection, table: Table, folder: Path) -> Path:
    """The table's rows as an object, the way the archiver makes it."""
    source, target = folder / "rows.csv", folder / "rows.parquet"
    await copy_window(conn, table, Window(0, 2**62), -(2**63), 2**63 - 1, source)
    write_parquet(table, source, target)
    return target


def groups(table: Table, source: Path) -> list[Row]:
    return [row for group in read_groups(table, source) for row in group]


@pytest.mark.parametrize("name", list(GATHERER_TABLES))
async def test_what_is_exported_and_loaded_is_what_was_there(
    conn: Connection, new_database: NewDatabase, tmp_path: Path, name: str
) -> None:
    """Every column and every value, merge_no and gatherer among them; loaded twice it is there once."""
    table, rows = GATHERER_TABLES[name], made(GATHERER_TABLES[name])
    async with conn.transaction():
        assert await load_rows(conn, table, rows) == ROWS
    assert await stored(conn, table) == rows
    found = groups(table, await archived(conn, table, tmp_path))
    assert _typed(found) == _typed(rows)
    async with connect(new_database("production")) as other, other.transaction():
        assert await load_rows(other, table, found[:10]) == 10
        assert await load_rows(other, table, found) == ROWS - 10
        assert await load_rows(other, table, found) == 0
        assert await stored(other, table) == rows


def _typed(rows: Iterable[Row]) -> set[str]:
    """As text, which tells True from 1, a UUID from its text and a list from a tuple."""
    return {repr(row) for row in rows}


async def test_gatherers_are_numbered_anew(conn: Connection) -> None:
    """Another production gave them other numbers; one that is not in the map is refused, not guessed."""
    rows = made(ORDERBOOK_DELTAS)[:4]
    places = {row[-2]: number for number, row in enumerate(rows, 100)}
    async with conn.transaction():
        assert await load_rows(conn, ORDERBOOK_DELTAS, rows, gatherers=places) == 4
    found = await stored(conn, ORDERBOOK_DELTAS)
    assert [row[-2] for row in found] == [places[row[-2]] for row in rows]
    with pytest.raises(KeyError):
        await load_rows(conn, ORDERBOOK_DELTAS, rows, gatherers={})


def test_an_object_of_older_code_lacks_what_came_later(tmp_path: Path) -> None:
    """A nullable column that it does not have is NULL; what must have a value, or is not ours, is refused."""
    source, schema = tmp_path / "a.parquet", arrow_schema(TRADES)
    row = dict(zip(schema.names, made(TRADES)[0], strict=True)) | {"connection": None}

    def write(names: list[str], extra: str = "", of: str = "trades") -> None:
        fields = [schema.field(name) for name in names]
        data = {name: [row[name]] for name in names}
        if extra:
            fields, data = [*fields, pa.field(extra, pa.int64())], data | {extra: [1]}
        metadata = {"kalshi_data.table": of}
        pyarrow.parquet.write_table(
            pa.Table.from_pydict(data, pa.schema(fields, metadata=metadata)),  # type: ignore[arg-type]
            source,
        )

    write([name for name in schema.names if name != "is_block"])
    assert groups(TRADES, source) == [tuple((row | {"is_block": None}).values())]
    for names, extra, of in (
        ([name for name in schema.names if name != "size"], "", "trades"),
        (schema.names, "unheard_of", "trades"),
        (schema.names, "", "tickers"),
    ):
        write(names, extra, of)
        with pytest.raises(ObjectUnreadable):
            groups(TRADES, source)


async def test_a_damaged_object_is_unreadable(conn: Connection, tmp_path: Path) -> None:
    """A file cut short, or no Parquet at all, says so in the archive's own words."""
    async with conn.transaction():
        await load_rows(conn, TRADES, made(TRADES))
    whole = (await archived(conn, TRADES, tmp_path)).read_bytes()
    assert len(groups(TRADES, tmp_path / "rows.parquet")) == ROWS
    for data in (whole[: len(whole) // 2], b"", whole[4:]):
        with pytest.raises(ObjectUnreadable):
            list(read_groups(TRADES, data))
