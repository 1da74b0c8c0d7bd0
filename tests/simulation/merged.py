"""Pages of several gatherers through the real merge room into a model of production's keys.

The model is what a unique key and ON CONFLICT DO NOTHING do, no more; who decides what reaches it is the product's room.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from operator import attrgetter
from random import Random
from typing import Any, NamedTuple
from uuid import UUID

from libs.marketdata.binary import codec, read_copy
from libs.marketdata.tables import GATHERER_TABLES, Family, Table, production_key
from libs.store.batches import SealedBatch
from libs.store.merge_transaction import (
    CONTENT_TABLES,
    TRADE_CONTENT,
    Identity,
    Merged,
    MergeTransaction,
    Segment,
)
from libs.store.pages import ReadBatch
from services.deduplicator.merge import Arrival, MergeRoom, Reading

ADDED = frozenset({"gatherer", "lane", "batch_no"})
"""Columns of keys that production adds to a row."""
COMMITTED = datetime(2027, 1, 15, tzinfo=UTC)


class Kept(NamedTuple):
    """A row of production: the packed row as its gatherer sent it, and what production adds."""

    row: Any
    segment: Segment
    merge_no: int


def key_of(table: Table, row: Any, segment: Segment) -> Identity:
    """Return the value of production's unique key; of trades the trade_id alone, which the writer looks up."""
    if table.name == "trades":
        return row.trade_id
    own, added = _key_columns(table.name)
    return (*own(row), *(getattr(segment, name) for name in added))


@cache
def _key_columns(name: str) -> tuple[Callable[[Any], tuple[Any, ...]], tuple[str, ...]]:
    """Return what of a key the row says, and which of it production adds."""
    table = GATHERER_TABLES[name]
    key = production_key(table)
    return attrgetter(*(n for n in key if n not in ADDED)), tuple(n for n in key if n in ADDED)


class Production:
    """Every table by its key. merge_no: of the last transaction."""

    def __init__(self) -> None:
        self.tables: dict[str, dict[Identity, Kept]] = {name: {} for name in GATHERER_TABLES}
        self.merge_no = 0

    def rows(self, table: str) -> list[Any]:
        """Every row of a table, in the order of merging."""
        return [kept.row for kept in self.tables[table].values()]

    def merge(self, transaction: MergeTransaction) -> Merged:
        """Commit a transaction, and answer as the writer does."""
        self.merge_no = max(self.merge_no, transaction.merge_no_floor) + 1
        inserted: dict[str, int] = {}
        present: dict[str, Sequence[Identity]] = {}
        kept: dict[Identity, Any] = {}
        for name, segments in transaction.rows.items():
            staged = list(_staged(name, segments))
            known = {key for key, _ in staged if key in self.tables[name]}
            if name in CONTENT_TABLES:
                present[name] = list(known)
            if name == "trades":
                kept = {key: content_of(self.tables[name][key].row) for key in known}
            before = len(self.tables[name])
            for key, (row, segment) in staged:
                self.tables[name].setdefault(key, Kept(row, segment, self.merge_no))
            inserted[name] = len(self.tables[name]) - before
        transaction.settle(present)
        return Merged(self.merge_no, inserted, present, transaction.judge(kept), kept)


def content_of(trade: Any) -> tuple[Any, ...]:
    """Return what two copies of a trade must agree in."""
    return tuple(getattr(trade, name) for name in TRADE_CONTENT)


def _staged(
    name: str, segments: Iterable[Segment]
) -> Iterator[tuple[Identity, tuple[Any, Segment]]]:
    table, decode = GATHERER_TABLES[name], codec(name).decode
    for segment in segments:
        for payload in segment.payloads:
            row = decode(payload)[0]
            yield key_of(table, row, segment), (row, segment)


def read_batch(family: Family, lane: UUID, number: int, sealed: SealedBatch) -> ReadBatch:
    """Read a batch back from the bytes that went to its gatherer."""
    rows: dict[str, list[Any]] = {}
    payloads: dict[str, list[bytes]] = {}
    for table in sealed.tables:
        read = list(read_copy(table.copy_bytes(number), table.name))
        rows[table.name] = [row for _, row, _ in read]
        payloads[table.name] = [payload for _, _, payload in read]
    return ReadBatch(lane, number, number, family, COMMITTED, False, rows, payloads)


Lanes = Mapping[Family, Sequence[SealedBatch]]
"""What one gatherer committed, by family."""


def pages_of(gatherer: int, lanes: Lanes, chance: Random, case: int = 0) -> list[Arrival]:
    """Cut a gatherer's lanes into pages of one to three batches, lane by lane in order.

    Args:
        case: told apart from others by its lanes.
    """
    found = []
    for place, (family, batches) in enumerate(lanes.items()):
        lane = UUID(int=(case * 100 + gatherer) * 100 + place)
        read = [read_batch(family, lane, no, batch) for no, batch in enumerate(batches, 1)]
        while read:
            count = chance.randint(1, 3)
            page, read = read[:count], read[count:]
            reading = {lane: Reading(page[-1].batch_no, str(family))}
            found.append(Arrival(gatherer, page, reading))
    return found


def merge_pages(pages: Sequence[Arrival], chance: Random, *, trouble: float = 0.2) -> Production:
    """Merge pages in the order given, some of them twice, some only at the second attempt.

    Args:
        trouble: share of pages that come once more later, and of transactions that are taken back before they succeed
            or after which the room has forgotten everything.
    """
    room = MergeRoom(horizon_s=600.0, identities_max=100_000, agreement_sample=1)
    production, waiting = Production(), list(pages)
    while waiting:
        count = chance.randint(1, 4)
        taken, waiting = waiting[:count], waiting[count:]
        again = [page for page in taken if chance.random() < trouble]
        waiting[len(waiting) // 2 : len(waiting) // 2] = again if trouble < 1 else []
        if chance.random() < trouble:
            # Planned, refused and taken back: nothing of it may be known.
            room.plan(taken)
            room.abandon()
        if chance.random() < trouble:
            room.forget()
        plan = room.plan(taken)
        room.confirm(production.merge(plan.transaction), 1 << 60)
    return production
