"""Every alert fires for what it is there for, with its labels; in an installation that is well none does."""

import functools
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import pytest
import yaml

from libs.telemetry.metrics import PREFIX
from tests.support.chart.promtool import RULES, Change, run_tests, world

pytestmark = pytest.mark.skipif(
    shutil.which("promtool") is None,
    reason="promtool is not installed (Debian: apt-get install prometheus): alerts untested",
)
DOWN_FOR_GOOD = "0xN"


Wrong: TypeAlias = tuple[str, Mapping[str, str], str | None]
"""A metric without prefix, labels of the series that change, promtool's values; None takes them away."""


class Case(NamedTuple):
    """What goes wrong, and which alert says so.

    at: minutes after the start. labels: of the alert, beside namespace.
    """

    alert: str
    labels: Mapping[str, str]
    at: int
    changes: tuple[Wrong, ...]


def _zone(severity: str, zone: str = "a", **more: str) -> dict[str, str]:
    return {"zone": zone, "severity": severity, **more}


def _gatherer(severity: str, zone: str = "a", **more: str) -> dict[str, str]:
    return _zone(severity, zone, gatherer=zone, **more)


CRITICAL, WARNING = {"severity": "critical"}, {"severity": "warning"}
A, CONNECTOR_A = {"zone": "a"}, {"zone": "a", "component": "connector"}
GATHERER_A = {"gatherer": "a"}
COUNTS = "0+5xN"
CASES = (
    Case("NobodyHears", CRITICAL, 5, (("ws_last_frame_timestamp_seconds", {}, DOWN_FOR_GOOD),)),
    Case("ZoneDeaf", _zone("critical", window="1h"), 5, (("ws_last_frame_timestamp_seconds", A, DOWN_FOR_GOOD),)),
    Case("ZoneDeaf", _zone("critical", window="6h"), 100, (("ws_last_frame_timestamp_seconds", A, "0+60x80 4800x2 4980+60x20 6180x10 0+60x9"),)),
    Case("ZoneDeaf", _zone("warning", window="3d"), 100, (("ws_last_frame_timestamp_seconds", A, "0+60x50 3000x4 3300+60x100"),)),
    Case("SlotsNotLive", _zone("warning"), 12, (("slots_live", {"pod": "connector-a-1"}, "74x100"),)),
    Case("ZoneWithoutSlots", _zone("critical", "b"), 7, (("slots_owned", {"zone": "b", "component": "connector"}, DOWN_FOR_GOOD),)),
    Case("RowsDropped", _zone("critical", reason="spool_full"), 6, (("rows_dropped_total", {"pod": "connector-a-2"}, "_x3 7x100"),)),
    Case("SequenceGaps", _zone("warning"), 30, (("ws_sequence_gaps_total", {"pod": "connector-a-2"}, COUNTS),)),
    Case("Reconnecting", _zone("warning"), 25, (("ws_reconnects_total", CONNECTOR_A, "0+10x100"),)),
    Case("FramesLate", _zone("warning"), 4, (("ws_lateness_seconds", {"pod": "connector-a-1"}, "12x100"),)),
    Case("FramesRejected", _zone("warning", reason="frame"), 6, (("rejected_frames_total", {"pod": "connector-a-1"}, "_x3 1x100"),)),
    Case("Clock", _zone("warning"), 6, (("clock_steps_total", {"pod": "connector-a-1"}, "0x3 1x100"),)),
    Case("Clock", _zone("warning"), 40, (("margin_exceeded_total", {"pod": "connector-a-1"}, COUNTS),)),
    Case("KeyRefused", _zone("critical"), 12, (("rest_requests_total", {"zone": "a", "status": "401"}, COUNTS),)),
    Case("RateLimited", _zone("warning"), 32, (("rest_requests_total", {"zone": "a", "status": "429"}, COUNTS),)),
    Case("SnapshotsLate", _zone("warning"), 17, (("snapshot_period_seconds", {"pod": "poller-a"}, "3000x100"),)),
    Case("BooksDisagree", _zone("critical"), 6, (("book_checks_total", {"zone": "a", "outcome": "disagree"}, "_x3 1x100"),)),
    Case("TradesUnrepaired", _zone("warning"), 62, (("trade_repairs_open", {"pod": "poller-a"}, "3x100"),)),
    Case("CatalogueSlow", _zone("warning"), 20, (("catalogue_lag_seconds_bucket", {"zone": "a", "le": "0.05"}, "0x100"), ("catalogue_lag_seconds_bucket", {"zone": "a", "le": "1.0"}, "0x100"), ("catalogue_lag_seconds_bucket", {"zone": "a", "le": "5.0"}, "0x100"))),
    Case("DatabaseSlow", _zone("warning"), 15, (("flush_seconds_bucket", {"zone": "a", "le": "0.05"}, "0x100"), ("flush_seconds_bucket", {"zone": "a", "le": "1.0"}, "0x100"))),
    Case("SpoolInUse", _zone("warning"), 7, (("spool_bytes", {"pod": "connector-a-1"}, "100000000x100"),)),
    Case("SpoolFaults", _zone("warning"), 6, (("spool_torn_records_total", {"pod": "connector-a-1"}, "0x3 1x100"),)),
    Case("SpoolFaults", _zone("warning"), 6, (("spool_faults_total", {"pod": "connector-a-1"}, "0x3 1x100"),)),
    Case("StorageNearlyFull", _zone("warning"), 7, (("storage_level", CONNECTOR_A, "1x100"),)),
    Case("StorageFull", _zone("critical"), 2, (("storage_level", CONNECTOR_A, "2x100"),)),
    Case("StorageFillsSoon", _zone("warning"), 120, (("storage_bytes", CONNECTOR_A, "6500+10x200"),)),
    Case("VolumeNearlyFull", {"severity": "critical", "persistentvolumeclaim": "data-kalshi-data-database-a-0"}, 7, (("kubelet_volume_stats_available_bytes", {}, "5x100"),)),
    Case("Incomplete", {"severity": "critical", "table": "trades", "window": "1h"}, 5, (("completeness", {}, "0.98x100"),)),
    Case("Incomplete", {"severity": "critical", "table": "trades", "window": "6h"}, 5, (("completeness", {}, "0.993x100"),)),
    Case("Incomplete", {"severity": "warning", "table": "trades", "window": "3d"}, 5, (("completeness", {}, "0.998x100"),)),
    Case("MergeLate", _gatherer("critical", window="1h"), 5, (("merge_lag_seconds", GATHERER_A, "9x100"),)),
    Case("MergeLate", _gatherer("critical", window="6h"), 100, (("merge_lag_seconds", GATHERER_A, "0x70 9x20 0x9"),)),
    Case("MergeLate", _gatherer("warning", window="3d"), 100, (("merge_lag_seconds", GATHERER_A, "0x50 9x3 0x100"),)),
    Case("MergeStalled", CRITICAL, 12, (("merge_rows_read_total", {}, "5x100"),)),
    Case("GathererAway", _gatherer("critical", "b"), 7, (("gatherer_reachable", {"gatherer": "b"}, "0x100"),)),
    Case("LastGatherer", CRITICAL, 3, (("gatherer_reachable", {"gatherer": "b"}, "0x100"),)),
    Case("GathererQuarantined", _gatherer("critical"), 2, (("gatherer_quarantined", GATHERER_A, "1x100"),)),
    Case("GathererChanged", _gatherer("warning", change="restored"), 6, (("gatherer_database_changes_total", GATHERER_A, "_x3 1x100"),)),
    Case("StreamsDisagree", WARNING, 6, (("stream_disagreements_total", {"pod": "deduplicator"}, "0x3 1x100"),)),
    Case("StreamsDisagree", WARNING, 6, (("merge_conflicts_total", {"pod": "deduplicator"}, "0x3 1x100"),)),
    Case("DefaultPartition", {"severity": "warning", "table": "trades"}, 62, (("default_partition_rows", {}, "4x100"),)),
    Case("GathererWaits", _gatherer("warning"), 32, (("gatherer_reopening", GATHERER_A, "1x100"),)),
    Case("ArchiveBehind", WARNING, 195, (("archive_watermark_seconds", {"table": "exchange_status"}, "0x300"),)),
    # The archiver was started anew while the object store is away: it knows no watermark any more.
    Case("ArchiveBehind", WARNING, 260, (("archive_watermark_seconds", {"table": "exchange_status"}, "0+60x40 _x300"), ("archive_watermark_seconds", {"table": "trades"}, None))),
    Case("RetentionWaiting", CRITICAL, 1460, (("archive_watermark_seconds", {"table": "exchange_status"}, "0x1500"),)),
    Case("ArchiveFailing", WARNING, 40, (("task_faults_total", {"component": "archiver"}, COUNTS),)),
    Case("ReopeningFailed", CRITICAL, 12, (("archive_reopenings_failed", {"pod": "archiver"}, "1x100"),)),
    Case("ArchiveSuperseded", {"severity": "warning", "table": "trades"}, 6, (("archive_superseded_total", {}, "_x3 1x100"),)),
    Case("NothingScraped", {"severity": "critical", "job": "kalshi-data"}, 7, (("up", {}, None),)),
    Case("TargetDown", _zone("warning", job="kalshi-data", component="poller", pod="poller-a"), 7, (("up", {"pod": "poller-a"}, "0x100"),)),
    Case("ComponentAbsent", {"severity": "critical", "component": "archiver"}, 7, (("up", {"pod": "archiver"}, None),)),
    Case("ComponentAbsent", {"severity": "critical", "component": "operator"}, 7, (("up", {"pod": "operator"}, "0x100"),)),
    Case("ComponentAbsent", {"severity": "critical", "component": "deduplicator"}, 7, (("up", {"pod": "deduplicator"}, None),)),
    Case("ZoneCount", CRITICAL, 7, (("up", CONNECTOR_A, None),)),
    Case("NotReady", {"severity": "warning", "component": "archiver", "pod": "archiver"}, 17, (("ready", {"pod": "archiver"}, "0x100"),)),
    Case("EventLoopLate", _zone("warning", component="poller", pod="poller-a"), 7, (("event_loop_lag_seconds", {"pod": "poller-a"}, "3x100"),)),
    Case("TaskFaults", _zone("warning", component="connector", task="plan"), 50, (("task_faults_total", {"pod": "connector-a-1"}, "0+9x100"),)),
    Case("Frozen", _gatherer("critical"), 2, (("assignment_frozen", GATHERER_A, "1x100"),)),
    Case("SlotsUnassigned", _gatherer("critical"), 4, (("assignment_slots", {"gatherer": "a", "state": "unassigned"}, "2x100"),)),
    Case("ShardsMissing", _gatherer("warning"), 17, (("assignment_shards", {"gatherer": "a", "state": "ready"}, "1x100"),)),
    Case("OperatorNotPlanning", _gatherer("warning"), 7, (("assignment_epoch", GATHERER_A, "0x100"),)),
    Case("OperatorBlind", _gatherer("warning"), 7, (("planned_database_reachable", GATHERER_A, "0x100"),)),
    Case("KubernetesAway", WARNING, 7, (("kube_reachable", {"component": "operator"}, "0x100"),)),
    Case("AccountsOverbooked", CRITICAL, 7, (("accounts_overbooked", {"component": "operator"}, "1x100"),)),
    Case("MovesStuck", _gatherer("warning", component="operator", job="kalshi-data", pod="operator", state="moving"), 22, (("assignment_slots", {"gatherer": "a", "state": "moving"}, "2x100"),)),
)  # fmt: skip
QUIET: tuple[tuple[tuple[int, ...], tuple[Wrong, ...]], ...] = (
    # A pause that is announced: nobody hears, and nobody is woken.
    ((3, 12, 60), (
        ("ws_last_frame_timestamp_seconds", {}, DOWN_FOR_GOOD), ("exchange_paused", {"component": "registry"}, "1xN"),
        ("slots_live", {"component": "connector"}, DOWN_FOR_GOOD),
    )),
    # A blink of zone a; in zone b a connector does not answer for a while, and another goes for good with its slots.
    ((3, 20, 55, 115), (
        ("ws_last_frame_timestamp_seconds", A, "0+60x110 6600 6720+60x100"), ("up", {"pod": "connector-b-1"}, "1x50 0x3 1x200"),
        ("ws_last_frame_timestamp_seconds", {"pod": "connector-b-2"}, "0+60x20 _xN"),
        ("slots_owned", {"pod": "connector-b-2"}, "75x20 _xN"), ("slots_live", {"pod": "connector-b-2"}, "75x20 _xN"),
    )),
)  # fmt: skip
"""What must not wake anybody: when it is looked, and what happens."""


