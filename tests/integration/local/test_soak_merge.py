"""The soak scenarios of the merge with small figures: the same code as `make soak`."""

from pathlib import Path

import pytest

from tests.integration.local.test_soak import WITHIN_S, directory, played
from tests.soak.dedup_kills import DedupKills
from tests.soak.dedup_takeover import DedupTakeover
from tests.soak.gatherer_restored import GathererRestored
from tests.soak.production import ProductionAway, ProductionRestored
from tests.soak.s3_away import S3Away

__all__ = ["directory"]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.soak,
    pytest.mark.timeout(WITHIN_S + 20),
    pytest.mark.skipif(
        not Path("/proc").is_dir(), reason="kills servers by what /proc says of them"
    ),
]


async def test_the_deduplicator_is_killed_again_and_again(directory: Path) -> None:
    """Each one goes on from what is committed; another waits for the lease and takes over in time."""
    kills = DedupKills(times=5, merges_s_max=1.0)
    found = await played(directory, kills, DedupTakeover(times=1), terms=kills.terms())
    assert found.failures == []


async def test_production_goes_away_and_comes_back_older(directory: Path) -> None:
    """The gatherers have it all: what was lost is merged again, above every number that was seen."""
    found = await played(directory, ProductionAway(seconds=3.0), ProductionRestored(older_s=5.0))
    assert found.failures == []


async def test_a_gatherer_comes_back_older_and_s3_goes_away(directory: Path) -> None:
    """An event row tells of the one, the archiver's health of the other; production and archive end whole."""
    s3 = S3Away(seconds=5.0)
    found = await played(directory, s3, GathererRestored(older_s=10.0, away_s=3.0))
    assert found.failures == []
