"""What scenarios decide without a cluster: the table of who reaches whom, minutes of an outage, revisions, pods."""

import json
import re
from pathlib import Path

from libs.marketdata.units import SECOND
from tests.cluster.__main__ import ORDER
from tests.cluster.names import Names
from tests.cluster.scenarios.no_api import container_id, restarts
from tests.cluster.scenarios.outages import (
    MINUTE,
    minutes_touching,
    minutes_within,
    whole_minute_after,
)
from tests.cluster.scenarios.reach import (
    SERVICES,
    STRANGERS,
    Door,
    Peer,
    addresses,
    differing,
    doors,
    labels_of,
    may,
    probe,
)
from tests.cluster.scenarios.upgrade import before_rollout, tag_of

NAMES = Names("kalshi-data")


def reached(peer: Peer) -> set[str]:
    """Return what a peer may reach, as `component zone port`."""
    return {" ".join(map(str, filter(None, door))) for door in doors() if may(peer, door)}


def test_the_table_of_who_reaches_whom() -> None:
    """As the design has it; each line by itself."""
    assert reached(Peer("connector", "b")) == {"database b 5432", "simulator 8700"}
    assert reached(Peer("migrate", "a")) == {"database a 5432"}
    assert reached(Peer("migrate", "production")) == {"production 5432"}
    databases = {f"database {zone} 5432" for zone in "abc"}
    assert reached(Peer("deduplicator")) == databases | {"production 5432"}
    assert reached(Peer("archiver")) == {"production 5432", "s3 7070"}
    assert reached(Peer("operator")) == databases | {"api 443"}
    assert reached(Peer("crds")) == {"api 443"}
    services = [" ".join(filter(None, peer)) for peer in SERVICES]
    health = {f"{name} 8080" for name in services}
    assert reached(Peer("test")) == databases | {"production 5432"} | health
    assert reached(Peer("monitoring")) == {f"{name} 9090" for name in services} | {"api 443"}
    assert (reached(Peer("stranger")), reached(Peer("simulator"))) == ({"api 443"}, set())


def test_what_differs_from_the_table_is_named() -> None:
    """A door that is open, and one that is shut."""
    two = [Door("database", "a", 5432), Door("database", "b", 5432)]
    assert differing(Peer("registry", "a"), two, [True, False]) == []
    assert differing(Peer("registry", "a"), two, [False, True]) == [
        "registry a cannot reach database a:5432", "registry a reaches database b:5432",
    ]  # fmt: skip


def test_doors_have_addresses_and_probes_their_labels() -> None:
    """Services by the chart's names; a migration's label names its database; a stranger bears none of the release's."""
    found = addresses(Peer("stranger"), "", NAMES)
    assert found[Door("database", "a", 5432)] == ("kalshi-data-database-a", 5432)
    assert found[Door("api", "", 443)] == ("kubernetes.default.svc", 443)
    assert list(found) == doors()
    assert (
        labels_of(Peer("migrate", "production"), NAMES)["kalshi-data.io/database"] == "production"
    )
    assert labels_of(Peer("migrate", "a"), NAMES)["kalshi-data.io/zone"] == "a"
    assert not set(labels_of(Peer("stranger"), NAMES)) & set(NAMES.labels("x"))
    made = [probe(peer, NAMES, {"image": "i"})["metadata"]["name"] for peer in STRANGERS]
    assert len(set(made)) == len(STRANGERS)


def test_nobody_is_tried_on_itself() -> None:
    """A pod's way to itself is open whatever policies say; its sibling's doors are tried where there is one."""
    alone, two = (addresses(Peer("connector", "a"), ip, NAMES) for ip in ("", "10.0.0.2"))
    own = [Door("connector", "a", 8080), Door("connector", "a", 9090)]
    assert [door for door in doors() if door not in alone] == own
    assert [two[door] for door in own] == [("10.0.0.2", 8080), ("10.0.0.2", 9090)]
    assert two[Door("connector", "b", 8080)] == ("kalshi-data-connector-b", 8080)


def test_minutes_of_an_outage_are_those_that_lie_in_it_whole() -> None:
    """A minute that is only touched has rows from before or after."""
    span = (MINUTE + 50 * SECOND, 4 * MINUTE + 5 * SECOND)
    assert minutes_within(span) == [2 * MINUTE, 3 * MINUTE]
    assert minutes_within((MINUTE, 2 * MINUTE)) == [MINUTE]
    assert minutes_within((MINUTE + 1, 2 * MINUTE)) == []
    assert minutes_touching(span) == [MINUTE, 2 * MINUTE, 3 * MINUTE]
    assert [whole_minute_after(at) // MINUTE for at in (MINUTE, MINUTE + 1)] == [2, 3]


def test_a_rollback_goes_behind_every_step_of_the_rollout() -> None:
    """Not to the last step but one; and not to a revision that never worked."""
    entries = [
        (1, "superseded", "Install complete"), (2, "superseded", "Upgrade complete"), (3, "failed", "Upgrade failed"),
        (4, "superseded", "kalshi-data rollout 1f: none"), (5, "deployed", "kalshi-data rollout 1f: all"),
    ]  # fmt: skip
    history = [{"revision": r, "status": s, "description": d} for r, s, d in entries]
    assert before_rollout(json.dumps(history)) == 2


def test_tags_and_containers() -> None:
    """Of images with and without a registry; ids without their scheme; restarts of all containers."""
    assert (tag_of("r:5000/kalshi-data:t1"), tag_of("kalshi-data:t1-next")) == ("t1", "t1-next")
    pod = {
        "status": {"containerStatuses": [{"containerID": "containerd://abc", "restartCount": 2}]}
    }
    assert (container_id(pod), restarts(pod)) == ("abc", 2)


def test_every_scenario_of_the_issue_is_played_once() -> None:
    """Eight of them; what breaks nodes is skipped where nobody can break nodes."""
    assert sorted(scenario.number for scenario in ORDER) == list(range(1, 9))
    assert {scenario.number for scenario in ORDER if scenario.breaks} == {3, 4}
    assert [scenario.zones for scenario in ORDER if scenario.number == 2] == [("a",)]


def test_nothing_is_played_that_is_not_there() -> None:
    """What make and CI ask for are numbers that scenarios have."""
    root = Path(__file__).resolve().parents[3]
    text = "".join((root / name).read_text() for name in ("Makefile", ".ci/run"))
    asked = {int(n) for words in re.findall(r"CLUSTER=\"([\d ]+)\"", text) for n in words.split()}
    assert asked and asked <= {scenario.number for scenario in ORDER}
