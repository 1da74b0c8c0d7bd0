"""`kalshi-data doctor --cluster` over real databases and health servers: well, and with one thing wrong at a time."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from libs.archive.trial import UNTRIED, WELL
from libs.runtime.clock import SystemClock
from libs.runtime.health import HealthServer, HealthState
from libs.runtime.sections import HealthSettings, MetricsSettings
from libs.store.pool import Target, connect
from libs.telemetry.metrics import Metrics
from services.doctor.cluster import look_databases, look_policies, look_services
from services.doctor.cluster.evidence import INSIDE
from services.doctor.command import main
from tests.support.postgres import run

SLOTS = {"orderbook": 1, "ticker": 1, "trade": 1, "lifecycle": 1, "connections_max": 10}


@pytest.fixture(autouse=True)
def in_a_hurried_pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Inside a cluster, as far as names go; nothing is tried for long, and no API is near."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(INSIDE, "10.0.0.1")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KALSHI_DATA_CONFIG", raising=False)
    for room in (look_databases, look_policies, look_services):
        monkeypatch.setattr(room, "PAUSE_S", 0.01)
    monkeypatch.setattr(look_policies, "CONNECT_S", 1.0)
    monkeypatch.setattr(look_databases, "SLOTS_PAUSE_S", 0.05)


@pytest.fixture
def silent() -> Iterator[int]:
    """A port that takes no connection and refuses none: its queue is full."""
    with socket.socket() as listener, socket.socket() as first, socket.socket() as second:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        for one in (first, second):
            one.setblocking(False)
            one.connect_ex(address)
        yield address[1]


@asynccontextmanager
async def services(bucket: Any = WELL) -> AsyncIterator[dict[str, str]]:
    """A registry, a connector and an archiver that say they are well; base addresses by name.

    bucket: what the archiver says of its bucket; a callable is asked every time.
    """
    clock = SystemClock()
    facts: dict[str, dict[str, Any]] = {
        "registry": {"exchange": {"requests": 3, "limited": 0}},
        "connector": {"shard": "connector-1", "connections": 4, "slots": {"trade/0": {}}},
        "archiver": {"error": "", "bucket": bucket},
    }
    bases = {}
    async with AsyncExitStack() as stack:
        for name, values in facts.items():
            metrics = Metrics()
            state = HealthState(name, "" if name == "archiver" else "a", clock, metrics)
            state.set_ready(True)
            for key, value in values.items():
                state.set(key, value)
            server = HealthServer(
                state, metrics, HealthSettings("127.0.0.1", 0), MetricsSettings("127.0.0.1", 0)
            )
            await stack.enter_async_context(server)
            bases[name] = f"http://127.0.0.1:{server.port}"
        yield bases


def store(target: Target, secret: Path) -> dict[str, Any]:
    """A database of doctor.yaml."""
    return {
        "host": target.host, "port": target.port, "database": target.database, "user": target.user,
        "secret_file": str(secret), "connect_timeout_s": 2.0,
    }  # fmt: skip


async def fill(target: Target) -> None:
    """Four slots that a living shard has."""
    async with connect(target) as conn:
        await conn.execute(
            "INSERT INTO shards (shard, instance, capacity, expires_at)"
            " VALUES ('connector-1', gen_random_uuid(), 1, clock_timestamp() + interval '1 hour')"
        )
        await conn.execute(
            "INSERT INTO slot_assignments (slot, shard, epoch, state)"
            " SELECT unnest('{orderbook/0,ticker/0,trade/0,lifecycle/0}'::text[]), 'connector-1', 1, 'live'"
        )


async def ask(
    capsys: pytest.CaptureFixture[str], tree: dict[str, Any], bases: dict[str, str]
) -> tuple[int, dict[str, dict[str, str]]]:
    """Run the command in a thread; return its status and its findings by check."""
    tree["zones"][0]["health"] = [bases["registry"], bases["connector"]]
    tree["health"] = [bases["archiver"]]
    path = Path("doctor.yaml")
    path.write_text(json.dumps({"cluster": tree}), encoding="utf-8")  # noqa: ASYNC240
    argv = ["--cluster", "--config", str(path), "--json", "--timeout", "120"]
    async with asyncio.timeout(150):
        status = await asyncio.to_thread(main, argv)
    report = json.loads(capsys.readouterr().out)
    assert report["exit_status"] == status
    return status, {line["check"]: line for line in report["checks"]}


@pytest.fixture
def tree(gatherer_db: Target, production_db: Target, tmp_path: Path) -> dict[str, Any]:
    """A release of one zone."""
    run(fill(gatherer_db))
    secret = tmp_path / "password"
    secret.write_text(gatherer_db.password + "\n", encoding="utf-8")
    zone = {"zone": "a", "topology_zone": "z", "slots": SLOTS, "store": store(gatherer_db, secret)}
    return {"namespace": "kd", "zones": [zone], "production": store(production_db, secret)}


async def test_a_sound_release_passes(
    tree: dict[str, Any], silent: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Databases with their levels, services, key, slots, clocks, connections, archive, policies; the API is skipped."""
    tree["forbidden"] = [{"name": "metrics", "host": "127.0.0.1", "port": silent}]
    async with services() as bases:
        status, found = await ask(capsys, tree, bases)
    states = {check: line["state"] for check, line in found.items()}
    assert states == dict.fromkeys(
        (
            "database a", "database production", "registry a", "connector a", "archiver", "slots a", "exchange key a",
            "archive", "connections", "clocks", "policies",
        ), "ok",
    ) | dict.fromkeys(("nodes a", "storage class"), "skipped")  # fmt: skip
    assert status == 0
    assert "4 slots live" in found["database a"]["found"]
    assert found["slots a"]["found"] == "4 of 4 live"
    assert "no rights" in found["nodes a"]["found"]


