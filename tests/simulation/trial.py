"""One seed tried: its world run and judged, whatever happens."""

import logging
import traceback
from dataclasses import dataclass

from libs.store.batches import SealedBatch
from tests.simulation.plan import Plan
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
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        outcome = take_verdict(run(plan))
    except Exception as error:  # noqa: BLE001 - whatever it is, the seed is to be named with it
        outcome = Outcome()
        outcome.add("crash", "".join(traceback.format_exception(error)))
    finally:
        logging.disable(level)
    return Trial(plan, outcome)


def trace_of(finished: Run) -> tuple[bytes, bytes, list[tuple[str, list[SealedBatch]]]]:
    """Everything a repeated run has to repeat: both journals and every committed batch."""
    stored = [
        (f"{zone} {lane}", [batch.sealed for batch in held.batches])
        for zone, gatherer in finished.gatherers.items()
        for lane, held in gatherer.database.lanes.items()
    ]
    return finished.venue.market.bytes(), finished.venue.session.bytes(), stored
