"""What a deduplicator made of the gatherers' databases, held against their ledgers.

- unmerged: a row of a batch that a gatherer holds is not in production
- invented: a row of production that no gatherer ever committed
- coverage: the facts that coverage counts are not the rows production holds
- quarantined: a sound gatherer was set aside
- disagreement: two whole streams were taken to tell of a millisecond differently, though each connection was told the same
- undrained: when nothing was wrong any more, not everything was merged in time
"""

from collections import Counter
from collections.abc import Iterator
from uuid import UUID

from libs.marketdata.binary import codec
from libs.marketdata.tables import GATHERER_TABLES
from libs.store.batches import SealedBatch
from libs.store.merge_transaction import CONTENT_TABLES, Identity, Segment
from services.simulator.faults.menu import ClockStep
from tests.simulation.deduplicator import Deduplication
from tests.simulation.merged import key_of
from tests.simulation.world import Run

Finding = tuple[str, str]


def judge_merging(run: Run, merging: Deduplication) -> Iterator[Finding]:
    """Yield everything that is wrong."""
    production = merging.production
    if not run.is_drained:
        yield (
            "undrained",
            ", ".join(f"{g.zone}: {g.status} {g.detail}" for g in production.gatherers.values()),
        )
    yield from (
        ("quarantined", f"{g.zone}: {g.detail}")
        for g in production.gatherers.values()
        if g.status == "quarantined"
    )
    numbers = {identity: found.number for identity, found in production.gatherers.items()}
    for zone, gatherer in run.gatherers.items():
        number = numbers.get(gatherer.database.identity, 0)
        for lane, held in gatherer.database.lanes.items():
            for batch_no, batch in enumerate(held.batches, 1):
                missing = _missing(merging, number, lane, batch_no, batch.sealed)
                if missing:
                    yield "unmerged", f"{zone} lane {lane} batch {batch_no}: {missing}"
    yield from _invented(run, merging, numbers)
    yield from _judge_coverage(merging)
    if merging.disagreements and not any(isinstance(f, ClockStep) for f in run.plan.faults):
        yield "disagreement", str(merging.disagreements)


def _keys(
    number: int, lane: UUID, batch_no: int, sealed: SealedBatch
) -> Iterator[tuple[str, Identity]]:
    segment = Segment(number, lane, batch_no, ())
    for table in sealed.tables:
        decode = codec(table.name).decode
        for payload in table.payloads:
            yield table.name, key_of(GATHERER_TABLES[table.name], decode(payload)[0], segment)


def _missing(
    merging: Deduplication, number: int, lane: UUID, batch_no: int, sealed: SealedBatch
) -> Counter[str]:
    tables = merging.production.tables.tables
    keys = _keys(number, lane, batch_no, sealed)
    return Counter(name for name, key in keys if key not in tables[name])


def _invented(run: Run, merging: Deduplication, numbers: dict[UUID, int]) -> Iterator[Finding]:
    committed: dict[str, set[Identity]] = {name: set() for name in GATHERER_TABLES}
    for gatherer in run.gatherers.values():
        for identity, lane, batch_no, sealed in gatherer.database.ever:
            for name, key in _keys(numbers.get(identity, 0), lane, batch_no, sealed):
                committed[name].add(key)
    for name, rows in merging.production.tables.tables.items():
        if extra := rows.keys() - committed[name]:
            yield "invented", f"{name}: {len(extra)}, {next(iter(extra))}"


def _judge_coverage(merging: Deduplication) -> Iterator[Finding]:
    counted: Counter[str] = Counter()
    for _, name, facts in merging.production.covered:
        counted[name] += facts
    for name in CONTENT_TABLES:
        held = len(merging.production.tables.tables[name])
        if counted[name] != held:
            yield "coverage", f"{name}: {counted[name]} counted, {held} there"
