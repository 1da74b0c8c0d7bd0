"""Pages of several gatherers to one transaction: what is new, how far it brings each lane, who delivered what.

Pure. `plan` fills a transaction, `confirm` makes its facts known once it is committed, `abandon` takes it back, `forget`
begins anew when production may hold another history. One plan at a time: n+1 is planned after n is confirmed or gone.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from libs.marketdata.binary import codec
from libs.marketdata.rows import GapRow, family_gaps
from libs.marketdata.units import MINUTE
from libs.store.merge_transaction import (
    CoverageRow,
    Cursor,
    EventRow,
    Identity,
    Merged,
    MergeTransaction,
    Segment,
)
from libs.store.pages import ReadBatch
from services.deduplicator.agreement import Agreement
from services.deduplicator.facts import Lacking, TradeFacts, bits, make_facts
from services.deduplicator.lags import Lags

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

EVENTS_MAX = 20
"""Event rows of one kind in one transaction; the rest is only counted."""


class Reading(NamedTuple):
    """How far a page read a lane: everything up to batch_no is in it, merged before, or released and deleted."""

    batch_no: int
    family: str


class Arrival(NamedTuple):
    """Batches of one page, in order, of the gatherer of this number, and how far each of its lanes was read."""

    gatherer: int
    batches: Sequence[ReadBatch]
    readings: Mapping[UUID, Reading]


@dataclass(slots=True)
class Plan:
    """A transaction and what it means, to be confirmed.

    rows_by_table: rows that arrived. far: rows with a suspect time, by table. disagreements: of whole streams.
    """

    transaction: MergeTransaction
    rows_by_table: Counter[str] = field(default_factory=Counter)
    far: Counter[str] = field(default_factory=Counter)
    lags: Lags = field(default_factory=Lags)
    disagreements: int = 0
    dropped_batches: int = 0

    def duplicates(self, merged: Merged) -> dict[str, int]:
        """Return copies dropped per table: in memory, by the key, or by the look-up of trades."""
        inserted = merged.inserted
        arrived = self.rows_by_table
        return {name: count - inserted.get(name, 0) for name, count in arrived.items()}


class MergeRoom:
    """What the writer remembers between transactions.

    Args of the constructor:
        horizon_s: how far back identities are remembered, seconds of exchange time.
        identities_max: bound of that memory, per table.
        agreement_sample: every n-th market's streams are compared; 0 none.
    """

    def __init__(self, *, horizon_s: float, identities_max: int, agreement_sample: int) -> None:
        self._facts = make_facts(horizon=round(horizon_s * 1e6), identities_max=identities_max)
        self._agreement = Agreement(sample=agreement_sample)
        self._far_told: dict[str, int] = {}
        self._bits: dict[int, int] = {}
        self._gatherers: dict[int, int] = {}

    @property
    def identities(self) -> int:
        """How many identities are remembered."""
        return sum(len(facts) for facts in self._facts.values())

    def plan(self, arrivals: Sequence[Arrival]) -> Plan:
        """Fill one transaction with what these pages bring."""
        plan = Plan(MergeTransaction(settle=self._settle))
        cursors: dict[tuple[int, UUID], Cursor] = {}
        for gatherer, batches, readings in arrivals:
            bit = self._bit(gatherer)
            for batch in batches:
                self._take(plan, gatherer, bit, batch)
            for lane, reading in readings.items():
                cursors[gatherer, lane] = Cursor(gatherer, lane, *reading)
        plan.transaction.cursors = list(cursors.values())
        trades = self._facts["trades"]
        assert isinstance(trades, TradeFacts)
        plan.transaction.judge = trades.conflicts
        plan.transaction.measure = plan.lags.settle
        newest = max(
            (b.committed_at for _, batches, _ in arrivals for b in batches), default=_EPOCH
        )
        self._tell_far(plan, micros(newest) // MINUTE)
        return plan

    def confirm(self, merged: Merged, now: int) -> None:
        """The planned transaction is committed: its identities are known from here on.

        Args:
            merged: what the writer answered.
            now: microseconds; facts of a later minute do not move the horizon.
        """
        for name, facts in self._facts.items():
            facts.confirm(set(merged.present.get(name, ())), now // MINUTE + 1)
        trades = self._facts["trades"]
        assert isinstance(trades, TradeFacts)
        trades.keep(merged.kept)

    def abandon(self) -> None:
        """The planned transaction was not committed, and production is as it was before."""
        self._far_told.clear()
        for facts in self._facts.values():
            facts.abandon()
        self._agreement.forget()

    def forget(self) -> None:
        """Begin anew: nothing is known, open milliseconds will be read again."""
        self._far_told.clear()
        for facts in self._facts.values():
            facts.forget()
        self._agreement.forget()
        self._bits, self._gatherers = {}, {}

    def delivered(
        self, table_name: str, minute: int, gatherers: Sequence[int]
    ) -> tuple[int, list[Lacking]]:
        """Return how many remembered facts of a table and minute all of these delivered, and those some of them lacks.

        Merging stands still meanwhile: a minute of deltas that one lacks takes a tenth of a second or more.
        """
        return self._facts[table_name].delivered(minute, sum(map(self._bit, gatherers)))

    def lackers(self, fact: Lacking, gatherers: Sequence[int]) -> list[int]:
        """Return which of these gatherers did not deliver a fact."""
        return [gatherer for gatherer in gatherers if not fact.mask & self._bit(gatherer)]

    def _bit(self, gatherer: int) -> int:
        if gatherer not in self._bits:
            bit = 2 << len(self._bits)
            self._bits[gatherer], self._gatherers[bit] = bit, gatherer
        return self._bits[gatherer]

    def _take(self, plan: Plan, gatherer: int, bit: int, batch: ReadBatch) -> None:
        if batch.dropped:
            self._take_dropped(plan, gatherer, batch)
            return
        for name, rows in batch.rows.items():
            plan.rows_by_table[name] += len(rows)
            plan.transaction.rows_read += len(rows)
            plan.lags.note(gatherer, name, rows)
            fresh: Sequence[bytes] = batch.payloads[name]
            if name in self._facts:
                fresh = self._facts[name].admit(rows, fresh, bit)
            if fresh:
                segment = Segment(gatherer, batch.lane, batch.batch_no, fresh)
                plan.transaction.rows.setdefault(name, []).append(segment)
            if name == "orderbook_deltas":
                self._compare_streams(plan, gatherer, rows)

    def _take_dropped(self, plan: Plan, gatherer: int, batch: ReadBatch) -> None:
        """Record the loss; whatever may be left of the batch, its listening above all, is not merged."""
        self._agreement.forget(gatherer)
        plan.dropped_batches += 1
        gaps = [codec("gaps").encode(gap) for gap in dropped_gaps(batch)]
        segment = Segment(gatherer, batch.lane, batch.batch_no, gaps)
        plan.transaction.rows.setdefault("gaps", []).append(segment)

    def _tell_far(self, plan: Plan, minute: int) -> None:
        """Count them; an event is enough once a minute and table, or one wrong clock would make ten a second."""
        for name, facts in self._facts.items():
            if not facts.far:
                continue
            plan.far[name] = facts.far
            if self._far_told.get(name) != minute:
                self._far_told[name] = minute
                detail = f"{name}: {facts.far} rows more than a day off received_at"
                plan.transaction.events.append(EventRow("far_exchange_ts", None, detail))

    def _compare_streams(self, plan: Plan, gatherer: int, rows: Sequence[Any]) -> None:
        for disagreement in self._agreement.observe(gatherer, rows):
            plan.disagreements += 1
            if plan.disagreements <= EVENTS_MAX:
                event = EventRow("streams_disagree", gatherer, str(disagreement))
                plan.transaction.events.append(event)

    def _settle(self, present: Mapping[str, Sequence[Identity]]) -> list[CoverageRow]:
        return [
            CoverageRow(
                name,
                increment.minute,
                tuple(sorted(self._gatherers[bit] for bit in bits(increment.mask))),
                increment.is_late,
                increment.facts,
            )
            for name, facts in self._facts.items()
            for increment in facts.increments(set(present.get(name, ())))
        ]


def micros(moment: datetime) -> int:
    """Convert a database time to microseconds since the epoch, exactly."""
    return (moment - _EPOCH) // timedelta(microseconds=1)


def dropped_gaps(batch: ReadBatch) -> tuple[GapRow, ...]:
    """Return the gaps that record a batch whose rows the gatherer no longer has.

    They bear numbers that no row of a batch has, and times of the ledger only: read twice they are the same rows.
    """
    return family_gaps(
        micros(batch.committed_at),
        batch.family,
        "dropped_at_gatherer",
        detail=f"lane {batch.lane} batch {batch.batch_no}",
    )
