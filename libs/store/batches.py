"""Batches: the rows of one commit, packed and hashed once, before they have a number.

Sealing is where a batch becomes immutable. The payloads are PostgreSQL's binary COPY form of every column but batch_id,
so the same bytes go out at the first attempt, at every repetition and from the spool, whatever batch_id the database
gives; and the digest taken of them here decides later whether a number found in the ledger is this batch or another.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, Final

from libs.marketdata.binary import codec, copy_prefix, copy_stream, rows_hash
from libs.marketdata.rows import ListenRangeRow
from libs.marketdata.tables import GATHERER_TABLES, Table

SCHEMA_VERSION: Final = 1
"""Version of the packed form (columns, their order, the hash); written into every ledger row."""

PREFIX_BYTES: Final = len(copy_prefix(0, 0))
"""What COPY carries per row besides the payload: column count, length and value of batch_id."""

Rows = Mapping[str, Sequence[tuple[Any, ...]]]
"""Rows by table name; each row has the fields of its table in column order."""


@dataclass(frozen=True, slots=True)
class Digest:
    """What a ledger row says of a batch's content: equal digests are the same batch."""

    table_names: tuple[str, ...]
    row_counts: tuple[int, ...]
    row_hashes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class SealedTable:
    """The packed rows of one table of a batch.

    row_hash: sum of the rows' hashes modulo 2**64, as signed int64. time_from, time_to: smallest and largest value
    of the table's time column, microseconds, both inclusive.
    """

    name: str
    payloads: tuple[bytes, ...]
    row_hash: int
    time_from: int
    time_to: int

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the COPY, batch_id first."""
        return ("batch_id", *GATHERER_TABLES[self.name].column_names)

    def copy_bytes(self, batch_id: int) -> bytes:
        """Return the whole binary COPY stream of these rows under a batch_id."""
        prefix = copy_prefix(len(self.columns) - 1, batch_id)
        return copy_stream(prefix, self.payloads)


@dataclass(frozen=True, slots=True)
class SealedBatch:
    """The rows of one commit, ready to be sent any number of times.

    tables: in the order of GATHERER_TABLES. rows: over all tables. size_bytes: what COPY will carry. sids_json: JSON
    list of {connection, sid, from, to}, the seq ranges of the batch's listen_ranges.
    """

    tables: tuple[SealedTable, ...]
    rows: int
    size_bytes: int
    sids_json: str

    @property
    def digest(self) -> Digest:
        """Table names, row counts and row hashes."""
        return Digest(
            tuple(table.name for table in self.tables),
            tuple(len(table.payloads) for table in self.tables),
            tuple(table.row_hash for table in self.tables),
        )


def seal(rows: Rows) -> SealedBatch:
    """Pack the rows of one batch; rows of by_batch tables get row_no 1..n in the order given.

    Args:
        rows: rows by table name; tables without rows are left out.

    Raises:
        KeyError: a name that is no table of facts.
        ValueError: no row at all, or NULL in a column that is not nullable.
    """
    unknown = rows.keys() - GATHERER_TABLES.keys()
    if unknown:
        raise KeyError(f"no table of facts: {', '.join(sorted(unknown))}")
    tables = tuple(
        _seal_table(table, rows[name]) for name, table in GATHERER_TABLES.items() if rows.get(name)
    )
    if not tables:
        raise ValueError("a batch has at least one row")
    count = sum(len(table.payloads) for table in tables)
    size = sum(sum(map(len, table.payloads)) for table in tables) + count * PREFIX_BYTES
    return SealedBatch(tables, count, size, _sids_json(rows.get("listen_ranges", ())))


def _seal_table(table: Table, rows: Sequence[tuple[Any, ...]]) -> SealedTable:
    if table.by_batch:
        rows = _numbered(rows, table.column_names.index("row_no"))
    payloads = tuple(map(codec(table.name).encode, rows))
    times = list(map(itemgetter(table.column_names.index(table.time_column)), rows))
    return SealedTable(table.name, payloads, rows_hash(payloads), min(times), max(times))


def _numbered(rows: Sequence[tuple[Any, ...]], place: int) -> list[tuple[Any, ...]]:
    return [(*row[:place], number, *row[place + 1 :]) for number, row in enumerate(rows, start=1)]


def _sids_json(rows: Sequence[tuple[Any, ...]]) -> str:
    ranges = map(ListenRangeRow._make, rows)
    return json.dumps(
        [
            {"connection": str(r.connection), "sid": r.sid, "from": r.seq_from, "to": r.seq_to}
            for r in ranges
        ],
        separators=(",", ":"),
    )
