"""The union of three gatherers, each with spans cut out of what it heard: the verdict of data-model.md section 7.

The connector's own sessions hear the simulator's own frames. Every combination of who hears a span, for every kind of
cut at every kind of place, and longer random ones; more of both by `make seeds`. And the verdict can fail.
"""

from random import Random

import pytest

from tests.simulation.combined import (
    COMBINATIONS,
    SHORT,
    SPANS,
    hear_short,
    random_case,
    short_cases,
    try_random,
)
from tests.simulation.heard import KINDS
from tests.simulation.mutants import UNION_MUTANTS, Mutant
from tests.simulation.published import milliseconds
from tests.simulation.united import judge, judge_alone, unite

SEEDS = 20
MUTANT_SEEDS_MAX = 30


def test_the_short_truth_has_everything_that_makes_identity_hard() -> None:
    """Repeats of one millisecond, level and size; pairs of +5 and -5; equal tuples across a border; cuts inside."""
    groups = milliseconds(SHORT)
    counts = [
        [SHORT[i].size for i in of] for (ticker, _), of in groups.items() if ticker == "KXU-A"
    ]
    assert counts == [[500, -500, 500, 500], [500, 500], [500, -500]]
    assert len(SPANS) == 66 and len(COMBINATIONS) == 8


@pytest.mark.parametrize("kind", KINDS)
def test_one_gatherer_stores_and_claims_what_its_streams_heard(kind: str) -> None:
    """One cut at every place: no extra, exact where a stream was whole, nothing missing inside a claim, no wide gap."""
    for span in SPANS:
        assert judge_alone(SHORT, hear_short(1, kind, span)) == [], f"{kind} {span}"


def test_every_combination_of_who_hears_a_span_unites_to_the_largest_of_any_stream() -> None:
    """All 2^3 for every span, each gatherer cut in another way; pages in any order, some twice."""
    for case, heard in short_cases(rotations=[0]):
        assert judge(SHORT, heard, unite(heard, Random(case))) == [], case


@pytest.mark.parametrize("seed", range(SEEDS))
def test_random_cuts_of_longer_truths_unite(seed: int) -> None:
    """Several cuts for each gatherer, late frames, bursts; as readers bring pages, and in any other order."""
    assert try_random(seed) == []


def test_random_cuts_reach_every_combination_of_hearing() -> None:
    """Over the seeds some delta is heard by exactly these gatherers, for all 2^3 sets of them."""
    found = set()
    for seed in range(SEEDS):
        truth, heard = random_case(seed)
        there = [{told.index for told in one.told if told.stored} for one in heard]
        found |= {tuple(index in one for one in there) for index in range(len(truth))}
        if found == set(COMBINATIONS):
            return
    raise AssertionError(f"never: {set(COMBINATIONS) - found}")


@pytest.mark.parametrize("mutant", UNION_MUTANTS, ids=lambda mutant: mutant.name)
def test_a_broken_union_is_caught(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    """By one of a few seeds, and for the reason it is broken."""
    mutant.mutate(monkeypatch)
    caught = (kind for seed in range(MUTANT_SEEDS_MAX) for kind, _ in try_random(seed))
    assert mutant.finding in caught
