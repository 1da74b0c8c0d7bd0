"""`kalshi-data status` with a zone's own file, as in its registry's pod, and the bundle for support."""

import json
import stat
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from libs.marketdata.units import SECOND
from libs.store.pool import Target, connect
from services.rollout.judge import read_status
from services.status.command import EXIT_AWAY, EXIT_CONFIG, EXIT_OK, main
from tests.support.postgres import run

PLANTED = ("planted-in-the-file", "planted-in-the-environment", "planted in a gap")
SLOTS = {"orderbook": 3, "ticker": 1, "trade": 1, "lifecycle": 1, "connections_max": 10}
ConfigOf = Callable[[Target], Path]


@pytest.fixture
def config_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ConfigOf:
    """Write a zone's file for a database; its own health server is nobody's."""
    monkeypatch.chdir(tmp_path)

    def write(target: Target, **more: Any) -> Path:
        store = {
            "host": target.host, "port": target.port, "database": target.database, "user": target.user,
            "password": target.password,
        }  # fmt: skip
        tree = {
            "zone": "a", "store": store, "slots": SLOTS, "health": {"host": "127.0.0.1", "port": 0},
            "exchange": {"api_key_id": "planted-in-the-file", "private_key_file": str(tmp_path / "key.pem")},
            "connector": {"shard": "connector-1", "storage_bytes_max": 1_000_000_000}, **more,
        }  # fmt: skip
        path = tmp_path / "gatherer.yaml"
        path.write_text(json.dumps(tree), encoding="utf-8")
        return path

    return write


async def _fill(target: Target) -> None:
    """Two shards that live, one that is gone; a slot that moves, one on the dead shard, one nobody has."""
    async with connect(target) as conn:
        await conn.execute(
            "INSERT INTO shards (shard, instance, capacity, draining, expires_at) VALUES"
            " ('one', gen_random_uuid(), 1, false, clock_timestamp() + interval '1 hour'),"
            " ('two', gen_random_uuid(), 1, false, clock_timestamp() + interval '1 hour'),"
            " ('gone', gen_random_uuid(), 1, false, clock_timestamp() - interval '1 hour')"
        )
        await conn.execute(
            "INSERT INTO slot_assignments (slot, shard, epoch, state) VALUES"
            " ('orderbook/0', 'one', 7, 'live'), ('orderbook/1', 'one', 7, 'live'), ('orderbook/1', 'two', 7, 'assigned'),"
            " ('ticker/0', 'gone', 7, 'live'), ('trade/0', 'two', 7, 'live'), ('orderbook/9', 'two', 7, 'live')"
        )
        await conn.execute(
            "UPDATE planner SET holder = 'operator', epoch = 7, expires_at = clock_timestamp() + interval '1 hour'"
        )
        await conn.execute(
            "INSERT INTO gaps (batch_id, received_at, row_no, channel, slot, reason, detail, from_ts, to_ts) VALUES"
            " (1, now_us(), 1, 'trade', 'trade/0', 'seq', '', now_us() - 9000000, now_us() - 8000000),"
            " (1, now_us() - 60000000, 2, 'trade', 'trade/0', 'disconnected', 'planted in a gap', NULL, now_us() - 2000000),"
            " (1, now_us(), 3, 'orderbook_delta', 'orderbook/0', 'not_subscribed', '', NULL, now_us())"
        )
        await conn.execute(
            "INSERT INTO ingest_batches (lane, batch_no, schema_version, table_names, row_counts, row_hashes, times_from, times_to, committed_at)"
            " SELECT gen_random_uuid(), i, 1, '{market_versions,orderbook_deltas}', '{1,1}', '{1,1}',"
            " ARRAY[0, now_us() - i * 10000], ARRAY[0, now_us()], now() FROM generate_series(1, 100) i"
        )


async def _set(target: Target, name: str, value: str) -> None:
    async with connect(target) as conn:
        await conn.execute(f"ALTER DATABASE {target.database} SET {name} = '{value}'")


