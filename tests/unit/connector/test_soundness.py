"""The two promises of capture over random faults: nothing extra, and nothing missing inside a claim."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.marketdata.listening import union
from libs.marketdata.tables import Family
from tests.unit.connector.world import EPOCH, MS, World

FAULTS = {
    "none": "",
    "losses": "loss cut",
    "mangled": "mangle double",
    "markets": "markets loss cut",
    "batches": "tiny away loss",
    "restores": "restore away cut markets tiny",
    "clocks": "clock loss cut markets tiny away",
    "clocks without sending times": "clock signed unsent loss cut markets mangle",
    "everything": "loss cut mangle double markets tiny away restore",
}
SEEDS = st.integers(0, 1_000_000)


def check(world: World) -> None:
    """Compare stored and claimed with the truth."""
    facts, stored = world.facts(), world.stored()
    assert stored <= facts, f"extra: {sorted(stored - facts)[:3]}"
    missing = facts - stored
    claimed = [
        (fact, claim)
        for fact in missing
        for claim in world.claims()
        if claim.ticker == fact[0] and claim.from_ts <= fact[1] < claim.to_ts
    ]
    assert not claimed, f"claimed but missing: {sorted(claimed)[:3]}"


@pytest.mark.parametrize("name", FAULTS)
@given(seed=SEEDS)
@settings(max_examples=25, deadline=None)
def test_nothing_extra_and_nothing_missing_inside_a_claim(name: str, seed: int) -> None:
    """Spans are cut per gatherer, inside a millisecond too, by loss, reconnects, add_markets, drops and restores."""
    check(World(seed, FAULTS[name]).run())


@given(seed=SEEDS)
@settings(max_examples=25, deadline=None)
def test_it_holds_when_the_buffer_drops_batches(seed: int) -> None:
    """A full buffer costs gaps, never truth."""
    world = World(seed, "away tiny loss cut", gatherers=1, buffer_rows=60).run()
    check(world)
    rows = world.rows(Family.REST, "gaps")
    assert {r.reason for r in rows} <= {"seq", "rejected", "spool_full", "disconnected"}


@given(seed=SEEDS)
@settings(max_examples=15, deadline=None)
def test_without_faults_everything_is_stored_and_claimed(seed: int) -> None:
    """One gatherer alone: claims reach from a second after the first snapshots to a second before the last probe."""
    world = World(seed, "", gatherers=1)
    world.gatherers[0].dial_at = 0
    world.run()
    check(world)
    begun = (EPOCH + 2_000) * MS
    for ticker in world.tickers:
        spans = union((c.from_ts, c.to_ts) for c in world.claims() if c.ticker == ticker)
        assert len(spans) == 1
        assert spans[0][0] <= begun
        assert spans[0][1] >= (EPOCH + world.duration) * MS
    assert world.facts() - world.stored() <= {f for f in world.facts() if f[1] < begun}


@given(seed=SEEDS)
@settings(max_examples=15, deadline=None)
def test_losses_stay_tight(seed: int) -> None:
    """After the last fault every wanted market is claimed again: at the latest one answer time-out (5 s) later."""
    world = World(seed, "loss mangle double tiny away restore answered", gatherers=1)
    world.run()
    check(world)
    end = (EPOCH + world.duration) * MS
    for ticker in world.tickers:
        spans = union((c.from_ts, c.to_ts) for c in world.claims() if c.ticker == ticker)
        assert spans and spans[-1][1] >= end + 8_000_000
        assert spans[-1][0] <= end + 7_500_000
