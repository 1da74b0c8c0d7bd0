"""What the chart writes is what the services read: every configuration goes through the product's own loader.

Each pod gets a folder that has just the files its mounts give it, so that a Secret which a configuration names and nobody
mounts is missing here as it would be in the cluster.
"""

import json
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from libs.runtime.sections import (
    DEDUPLICATOR_FILE,
    DOCTOR_FILE,
    GATHERER_FILE,
    account_faults,
    account_shares,
)
from libs.runtime.settings import ConfigInvalid, load_settings
from services.cli.catalogue import SERVICES, settings_class
from services.doctor.cluster.settings import DoctorFile
from services.migrate.settings import GathererSettings, ProductionSettings
from services.poller.settings import PollerSettings
from services.registry.settings import RegistrySettings
from tests.support.chart.render import Pod, Rendered, render, scenario, scenario_values

GIB = 1 << 30
FIELDS = {"metadata.name": "connector-x-1", "metadata.namespace": "capture"}


def _write(folder: Path, path: str, text: str) -> None:
    file = folder / path.lstrip("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")


def _folder(release: Rendered, pod: Pod, folder: Path) -> Path:
    """Lay out below `folder` what the pod's mounts hold; configurations then name files below it."""
    volumes = {volume["name"]: volume for volume in pod.spec["volumes"]}
    maps = release.named("ConfigMap")
    for mount in pod.spec["containers"][0]["volumeMounts"]:
        volume, place = volumes.get(mount["name"], {}), mount["mountPath"]
        if "configMap" in volume and volume["configMap"]["name"] in maps:
            for name, text in maps[volume["configMap"]["name"]]["data"].items():
                _write(folder, f"{place}/{name}", text.replace("/run/secrets", f"{folder}/run/secrets"))  # fmt: skip
        items = volume.get("secret", {}).get("items", [])
        for source in volume.get("projected", {}).get("sources", []):
            items = [*items, *source["secret"]["items"]]
        for item in items:
            _write(folder, f"{place}/{item['path']}", f"{item['key']}-text")
    return folder


def _environment(pod: Pod) -> dict[str, str]:
    """The container's variables, those of the pod's own fields filled in."""
    found = {}
    for one in pod.spec["containers"][0]["env"]:
        field = one.get("valueFrom", {}).get("fieldRef", {}).get("fieldPath")
        found[one["name"]] = one["value"] if field is None else FIELDS.get(field, "abc123")
    return found


def _load(release: Rendered, pod: Pod, tmp_path: Path) -> Any:
    """The settings of the pod's service as it reads them at its start."""
    arguments = pod.spec["containers"][0]["args"]
    file = arguments[arguments.index("--config") + 1]
    folder = _folder(release, pod, tmp_path / pod.name.replace("/", "-"))
    cls: type[Any]
    if pod.component == "migrate":
        of_zone = arguments[arguments.index("--database") + 1] == "gatherer"
        cls, foreign = (GathererSettings, GATHERER_FILE) if of_zone else (ProductionSettings, DEDUPLICATOR_FILE)  # fmt: skip
    elif pod.component == "test":
        cls, foreign = DoctorFile, DOCTOR_FILE
    else:
        cls, foreign = settings_class(pod.component), SERVICES[pod.component].sections
        assert arguments[:2] == ["run", pod.component]
    return load_settings(
        cls, folder / file.lstrip("/"), environ=_environment(pod), foreign=foreign
    ).value


_LOADED: dict[int, dict[tuple[str, str], Any]] = {}
"""Of scenarios' releases, which are rendered once a process too."""


def _loaded(release: Rendered, tmp_path: Path) -> dict[tuple[str, str], Any]:
    """(component, zone) -> settings, of every pod that has a configuration."""
    if id(release) not in _LOADED:
        _LOADED[id(release)] = _load_all(release, tmp_path)
    return _LOADED[id(release)]