def _changes(case: Case) -> list[Change]:
    foreign = ("up", "kubelet_")
    return [Change(m if m.startswith(foreign) else PREFIX + m, w, v) for m, w, v in case.changes]


def _asked(case: Case) -> dict[str, Any]:
    """The alert of a case, with all of its labels, and nobody else's of that name."""
    labels = dict(case.labels) | {"alertname": f"KalshiData{case.alert}", "alertstate": "firing"}
    if case.alert != "NothingScraped":
        labels["namespace"] = "kd"
    shown = ", ".join(f'{name}="{value}"' for name, value in sorted(labels.items()))
    chosen = "".join(f', {n}="{v}"' for n, v in case.labels.items() if n in {"window", "component"})
    expr = f'ALERTS{{alertname="{labels["alertname"]}", alertstate="firing"{chosen}}}'
    samples = [{"labels": f"ALERTS{{{shown}}}", "value": 1}]
    return {"expr": expr, "eval_time": f"{case.at}m", "exp_samples": samples}


def _test(cases: Sequence[Case], interval: str = "1m") -> dict[str, Any]:
    """One world in which all of these cases happen."""
    minutes = max(case.at for case in cases) + 5
    spoken_of = "".join(_rules()[f"KalshiData{case.alert}"] for case in cases)
    series = world([c for case in cases for c in _changes(case)], minutes, spoken_of)
    asked = [_asked(case) for case in cases]
    return {"interval": interval, "input_series": list(series), "promql_expr_test": asked}