def _asked(capsys: pytest.CaptureFixture[str], config: Path) -> dict[str, Any]:
    assert main(["--config", str(config), "--json"]) == EXIT_OK
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_a_zones_file_shows_the_zone_alone(
    gatherer_db: Target, config_of: ConfigOf, capsys: pytest.CaptureFixture[str]
) -> None:
    """Slots that a living shard says are live, that move and that nobody has; shards, plan, lag, storage."""
    run(_fill(gatherer_db))
    found = _asked(capsys, config_of(gatherer_db))
    assert list(found) == ["a"]
    zone = found["a"]
    assert zone["slots"] == {"total": 6, "live": 3, "moving": 1, "unassigned": 2}
    members = {member["shard"]: member for member in zone["members"]}
    assert {name: (m["alive"], m["live"], m["slots"]) for name, m in members.items()} == {
        "one": (True, 2, 2), "two": (True, 2, 3), "gone": (False, 1, 1),
    }  # fmt: skip
    assert zone["planner"] == {"holder": "operator", "epoch": 7, "held": True}
    lag = zone["lag_ms"]
    assert [lag[name] for name in ("batches", "p50", "p90", "p99", "max")] == pytest.approx(
        [100, 500, 900, 990, 1_000], abs=0.01
    )
    assert zone["storage"]["share"] == pytest.approx(zone["bytes"] / 1e9)
    assert (zone["process"], zone["spool"]) == (None, None)


