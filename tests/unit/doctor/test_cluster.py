"""What the doctor makes of a release's clocks, services, policies, nodes and storage classes."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.archive.trial import UNTRIED, WELL
from libs.kube.cluster import Node, StorageClass
from libs.marketdata.units import SECOND
from libs.runtime.clock import SystemClock
from libs.runtime.secret import Secret
from services.doctor.cluster.evidence import Archived, Evidence, host_and_port
from services.doctor.cluster.judge_clocks import Sample, judge_clocks
from services.doctor.cluster.judge_nodes import judge_nodes, judge_storage
from services.doctor.cluster.judge_services import (
    judge_archive,
    judge_exchange,
    judge_service,
    service_check,
)
from services.doctor.cluster.look_api import check_api
from services.doctor.cluster.look_policies import Answer, Tried, judge_policies
from services.doctor.cluster.settings import CheckedStore, CheckedZone, ClusterSettings

NOW = 1_700_000_000 * SECOND


def sample(name: str, offset_s: float, took_s: float = 0.1) -> Sample:
    """A clock that is offset_s ahead of ours, read by an answer that took so long."""
    took = int(took_s * SECOND)
    return Sample(name, NOW, NOW + took // 2 + int(offset_s * SECOND), NOW + took)


@pytest.mark.parametrize(
    ("offset_s", "state", "side"),
    [
        (0.0, "ok", ""),
        (0.9, "ok", ""),
        (2.0, "warn", "ahead of"),
        (-2.0, "warn", "behind"),
        (7.0, "fail", "ahead of"),
        (-600.0, "fail", "behind"),
    ],
)
def test_a_clock_that_is_off_is_named(offset_s: float, state: str, side: str) -> None:
    """Above a second a warning, above five a failure; which one, and on which side."""
    found = judge_clocks([sample("database a", 0.0), sample("database b", offset_s)])
    assert found.state == state
    if side:
        assert f"database b is at least" in found.found  # noqa: F541
        assert f" s {side} this machine" in found.found


@given(
    offset=st.integers(-10 * SECOND, 10 * SECOND),
    way=st.integers(0, 20 * SECOND),
    back=st.integers(0, 20 * SECOND),
)
def test_only_what_is_certain_counts(offset: int, way: int, back: int) -> None:
    """However slow the answer: a clock that is right is never called wrong, and no clock is further off than is said."""
    shown = Sample("x", NOW, NOW + way + offset, NOW + way + back)
    assert 0 <= shown.certain <= abs(offset)
    if back == way == 0:
        assert shown.certain == abs(offset)


def test_no_clock_no_judgement() -> None:
    """Without an answer there is nothing to say."""
    assert judge_clocks([]).state == "skipped"


def document(service: str, zone: str = "", **more: Any) -> dict[str, Any]:
    """A /health document."""
    return {
        "service": service,
        "zone": zone,
        "ready": True,
        "reason": "",
        "version": "1.0.0",
        **more,
    }


def test_a_service_is_judged_by_what_it_says() -> None:
    """Not ready fails with its reason; another version is worth knowing while a zone is held."""
    assert service_check(document("registry", "a")) == "registry a"
    assert service_check(document("archiver")) == "archiver"
    assert judge_service(document("poller"), "1.0.0").state == "ok"
    held = judge_service(document("poller", "b", version="0.9.0"), "1.0.0")
    assert (held.state, "0.9.0" in held.found) == ("warn", True)
    bad = judge_service(document("poller", ready=False, reason="taking the first round"), "1.0.0")
    assert (bad.state, "taking the first round" in bad.found) == ("fail", True)


@pytest.mark.parametrize(
    ("registry", "connector", "state"),
    [
        ({"exchange": {"requests": 9, "limited": 0}}, {"connections": 5, "slots": {"trade/0": {}}}, "ok"),
        ({"exchange": {"requests": 9, "limited": 2}}, {"connections": 5, "slots": {"trade/0": {}}}, "warn"),
        ({"ready": False, "exchange": {}}, {"connections": 5, "slots": {}}, "warn"),
        ({"exchange": {}}, {"connections": 0, "slots": {"trade/0": {}}}, "fail"),
        ({"exchange": {}}, {"connections": 0, "slots": {}}, "ok"),
    ],
)  # fmt: skip
def test_a_key_is_judged_by_those_who_use_it(
    registry: dict[str, Any], connector: dict[str, Any], state: str
) -> None:
    """REST by the registry, the websocket by a connector; one without slots has no connection to open."""
    documents = [document("registry", "a", **registry), document("connector", "a", **connector)]
    assert judge_exchange("a", documents).state == state
    assert judge_exchange("b", documents).state == "skipped"


def test_the_archive_is_judged_by_its_last_object() -> None:
    """A failed round fails; an old object is a warning; a new installation has none yet."""
    archiver = [document("archiver", error="", bucket=WELL)]
    fresh = Archived(7, NOW - 60 * SECOND)
    assert judge_archive(archiver, fresh, NOW).state == "ok"
    assert "7 objects" in judge_archive(archiver, fresh, NOW).found
    assert judge_archive(archiver, Archived(7, NOW - 86_400 * SECOND), NOW).state == "warn"
    assert judge_archive(archiver, Archived(0, None), NOW).state == "ok"
    assert judge_archive(archiver, None, NOW).state == "skipped"
    assert judge_archive([], fresh, NOW).state == "skipped"
    failed = judge_archive([document("archiver", error="AccessDenied", bucket=WELL)], fresh, NOW)
    assert (failed.state, "AccessDenied" in failed.found) == ("fail", True)


def test_before_the_first_object_the_trial_of_the_bucket_counts() -> None:
    """Well, refused in the store's own words, or not tried yet; never well because nothing has failed yet."""
    none_yet = Archived(0, None)
    well = judge_archive([document("archiver", error="", bucket=WELL)], none_yet, NOW)
    assert (well.state, "written, read back, listed" in well.found) == ("ok", True)
    said = "kalshi/_trial/archiver could not be written: PermissionError: Access Denied"
    for archived in (none_yet, None, Archived(7, NOW)):
        refused = judge_archive([document("archiver", error="", bucket=said)], archived, NOW)
        assert (refused.state, said in refused.found) == ("fail", True)
        assert "s3:PutObject" in refused.advice
        assert "kms:" in refused.advice
    for facts in ({"bucket": UNTRIED}, {}):
        untried = judge_archive([document("archiver", error="", **facts)], none_yet, NOW)
        assert (untried.state, "not tried yet" in untried.found) == ("warn", True)