def _load_all(release: Rendered, tmp_path: Path) -> dict[tuple[str, str], Any]:
    return {
        (pod.component, pod.zone): _load(release, pod, tmp_path)
        for pod in release.pods
        if "--config" in pod.spec["containers"][0].get("args", [])
    }


def test_every_service_reads_its_configuration(release: Rendered, tmp_path: Path) -> None:
    """Complete, no unknown key, every named file mounted, in every scenario; who has a file reads it on its own ports."""
    loaded = _loaded(release, tmp_path)
    assert {"registry", "connector", "poller", "migrate"} <= {component for component, _ in loaded}
    for (component, _), settings in loaded.items():
        if component in SERVICES:
            assert (settings.health.port, settings.metrics.port) == (8080, 9090)
            assert settings.health.host == "0.0.0.0"
            assert settings.log.format == release.values["log"]["format"]


def test_a_migration_waits_for_a_day_and_leaves_its_logs(release: Rendered) -> None:
    """A database that is away uses no attempt up; what failed can be read when no attempt is left."""
    jobs = [pod for pod in release.pods if pod.component == "migrate"]
    assert jobs
    for pod in jobs:
        arguments = pod.spec["containers"][0]["args"]
        assert float(arguments[arguments.index("--wait-s") + 1]) == 24 * 3600
        assert pod.spec["restartPolicy"] == "Never"


def test_a_missing_file_would_be_found(tmp_path: Path) -> None:
    """The check above can fail: a connector whose Secret is not mounted says which file it misses."""
    release = scenario("kind")
    pod = release.component("connector", "a")
    spec = dict(pod.spec)
    (container,) = spec["containers"]
    mounts = [one for one in container["volumeMounts"] if one["name"] != "store"]
    spec["containers"] = [{**container, "volumeMounts": mounts}]
    with pytest.raises(ConfigInvalid, match=r"store\.password_file"):
        _load(release, pod._replace(spec=spec), tmp_path)


def test_what_a_zone_is_told_fits_its_pods(release: Rendered, tmp_path: Path) -> None:
    """Slots, limits of disks, times to go and addresses: configuration, resource and pods say the same."""
    loaded = _loaded(release, tmp_path)
    gatherers, services = release.named("Gatherer"), release.named("Service")
    for (component, zone), settings in loaded.items():
        if component != "connector":
            continue
        pod, told = release.component("connector", zone), settings.connector
        spec = gatherers[zone]["spec"]
        slots = {kind: getattr(settings.slots, kind) for kind in spec["slots"]}
        assert spec["slots"] == slots
        assert (spec["connectionsMax"], spec["account"]) == (settings.slots.connections_max, settings.account)  # fmt: skip
        assert spec["database"]["host"] == settings.store.host
        assert settings.store.host in services
        assert loaded["registry", zone].slots == settings.slots
        assert told.shard == "connector-x-1"
        assert told.template_hash == "abc123"
        assert told.grace_s + told.flush_s < pod.spec["terminationGracePeriodSeconds"]
        (spool,) = [v["emptyDir"] for v in pod.spec["volumes"] if v["name"] == "spool"]
        assert told.spool.bytes_max <= 0.9 * _bytes(spool["sizeLimit"])
        assert told.state_dir in _writable(pod)
        (claim,) = release.component("database", zone).owner["spec"]["volumeClaimTemplates"]
        volume = _bytes(claim["spec"]["resources"]["requests"]["storage"])
        assert 0.5 * volume < told.storage_bytes_max < 0.9 * volume
        # Registry, poller, a connector that comes and one that goes; deduplicator, operator and people.
        pools = settings.store.pool_size_max * (spec["shards"] + 4) + 20
        (most,) = [
            int(word.removeprefix("max_connections="))
            for word in release.component("database", zone).spec["containers"][0]["args"]
            if word.startswith("max_connections=")
        ]
        assert settings.store.pool_size_max == 12 and pools <= most


