"""What can go wrong with a database, by what to do about it."""

from typing import ClassVar, Literal
from uuid import UUID

LaneLostReason = Literal["database_went_back", "closed", "unknown_lane"]


class StoreError(Exception):
    """A database did not do what it was asked to."""

    retryable: ClassVar[bool] = False


class StoreUnavailable(StoreError):
    """The database is away or overloaded, or it is unknown whether it committed; ask again."""

    retryable: ClassVar[bool] = True


class SchemaAway(StoreUnavailable):
    """The schema does not fit, for whoever holds something and waits until it does; the message says what is wrong."""


class StoreConflict(StoreError):
    """The database holds something else under the same key: a second writer exists."""


class StoreRefused(StoreError):
    """The database refuses this user; check user, password and grants."""


class StoreUnsafe(StoreError):
    """The server may lose commits (fsync or synchronous_commit is off); switch them on."""


class StoreBroken(StoreError):
    """The server met damaged data or a fault of its own; its log and its disk need a look."""


class SchemaMismatch(StoreError):
    """The database's schema and this code do not fit; run the migration, or the matching code."""


class LaneLost(StoreError):
    """A lane cannot go on; record what is lost, open a new lane and restate the streams."""

    def __init__(self, reason: LaneLostReason, detail: str = "") -> None:
        super().__init__(f"lane lost: {reason}{': ' + detail if detail else ''}")
        self.reason = reason


class GathererUnsound(StoreError):
    """A gatherer's ledger and rows disagree (hole, count or hash); it is quarantined."""

    def __init__(self, lane: UUID, batch_no: int, detail: str) -> None:
        super().__init__(f"gatherer unsound in lane {lane} at batch {batch_no}: {detail}")
        self.lane = lane
        self.batch_no = batch_no
        self.detail = detail
