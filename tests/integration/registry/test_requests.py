"""What the registry asks of the exchange is counted, and whose budget it is can be seen."""

from pathlib import Path

from libs.store.pool import Target
from tests.integration.registry.world import running_zone


async def test_requests_are_counted_by_endpoint_and_status(
    gatherer_db: Target, tmp_path: Path
) -> None:
    """In /metrics, as many as /health says; /health names the account."""
    async with running_zone(gatherer_db, tmp_path) as zone, zone.registry() as runtime:
        text = runtime.metrics.exposition()[0].decode()
        said = runtime.health.document()["exchange"]
    counts = {
        line.partition("{")[2].partition("}")[0]: float(line.rpartition(" ")[2])
        for line in text.splitlines()
        if line.startswith("kalshi_data_rest_requests_total{")
    }
    assert counts['endpoint="/series",status="200",zone="a"'] >= 1
    assert counts['endpoint="/account/limits",status="200",zone="a"'] == 1
    assert sum(counts.values()) == said["requests"]
    assert said["account"] == "default"
