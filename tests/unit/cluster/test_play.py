"""What a run on a cluster must bear and must not overlook, played on a cluster that is only told."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, cast

import pytest
import yaml
from rich.console import Console

from services.local.topology import merged
from tests.cluster.__main__ import _parser as arguments_of
from tests.cluster.figures import Figure, failures
from tests.cluster.ground import Ground
from tests.cluster.helm import Helm
from tests.cluster.images import DATABASE, S3, SERVICES, Images
from tests.cluster.kube import Object
from tests.cluster.leftovers import unexpected
from tests.cluster.run import FAILS, HOLDS, play_all
from tests.cluster.scenario import Scenario
from tests.cluster.scenarios import outages
from tests.cluster.scenarios.outages import MINUTE, Outages
from tests.cluster.scenarios.upgrade import MARK, Upgrade, environment
from tests.cluster.values import CHART, DEVELOPMENT, release_values
from tests.cluster.waiting import until

IMAGES = Images("", {SERVICES: "t1", DATABASE: "t2", S3: "t3"})
CORES = 2_000


class Told:
    """A ground that answers what it is told to, and remembers what was asked of it."""

    faults = None

    def __init__(self) -> None:
        self.said: list[str] = []
        self.installed: tuple[str, ...] = ("a",)
        self.rows: dict[tuple[str, str], list[list[str]]] = {}
        self.looks: list[list[Object]] = []
        self.deleted: list[str] = []

    def say(self, text: str) -> None:
        """Nobody listens."""

    async def ensure(self, zones: Sequence[str]) -> None:
        self.said.append("ensure")

    async def troubles(self) -> list[str]:
        return []

    async def remove(self) -> None:
        self.said.append("remove")

    async def sql(self, database: str, query: str) -> list[list[str]]:
        (found,) = [r for (zone, table), r in self.rows.items() if f"'{zone}'" in query and f"'{table}'" in query]  # fmt: skip
        return found

    async def ready(self, component: str, zone: str) -> list[Object]:
        pods = self.looks.pop(0) if self.deleted and len(self.looks) > 1 else self.looks[0]
        return [pod for pod in pods if pod["component"] == component]

    async def kube(self, *words: str) -> str:
        self.deleted += [word for word in words if word.endswith("-old")]
        return ""


def ground(told: Told) -> Ground:
    return cast("Ground", told)


class Bad(Scenario):
    """Has a fault of its own."""

    number: ClassVar[int] = 98
    title: ClassVar[str] = "bad"
    timeout_s: ClassVar[float] = 5.0

    async def play(self, ground: Ground) -> list[Figure]:
        figures: dict[str, Figure] = {}
        return [figures["nothing"]]


class Good(Bad):
    """Holds."""

    number: ClassVar[int] = 99

    async def play(self, ground: Ground) -> list[Figure]:
        return [Figure("x", "1", "1", True)]


async def test_a_scenarios_own_fault_costs_the_others_nothing() -> None:
    """It fails, by the error's name, the release goes, and the next one is played."""
    told, console = Told(), Console(quiet=True)
    results = await play_all([Bad(), Good()], ground(told), console, 1.0)
    assert [(played.verdict, played.why) for played in results] == [(FAILS, "KeyError: 'nothing'"), (HOLDS, "")]  # fmt: skip
    assert told.said == ["ensure", "remove", "ensure"]


class Anew(Good):
    """Wants nothing of what was."""

    fresh: ClassVar[bool] = True


async def test_what_wants_a_fresh_release_gets_one() -> None:
    """The one before it takes up what is there."""
    told = Told()
    await play_all([Good(), Anew()], ground(told), Console(quiet=True), 1.0)
    assert told.said == ["ensure", "remove", "ensure"]


async def test_half_an_answer_is_looked_at_again() -> None:
    """A database that starts may answer nothing, and a pod may not be there."""
    answers: list[list[str]] = [[], ["x"], ["7"]]

    async def look() -> int:
        (value,) = answers.pop(0)
        return int(value)

    assert await until(look, bool, 5, "a number", every_s=0.001) == 7


def claim(**changes: Any) -> Object:
    kept = {"helm.sh/resource-policy": "keep"}
    return {"kind": "Secret", "metadata": {"name": "s", "annotations": kept}} | changes


def test_an_uninstall_leaves_volumes_and_what_was_said_to_stay() -> None:
    """Passwords and configurations bear the mark; whatever else there is, marked or not, is named."""
    assert unexpected(claim()) == unexpected(claim(kind="ConfigMap")) == ""
    assert unexpected(claim(kind="PersistentVolumeClaim", metadata={"name": "data-0"})) == ""
    assert unexpected({"kind": "ConfigMap", "metadata": {"name": "kube-root-ca.crt"}}) == ""
    assert unexpected(claim(metadata={"name": "s"})) == "Secret/s"
    assert unexpected(claim(kind="Deployment")) == "Deployment/s"
    assert unexpected({"kind": "KopfPeering", "metadata": {"name": "p"}}) == "KopfPeering/p"


def milli(resources: Any) -> int:
    cpu = str(resources["requests"]["cpu"])
    return int(cpu[:-1]) if cpu.endswith("m") else 1_000 * int(cpu)


