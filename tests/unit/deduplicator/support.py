"""Batches as a page brings them, without a database."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from libs.marketdata.binary import codec
from libs.marketdata.rows import DeltaRow, TickerRow, TradeRow
from libs.marketdata.tables import Family
from libs.store.merge_transaction import Merged
from libs.store.pages import ReadBatch
from services.deduplicator.merge import Arrival, MergeRoom, Plan, Reading

MINUTE = 60_000_000
NOON = 28_000_000 * MINUTE
LANE = UUID("01890000-0000-4000-8000-00000000000a")
CONNECTION = UUID("01890000-0000-7000-8000-000000000001")


def delta(
    number: int, moment: int = NOON, pos: int | None = None, ticker: str = "M", **changes: Any
) -> DeltaRow:
    """A delta told apart by its size."""
    row = DeltaRow(
        moment, moment, number, number, 50_000, 1, 1, True, CONNECTION, ticker, None, pos
    )
    return row._replace(**changes)


def trade(trade_id: str, moment: int = NOON, size: int = 100) -> TradeRow:
    """A trade."""
    return TradeRow(
        moment, moment, size, 40_000, 60_000, True, trade_id, "M", None, None, None, None, None
    )


def ticker(number: int, moment: int = NOON) -> TickerRow:
    """A ticker told apart by its hash."""
    return TickerRow(
        moment, moment, number, 1, 2, 3, 4, 5, 6, 7, 1, 1, 1, 1, 1, CONNECTION, "M", None
    )


def batch(number: int = 1, *, dropped: bool = False, **tables: Sequence[Any]) -> ReadBatch:
    """A read batch of these rows by table."""
    rows = {name: list(found) for name, found in tables.items()}
    payloads = {name: list(map(codec(name).encode, found)) for name, found in rows.items()}
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    return ReadBatch(LANE, number, number, Family.DELTAS, moment, dropped, rows, payloads)


def arrival(gatherer: int, *batches: ReadBatch) -> Arrival:
    """One page of a gatherer."""
    return Arrival(gatherer, batches, {LANE: Reading(batches[-1].batch_no, "deltas")})


def room(**changes: Any) -> MergeRoom:
    """A merge room with the defaults of tests."""
    return MergeRoom(
        **{"horizon_s": 600.0, "identities_max": 1000, "agreement_sample": 0, **changes}
    )


def staged(plan: Plan, name: str) -> list[Any]:
    """The rows that a plan would insert into a table."""
    segments = plan.transaction.rows.get(name, [])
    return [codec(name).decode(p)[0] for segment in segments for p in segment.payloads]


def coverage(plan: Plan, **present: Sequence[Any]) -> dict[tuple[tuple[int, ...], bool], int]:
    """What a plan adds to coverage, by gatherers and lateness."""
    return {(row.gatherers, row.is_late): row.facts for row in plan.transaction.settle(present)}


def committed(plan: Plan, **present: Sequence[Any]) -> Merged:
    """The writer's answer when everything but `present` was inserted."""
    inserted = {
        name: sum(len(segment.payloads) for segment in segments) - len(present.get(name, ()))
        for name, segments in plan.transaction.rows.items()
    }
    return Merged(1, inserted, present, ())
