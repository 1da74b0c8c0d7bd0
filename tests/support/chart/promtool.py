"""A made-up installation as Prometheus sees it, for promtool's rule tests: two zones that are well, and what a test makes wrong.

Series are promtool's: `value+stepxcount`, a step a minute. As in the real processes every metric without labels stands at 0 in
every process that does not set it, so that a rule which takes a foreign process's 0 for a fact is found.
"""

import json
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from libs.telemetry.metrics import PREFIX, Metrics
from tests.support.chart.render import CHART

ZONES = ("a", "b")
NAMESPACE = "kd"
RULES = tuple(sorted(CHART.glob("rules/*.yaml")))


class Process(NamedTuple):
    """One target: its labels, as the ServiceMonitor sets them."""

    component: str
    pod: str
    zone: str = ""

    @property
    def labels(self) -> dict[str, str]:
        """All of them."""
        own = {"job": "kalshi-data", "namespace": NAMESPACE, "component": self.component, "pod": self.pod}  # fmt: skip
        return own | ({"zone": self.zone} if self.zone else {})


class Series(NamedTuple):
    """What one metric of one process does: labels of its own, and promtool's values."""

    labels: Mapping[str, str]
    values: str


def processes() -> list[Process]:
    """Two connectors, a registry and a poller a zone; deduplicator, archiver, operator."""
    found = [Process(one, one) for one in ("deduplicator", "archiver", "operator")]
    for zone in ZONES:
        found += [Process(one, f"{one}-{zone}", zone) for one in ("registry", "poller")]
        found += [Process("connector", f"connector-{zone}-{n}", zone) for n in (1, 2)]
    return found


STILL, MINUTES = "xN", "0+60xN"
"""A value that stays; the time itself, in seconds. N becomes the length of the test."""


def _each(label: str, values: Sequence[str], value: str, **labels: str) -> list[Series]:
    return [Series({label: one, **labels}, value) for one in values]


def _histogram(fast: str) -> list[Series]:
    """All observations below 50 ms."""
    return [Series({"le": le}, fast) for le in ("0.05", "1.0", "5.0", "60.0", "+Inf")]


HEALTHY: Mapping[tuple[str, str], Sequence[Series]] = {
    ("connector", "ws_last_frame_timestamp_seconds"): [Series({}, MINUTES)],
    ("connector", "slots_owned"): [Series({}, f"75{STILL}")],
    ("connector", "slots_live"): [Series({}, f"75{STILL}")],
    ("connector", "rows_written_total"): [Series({"table": "trades"}, "0+600xN")],
    ("connector", "rows_dropped_total"): [Series({"table": "trades", "reason": "spool_full"}, f"0{STILL}")],
    ("connector", "ws_reconnects_total"): [Series({"reason": "Late"}, "0+1xN")],
    ("connector", "rejected_frames_total"): [Series({"reason": "frame"}, f"0{STILL}")],
    ("connector", "spool_bytes"): [Series({"family": "deltas"}, f"0{STILL}")],
    ("connector", "spool_faults_total"): [Series({"family": "deltas"}, f"0{STILL}")],
    ("connector", "spool_torn_records_total"): [Series({"family": "deltas"}, f"0{STILL}")],
    ("connector", "storage_bytes"): [Series({}, f"1000{STILL}")],
    ("connector", "storage_bytes_max"): [Series({}, f"10000{STILL}")],
    ("connector", "flush_seconds_bucket"): _histogram("0+600xN"),
    ("registry", "catalogue_lag_seconds_bucket"): _histogram("0+6xN"),
    ("registry", "rest_requests_total"): [
        Series({"endpoint": "markets", "status": "200"}, "0+60xN"),
        *_each("status", ("401", "429"), f"0{STILL}", endpoint="markets"),
    ],
    ("poller", "snapshot_period_seconds"): [Series({}, f"900{STILL}")],
    ("poller", "book_checks_total"): [
        Series({"outcome": "agree"}, "0+60xN"), Series({"outcome": "disagree"}, f"0{STILL}"),
    ],
    ("deduplicator", "completeness"): [Series({"table": "trades"}, f"1{STILL}")],
    ("deduplicator", "merge_lag_seconds"): _each("gatherer", ZONES, f"0.2{STILL}"),
    ("deduplicator", "merge_rows_read_total"): _each("gatherer", ZONES, "0+600xN", table="trades"),
    ("deduplicator", "gatherer_reachable"): _each("gatherer", ZONES, f"1{STILL}"),
    ("deduplicator", "gatherer_quarantined"): _each("gatherer", ZONES, f"0{STILL}"),
    ("deduplicator", "gatherer_reopening"): _each("gatherer", ZONES, f"0{STILL}"),
    ("deduplicator", "gatherer_database_changes_total"): _each("gatherer", ZONES, f"0{STILL}", change="restored"),
    ("deduplicator", "default_partition_rows"): [Series({"table": "trades"}, f"0{STILL}")],
    ("archiver", "archive_watermark_seconds"): [
        Series({"table": "exchange_status"}, MINUTES), Series({"table": "trades"}, f"0{STILL}"),
    ],
    ("archiver", "archive_superseded_total"): [Series({"table": "trades"}, f"0{STILL}")],
    ("archiver", "task_faults_total"): [Series({"task": "export"}, f"0{STILL}")],
    ("connector", "task_faults_total"): [Series({"task": "plan"}, f"0{STILL}")],
    ("operator", "assignment_epoch"): _each("gatherer", ZONES, f"7{STILL}"),
    ("operator", "assignment_frozen"): _each("gatherer", ZONES, f"0{STILL}"),
    ("operator", "assignment_slots"): [
        *_each("gatherer", ZONES, f"150{STILL}", state="live"), *_each("gatherer", ZONES, f"0{STILL}", state="moving"),
        *_each("gatherer", ZONES, f"0{STILL}", state="unassigned"),
    ],
    ("operator", "assignment_shards"): [
        *_each("gatherer", ZONES, f"2{STILL}", state="wanted"), *_each("gatherer", ZONES, f"2{STILL}", state="ready"),
    ],
    ("operator", "planned_database_reachable"): _each("gatherer", ZONES, f"1{STILL}"),
    ("operator", "kube_reachable"): [Series({}, f"1{STILL}")],
}  # fmt: skip
"""(component, metric without prefix) -> what it shows while all is well."""


