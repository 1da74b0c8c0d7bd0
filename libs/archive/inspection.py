"""One object against its manifest and its table: every row's place, key and numbers, row group by row group."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

from libs.archive.catalogue import Fault
from libs.archive.manifest import Manifest
from libs.archive.parquet import ROW_GROUP_ROWS, SCHEMA_VERSION, arrow_schema
from libs.marketdata.tables import Table, production_columns, production_key

_SCHEMA: Final = b"kalshi_data.schema"
_TABLE: Final = b"kalshi_data.table"


@dataclass(slots=True)
class Inspected:
    """What was found in an object: faults, and the numbers of gatherers its rows bear."""

    faults: list[Fault] = field(default_factory=list)
    gatherers: set[int] = field(default_factory=set)


def sort_columns(table: Table) -> tuple[str, ...]:
    """Return the columns that objects of a table are sorted by: ticker and time, then the rest of the key."""
    names = {column.name for column in production_columns(table)}
    lead = [name for name in ("ticker", table.time_column) if name in names]
    return (*lead, *(name for name in production_key(table) if name not in lead))


def inspect_object(table: Table, path: Path, manifest: Manifest) -> Inspected:
    """Check an object's schema and every row of it against its manifest; memory holds one row group."""
    found = Inspected()
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            found.faults += schema_faults(table, file.schema_arrow, manifest)
            if not found.faults:
                _inspect_rows(table, file, manifest, found)
    except (pa.ArrowException, OSError, ValueError) as error:
        found.faults.append(Fault(manifest.object, "parquet", f"cannot be read: {error}"))
    return found


def schema_faults(table: Table, found: pa.Schema, manifest: Manifest) -> list[Fault]:
    """Compare the columns in their order; only nullable ones that came later may be missing."""
    said, wanted = found.metadata or {}, arrow_schema(table)
    faults = []
    if said.get(_TABLE, b"").decode() != table.name:
        faults.append(Fault(manifest.object, "schema", f"says it is of {said.get(_TABLE)!r}"))
    if manifest.schema_version > SCHEMA_VERSION:
        detail = f"{manifest.schema_version} is newer than this code's {SCHEMA_VERSION}"
        return [*faults, Fault(manifest.object, "schema_version", detail)]
    if said.get(_SCHEMA) != str(manifest.schema_version).encode():
        detail = f"{manifest.schema_version}, the object says {said.get(_SCHEMA)!r}"
        faults.append(Fault(manifest.object, "schema_version", detail))
    expected = [f for f in wanted if f.name in found.names or not f.nullable]
    if [(f.name, f.type, f.nullable) for f in found] != [
        (f.name, f.type, f.nullable) for f in expected
    ]:
        faults.append(Fault(manifest.object, "schema", f"columns are {found.names}"))
    return faults


def _inspect_rows(
    table: Table, file: pyarrow.parquet.ParquetFile, manifest: Manifest, found: Inspected
) -> None:
    order = sort_columns(table)
    needed = list(dict.fromkeys([*order, table.time_column, "gatherer", "merge_no"]))
    ranges, seen, last = _Ranges(table), 0, None
    name = manifest.object
    for number in range(file.num_row_groups):
        group = file.read_row_group(number, columns=needed)
        if group.num_rows > ROW_GROUP_ROWS:
            found.faults.append(Fault(name, "row_group", f"{number} has {group.num_rows} rows"))
        ranges.see(group)
        found.gatherers.update(n for n in pc.unique(group["gatherer"]).to_pylist() if n is not None)
        joined = group if last is None else pa.concat_tables([last, group])
        fault = order_fault(joined.select(list(order)), seen - (last is not None))
        if fault is not None:
            found.faults.append(Fault(name, *fault))
            return
        last, seen = group.slice(group.num_rows - 1), seen + group.num_rows
    found.faults += ranges.faults(manifest)


def order_fault(rows: pa.Table, first: int) -> tuple[str, str] | None:
    """Return what is wrong with the order of rows sorted by all their columns, NULL last; `first`: the first's number."""
    if rows.num_rows < 2:
        return None
    below, same = _compared(rows.slice(0, rows.num_rows - 1), rows.slice(1))
    at = pc.index(below, pa.scalar(False)).as_py()
    if at < 0:
        return None
    key = tuple(rows.slice(at + 1, 1).to_pylist()[0].values())
    if same[at].as_py():
        return "key", f"rows {first + at} and {first + at + 1} have the same key {key}"
    return "order", f"row {first + at + 1} with key {key} is below the one before it"


def _compared(a: pa.Table, b: pa.Table) -> tuple[Any, Any]:
    """Return row by row whether a's is below b's, and whether both are the same."""
    pairs = [_column_compared(a.column(name), b.column(name)) for name in a.column_names]

    def add(right: tuple[Any, Any], left: tuple[Any, Any]) -> tuple[Any, Any]:
        return pc.or_(left[0], pc.and_(left[1], right[0])), pc.and_(left[1], right[1])

    below, same = reduce(add, reversed(pairs))
    return below, same


def _column_compared(x: Any, y: Any) -> tuple[Any, Any]:
    if x.type == pa.bool_():
        x, y = x.cast(pa.int8()), y.cast(pa.int8())
    x_null, y_null = pc.is_null(x), pc.is_null(y)
    below = pc.or_(pc.fill_null(pc.less(x, y), False), pc.and_(pc.invert(x_null), y_null))
    same = pc.or_(pc.fill_null(pc.equal(x, y), False), pc.and_(x_null, y_null))
    return below, same


class _Ranges:
    """Rows, and the least and largest time, ticker and merge_no."""

    def __init__(self, table: Table) -> None:
        names = {column.name for column in production_columns(table)}
        self._columns = {"time": table.time_column, "merge_no": "merge_no"}
        if "ticker" in names:
            self._columns["ticker"] = "ticker"
        self._rows = 0
        self._found: dict[str, tuple[Any, Any]] = {}

    def see(self, group: pa.Table) -> None:
        self._rows += group.num_rows
        for name, column in self._columns.items():
            # The stubs know neither options nor results of this one.
            both: Any = pc.min_max(group.column(column))
            low, high = both["min"].as_py(), both["max"].as_py()
            if low is None:
                continue
            before = self._found.get(name, (low, high))
            self._found[name] = min(before[0], low), max(before[1], high)

    def faults(self, manifest: Manifest) -> Iterator[Fault]:
        name = manifest.object
        time, ticker = (
            self._found.get("time", (None, None)),
            self._found.get("ticker", (None, None)),
        )
        said = {
            "rows": (manifest.rows, self._rows),
            "time_min": (manifest.time_min, time[0]), "time_max": (manifest.time_max, time[1]),
            "ticker_min": (manifest.ticker_min, ticker[0]), "ticker_max": (manifest.ticker_max, ticker[1]),
        }  # fmt: skip
        for what, (manifest_says, found) in said.items():
            if manifest_says != found:
                yield Fault(name, what, f"the manifest says {manifest_says}, the rows {found}")
        low, high = manifest.window_from, manifest.window_to
        if self._rows and not (low <= time[0] and (time[1] < high or high == 2**63 - 1)):
            yield Fault(name, "window", f"rows from {time[0]} to {time[1]} in [{low}, {high})")
        merges = self._found.get("merge_no")
        if merges and not (manifest.merge_from < merges[0] and merges[1] <= manifest.merge_to):
            detail = f"rows of merges {merges[0]} to {merges[1]} in ({manifest.merge_from}, {manifest.merge_to}]"
            yield Fault(name, "merge_no", detail)
