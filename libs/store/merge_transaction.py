"""What one transaction of the production writer carries, and what it answers.

The pure merge room fills it, merger.py commits it. Rows of one gatherer's batch stand together in a segment, so that
what production adds to a row (who gathered it, which transaction merged it) is packed once per segment.
"""

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from uuid import UUID

Identity = Any
"""Values of a table's identity columns in their order as a tuple; of trades the trade_id itself."""

TRADE_CONTENT = ("ticker", "size", "yes_price", "no_price", "taker_side")
"""Columns in which two copies of one trade must agree; a REST copy's time may differ from a socket copy's."""

CONTENT_TABLES = ("orderbook_deltas", "tickers", "trades")
"""Tables whose identity is content alone: every gatherer delivers the same facts, coverage counts them."""


class Segment(NamedTuple):
    """Packed rows (binary COPY form of all columns) of one table that came in one batch of one gatherer."""

    gatherer: int
    lane: UUID
    batch_no: int
    payloads: Sequence[bytes]


class Cursor(NamedTuple):
    """Every batch of this lane up to and including batch_no is merged."""

    gatherer: int
    lane: UUID
    batch_no: int
    family: str


class CoverageRow(NamedTuple):
    """Appended increment: `facts` more (or fewer) facts of that minute were delivered by exactly these gatherers.

    minute: first microsecond of the minute of exchange time. Rows with is_late false add up to the rows production
    holds of that minute; is_late counts copies of facts whose first copy was no longer (or never) in memory.
    """

    table_name: str
    minute: int
    gatherers: tuple[int, ...]
    is_late: bool
    facts: int


class LagRow(NamedTuple):
    """Appended increment: rows of a gatherer by how long after their receipt they were merged.

    minute: first microsecond of the minute of receipt. lag_max: microseconds. buckets, counts: how many rows lay in
    which bucket of lags; only those that hold some.
    """

    gatherer: int
    table_name: str
    minute: int
    lag_max: int
    buckets: tuple[int, ...]
    counts: tuple[int, ...]


class ConflictRow(NamedTuple):
    """A copy that names a fact of production and says something else about it; the first row stays."""

    table_name: str
    key: str
    kept: str
    refused: str


class EventRow(NamedTuple):
    """Something an operator should know of, kept in production."""

    kind: str
    gatherer: int | None
    detail: str


Settle = Callable[[Mapping[str, Sequence[Identity]]], Sequence[CoverageRow]]
"""From the staged identities that production already had (by table) to the coverage of this transaction."""

Measure = Callable[[int], Sequence[LagRow]]
"""From the moment of merging (microseconds by production's clock) to the lags of this transaction's rows."""


Content = tuple[Any, ...]
"""Values of TRADE_CONTENT of one trade."""


Judge = Callable[[Mapping[Identity, Content]], Sequence["ConflictRow"]]
"""From what production keeps of staged trades it already had to the copies in memory that say something else."""


def no_conflicts(_kept: Mapping[Identity, Content]) -> Sequence[ConflictRow]:
    """Judge a transaction whose copies nobody compares."""
    return ()


def no_coverage(_present: Mapping[str, Sequence[Identity]]) -> Sequence[CoverageRow]:
    """Settle a transaction that counts nothing."""
    return ()


def no_lags(_merged_at: int) -> Sequence[LagRow]:
    """Measure a transaction whose rows nobody times."""
    return ()


@dataclass(slots=True)
class MergeTransaction:
    """Rows, cursors and what is to be recorded beside them; all of it is committed or none.

    merge_no_floor: the transaction's number is larger than this (the largest that any gatherer shows).
    """

    rows: dict[str, list[Segment]] = field(default_factory=dict)
    cursors: list[Cursor] = field(default_factory=list)
    rows_read: int = 0
    judge: Judge = no_conflicts
    events: list[EventRow] = field(default_factory=list)
    settle: Settle = no_coverage
    measure: Measure = no_lags
    merge_no_floor: int = 0

    def staged(self, table_name: str) -> int:
        """Return how many rows of this table are to be inserted at most."""
        return sum(len(segment.payloads) for segment in self.rows.get(table_name, ()))


@dataclass(frozen=True, slots=True)
class Merged:
    """A confirmed commit: its number, rows inserted per table, and the staged identities that were there before.

    kept: what production keeps of the staged trades that were there before.
    """

    merge_no: int
    inserted: Mapping[str, int]
    present: Mapping[str, Sequence[Identity]]
    conflicts: Sequence[ConflictRow]
    kept: Mapping[Identity, Content] = field(default_factory=dict)

    @property
    def rows_inserted(self) -> int:
        """Over all tables."""
        return sum(self.inserted.values())


@dataclass(frozen=True, slots=True)
class Standing:
    """What a writer finds when it takes over: its epoch, the last merge_no, every cursor by gatherer and lane."""

    epoch: int
    merge_no: int
    cursors: Mapping[int, Mapping[UUID, int]]


@dataclass(frozen=True, slots=True)
class Admission:
    """A gatherer as production knows it; status 'ok' or 'quarantined' with the reason in detail.

    has_replaced: it is new, and another database was this zone's before. untold: the lanes merged since an older copy of
    it was last told of, and how long ago each was, seconds. old: those whose cursors may go if the gatherer knows them no
    longer.
    """

    gatherer: int
    zone: str
    status: str
    detail: str
    is_new: bool
    has_replaced: bool
    cursors: Mapping[UUID, int]
    untold: Mapping[UUID, float]
    old: AbstractSet[UUID]


def trade_conflict(trade_id: str, kept: Sequence[object], refused: Sequence[object]) -> ConflictRow:
    """Describe two contents (columns TRADE_CONTENT) of one trade."""
    return ConflictRow("trades", trade_id, _content_text(kept), _content_text(refused))


def _content_text(content: Sequence[object]) -> str:
    return " ".join(f"{name}={value}" for name, value in zip(TRADE_CONTENT, content, strict=True))
