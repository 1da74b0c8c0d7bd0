"""The verdict can fail: a client or a deduplicator that is broken in one place on purpose is caught by some seed."""

from collections.abc import Callable, Iterator

import pytest

from tests.simulation.mutants import MERGER_MUTANTS, MUTANTS, Patch
from tests.simulation.plan import plan_of
from tests.simulation.trial import Trial, try_plan

SEEDS_MAX = 40


def trials(kinds: str) -> Iterator[Trial]:
    for seed in range(SEEDS_MAX):
        yield try_plan(plan_of(seed, frozenset(kinds.split(","))))


EVERY_MUTANT = [*MUTANTS, *MERGER_MUTANTS]


@pytest.mark.parametrize(
    ("mutate", "kinds", "finding"),
    EVERY_MUTANT,
    ids=[mutant[0].__name__ for mutant in EVERY_MUTANT],
)
def test_a_broken_client_or_deduplicator_is_caught(
    mutate: Callable[[Patch], None], kinds: str, finding: str, monkeypatch: Patch
) -> None:
    """By one of a few seeds, and for the reason it is broken."""
    mutate(monkeypatch)
    caught = (found for trial in trials(kinds) for found, _ in trial.outcome.findings)
    assert finding in caught
