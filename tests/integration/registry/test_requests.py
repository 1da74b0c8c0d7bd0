"""What the registry asks of the exchange is counted, whose budget it is can be seen, and a restart asks for little."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from libs.runtime.service import Runtime
from libs.store.pool import Target
from tests.integration.registry.world import QUICK, running_zone

RARELY = replace(QUICK, incremental_s=600.0, status_s=600.0)
"""One turn of everything that is repeated."""


def asked(runtime: Runtime) -> dict[str, int]:
    """Return how many requests were answered 200, by endpoint."""
    found = {}
    for line in runtime.metrics.exposition()[0].decode().splitlines():
        if line.startswith("kalshi_data_rest_requests_total{") and 'status="200"' in line:
            endpoint = line.partition('endpoint="')[2].partition('"')[0]
            found[endpoint] = int(float(line.rpartition(" ")[2]))
    return found


async def test_requests_are_counted_by_endpoint_and_status(
    gatherer_db: Target, tmp_path: Path
) -> None:
    """In /metrics, as many as /health says; /health names the account."""
    async with (
        running_zone(gatherer_db, tmp_path) as zone,
        zone.registry(registry=RARELY) as runtime,
    ):

        def is_answered() -> bool:
            said: Any = runtime.health.document()["exchange"]
            return bool(sum(asked(runtime).values()) == said["requests"])

        # One that is on its way is counted already, and not answered yet.
        await zone.until(is_answered)
        counts = asked(runtime)
        said: Any = runtime.health.document()["exchange"]
    assert counts["/series"] >= 1
    assert counts["/account/limits"] == 1
    assert sum(counts.values()) == said["requests"]
    assert said["account"] == "default"


async def test_a_restart_does_not_list_the_world_again(gatherer_db: Target, tmp_path: Path) -> None:
    """The first start reads page by page, the second one page of what changed: however many markets there are."""
    async with running_zone(gatherer_db, tmp_path, markets=5_000) as zone:
        async with zone.registry(registry=RARELY) as first:
            await zone.until(
                lambda: {"/exchange/schedule", "/exchange/status"} <= asked(first).keys()
            )
            world = asked(first)
        # 4,750 markets that are no combos are five pages; each other status is asked for, too. Their events are four pages.
        assert world["/markets"] >= 5 + 3
        assert world["/events"] >= 4 + 1
        markets = await zone.value("select count(*) from markets")
        async with zone.registry(registry=RARELY) as second:
            await zone.until(
                lambda: {"/exchange/schedule", "/exchange/status"} <= asked(second).keys()
            )
            again = asked(second)
            # An empty page need not be the last one.
            assert again.pop("/events") <= 2
            assert again == {
                "/account/endpoint_costs": 1, "/account/limits": 1, "/exchange/schedule": 1, "/exchange/status": 1,
                "/series": 1, "/markets": 1,
            }  # fmt: skip
            document = second.health.document()
            assert (document["listing"]["full"], document["markets"]["total"]) == (0, markets)
