"""Rows back out of an object of ours, with exactly the types they had in production.

Row group by row group, so that an hour of deltas fits in memory. An object may be older than the table: a nullable
column that came since is NULL in its rows. One with columns we do not know was made by newer code and is refused.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import pyarrow as pa
import pyarrow.parquet

from libs.archive.errors import ObjectUnreadable
from libs.archive.parquet import arrow_schema
from libs.marketdata.tables import Column, Kind, Table, production_columns

_TABLE: Final = b"kalshi_data.table"


def read_groups(table: Table, source: Path | bytes) -> Iterator[list[tuple[Any, ...]]]:
    """Yield the rows of each row group: tuples in the order of production_columns(table).

    Integers are int, booleans bool, uuid columns UUID, bytes bytes, ladders tuples of (price, size), NULL is None.

    Args:
        source: path of the object's file, or its bytes.

    Raises:
        ObjectUnreadable: no Parquet, damaged, of another table, or of columns this code does not have.
    """
    try:
        with pyarrow.parquet.ParquetFile(
            pa.BufferReader(source) if isinstance(source, bytes) else source
        ) as file:
            columns = _columns(table, file.schema_arrow)
            for number in range(file.num_row_groups):
                yield _rows(columns, file.read_row_group(number))
    except (pa.ArrowException, ValueError, OSError) as error:
        raise ObjectUnreadable(f"not an object of {table.name}: {error}") from error


def _columns(table: Table, found: pa.Schema) -> list[tuple[Column, bool]]:
    """Return production's columns, each with whether the object has it."""
    named = (found.metadata or {}).get(_TABLE, b"").decode()
    if named != table.name:
        raise ObjectUnreadable(f"not an object of {table.name}: it says it is of {named!r}")
    wanted, columns = arrow_schema(table), production_columns(table)
    unknown = sorted(set(found.names) - set(wanted.names))
    if unknown:
        raise ObjectUnreadable(f"{table.name} has no columns {unknown}: written by newer code")
    for column in columns:
        if column.name not in found.names:
            if not column.nullable:
                raise ObjectUnreadable(f"an object of {table.name} without {column.name}")
        elif not found.field(column.name).type.equals(wanted.field(column.name).type):
            kind = found.field(column.name).type
            raise ObjectUnreadable(f"{table.name}.{column.name} is {kind} in the object")
    return [(column, column.name in found.names) for column in columns]


def _rows(columns: list[tuple[Column, bool]], group: pa.Table) -> list[tuple[Any, ...]]:
    values = [
        _values(column.kind, group.column(column.name)) if is_there else [None] * group.num_rows
        for column, is_there in columns
    ]
    return list(zip(*values, strict=True))


def _values(kind: Kind, array: "pa.ChunkedArray[Any]") -> list[Any]:
    made = _MAKERS.get(kind)
    found: list[Any] = array.to_pylist()
    return found if made is None else [None if one is None else made(one) for one in found]


def _ladder(levels: list[list[int]]) -> tuple[tuple[int, ...], ...]:
    return tuple(map(tuple, levels))


_MAKERS: Final[dict[Kind, Callable[[Any], Any]]] = {Kind.UUID: UUID, Kind.LADDER: _ladder}