def _packed(cases: Iterable[Case]) -> list[list[Case]]:
    """Cases that share no metric share a world: sixty worlds would take a minute."""
    worlds: list[list[Case]] = []
    for case in sorted(cases, key=lambda case: -case.at):
        metrics = {metric for metric, _, _ in case.changes}
        free = [
            one for one in worlds if not metrics & {m for other in one for m, _, _ in other.changes}
        ]
        if free:
            free[0].append(case)
        else:
            worlds.append([case])
    return worlds


@functools.cache
def _rules() -> dict[str, str]:
    """Alert -> the expressions of its rules, and of all recorded ones."""
    found: dict[str, str] = {}
    recorded = ""
    for path in RULES:
        for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]:
            for rule in group["rules"]:
                if "alert" in rule:
                    found[rule["alert"]] = found.get(rule["alert"], "") + rule["expr"]
                else:
                    recorded += rule["expr"]
    return {alert: expr + recorded for alert, expr in found.items()}


@pytest.mark.parametrize("rules", RULES, ids=lambda path: path.stem)
def test_each_alert_fires_for_its_cause(rules: Path, tmp_path: Path) -> None:
    """With its severity, its zone where it has one, for exactly the one who is to blame."""
    text = rules.read_text(encoding="utf-8")
    cases = [case for case in CASES if f"alert: KalshiData{case.alert}\n" in text]
    short = [_test(world) for world in _packed(case for case in cases if case.at < 1000)]
    assert run_tests(short, tmp_path, rules=[rules]) == ""
    long = [_test([case], "10m") for case in cases if case.at >= 1000]
    assert run_tests(long, tmp_path, "10m", [rules]) == ""


