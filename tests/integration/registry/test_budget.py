"""The read budget: an account's real token bucket, shared by registry and poller; refusals slow down and are counted."""

from dataclasses import replace
from pathlib import Path

import pytest

from libs.runtime.service import Runtime
from libs.store.pool import Target
from services.poller.service import run as run_poller
from services.poller.settings import PollerSettings
from services.poller.settings import Settings as ServiceSettings
from tests.integration.registry.world import QUICK, Zone, running_zone

SHARED = replace(QUICK, read_share=0.4)
SECONDS = 5.0


def answered(runtime: Runtime) -> dict[str, int]:
    """Return how many requests a process made, by HTTP status."""
    found: dict[str, int] = {}
    for line in runtime.metrics.exposition()[0].decode().splitlines():
        if line.startswith("kalshi_data_rest_requests_total{"):
            status = line.partition('status="')[2].partition('"')[0]
            found[status] = found.get(status, 0) + int(float(line.rpartition(" ")[2]))
    return found


def poller_settings(zone: Zone) -> ServiceSettings:
    """A poller that would never pause."""
    own = zone.settings
    return ServiceSettings(
        zone="a", exchange=own.exchange, store=own.store, poller=PollerSettings(period_s=0.5, lease_s=3.0),
    )  # fmt: skip


async def test_registry_and_poller_stay_within_the_accounts_bucket(
    gatherer_db: Target, tmp_path: Path
) -> None:
    """Both greedy, configured for far more than the account has: not one request is refused, from the start on."""
    async with running_zone(gatherer_db, tmp_path, markets=1_200, tier="basic") as zone:
        clock = zone.simulator.clock
        began = clock.monotonic()
        async with (
            zone.registry(registry=replace(SHARED, incremental_s=0.05)) as registry,
            zone.service("poller", run_poller, poller_settings(zone)) as poller,
        ):
            await zone.until(lambda: clock.monotonic() - began > SECONDS)
            await zone.until(
                lambda: answered(registry)["200"] >= 20 and answered(poller)["200"] >= 10
            )
            spent = clock.monotonic() - began
            by_registry, by_poller = answered(registry), answered(poller)
            assert registry.health.document()["exchange"]["reads_per_s"] == 8.0
    assert (set(by_registry), set(by_poller)) == ({"200"}, {"200"})
    assert by_registry["200"] <= 8.0 * spent + 20
    assert by_registry["200"] + by_poller["200"] <= 20.0 * spent + 40


async def test_refusals_slow_the_registry_down_and_do_not_end_it(
    gatherer_db: Target, tmp_path: Path
) -> None:
    """Somebody else uses the account up: every refusal is counted, and the listing goes on afterwards."""
    async with (
        running_zone(gatherer_db, tmp_path, tier="none") as zone,
        zone.registry(registry=SHARED) as runtime,
    ):
        fault = zone.inject(fault="rest", status=429, for_s=600)
        await zone.until(lambda: answered(runtime).get("429", 0) >= 3)
        assert runtime.health.document()["exchange"]["limited"] >= 2
        listings = runtime.health.document()["listing"]["incremental"]
        assert zone.simulator.simulation.faults.end(fault.number, zone.simulator.clock.now())
        await zone.until(lambda: runtime.health.document()["listing"]["incremental"] > listings + 1)
        assert runtime.health.ready


async def test_a_batch_of_books_is_paid_for_by_its_price(
    gatherer_db: Target, tmp_path: Path
) -> None:
    """A batch that costs five reads is asked for a fifth as often; nothing is refused."""
    async with running_zone(
        gatherer_db, tmp_path, markets=1_200, tier="basic", books_cost=50
    ) as zone:
        clock = zone.simulator.clock
        async with (
            zone.registry(registry=SHARED),
            zone.service("poller", run_poller, poller_settings(zone)) as poller,
        ):
            before, began = answered(poller), clock.monotonic()
            await zone.until(lambda: clock.monotonic() - began > SECONDS)
            spent, after = clock.monotonic() - began, answered(poller)
    assert set(after) == {"200"}
    assert 0 < after["200"] - before["200"] <= 2.0 * spent + 5


async def test_another_tier_counts_after_a_refusal(
    gatherer_db: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The account is asked again, by registry and poller, and its new share is taken over."""
    monkeypatch.setattr("libs.runtime.rest.ASK_AGAIN_S_MIN", 0.05)
    async with (
        running_zone(gatherer_db, tmp_path, tier="expert") as zone,
        zone.registry(registry=SHARED) as registry,
        zone.service("poller", run_poller, poller_settings(zone)) as poller,
    ):

        def reads() -> list[float]:
            found = [runtime.health.document()["exchange"] for runtime in (registry, poller)]
            return [found[0]["reads_per_s"], found[1]["reads_per_s_allowed"]]

        assert reads() == [24.0, 30.0]
        zone.simulator.rest.budgets.tier = "basic"
        fault = zone.inject(fault="rest", status=429, for_s=600)
        await zone.until(lambda: all(answered(own).get("429") for own in (registry, poller)))
        assert zone.simulator.simulation.faults.end(fault.number, zone.simulator.clock.now())
        await zone.until(lambda: reads() == [8.0, 10.0])
