"""Pages: whole batches after a reader's cursors, counted and hashed again from the bytes that are read.

One query finds the next ledger rows of every lane that is open or not drained; one COPY per table brings their rows;
all in one REPEATABLE READ transaction, so that ledger and rows are of one moment. Per lane the numbers are taken
without a break: a number missing below an existing one cannot happen while the gatherer is sound.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from libs.marketdata.tables import Family
from libs.store.pool import AnyConnection


@dataclass(frozen=True, slots=True)
class Identity:
    """Which gatherer database this is; `zone` is only a label."""

    identity: UUID
    zone: str


@dataclass(frozen=True, slots=True)
class LaneState:
    """A lane that is open or not drained, as its database shows it.

    cursor: where this page started. last: the last committed number the ledger shows (0: none). read: the last number
    in this page, or the cursor.
    """

    lane: UUID
    family: Family
    process: str
    instance: UUID
    opened_at: datetime
    closed_at: datetime | None
    last_batch_no: int | None
    cursor: int
    last: int
    read: int

    @property
    def drained(self) -> bool:
        """True when it is closed and this page read its last batch."""
        return self.last_batch_no is not None and self.read >= self.last_batch_no


@dataclass(frozen=True, slots=True)
class ReadBatch:
    """A committed batch with its rows by table name. dropped: its rows are gone by retention; rows is empty.

    payloads: the packed form of the same rows, in the same order (columns of the table without batch_id).
    """

    lane: UUID
    batch_no: int
    batch_id: int
    family: Family
    committed_at: datetime
    dropped: bool
    rows: dict[str, list[Any]]
    payloads: dict[str, list[bytes]] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Page:
    """Batches, per lane in order of their numbers, and every lane that was looked at."""

    batches: list[ReadBatch]
    lanes: list[LaneState]


Marks = Mapping[UUID, tuple[int, int]]
"""lane -> (batch_no, merge_no)."""


async def read_identity(conn: AnyConnection) -> Identity:
    """Return the identity migrate gave this gatherer database.

    Raises:
        SchemaMismatch: there is none: not a migrated gatherer database.
    """
    raise NotImplementedError


async def read_page(conn: AnyConnection, cursors: Mapping[UUID, int], rows_max: int) -> Page:
    """Read the next whole batches of all lanes, fairly between them: at least one, at most rows_max rows.

    Args:
        cursors: lane -> last number already read. A lane without a cursor starts at 1, or behind its RELEASED numbers when
            their ledger rows are deleted.

    Raises:
        GathererUnsound: detail 'hole', 'count' or 'hash' at (lane, batch_no).
        StoreUnavailable, SchemaMismatch: as map_store_errors says.
    """
    raise NotImplementedError


async def readmission_cursors(conn: AnyConnection, cursors: Mapping[UUID, int]) -> dict[UUID, int]:
    """Return, for lanes whose next number is missing below an existing one, the cursor before the smallest there is."""
    raise NotImplementedError


async def write_acknowledgements(conn: AnyConnection, marks: Marks) -> None:
    """Show a gatherer how far production has merged it; never lowers a lane's merge_no."""
    raise NotImplementedError


async def write_releases(conn: AnyConnection, marks: Marks) -> None:
    """Release batches up to and including the number for retention; never takes a release back."""
    raise NotImplementedError


async def read_acknowledged_merge_no(conn: AnyConnection) -> int:
    """Return the largest merge_no any lane of this gatherer shows; 0 when none does."""
    raise NotImplementedError
