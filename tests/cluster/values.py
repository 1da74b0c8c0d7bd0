"""The values of the scenarios' releases: the development set of the chart, what the scenarios need, what the cluster is."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from services.local.topology import merged
from tests.cluster.faults import ZONE_LABEL
from tests.cluster.images import ROOT, Images

CHART = ROOT / "charts/kalshi-data"
DEVELOPMENT = CHART / "ci/kind-values.yaml"
OWN = Path(__file__).with_name("values.yaml")
ZONES = ("a", "b", "c")
CENTRAL = 2
"""Index of the zone that holds the simulator, production, the S3 server and the deduplicator."""
MONITORING = {"kalshi-data.io/monitoring": "yes"}
"""Labels of who may ask for metrics here."""
PINNED = ("production", "deduplicator", "simulator", "s3server")


def release_values(
    labels: Sequence[str],
    images: Images,
    enabled: Sequence[str] = ZONES,
    more: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the values of a release.

    Args:
        labels: the cluster's zones, three.
        enabled: names of the gatherers; one beyond a, b, c lies in the first zone.
        more: what goes over everything else.
    """
    own = yaml.safe_load(OWN.read_text())
    zones = [
        {"name": name, "topologyZone": labels[number] if number < len(labels) else labels[0], "enabled": name in enabled}
        for number, name in enumerate([*ZONES, *(name for name in enabled if name not in ZONES)])
    ]  # fmt: skip
    placed = {name: {"nodeSelector": {ZONE_LABEL: labels[CENTRAL]}} for name in PINNED}
    monitoring = {"monitoring": {"from": [{"podSelector": {"matchLabels": MONITORING}}]}}
    values = merged(merged(merged(own, images.values()), placed), {"zones": zones, **monitoring})
    return merged(values, more or {})


def slots_of(values: Mapping[str, Any]) -> int:
    """Return how many slots each zone of a release has."""
    slots = values["zoneDefaults"]["slots"]
    return sum(int(slots[kind]) for kind in ("orderbook", "ticker", "trade", "lifecycle"))


def write_values(path: Path, values: Mapping[str, Any]) -> Path:
    """Write a values file; return its path."""
    path.write_text(yaml.safe_dump(dict(values), sort_keys=False))
    return path