def test_two_holders_of_a_lease_and_two_versions(tmp_path: Path) -> None:
    """Two registries of a zone that are ready at once; processes of two versions for six hours."""
    registry = 'component="registry", job="kalshi-data", namespace="kd", zone="b"'
    holders = _test([Case("TwoHolders", _zone("critical", "b", component="registry"), 4, ())])
    holders["input_series"].append({"series": f'{PREFIX}ready{{{registry}, pod="registry-b-2"}}', "values": "1x100"})  # fmt: skip
    assert run_tests([holders], tmp_path, rules=RULES[2:3]) == ""
    versions = _test([Case("VersionsDiffer", WARNING, 370, ())], "10m")
    build = f'{PREFIX}build_info{{{registry}, pod="registry-b-2", service="registry", version="1.1.0", revision="def"}}'  # fmt: skip
    versions["input_series"].append({"series": build, "values": "1x500"})
    assert run_tests([versions], tmp_path, "10m", RULES[2:3]) == ""


def test_every_alert_has_its_case() -> None:
    """No rule is shipped that was never seen to fire; the three windows of a burn rate count one by one."""
    tried = [f"KalshiData{case.alert}" for case in CASES]
    tried += ["KalshiDataTwoHolders", "KalshiDataVersionsDiffer"]
    assert set(tried) == set(_rules())
    windows = {(c.alert, c.labels["window"]) for c in CASES if "window" in c.labels}
    written = [w for path in RULES for w in re.findall("window: ", path.read_text(encoding="utf-8"))]  # fmt: skip
    assert len(windows) == len(written) == 9


def test_nothing_fires_while_all_is_well_or_only_blinks(tmp_path: Path) -> None:
    """Hours of a sound installation, an announced pause, a blink, a connector that has gone: no alert at any time."""
    tests = []
    for times, changes in QUIET:
        asked = [
            {"expr": 'ALERTS{alertstate="firing"}', "eval_time": f"{at}m", "exp_samples": []}
            for at in times
        ]
        made = [Change(m if m == "up" else PREFIX + m, w, v) for m, w, v in changes]
        series = list(world(made, times[-1] + 5))
        tests.append({"interval": "1m", "input_series": series, "promql_expr_test": asked})
    assert run_tests(tests, tmp_path) == ""
