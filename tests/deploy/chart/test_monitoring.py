"""Rules and dashboards speak of metrics that exist, with labels they have; every alert has its place in the runbook."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from libs.telemetry.metrics import PREFIX, Metrics
from tests.support.chart.promtool import RULES
from tests.support.chart.render import CHART, Rendered, helm, render, scenario, scenario_values

RUNBOOK = Path(__file__).parents[3] / "docs" / "runbook.md"
BOARDS = tuple(sorted(CHART.glob("dashboards/*.yaml")))
TARGET = frozenset({"job", "namespace", "component", "zone", "pod", "instance"})
"""Labels that Prometheus and the ServiceMonitor put on every sample."""
FOREIGN: Mapping[str, frozenset[str]] = {
    "up": frozenset(),
    "kubelet_volume_stats_available_bytes": frozenset({"persistentvolumeclaim"}),
    "kubelet_volume_stats_capacity_bytes": frozenset({"persistentvolumeclaim"}),
}
"""Metrics of others that rules may speak of, and their labels."""
GRAFANA = {"$__rate_interval": "5m", "$namespace": "kd", "$zone": "a"}
SAMPLES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}


class Expression(NamedTuple):
    """A query: where it stands, its text."""

    where: str
    text: str


def _rules() -> Iterator[dict[str, Any]]:
    for path in RULES:
        for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]:
            yield from group["rules"]


def _expressions() -> Iterator[Expression]:
    for rule in _rules():
        yield Expression(rule.get("alert") or rule["record"], rule["expr"])
    for path in BOARDS:
        board = yaml.safe_load(path.read_text(encoding="utf-8"))
        for row in board["rows"]:
            for panel in row["panels"]:
                for query in panel["queries"]:
                    yield Expression(f"{path.stem}: {panel['title']}", query["expr"])


def _declared() -> dict[str, frozenset[str]]:
    """Sample name -> its labels, of every metric that the code declares, and of every recorded rule."""
    found = dict(FOREIGN)
    for collector in Metrics().registry._collector_to_names:
        kind, name = getattr(collector, "_type", ""), getattr(collector, "_name", "")
        labels = frozenset(getattr(collector, "_labelnames", ()))
        for ending in SAMPLES[kind]:
            more = {"le"} if ending == "_bucket" else set()
            found[name + ending] = labels | more
    for rule in _rules():
        if "record" in rule:
            found[rule["record"]] = frozenset(re.findall(r"\w+", re.findall(r"by \(([^)]*)\)", rule["expr"])[0]))  # fmt: skip
    return found


_NAME = re.compile(
    r"(?<![\w:$\"])(?:kalshi_data_\w+|kubelet_\w+|(?:zone|gatherer):\w+(?::\w+)*|up(?=[{\s]))"
)
_LISTS = re.compile(r"\b(?:by|on|without|group_left|ignoring)\s*\(([^)]*)\)")


def _faults(expression: Expression, declared: Mapping[str, frozenset[str]]) -> Iterator[str]:
    """What an expression speaks of that is not there."""
    bare = re.sub(r'"[^"]*"', '""', expression.text)
    names = set(_NAME.findall(bare))
    if not names:
        yield f"{expression.where}: no metric"
    for name in names - declared.keys():
        yield f"{expression.where}: there is no metric {name}"
    known = TARGET.union(*(declared.get(name, frozenset()) for name in names))
    made = set(re.findall(r'label_replace\([^"]*"(\w+)"', expression.text, re.DOTALL))
    for names_of in _LISTS.findall(bare):
        for label in re.findall(r"\w+", names_of):
            if label not in known | made:
                yield f"{expression.where}: nothing has the label {label}"
    for name, selector in re.findall(r"([\w:]+)\{([^}]*)\}", bare):
        for label in re.findall(r"(\w+)\s*[=!]", selector):
            if label not in declared.get(name, frozenset()) | TARGET:
                yield f"{expression.where}: {name} has no label {label}"


def test_every_metric_and_label_exists() -> None:
    """In rules and panels alike, as the code declares them; a renamed metric would leave an alert that never fires."""
    declared = _declared()
    assert {"kalshi_data_flush_seconds_bucket", "kalshi_data_ready"} <= declared.keys()
    assert [fault for one in _expressions() for fault in _faults(one, declared)] == []


@pytest.mark.parametrize(
    "text",
    [
        "kalshi_data_no_such > 0",
        "sum by (table) (kalshi_data_ready)",
        'kalshi_data_spool_bytes{table="x"}',
        "rate(kalshi_data_ready_total[5m])",
        "1",
    ],
)
def test_a_wrong_name_would_be_found(text: str) -> None:
    """The check above can fail: a metric, a label, the ending of a kind that it is not."""
    assert list(_faults(Expression("test", text), _declared())) != []


def test_every_metric_is_drawn_or_alerted_on() -> None:
    """What nobody looks at need not be measured."""
    said = "".join(one.text for one in _expressions())
    names = {name for name in _declared() if name.startswith(PREFIX)}
    families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in names}
    assert {one for one in families if one not in said} == set()


def test_every_alert_says_how_bad_and_where_to_read_on() -> None:
    """Severity, a zone where its query knows one, a summary, and a place in the runbook that names it."""
    text = RUNBOOK.read_text(encoding="utf-8")
    sections = {
        re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-"): body
        for title, body in re.findall(r"^## (.+)\n((?:(?!## ).*\n)*)", text, re.MULTILINE)
    }
    for rule in _rules():
        if "alert" not in rule:
            continue
        assert rule["labels"]["severity"] in {"critical", "warning"}
        assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
        if "gatherer)" in rule["expr"] and "by (namespace, gatherer" in rule["expr"]:
            is_one = rule["alert"] not in {"KalshiDataLastGatherer", "KalshiDataZoneCount"}
            assert ("zone" in rule["labels"]) is is_one, rule["alert"]
        page, _, anchor = rule["annotations"]["runbook_url"].partition("#")
        assert page == "docs/runbook.md"
        assert f"`{rule['alert']}`" in sections[anchor], rule["alert"]


def test_the_runbook_names_no_alert_that_is_not_there() -> None:
    """And none twice."""
    told = re.findall(r"^\| (.*?) \|", RUNBOOK.read_text(encoding="utf-8"), re.MULTILINE)
    names = [name for cell in told for name in re.findall(r"`(KalshiData\w+)`", cell)]
    assert sorted(names) == sorted({rule["alert"] for rule in _rules() if "alert" in rule})


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed: PromQL unchecked")  # fmt: skip
def test_promql_is_sound(tmp_path: Path) -> None:
    """Rules as they are shipped, and each panel's query with Grafana's variables filled in."""
    queries = [one.text for one in _expressions()]
    for variable, value in GRAFANA.items():
        queries = [query.replace(variable, value) for query in queries]
    rules = [{"record": f"panel:{number}", "expr": query} for number, query in enumerate(queries)]
    for rule in rules:
        rule["record"] = f"panel:q{rule['record'].split(':')[1]}"
    panels = tmp_path / "panels.yaml"
    panels.write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))
    done = subprocess.run(
        ["promtool", "check", "rules", *map(str, RULES), str(panels)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_switched_on_it_is_there_and_off_it_is_not() -> None:
    """By values, not by what the API knows: offline and in a new cluster alike."""
    kinds = {"ServiceMonitor", "PrometheusRule"}
    off, on = scenario("eks"), scenario("monitoring")
    assert not kinds & {one["kind"] for one in off.objects}
    assert not [n for n in off.named("ConfigMap") if "dashboard" in n]
    assert kinds <= {one["kind"] for one in on.objects}
    for kind in kinds:
        (one,) = on.of(kind)
        assert one["metadata"]["labels"]["release"] == "kube-prometheus-stack"


def test_the_service_monitor_finds_every_service_and_gives_the_rules_their_labels() -> None:
    """Every Service with a port `metrics`, none other; job, component and zone as the rules take them."""
    release = scenario("monitoring")
    (monitor,) = release.of("ServiceMonitor")
    wanted = monitor["spec"]["selector"]["matchLabels"]
    (endpoint,) = monitor["spec"]["endpoints"]
    assert endpoint["port"] == "metrics"
    scraped = {
        name
        for name, one in release.named("Service").items()
        if wanted.items() <= one["metadata"]["labels"].items()
        and "metrics" in {port["name"] for port in one["spec"]["ports"]}
    }
    assert len(scraped) == 3 * 3 + 3
    assert endpoint["honorLabels"] is True
    sources = {one["targetLabel"]: one for one in endpoint["relabelings"]}
    assert sources["job"]["replacement"] == "kalshi-data"
    for target, label in (("component", "app.kubernetes.io/component"), ("zone", "kalshi-data.io/zone")):  # fmt: skip
        written = "__meta_kubernetes_pod_label_" + re.sub(r"[^a-zA-Z0-9_]", "_", label)
        assert sources[target]["sourceLabels"] == [written]
        assert label in release.component("connector", "a").labels


def _alerts(release: Rendered) -> dict[str, dict[str, Any]]:
    (rule,) = release.of("PrometheusRule")
    groups = rule["spec"]["groups"]
    return {r["alert"]: r for group in groups for r in group["rules"] if "alert" in r}


def test_the_rendered_rules_are_the_files_but_for_what_is_left_out() -> None:
    """Queries letter by letter; the address of the runbook in front; an unknown name to leave out is refused."""
    rendered = _alerts(scenario("monitoring"))
    files = {rule["alert"]: rule for rule in _rules() if "alert" in rule}
    assert files.keys() - rendered.keys() == {"KalshiDataVersionsDiffer"}
    for name, rule in rendered.items():
        url = rule["annotations"].pop("runbook_url")
        assert (
            url
            == "https://example.internal/kalshi-data/" + files[name]["annotations"]["runbook_url"]
        )
        assert rule == {**files[name], "annotations": {k: v for k, v in files[name]["annotations"].items() if k != "runbook_url"}}  # fmt: skip
        rule["annotations"]["runbook_url"] = url
    values = scenario_values("monitoring")
    values["monitoring"]["prometheusRule"]["exclude"] = ["KalshiDataNoSuch"]
    with pytest.raises(helm().HelmError, match="there is no alert KalshiDataNoSuch"):
        render(values)


def test_dashboards_are_whole() -> None:
    """Grafana's JSON: panels side by side without overlap, each with its queries, every variable defined."""
    release = scenario("monitoring")
    found = {n: one for n, one in release.named("ConfigMap").items() if "dashboard" in n}
    assert len(found) == len(BOARDS) == 2
    for one in found.values():
        assert one["metadata"]["labels"]["grafana_dashboard"] == "1"
        ((name, text),) = one["data"].items()
        board = json.loads(text)
        assert name == f"{board['uid']}.json"
        places = [panel["gridPos"] for panel in board["panels"]]
        cells = [(x, y) for p in places for x in range(p["x"], p["x"] + p["w"]) for y in range(p["y"], p["y"] + p["h"])]  # fmt: skip
        assert len(cells) == len(set(cells))
        assert max(x for x, _ in cells) < 24
        assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
        variables = {variable["name"] for variable in board["templating"]["list"]}
        used = set(re.findall(r"\$([a-z]+)\b", text)) - {"__rate_interval"}
        assert used == variables
        for panel in board["panels"]:
            if panel["type"] != "row":
                assert panel["targets"]
                assert all(target["expr"] and target["legendFormat"] for target in panel["targets"])