class Change(NamedTuple):
    """What a test makes wrong.

    metric: with its prefix, as in the rules. where: labels that the series to be changed have. values: promtool's; None takes the
    series away.
    """

    metric: str
    where: Mapping[str, str]
    values: str | None


def world(changes: Sequence[Change], minutes: int, spoken_of: str = "") -> Iterator[dict[str, str]]:
    """Yield promtool's input series of the healthy installation with the changes, so many minutes of them.

    Args:
        spoken_of: only metrics that this text names; empty: all.

    Raises:
        AssertionError: a change meets no series.
    """
    met = set()
    for name, labels, values in _healthy({one.metric.removeprefix(PREFIX) for one in changes}):
        given: str | None = values
        for number, change in enumerate(changes):
            if change.metric == name and change.where.items() <= labels.items():
                given = change.values
                met.add(number)
        if given is not None and (not spoken_of or name in spoken_of):
            given = given.replace("xN", f"x{minutes}")
            yield {"series": f"{name}{_selector(labels)}", "values": given}
    assert len(met) == len(changes), [c for n, c in enumerate(changes) if n not in met]


def _healthy(changed: set[str]) -> Iterator[tuple[str, dict[str, str], str]]:
    plain = _plain_metrics()
    for process in processes():
        yield "up", process.labels, f"1{STILL}"
        yield f"{PREFIX}ready", process.labels, f"1{STILL}"
        build = {"service": process.component, "version": "1.0.0", "revision": "abc"}
        yield f"{PREFIX}build_info", process.labels | build, f"1{STILL}"
        told = {name: series for (component, name), series in HEALTHY.items() if component == process.component}  # fmt: skip
        # One of each zone, and one of no zone, stand for all that export a 0.
        zeros = plain if process.component in {"registry", "deduplicator"} else set()
        for name in (zeros - told.keys() - {"ready"}) | (changed & plain - told.keys()):
            yield f"{PREFIX}{name}", process.labels, f"0{STILL}"
        for name, series in told.items():
            for one in series:
                yield f"{PREFIX}{name}", process.labels | dict(one.labels), one.values
    claim = {"namespace": NAMESPACE, "persistentvolumeclaim": "data-kalshi-data-database-a-0"}
    yield "kubelet_volume_stats_available_bytes", claim, f"50{STILL}"
    yield "kubelet_volume_stats_capacity_bytes", claim, f"100{STILL}"


def _plain_metrics() -> set[str]:
    """Samples that every process exports at 0 without doing anything, and that a rule speaks of."""
    rules = "".join(path.read_text(encoding="utf-8") for path in RULES)
    samples = [s for family in Metrics().registry.collect() for s in family.samples if not s.labels]
    return {s.name.removeprefix(PREFIX) for s in samples if s.name in rules}


def _selector(labels: Mapping[str, str]) -> str:
    return "{" + ", ".join(f"{name}={json.dumps(value)}" for name, value in labels.items()) + "}"


def run_tests(
    tests: Sequence[Mapping[str, Any]],
    folder: Path,
    every: str = "1m",
    rules: Sequence[Path] = RULES,
) -> str:
    """Run promtool's `test rules`; empty when all is as expected, else what it says.

    Args:
        every: how often rules are evaluated.
        rules: files of rules; all of the chart's by default.
    """
    file = folder / "tests.yaml"
    document = {"rule_files": [str(path) for path in rules], "evaluation_interval": every, "tests": list(tests)}  # fmt: skip
    file.write_text(json.dumps(document), encoding="utf-8")
    done = subprocess.run(
        ["promtool", "test", "rules", str(file)], capture_output=True, text=True, check=False
    )
    return "" if done.returncode == 0 else done.stdout + done.stderr
