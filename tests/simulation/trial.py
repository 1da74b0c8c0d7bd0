"""One seed tried: its world run and judged, whatever happens."""

import hashlib
import logging
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

from libs.store.batches import SealedBatch
from tests.simulation.plan import Plan, plan_of
from tests.simulation.verdict import Outcome, take_verdict
from tests.simulation.world import Run, run


@dataclass(frozen=True, slots=True)
class Trial:
    """A plan and what came of it."""

    plan: Plan
    outcome: Outcome

    @property
    def holds(self) -> bool:
        return not self.outcome.findings

    def said(self) -> str:
        """What is wrong, and how to have it again."""
        found = "\n".join(f"{kind}: {what}" for kind, what in self.outcome.findings[:10])
        return f"{found}\nagain: python -m tests.simulation --seed {self.plan.seed} --verbose"


def try_plan(plan: Plan) -> Trial:
    """Run and judge a world; an error of the client or of the exchange is a finding like any other."""
    try:
        with quiet():
            outcome = take_verdict(run(plan))
    except Exception as error:  # noqa: BLE001 - whatever it is, the seed is to be named with it
        outcome = Outcome()
        outcome.add("crash", "".join(traceback.format_exception(error)))
    return Trial(plan, outcome)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the log of a world, which is full of trouble, to itself."""
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(level)


class Trace(NamedTuple):
    """Everything a repeated run has to repeat: both journals and every committed batch, by zone and lane."""

    market: bytes
    session: bytes
    stored: list[tuple[str, list[SealedBatch]]]


def trace_of(finished: Run) -> Trace:
    """Return what a world left."""
    stored = [
        (f"{zone} {lane}", [batch.sealed for batch in held.batches])
        for zone, gatherer in finished.gatherers.items()
        for lane, held in gatherer.database.lanes.items()
    ]
    return Trace(finished.venue.market.bytes(), finished.venue.session.bytes(), stored)


def digest_of_seed(seed: int) -> str:
    """Run a seed and return the digest of what it left, 32 hexadecimal digits."""
    with quiet():
        trace = trace_of(run(plan_of(seed)))
    digest = hashlib.blake2b(trace.market + trace.session, digest_size=16)
    for lane, batches in trace.stored:
        digest.update(lane.encode())
        for batch in batches:
            for table in batch.tables:
                digest.update(b"".join(table.payloads))
    return digest.hexdigest()
