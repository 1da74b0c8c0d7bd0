"""The whole client against the whole exchange over random faults, in virtual time: what section 7 of the data model says.

More seeds by command: python -m tests.simulation --help, or make seeds.
"""

import pytest

from tests.simulation.plan import plan_of
from tests.simulation.trial import try_plan

SEEDS = 200
QUIET_SEEDS = 8
MERGED_EVERY = 20
"""Every so many worlds have a deduplicator, and trouble that befalls it; by command all have."""


@pytest.mark.parametrize("seed", range(SEEDS))
def test_nothing_extra_nothing_unsound_and_every_gap_has_its_cause(seed: int) -> None:
    """Random faults of exchange, network, databases and processes; three zones, each judged alone and all together.

    All together is what the deduplicator made of them where one runs, else the model's union.
    """
    trial = try_plan(plan_of(seed, merges=seed % MERGED_EVERY == 0))
    assert trial.holds, trial.said()


@pytest.mark.parametrize("seed", range(SEEDS, SEEDS + QUIET_SEEDS))
def test_without_faults_everything_is_there(seed: int) -> None:
    """Every fact is stored by every zone's union, and nothing was missed but markets before their first snapshot."""
    trial = try_plan(plan_of(seed, frozenset(), merges=seed % MERGED_EVERY < 2))
    assert trial.plan.is_quiet
    assert trial.holds, trial.said()