def test_the_newest_gap_is_the_one_that_ended_last(
    gatherer_db: Target, config_of: ConfigOf, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not the one that was written down last, and never that of a new market; each with its cause and its times."""
    run(_fill(gatherer_db))
    zone = _asked(capsys, config_of(gatherer_db))["a"]
    newest = zone["gaps"]["newest"]
    assert [gap["reason"] for gap in newest] == ["disconnected", "seq"]
    assert zone["gaps"]["newest_at"] == newest[0]["ends_at"]
    assert 2 * SECOND <= zone["now"] - newest[0]["ends_at"] < 8 * SECOND
    assert zone["gaps"]["causes"] == {"disconnected": 1, "not_subscribed": 1, "seq": 1}


def test_pauses_of_the_exchange_hide_no_trouble(
    gatherer_db: Target, config_of: ConfigOf, capsys: pytest.CaptureFixture[str]
) -> None:
    """A rollout stops at a trouble, and looks at no more than what is listed."""

    async def pause() -> None:
        async with connect(gatherer_db) as conn:
            await conn.execute(
                "INSERT INTO gaps (batch_id, received_at, row_no, channel, slot, reason, detail, from_ts, to_ts)"
                " SELECT 2, now_us(), i, 'trade', '', 'exchange_paused', '', now_us(), now_us() + i FROM generate_series(1, 40) i"
            )

    run(_fill(gatherer_db))
    run(pause())
    entry = _asked(capsys, config_of(gatherer_db))
    gaps = entry["a"]["gaps"]
    assert [gap["reason"] for gap in gaps["newest"]] == ["disconnected", "seq"] + 18 * ["exchange_paused"]  # fmt: skip
    assert gaps["causes"]["exchange_paused"] == 40
    found = read_status(entry, "a")
    assert (found.gap_at, found.gap) == (gaps["newest_at"], "disconnected trade/0 planted in a gap")


def test_people_see_the_same(
    gatherer_db: Target, config_of: ConfigOf, capsys: pytest.CaptureFixture[str]
) -> None:
    """A line of slots and the newest gaps with their causes; of an empty zone, that nothing is known."""
    config = config_of(gatherer_db)
    assert main(["--config", str(config)]) == EXIT_OK
    (line,) = [row for row in capsys.readouterr().out.splitlines() if "nobody plans" in row]
    assert line.replace("│", " ").split()[:5] == ["a", "6", "0", "0", "6"]
    run(_fill(gatherer_db))
    assert main(["--config", str(config)]) == EXIT_OK
    shown = capsys.readouterr().out
    (line,) = [row for row in shown.splitlines() if "epoch 7" in row]
    assert line.replace("│", " ").split()[:5] == ["a", "6", "3", "1", "2"]
    assert "Newest gaps of a (1 disconnected, 1 not_subscribed, 1 seq)" in shown


def test_a_role_that_only_reads_may_ask(
    gatherer_db: Target, config_of: ConfigOf, capsys: pytest.CaptureFixture[str]
) -> None:
    """kd_status and kd_writer see everything; nothing of it needs more."""

    async def lend_password() -> None:
        async with connect(gatherer_db) as conn:
            for role in ("kd_status", "kd_writer"):
                await conn.execute(f"ALTER ROLE {role} PASSWORD '{gatherer_db.password}'")

    run(_fill(gatherer_db))
    run(lend_password())
    shown = []
    for role in ("kd_status", "kd_writer"):
        path = config_of(gatherer_db)
        path.write_text(
            path.read_text().replace(f'"user": "{gatherer_db.user}"', f'"user": "{role}"')
        )
        zone = _asked(capsys, path)["a"]
        shown.append((zone["slots"], zone["gaps"]["causes"], zone["planner"], len(zone["tables"])))
    assert shown[0] == shown[1]
    assert shown[0][0]["live"] == 3


def test_a_file_of_neither_kind_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the sentences of the deduplicator's, and status 2."""
    (tmp_path / "x.yaml").write_text("zones: []\n", encoding="utf-8")
    assert main(["--config", str(tmp_path / "x.yaml"), "--json"]) == EXIT_CONFIG
    assert "zones: unknown key" in capsys.readouterr().err


def test_a_bundle_has_everything_but_secrets(
    gatherer_db: Target, config_of: ConfigOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Configuration, shards, plan, gaps, status and versions; no planted secret, whoever says it; for its owner's eyes."""
    run(_fill(gatherer_db))
    (tmp_path / "key.pem").write_text(
        "-----BEGIN PRIVATE KEY-----\nplanted-key-line-0123456789\n-----END PRIVATE KEY-----\n"
    )
    monkeypatch.setenv("KALSHI_DATA_EXCHANGE__API_KEY_ID", "planted-in-the-environment")
    # Stands for those of the server's settings that may hold somebody else's password.
    run(_set(gatherer_db, "password_encryption", "md5"))
    # What a gap's detail says happens to be a secret of another variable.
    monkeypatch.setenv("SOME_TOKEN", "planted in a gap")
    monkeypatch.setenv("KALSHI_DATA_EXCHANGE__REST_URL", "https://me:planted-in-url@host/x")
    file = tmp_path / "bundle.tar.gz"
    assert main(["--config", str(config_of(gatherer_db)), "--bundle", str(file)]) == EXIT_OK
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    with tarfile.open(file) as archive:
        texts = {
            name.partition("/")[2]: archive.extractfile(name).read().decode()  # type: ignore[union-attr]
            for name in archive.getnames()
        }
    everything = "\n".join(texts.values())
    password = gatherer_db.password
    for secret in (*PLANTED, "planted-key-line", "planted-in-url", password):
        assert secret not in everything, secret
    shards = {row["shard"]: row["instance"] for row in json.loads(texts["a/shards.json"])}
    assert set(shards) == {"one", "two", "gone"}
    assert len(json.loads(texts["a/plan.json"])) == 6
    assert {row["detail"] for row in json.loads(texts["a/gaps.json"])} == {"", "***"}
    assert json.loads(texts["status.json"])["a"]["slots"]["live"] == 3
    rows = {row["key"]: row["value"] for row in json.loads(texts["configuration.json"])}
    assert rows["store.password"] == rows["exchange.api_key_id"] == "***"
    assert rows["exchange.private_key_file"] == str(tmp_path / "key.pem")
    assert rows["store.database"] == gatherer_db.database
    assert json.loads(texts["versions.json"])["kalshi-data"]["version"]
    server = {row["name"] for row in json.loads(texts["a/server.json"])}
    assert ("server_version" in server, "password_encryption" in server) == (True, False)


def test_a_bundle_of_a_database_that_is_away_says_so(
    gatherer_db: Target, config_of: ConfigOf, tmp_path: Path
) -> None:
    """It is written all the same; the exit status tells."""
    path = config_of(gatherer_db)
    path.write_text(path.read_text().replace(f'"port": {gatherer_db.port}', '"port": 1'))
    file = tmp_path / "b.tar.gz"
    assert main(["--config", str(path), "--bundle", str(file)]) == EXIT_AWAY
    with tarfile.open(file) as archive:
        (name,) = [name for name in archive.getnames() if name.endswith("a/error.json")]
        said = archive.extractfile(name)
        assert said is not None
        assert "Connect" in said.read().decode()