@pytest.mark.parametrize(
    ("answers", "state"),
    [
        (("silent", "silent"), "ok"),
        (("silent", "refused"), "ok"),
        (("silent", "open"), "fail"),
        (("refused", "refused"), "warn"),
        (("refused", "unknown"), "warn"),
        (("unknown", "unknown"), "skipped"),
    ],
)
def test_one_open_edge_is_one_too_many(answers: tuple[Answer, ...], state: str) -> None:
    """Silence is what an enforced policy looks like; a refusal proves nothing."""
    tried = [Tried(f"edge {number}", answer) for number, answer in enumerate(answers)]
    found = judge_policies(tried)
    assert found.state == state
    if state == "fail":
        assert "edge 1" in found.found
        assert "enableNetworkPolicy" in found.advice


def node(name: str, zone: str, **more: Any) -> Node:
    """A node that takes pods."""
    labels = {"topology.kubernetes.io/zone": zone, **more.pop("labels", {})}
    given = {"is_ready": True, "is_schedulable": True, "architecture": "arm64", "taints": ()}
    return Node(name, labels, **(given | more))  # type: ignore[arg-type]


def test_every_zone_needs_a_node_that_takes_its_pods() -> None:
    """None there, none able, none of the role: each says what to do."""
    nodes = [node("n1", "z1"), node("n2", "z2", is_ready=False)]
    assert judge_nodes("a", "z1", nodes).state == "ok"
    away = judge_nodes("c", "z3", nodes)
    assert (away.state, "z1, z2" in away.found) == ("fail", True)
    assert judge_nodes("b", "z2", nodes).state == "fail"
    roles = [node("n1", "z1", labels={"kalshi-data.io/role": "deduplicator"})]
    assert judge_nodes("a", "z1", roles).state == "warn"
    roles.append(node("n2", "z1", labels={"kalshi-data.io/role": "gatherer"}))
    assert judge_nodes("a", "z1", roles).state == "ok"


def test_the_storage_class_waits_and_grows() -> None:
    """The named one or the default; another binding puts volumes anywhere, one that cannot grow is a warning."""
    good = StorageClass("gp3", "ebs.csi.aws.com", False, "WaitForFirstConsumer", "Retain", True, {})
    assert judge_storage("gp3", [good]).state == "ok"
    assert judge_storage("", [good]).state == "fail"
    assert judge_storage("", [good._replace(is_default=True)]).state == "ok"
    assert judge_storage("gp2", [good]).state == "fail"
    assert judge_storage("gp3", [good._replace(binding_mode="Immediate")]).state == "fail"
    assert judge_storage("gp3", [good._replace(can_grow=False)]).state == "warn"


async def test_a_kubeconfig_that_is_named_must_be_usable(tmp_path: Path) -> None:
    """Where nobody names one the API is not asked; a mistyped name is a fault, and said."""
    store = CheckedStore(database="kalshi", user="kd_status", password=Secret("x"))
    release = ClusterSettings(zones=(CheckedZone("a", store),), production=store)
    wrong = str(tmp_path / "kubecnfig")
    found = await check_api(Evidence(release, SystemClock(), wrong))
    assert [(one.check, one.state) for one in found] == [
        ("nodes a", "fail"),
        ("storage class", "fail"),
    ]
    assert all(f"--kubeconfig {wrong}: " in one.found and one.advice for one in found)


def test_a_base_address_is_host_and_port() -> None:
    """Anything else is refused with the form it should have."""
    assert host_and_port("http://registry-a:8080") == ("registry-a", 8080)
    for wrong in (
        "registry-a:8080",
        "https://registry-a:8080",
        "http://registry-a",
        "http://h:80/health",
    ):
        with pytest.raises(ValueError, match="http://HOST:PORT"):
            host_and_port(wrong)
