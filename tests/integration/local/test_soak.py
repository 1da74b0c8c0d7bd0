"""The soak scenarios with small figures: the same code as `make soak`, on servers in memory where there is room."""

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from services.local.topology import merged
from tests.soak.away import DatabaseAway
from tests.soak.ground import Terms
from tests.soak.kills import Kills
from tests.soak.play import Played, play, print_played
from tests.soak.restored import Restored
from tests.soak.rolling import Rolling
from tests.soak.scenario import Scenario
from tests.soak.spool_full import SpoolFull
from tests.soak.storm import Storm
from tests.soak.subscribe import Subscribe
from tests.soak.takeover import Takeover
from tests.support.postgres import scratch_directory

WITHIN_S = 480.0
"""On a quiet machine each takes less than one; what is waited for tells nothing but that it came."""
QUICK = {"connector": {"plan_s": 0.2, "heartbeat_s": 0.5, "settle_s": 0.3}}
"""Looks at the control tables more often than a zone needs to."""
pytestmark = [
    pytest.mark.slow,
    pytest.mark.scenario,
    pytest.mark.timeout(WITHIN_S + 20),
    pytest.mark.skipif(
        not Path("/proc").is_dir(), reason="kills servers by what /proc says of them"
    ),
]


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory that the servers' own user can reach too, in memory where there is room."""
    with tempfile.TemporaryDirectory(prefix="soak-", dir=scratch_directory()) as found:
        Path(found).chmod(0o755)
        yield Path(found, "run")


async def played(directory: Path, *scenarios: Scenario, terms: Terms | None = None) -> Played:
    """Play them; what they say is shown when something fails."""
    console = Console(width=150, highlight=False)
    for scenario in scenarios:
        scenario.timeout_s = WITHIN_S / len(scenarios)
    terms = terms or scenarios[0].terms()
    terms = replace(terms, gatherer=merged(terms.gatherer, QUICK))
    found = await play(scenarios, directory, console, terms=terms, is_kept=False)
    print_played(found, console)
    return found


async def test_a_zone_takes_kills_of_any_process_and_the_loss_of_one_connector(
    directory: Path,
) -> None:
    """Whatever is killed is back by itself; what was lost meanwhile is a gap, nothing is doubled."""
    found = await played(
        directory,
        Takeover(times=1, within_s=60.0),
        Kills(seconds=20.0, every_s=4.0, down_s_max=2.0, fault_every_s=3.0, seed=5),
    )
    assert found.failures == []


async def test_a_zone_is_rolled_without_a_gap_and_survives_an_older_database(
    directory: Path,
) -> None:
    """New connectors take over before the old ones go; a restored database is noticed, and the merge goes on."""
    rolling = Rolling(times=2, ready_s=0.0)
    found = await played(directory, rolling, Restored(older_s=5.0, unmerged_s=2.0))
    assert found.failures == []


async def test_a_zone_without_its_database_loses_nothing_until_its_spool_is_full(
    directory: Path,
) -> None:
    """With no memory everything waits on the disk, in its order; what did not fit there is exactly the gap."""
    full = SpoolFull(bytes_max=200_000, rows_dropped=300)
    away = DatabaseAway(seconds=5.0, has_memory=False)
    found = await played(directory, away, full, terms=full.terms())
    assert found.failures == []


async def test_many_markets_are_heard_and_a_reconnect_storm_keeps_to_the_limits(
    directory: Path,
) -> None:
    """All first snapshots are in; then a hand-over while all connections are closed again and again."""
    subscribe = Subscribe(markets=1_500, orderbook=20, connectors=1, within_s=60.0)
    storm = Storm(closes=3, every_s=2.0, refuse_s=1.0, connectors=1, slots=20, spare=4)
    terms = storm.terms()
    terms = replace(terms, simulated={**terms.simulated, **subscribe.terms().simulated})
    found = await played(directory, subscribe, storm, terms=terms)
    assert found.failures == []