def test_the_last_zone_fits_a_node_of_two_cores() -> None:
    """With everything that is there, one connector more while one goes, migrations, the test's pod, and what fled there."""
    labels = ["zone-1", "zone-2", "zone-3"]
    files = [yaml.safe_load(path.read_text()) for path in (CHART / "values.yaml", DEVELOPMENT)]
    values = merged(merged(*files), release_values(labels, IMAGES))
    zone = values["zoneDefaults"]
    own = [zone[name] for name in ("database", "registry", "poller", *["connectors"] * 4)]
    central = ("simulator", "production", "deduplicator", "s3server", "operator", "archiver")
    passing = ("migrations", "migrations", "crds", "tests")
    parts = [*own, *(values[name] for name in (*central, *passing))]
    assert sum(milli(part["resources"]) for part in parts) <= CORES
    # The exchange that is late is late for every zone.
    assert milli(values["simulator"]["resources"]) == max(milli(p["resources"]) for p in parts)


def test_helm_is_found_by_its_name_whatever_its_file_is_called(tmp_path: Path) -> None:
    """The rollout runs `helm`: the one that made the release, not one that happens to lie on PATH."""
    program = tmp_path / "helm-4"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    told = cast("Any", Told())
    told.helm, told.scratch = Helm(str(program), 4, "v4"), tmp_path
    for _ in range(2):
        found = shutil.which("helm", path=environment(told)["PATH"])
        assert found is not None
        assert Path(found).resolve() == program


@pytest.mark.parametrize(
    ("after", "inside", "fault"),
    [("7", "0", ""), ("0", "0", "other minutes without a row: 1, wanted 0"), ("7", "3", "in its outage: 3, wanted 0")],
)  # fmt: skip
async def test_a_zone_has_rows_in_all_minutes_but_those_of_its_outage(
    monkeypatch: pytest.MonkeyPatch, after: str, inside: str, fault: str
) -> None:
    """Also in those after it; a minute that its outage only touches may be either way."""
    monkeypatch.setattr(outages, "MERGED_S_MAX", 0.0)
    told = Told()
    rows = [[str(n * MINUTE), count] for n, count in ((1, "5"), (3, inside), (5, after))]
    told.rows = {("a", table): rows for table in outages.TABLES}
    coverage = Outages()._coverage
    figures = await coverage(ground(told), "a", [3 * MINUTE], [1 * MINUTE, 5 * MINUTE])
    assert len(failures(figures)) == (len(outages.TABLES) if fault else 0)
    assert all(line.endswith(fault) for line in failures(figures))
    assert not failures(figures[:2])
    assert failures(await coverage(ground(told), "a", [], [])) == [
        "zone a: whole minutes of its outage: 0, wanted >= 1", "zone a: other minutes looked at: 0, wanted >= 1",
    ]  # fmt: skip


def pod(
    component: str, number: int, tag: str, mark: str = "", uid: str = "", **annotations: str
) -> Object:
    name = f"{component}-{number}{mark}"
    return {
        "component": component,
        "metadata": {"name": name, "uid": uid or name, "annotations": annotations},
        "status": {},
        "spec": {"containers": [{"image": f"kalshi-data:{tag}"}]},
    }


async def test_every_pod_of_a_held_zone_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The connector that nobody deleted does not stand for the one that has to come back, nor a database that still goes; what
    comes is new, which is wrong.
    """
    monkeypatch.setattr("tests.cluster.waiting.EVERY_S", 0.0)
    told, small = Told(), ("registry", "poller")
    gone, came = pod("database", 0, "pg", "-old", "one"), pod("database", 0, "pg", "-old", "two", **{MARK: "next"})  # fmt: skip
    before = [gone, *(pod(name, 0, "t1", "-old") for name in (*small, "connector")), pod("connector", 1, "t1")]  # fmt: skip
    some = [*(pod(name, 2, "t1") for name in small), pod("connector", 1, "t1")]
    new = pod("connector", 2, "t2")
    told.looks = [before, *[[gone, *some]] * 4, *[[gone, *some, new]] * 4, [came, *some, new]]
    figures = await Upgrade()._come_back(ground(told), "t1")
    assert told.deleted == ["registry-0-old", "connector-0-old", "poller-0-old", "database-0-old"]
    assert failures(figures) == [
        "images of a held zone's pods that came back: ['t1', 't2'], wanted ['t1']",
        "its database: ['next'], wanted ['old']",
    ]
    assert len(told.looks) == 1


@pytest.mark.parametrize(("live", "upgrades"), [(2, 0), (1, 1)])
async def test_a_number_that_only_kubectl_knows_gets_a_revision(live: int, upgrades: int) -> None:
    """Helm 4 refuses to go back to a revision that says another one."""
    told, upgraded = cast("Any", Told()), []

    async def helm(*words: str) -> str:
        assert words[:2] == ("get", "manifest")
        return "---\n# nothing\n---\nkind: Service\n---\nkind: Gatherer\nmetadata: {name: a}\nspec: {shards: 2}\n"

    class Kube:
        namespace = "n"

        async def items(self, kind: str) -> list[Object]:
            return [{"kind": "Gatherer", "metadata": {"name": "a"}, "spec": {"shards": live}}]

    async def upgrade(zones: Sequence[str]) -> None:
        upgraded.append(zones)

    told.helm, told.kube, told.upgrade = helm, Kube(), upgrade
    await Upgrade()._take_over_numbers(told)
    assert len(upgraded) == upgrades


def test_every_scenario_is_played_unless_some_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    """`python -m tests.cluster` alone is all of them, in the order that needs fewest installations."""
    parser = arguments_of()
    assert parser.parse_args([]).scenarios == []
    assert parser.parse_args(["6", "2"]).scenarios == [6, 2]
    with pytest.raises(SystemExit):
        parser.parse_args(["9"])
    assert "scenarios are 1 to 8" in capsys.readouterr().err
