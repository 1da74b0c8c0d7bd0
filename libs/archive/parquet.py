"""Sorted rows as CSV, straight from COPY, to one Parquet object; streamed, so that an hour of deltas fits in memory.

The bytes are a function of the rows and of pyarrow's version alone: rows come sorted by their whole key, integers are
delta-encoded, text is dictionary-encoded, compression is zstd, pages carry an index.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from libs.archive.errors import ArchiveError
from libs.marketdata.tables import Column, Kind, Table, production_columns

ROW_GROUP_ROWS = 131_072
"""Rows of a row group at most: a read of one market touches at most two groups."""
SCHEMA_VERSION = 1
PYARROW_VERSION: str = pa.__version__

_TYPES: dict[Kind, pa.DataType] = {
    Kind.INT2: pa.int16(),
    Kind.INT4: pa.int32(),
    Kind.INT8: pa.int64(),
    Kind.BOOL: pa.bool_(),
    Kind.UUID: pa.string(),
    Kind.TEXT: pa.string(),
    Kind.BYTES: pa.binary(),
    Kind.LADDER: pa.list_(pa.list_(pa.int64())),
}
_INTEGERS = (Kind.INT2, Kind.INT4, Kind.INT8)


@dataclass(frozen=True, slots=True)
class Written:
    """What went into an object: rows, bytes, sha256 (hex) and the ranges of time and ticker."""

    rows: int
    size_bytes: int
    sha256: str
    time_min: int | None
    time_max: int | None
    ticker_min: str | None
    ticker_max: str | None


def arrow_schema(table: Table) -> pa.Schema:
    """Return the schema of the table's objects: production's columns, with the schema version as metadata."""
    fields = [pa.field(c.name, _TYPES[c.kind], c.nullable) for c in production_columns(table)]
    metadata: dict[bytes | str, bytes | str] = {
        "kalshi_data.table": table.name,
        "kalshi_data.schema": str(SCHEMA_VERSION),
    }
    return pa.schema(fields, metadata=metadata)


def write_parquet(table: Table, source: Path, target: Path) -> Written:
    """Write the CSV of COPY (no header, columns of production in their order, sorted) as one Parquet file.

    Raises:
        ArchiveError: the CSV is not of this table, or there is no room for the file.
    """
    try:
        return _write(table, source, target)
    except (pa.ArrowException, ValueError, OSError) as error:
        raise ArchiveError(f"{table.name} could not be made a Parquet file: {error}") from error


def _write(table: Table, source: Path, target: Path) -> Written:
    schema, columns = arrow_schema(table), production_columns(table)
    integers = [c.name for c in columns if c.kind in _INTEGERS]
    texts = [c.name for c in columns if c.kind in (Kind.TEXT, Kind.UUID) and c.name != "trade_id"]
    ranges = _Ranges(table)
    with pyarrow.parquet.ParquetWriter(
        target, schema, compression="zstd", version="2.6", use_dictionary=texts,  # type: ignore[arg-type]  # the stubs lack lists

        column_encoding=dict.fromkeys(integers, "DELTA_BINARY_PACKED"), write_page_index=True,
    ) as writer:  # fmt: skip
        for group in _row_groups(_batches(columns, schema, source), schema):
            ranges.see(group)
            writer.write_table(group, row_group_size=ROW_GROUP_ROWS)
    digest = hashlib.sha256()
    with target.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return Written(
        ranges.rows, target.stat().st_size, digest.hexdigest(),
        ranges.time_min, ranges.time_max, ranges.ticker_min, ranges.ticker_max,
    )  # fmt: skip


def _batches(
    columns: tuple[Column, ...], schema: pa.Schema, source: Path
) -> Iterator[pa.RecordBatch]:
    """Read the CSV batch by batch; ladders and bytes come as text and are parsed here."""
    if source.stat().st_size == 0:
        return
    plain = {
        c.name: pa.string() if c.kind in (Kind.LADDER, Kind.BYTES) else _TYPES[c.kind]
        for c in columns
    }
    reader = pyarrow.csv.open_csv(
        source,
        read_options=pyarrow.csv.ReadOptions(column_names=list(plain), block_size=8 << 20),
        parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
        convert_options=pyarrow.csv.ConvertOptions(
            column_types=plain, null_values=[""], strings_can_be_null=True,
            quoted_strings_can_be_null=False, true_values=["t"], false_values=["f"],
        ),
    )  # fmt: skip
    for batch in reader:
        arrays = [_parsed(c.kind, batch.column(i)) for i, c in enumerate(columns)]
        yield pa.RecordBatch.from_arrays(arrays, schema=schema)


def _parsed(kind: Kind, array: Any) -> Any:
    match kind:
        case Kind.LADDER:
            values = [None if v is None else json.loads(v) for v in array.to_pylist()]
        case Kind.BYTES:
            values = [None if v is None else bytes.fromhex(v) for v in array.to_pylist()]
        case _:
            return array
    return pa.array(values, _TYPES[kind])


def _row_groups(batches: Iterator[pa.RecordBatch], schema: pa.Schema) -> Iterator[pa.Table]:
    """Gather batches to whole row groups: where a batch ends must not show in the bytes."""
    held: list[pa.RecordBatch] = []
    rows = 0
    for batch in batches:
        held.append(batch)
        rows += batch.num_rows
        while rows >= ROW_GROUP_ROWS:
            whole = pa.Table.from_batches(held, schema)
            yield whole.slice(0, ROW_GROUP_ROWS).combine_chunks()
            rest = whole.slice(ROW_GROUP_ROWS)
            held, rows = rest.to_batches(), rest.num_rows
    if rows:
        yield pa.Table.from_batches(held, schema).combine_chunks()


class _Ranges:
    """Running count, time range and ticker range."""

    def __init__(self, table: Table) -> None:
        self._time = table.time_column
        self._has_ticker = "ticker" in table.column_names
        self.rows = 0
        self.time_min: int | None = None
        self.time_max: int | None = None
        self.ticker_min: str | None = None
        self.ticker_max: str | None = None

    def see(self, group: pa.Table) -> None:
        self.rows += group.num_rows
        low, high = _min_max(group.column(self._time))
        self.time_min = low if self.time_min is None else min(self.time_min, low)
        self.time_max = high if self.time_max is None else max(self.time_max, high)
        if not self._has_ticker:
            return
        first, last = _min_max(group.column("ticker"))
        if first is not None:
            self.ticker_min = first if self.ticker_min is None else min(self.ticker_min, first)
            self.ticker_max = last if self.ticker_max is None else max(self.ticker_max, last)


def _min_max(column: Any) -> tuple[Any, Any]:
    both = pc.min_max(column)
    return both["min"].as_py(), both["max"].as_py()


def read_rows(path_or_bytes: Path | bytes) -> int:
    """Read a whole object and return its rows; every page is decoded, so that a damaged one shows.

    Raises:
        pyarrow.ArrowException or OSError: the object cannot be read.
    """
    source = pa.BufferReader(path_or_bytes) if isinstance(path_or_bytes, bytes) else path_or_bytes
    return int(pyarrow.parquet.read_table(source, memory_map=False).num_rows)