def test_zones_that_share_an_account_divide_it(tmp_path: Path) -> None:
    """Connections and reads add up to no more than the account has; each can move; what values say themselves stays."""
    values = scenario_values("kind")
    values["zoneDefaults"]["slots"]["connections_max"] = 51
    values["zones"] = [
        {"name": "a", "topologyZone": "testbed-1a", "account": "one"},
        {"name": "b", "topologyZone": "testbed-1b", "account": "one", "slots": {"orderbook": 14, "connections_max": 60}},
        {"name": "c", "topologyZone": "testbed-1c"},
    ]  # fmt: skip
    release = render(values)
    specs = {name: one["spec"] for name, one in release.named("Gatherer").items()}
    loaded = _load_all(release, tmp_path)
    # 14 and 20 slots of 51: 17 are left, 8 for each.
    most = {zone: spec["connectionsMax"] for zone, spec in specs.items()}
    assert most == {"a": 22, "b": 28, "c": 51}
    assert [spec.get("accountConnectionsMax") for spec in specs.values()] == [51, 51, None]
    assert {zone: loaded["connector", zone].slots.connections_max for zone in "abc"} == most
    assert [loaded["connector", zone].connector.extra_connections_max for zone in "abc"] == [4, 4, 4]  # fmt: skip
    alone, shared = [loaded["registry", zone].registry.read_share for zone in "ca"]
    assert (alone, shared) == (RegistrySettings.read_share, RegistrySettings.read_share / 2)
    alone, shared = [loaded["poller", zone].poller.read_share for zone in "ca"]
    assert (alone, shared) == (PollerSettings.read_share, PollerSettings.read_share / 2)
    # `helm test` adds up the slots of an account, and compares them with all of it.
    zones = [(zone.zone, zone.account, zone.slots) for zone in loaded["test", ""].cluster.zones]
    assert [slots.connections_max for _, _, slots in zones] == [51, 60, 51]
    assert account_faults(zones) == []
    assert account_shares(zones) == most

    values["zoneDefaults"]["slots"]["connections_max"] = 38
    values["zoneDefaults"]["registry"]["settings"]["read_share"] = 0.3
    loaded = _load_all(render(values), tmp_path / "tight")
    assert [loaded["connector", zone].connector.extra_connections_max for zone in "abc"] == [1, 1, 4]  # fmt: skip
    assert [loaded["registry", zone].registry.read_share for zone in "abc"] == [0.3] * 3


def test_the_merge_knows_every_enabled_zone(release: Rendered, tmp_path: Path) -> None:
    """By its name and its database's Service; the archiver works in the folder that is mounted for it."""
    loaded = _loaded(release, tmp_path)
    services = release.named("Service")
    if ("deduplicator", "") in loaded:
        zones = {source.zone: source.store.host for source in loaded["deduplicator", ""].gatherers}
        assert zones == {
            zone: loaded["registry", zone].store.host for zone in release.named("Gatherer")
        }
        assert set(zones.values()) <= set(services)
    if ("archiver", "") in loaded:
        archiver = loaded["archiver", ""].archiver
        assert archiver.root.startswith("s3://")
        assert archiver.work_dir in _writable(release.component("archiver"))
        endpoint = urlsplit(archiver.s3.endpoint_url)
        if endpoint.hostname and "." not in endpoint.hostname:
            assert services[endpoint.hostname]["spec"]["ports"][0]["port"] == endpoint.port
    if ("simulator", "") in loaded:
        simulator = loaded["simulator", ""].simulator
        listed = {zone["name"] for zone in release.values["zones"]}
        spare = set(release.values["simulator"]["spareZones"])
        assert {key.zone for key in simulator.keys} == listed | spare
        assert simulator.journal_dir in _writable(release.component("simulator"))
        for zone in release.named("Gatherer"):
            url = urlsplit(loaded["connector", zone].exchange.ws_url)
            assert url.port == simulator.port


