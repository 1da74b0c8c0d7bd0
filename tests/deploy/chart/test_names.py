"""Names: within Kubernetes' limits, those that everybody relies on, and new where what they name may not change."""

import itertools
import re
from collections.abc import Iterator

import pytest

from tests.support.chart.render import Rendered, helm, render, scenario, scenario_values


def _names(release: Rendered) -> Iterator[tuple[str, str, int]]:
    """(what, name, longest that Kubernetes takes) of everything with a limit."""
    for one in release.objects:
        name = one["metadata"]["name"]
        limit = {"Service": 63, "StatefulSet": 52, "Job": 63, "Deployment": 52}.get(
            one["kind"], 253
        )
        yield one["kind"], name, limit
        for value in (one["metadata"].get("labels") or {}).values():
            yield f"label of {one['kind']} {name}", value, 63
    for pod in release.pods:
        yield from ((f"label of {pod.name}", value, 63) for value in pod.labels.values())
        for container in pod.containers:
            yield pod.name, container["name"], 63
            yield from ((f"port of {pod.name}", p["name"], 15) for p in container.get("ports", []))
        yield from ((f"volume of {pod.name}", v["name"], 63) for v in pod.spec.get("volumes", []))


def test_names_stay_within_their_limits(release: Rendered) -> None:
    """Pods' names are those of their Deployment or StatefulSet with up to eleven characters behind."""
    assert [(w, n) for w, n, limit in _names(release) if not 0 < len(n) <= limit] == []


def test_long_names_are_refused_or_fit() -> None:
    """The longest name that is accepted fits everywhere; one more character is refused, with what to shorten."""
    values = scenario_values("eks")
    values["zones"] = values["zones"][:1]
    values["zones"][0]["name"] = "z" * 20
    room = 52 - len("-connector-" + "z" * 20)
    values["fullnameOverride"] = "f" * room
    release = render(values)
    assert f"{'f' * room}-connector-{'z' * 20}" in release.named("Deployment")
    assert [(w, n) for w, n, limit in _names(release) if len(n) > limit] == []
    values["fullnameOverride"] += "f"
    with pytest.raises(helm().HelmError, match="shorten the release's name"):
        render(values)
    # Beside a short zone it is a Job's name that is the longest.
    values["zones"][0]["name"] = "z"
    values["fullnameOverride"] = "f" * 35
    release = render(values)
    jobs = [name for name in release.named("Job") if "-migrate-production-" in name]
    assert [len(name) for name in jobs] == [63]
    assert [(w, n) for w, n, limit in _names(release) if len(n) > limit] == []
    values["fullnameOverride"] += "f"
    with pytest.raises(helm().HelmError, match="longer than 63 characters; shorten"):
        render(values)


@pytest.mark.parametrize("name", ["2kalshi-data", "kalshi-data.eu"])
def test_names_that_no_service_may_have_are_refused(name: str) -> None:
    """Helm takes such a release; the API would refuse its Services one after another."""
    with pytest.raises(helm().HelmError, match=f"{name}: Services cannot be named after it"):
        render(scenario_values("eks"), name=name)


def test_names_that_are_numbers_or_words_of_yaml_stay_names() -> None:
    """A zone `1` or `no`, an account or a database of digits, a release `on`: the API takes no object whose name is none."""
    values = scenario_values("eks")
    for zone, name, account in zip(values["zones"], ("1", "no", "null"), ("12345678", "on", ""), strict=True):  # fmt: skip
        zone |= {"name": name, "account": account}
        zone["database"]["name"] = "2026"
    release = render(values, name="on")
    assert {one["metadata"]["name"] for one in release.of("Gatherer")} == {"1", "no", "null"}
    for one in release.objects:
        if one["kind"] == "Gatherer":
            assert one["spec"]["zone"] == one["metadata"]["name"]
            assert one["spec"]["account"] in {"12345678", "on", "null"}
            assert one["spec"]["database"]["name"] == "2026"
    labels = [one["metadata"].get("labels", {}) for one in release.objects]
    labels += [pod.labels for pod in release.pods]
    assert {type(value) for each in labels for value in each.values()} == {str}


def test_configurations_are_immutable_and_named_by_what_they_say() -> None:
    """Another setting is another name; the same values are the same names."""
    base, again = scenario("eks"), scenario("eks", is_upgrade=True)
    changed = scenario_values("eks")
    changed["zones"][0]["registry"] = {"settings": {"status_s": 20}}
    names = [
        {
            one["metadata"].get("labels", {}).get("kalshi-data.io/config"): one["metadata"]["name"]
            for one in release.of("ConfigMap")
        }
        for release in (base, again, render(changed))
    ]
    assert set(names[0]) == {"use1a", "use1b", "use1c", "central"}
    assert names[0] == names[1]
    assert [zone for zone in names[0] if names[0][zone] != names[2][zone]] == ["use1a"]
    assert all(one["immutable"] for one in base.of("ConfigMap"))


def test_jobs_are_named_by_their_spec() -> None:
    """An unchanged migration is the same Job; another image is another Job, since a Job cannot be changed."""
    values = scenario_values("eks")
    base, again = scenario("eks"), scenario("eks", is_upgrade=True)
    values["image"]["tag"] = "1.0.1"
    other = render(values)
    jobs = [set(r.named("Job")) for r in (base, again, other)]
    migrations = {n for n in jobs[0] if "-migrate-" in n}
    assert len(migrations) == 4
    assert all(re.fullmatch(r"kalshi-data-migrate-[a-z0-9]+-[0-9a-f]{8}", n) for n in migrations)
    assert migrations <= jobs[1]
    assert not migrations & jobs[2]
    hooks = [
        j for j in base.of("Job") if "helm.sh/hook" in (j["metadata"].get("annotations") or {})
    ]
    assert {j["metadata"]["name"] for j in base.of("Job")} - {
        j["metadata"]["name"] for j in hooks
    } == migrations


def test_names_are_those_everyone_relies_on() -> None:
    """The release's name alone when it says kalshi-data, else in front of it; Gatherers bear the zone's name."""
    named = render(scenario_values("eks"), name="prod")
    for release, prefix in ((scenario("eks"), "kalshi-data"), (named, "prod-kalshi-data")):
        wanted = {
            f"{prefix}-{component}-{zone}"
            for component, zone in itertools.product(
                ("registry", "connector", "poller"), ("use1a", "use1b", "use1c")
            )
        } | {f"{prefix}-{one}" for one in ("deduplicator", "archiver", "operator")}
        assert set(release.named("Deployment")) == wanted
        assert set(release.named("Gatherer")) == {"use1a", "use1b", "use1c"}
        assert {
            a for a in release.named("ServiceAccount") if not a.startswith("kalshi-data-")
        } == set()