@pytest.mark.parametrize(
    ("said", "state"),
    [
        ([WELL], "ok"),
        ([UNTRIED, UNTRIED, WELL], "ok"),
        ([UNTRIED, "archive/_trial/archiver could not be written: Forbidden"], "fail"),
        ([UNTRIED], "warn"),
    ],
)
async def test_an_archiver_whose_bucket_refuses_it_fails_the_release(
    tree: dict[str, Any], capsys: pytest.CaptureFixture[str], said: list[str], state: str
) -> None:
    """It is ready and no round of it failed; a trial that is not through yet is waited for, but not for ever."""
    answers = iter(said)
    last = said[-1]
    async with services(lambda: next(answers, last)) as bases:
        status, found = await ask(capsys, tree, bases)
    assert (found["archiver"]["state"], found["archive"]["state"]) == ("ok", state)
    assert last.removeprefix("ok: ") in found["archive"]["found"]
    assert status == (state == "fail")


async def test_what_is_wrong_is_named_and_the_rest_goes_on(
    tree: dict[str, Any], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A wrong password, a database that is away, too many connections, a service that is away, an edge that is open."""
    wrong = tmp_path / "wrong"
    wrong.write_text("not it", encoding="utf-8")
    tree["zones"][0]["store"]["secret_file"] = str(wrong)
    tree["zones"].append(
        {"zone": "b", "slots": {**SLOTS, "orderbook": 3}, "store": {**tree["production"], "port": 1}, "health": []}
    )  # fmt: skip
    async with services() as bases:
        open_port = int(bases["archiver"].rpartition(":")[2])
        tree["forbidden"] = [{"name": "archiver", "host": "127.0.0.1", "port": open_port}]
        bases["registry"] = "http://127.0.0.1:1"
        status, found = await ask(capsys, tree, bases)
    assert status == 1
    states = {check: line["state"] for check, line in found.items()}
    assert states["database a"] == states["database b"] == "fail"
    assert "refuses" in found["database a"]["found"]
    assert states["slots a"] == states["slots b"] == states["exchange key a"] == "skipped"
    assert states["http://127.0.0.1:1"] == "fail"
    assert (states["connector a"], states["archive"]) == ("ok", "ok")
    assert "4 of a + 6 of b + 2 to move are 12 connections" in found["connections"]["found"]
    assert found["policies"]["state"] == "fail"
    assert "reached what is forbidden: archiver" in found["policies"]["found"]


@pytest.mark.parametrize(("left", "state"), [("orderbook/0", "warn"), ("", "fail")])
async def test_slots_that_nobody_has_are_told(
    tree: dict[str, Any], gatherer_db: Target, capsys: pytest.CaptureFixture[str], left: str, state: str
) -> None:  # fmt: skip
    """Some: a warning, for they may be taken up in a moment; all: nothing is captured."""

    async def lose() -> None:
        async with connect(gatherer_db) as conn:
            await conn.execute("DELETE FROM slot_assignments WHERE slot <> $1", left)

    await lose()
    async with services() as bases:
        status, found = await ask(capsys, tree, bases)
    assert found["slots a"]["state"] == state
    assert found["slots a"]["found"].startswith("1 of 4" if left else "none of 4")
    assert status == (state == "fail")


async def test_a_schema_that_is_behind_is_a_failure(
    tree: dict[str, Any], gatherer_db: Target, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the levels of both."""

    async def behind() -> None:
        async with connect(gatherer_db) as conn:
            await conn.execute("UPDATE schema_level SET level = 1, oldest_code_level = 1")

    await behind()
    async with services() as bases:
        status, found = await ask(capsys, tree, bases)
    assert status == 1
    assert "is at level 1, this code needs" in found["database a"]["found"]


async def test_outside_of_the_cluster_only_the_api_is_asked(
    tree: dict[str, Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names that resolve nowhere, and passwords that are not mounted, are no faults on a laptop."""
    monkeypatch.delenv(INSIDE)
    tree["zones"][0]["store"] |= {"host": "kd-database-a.invalid"}
    tree["production"] |= {"secret_file": "/nowhere/password"}
    tree["forbidden"] = [{"name": "metrics", "host": "kd-registry-a.invalid", "port": 9090}]
    names = ("registry", "connector", "archiver")
    status, found = await ask(
        capsys, tree, {name: f"http://kd-{name}.invalid:8080" for name in names}
    )
    assert status == 0
    asked = {check for check, line in found.items() if line["state"] != "skipped"}
    assert asked == {"connections"}
    assert "helm test" in found["database a"]["found"]


def test_a_file_that_is_not_usable_says_all_its_faults(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Status 2; every fault in a line of its own."""
    (tmp_path / "d.yaml").write_text(
        "cluster: {zones: [], production: {host: h, database: d, user: u}, tonne: 1}\n"
    )
    assert main(["--cluster", "--config", str(tmp_path / "d.yaml")]) == 2
    said = capsys.readouterr().err
    assert "cluster.production.secret_file: say either it or password" in said
    assert "cluster.tonne: unknown key" in said


def test_a_bucket_is_tried_directly(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Written, read back, listed, removed; what cannot be written is a failure with what the identity needs."""
    root = tmp_path / "archive"
    assert main(["--bucket", str(root), "--json"]) == 0
    (line,) = json.loads(capsys.readouterr().out)["checks"]
    assert (line["check"], line["state"]) == ("bucket", "ok")
    assert [path for path in root.rglob("*") if path.is_file()] == []
    assert main(["--bucket", str(root), "--access-key-id-file", "/nowhere/id", "--json"]) == 1
    (line,) = json.loads(capsys.readouterr().out)["checks"]
    assert "/nowhere/id" in line["found"]
    (tmp_path / "file").write_text("x")
    assert main(["--bucket", str(tmp_path / "file" / "below"), "--json"]) == 1
    (line,) = json.loads(capsys.readouterr().out)["checks"]
    assert "s3:PutObject" in line["advice"]