def test_production_is_reached_as_values_say(tmp_path: Path) -> None:
    """RDS: verified against the named bundle; in the chart: its Service."""
    eks = _loaded(scenario("eks"), tmp_path / "eks")
    for one in ("deduplicator", "archiver"):
        store = eks[one, ""].production
        assert (store.tls, store.database) == ("verify-full", "kalshi")
        assert store.host.endswith(".rds.amazonaws.com")
        folder = Path(store.tls_ca_file).parent.as_posix()
        mounts = scenario("eks").component(one).spec["containers"][0]["volumeMounts"]
        assert folder in {mount["mountPath"] for mount in mounts}
    kind = _loaded(scenario("kind"), tmp_path / "kind")
    assert kind["deduplicator", ""].production.host in scenario("kind").named("Service")
    assert kind["archiver", ""].production.user == "username-text"


def test_helm_test_looks_at_everything(tmp_path: Path) -> None:
    """Every database and every service of the release, each by an address that is a Service of it; metrics are forbidden."""
    release = scenario("kind")
    cluster = _loaded(release, tmp_path)["test", ""].cluster
    services = release.named("Service")
    asked = [*cluster.health, *(url for zone in cluster.zones for url in zone.health)]
    hosts = {urlsplit(url).hostname for url in asked}
    assert hosts == {name for name, one in services.items() if one["spec"]["ports"][0]["name"] == "health"}  # fmt: skip
    assert {urlsplit(url).port for url in asked} == {8080}
    stores = {zone.store.host for zone in cluster.zones} | {cluster.production.host}
    assert stores == {name for name, one in services.items() if one["spec"]["ports"][0]["name"] == "postgres"}  # fmt: skip
    assert {edge.host for edge in cluster.forbidden} <= set(services)
    assert cluster.namespace == "capture"


@pytest.mark.parametrize(
    ("peer", "metrics"),
    [
        ({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}, True),
        ({"podSelector": {"matchLabels": {"app": "prometheus"}}}, True),
        ({"podSelector": {}}, False),
        ({"namespaceSelector": {}}, False),
        ({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "capture"}}}, False),
        ({"namespaceSelector": {"matchLabels": {"team": "data"}}}, False),
        ({"namespaceSelector": {"matchExpressions": [{"key": "team", "operator": "Exists"}]}}, False),
        ({"namespaceSelector": {"matchLabels": {"team": "data"}}, "podSelector": {"matchLabels": {"app": "prometheus"}}}, True),
        ({"ipBlock": {"cidr": "10.0.0.0/8"}}, False),
    ],
    ids=json.dumps,
)  # fmt: skip
def test_helm_test_calls_nothing_forbidden_that_values_allow(
    peer: dict[str, Any], metrics: bool, tmp_path: Path
) -> None:
    """Whoever lets everybody read metrics is not told that policies are not enforced."""
    values = scenario_values("one-zone")
    values["monitoring"] = {"from": [peer]}
    release = render(values)
    cluster = _load(release, release.component("test"), tmp_path).cluster
    assert (9090 in {edge.port for edge in cluster.forbidden}) is metrics
    assert {8700, 7070} <= {edge.port for edge in cluster.forbidden}


def test_large_numbers_of_values_stay_whole(tmp_path: Path) -> None:
    """Helm reads numbers as floating point; a service takes no 6.7e+07 for a whole number."""
    values = scenario_values("eks")
    values["zoneDefaults"] = {
        "batches": {"buffer_rows_max": 123_456_789, "bytes_max": 67_108_865},
        "exchange": {"settings": {"reads_per_s": 0.25}},
    }
    release = render(values)
    settings = _load(release, release.component("connector", "use1b"), tmp_path)
    assert (settings.batches.buffer_rows_max, settings.batches.bytes_max) == (123_456_789, 67_108_865)  # fmt: skip
    assert settings.exchange.reads_per_s == 0.25
    assert settings.connector.storage_bytes_max == 200 * GIB * 85 // 100


def _bytes(text: str) -> int:
    units = {"Mi": 1 << 20, "Gi": 1 << 30}
    return int(text[:-2]) * units[text[-2:]]


def _writable(pod: Pod) -> set[str]:
    mounts = pod.spec["containers"][0]["volumeMounts"]
    return {mount["mountPath"] for mount in mounts if not mount.get("readOnly")}
