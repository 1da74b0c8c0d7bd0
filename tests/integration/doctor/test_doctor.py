"""The real command against a live simulated exchange: well, and with one thing wrong at a time."""

import asyncio
import dataclasses
import json
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from libs.exchange import commands
from libs.marketdata.units import SECOND
from libs.runtime.clock import SystemClock
from services.doctor import known_fields, rest_checks, socket_checks
from services.doctor.command import main
from services.simulator.server import SimulatorServer, running_simulator
from services.simulator.settings import SimulatorSettings
from tests.support.keys import KeyPair, make_key

ROOT = Path(__file__).parents[3]


class Line(NamedTuple):
    """One finding of the JSON report."""

    check: str
    state: str
    found: str
    advice: str


class ShiftedClock(SystemClock):
    """This machine's clock, some seconds ahead of the exchange's."""

    def __init__(self, ahead_s: float) -> None:
        self._ahead = int(ahead_s * SECOND)

    def now(self) -> int:
        return super().now() + self._ahead


@pytest.fixture(scope="session")
def key(tmp_path_factory: pytest.TempPathFactory) -> KeyPair:
    """A key the simulator knows."""
    return make_key(tmp_path_factory.mktemp("keys"))


@pytest.fixture
def settings(key: KeyPair) -> SimulatorSettings:
    """A small lively exchange on a free port that pings often."""
    return SimulatorSettings(port=0, keys=(key.settings,), markets=20, rate=400.0, ping_s=0.3)


@pytest.fixture(autouse=True)
def nobodys_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No `.env` and no file named by this shell; five samples need not lie all over a second here."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(rest_checks, "SAMPLE_STEP_S", 0.02)
    monkeypatch.delenv("KALSHI_DATA_CONFIG", raising=False)


def words(server: SimulatorServer, key: KeyPair, *more: str) -> list[str]:
    """The command line that asks a simulator as the holder of a key."""
    return [
        "--environment", "simulator", "--rest-url", server.rest_url, "--ws-url", server.ws_url,
        "--api-key-id", key.key_id, "--private-key-file", str(key.private_key_file), *more,
    ]  # fmt: skip


async def ask(
    capsys: pytest.CaptureFixture[str], argv: list[str], ahead_s: float = 0.0
) -> tuple[int, dict[str, Line]]:
    """Run the command in a thread (it brings its own loop); return its status and its lines by check."""
    clock = ShiftedClock(ahead_s)
    async with asyncio.timeout(30):
        status = await asyncio.to_thread(main, [*argv, "--json"], clock)
    report: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert report["exit_status"] == status
    return status, {entry["check"]: Line(**entry) for entry in report["checks"]}


def states(lines: dict[str, Line], state: str) -> set[str]:
    return {line.check for line in lines.values() if line.state == state}


def words_of_key(key: KeyPair) -> Iterator[str]:
    """The lines of the private key itself."""
    lines = key.private_key_file.read_text().splitlines()
    yield from (line for line in lines if line and not line.startswith("-----"))


async def test_the_program_finds_nothing_wrong_with_a_sound_exchange(
    settings: SimulatorSettings, key: KeyPair, tmp_path: Path
) -> None:
    """As a process: status 0, a line for everything, nothing of the private key."""
    # Slow books, read fresh: on a busy machine seconds lie between the readings that are compared.
    calm = dataclasses.replace(settings, rate=60.0, rest_stale_s_max=0.0)
    async with running_simulator(calm) as server:
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "services.cli", "doctor", *words(server, key, "--quick"),
            cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        async with asyncio.timeout(30):
            out = (await child.communicate())[0].decode()
    assert child.returncode == 0, out
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert lines[0] == "kalshi-data doctor: simulator"
    assert any(line.startswith("ok key file RSA 2048 bits, ") for line in lines)
    assert any(line.startswith("ok orderbook_delta subscribed in") for line in lines)
    assert (
        "ok price orientation use_yes_price false: own leg, true: yes scale, default: own leg;"
        " the connector asks for false" in lines
    )
    assert any(" 0 fail, 1 skipped; " in line for line in lines)
    assert not [word for word in words_of_key(key) if word in out]


async def test_everything_is_looked_at(
    settings: SimulatorSettings,
    key: KeyPair,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without --quick the ping is waited for too; every channel that speaks has spoken; clocks agree."""
    monkeypatch.setattr(socket_checks, "LISTEN_S", 3.0)
    # Slow books, read fresh: on a busy machine seconds lie between the readings that are compared.
    calm = dataclasses.replace(settings, rate=60.0, rest_stale_s_max=0.0)
    async with running_simulator(calm) as server:
        status, lines = await ask(capsys, words(server, key))
        assert not server.connections or await _gone(server)
    assert status == 0, lines
    assert states(lines, "fail") | states(lines, "warn") | states(lines, "skipped") == set(), lines
    assert set(lines) == {
        "key file", "REST", "exchange status", "exchange schedule", "key accepted", "key scopes", "open market",
        "read budget", "connections", "websocket unsigned", "websocket", "ping", "orderbook_delta", "ticker", "trade",
        "market_lifecycle_v2", "multivariate_market_lifecycle", "message fields", "skip_ticker_ack", "get_snapshot",
        "price orientation", "book not crossed", "clock",
    }  # fmt: skip
    assert "with seq, with sending_ts_ms" in lines["trade"].found
    assert "without seq, with sending_ts_ms" in lines["ticker"].found
    assert "refused with 401" in lines["websocket unsigned"].found
    assert "agrees with the exchange's" in lines["clock"].found
    assert "200 tokens/s = 20 reads/s" in lines["read budget"].found


async def test_a_key_of_another_id_is_told_from_an_unknown_one(
    settings: SimulatorSettings, key: KeyPair, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both fail, REST and websocket alike; what hangs on the key is skipped; the rest is still looked at."""
    stranger = make_key(tmp_path, "stranger")
    mixed = KeyPair(key.key_id, stranger.private_key_file, stranger.public_key_file)
    async with running_simulator(settings) as server:
        status, wrong_key = await ask(capsys, words(server, mixed, "--quick"))
        unknown_status, unknown = await ask(capsys, words(server, stranger, "--quick"))
    assert (status, unknown_status) == (1, 1)
    for lines in (wrong_key, unknown):
        assert states(lines, "fail") == {"key accepted", "websocket"}
        assert states(lines, "skipped") == {
            "open market", "read budget", "ping", "channels", "price orientation"
        }  # fmt: skip
        assert lines["open market"].found == "needs: key accepted"
        assert lines["exchange status"].state == "ok"
        assert lines["clock"].state == "ok"
    for check in ("key accepted", "websocket"):
        assert "the signature is not its key's" in wrong_key[check].found
        assert "belongs to another key id" in wrong_key[check].advice
        assert "does not know this key id" in unknown[check].found
        assert "another environment than simulator" in unknown[check].advice


async def test_nobody_at_home(key: KeyPair, capsys: pytest.CaptureFixture[str]) -> None:
    """A dead host fails REST and websocket with what to check, at once, and the rest is skipped."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{taken.getsockname()[1]}"
        argv = [
            "--environment", "simulator", "--rest-url", f"http://{host}", "--ws-url", f"ws://{host}",
            "--api-key-id", key.key_id, "--private-key-file", str(key.private_key_file),
        ]  # fmt: skip
        status, lines = await ask(capsys, argv)
    assert status == 1
    assert states(lines, "fail") == {"REST", "websocket", "websocket unsigned"}
    assert states(lines, "ok") == {"key file", "connections"}
    assert "nobody listens there" in lines["REST"].advice
    assert "nobody listens there" in lines["websocket"].advice
    assert lines["key accepted"].found == "needs: REST"
    assert lines["clock"].state == "skipped"


@pytest.mark.parametrize(("ahead_s", "said"), [(3.0, "3.00 s ahead of"), (-3.0, "3.00 s behind")])
async def test_a_clock_some_seconds_off_is_a_warning(
    settings: SimulatorSettings,
    key: KeyPair,
    capsys: pytest.CaptureFixture[str],
    ahead_s: float,
    said: str,
) -> None:
    """The exchange still takes the signatures; REST dates and websocket times agree on how far it is."""
    async with running_simulator(settings) as server:
        status, lines = await ask(capsys, words(server, key, "--quick"), ahead_s)
    assert status == 0
    assert states(lines, "warn") == {"clock"}
    assert said in lines["clock"].found
    assert "REST dates" in lines["clock"].found
    assert "websocket times" in lines["clock"].found
    assert "synchronise" in lines["clock"].advice


async def test_a_clock_a_minute_off_is_named_as_the_cause(
    settings: SimulatorSettings, key: KeyPair, capsys: pytest.CaptureFixture[str]
) -> None:
    """Signatures are refused: key and websocket say that it is the time, and the Dates say how far."""
    async with running_simulator(settings) as server:
        status, lines = await ask(capsys, words(server, key, "--quick"), -60.0)
    assert status == 1
    assert states(lines, "fail") == {"key accepted", "websocket", "clock"}
    assert "header_timestamp_expired" in lines["key accepted"].found
    assert "see the line `clock`" in lines["websocket"].advice
    assert "s behind the exchange's" in lines["clock"].found
    assert 59.0 < float(lines["clock"].found.split(" s behind")[0].split()[-1]) < 61.0


async def test_a_file_says_whom_to_ask_and_what_is_planned(
    settings: SimulatorSettings, key: KeyPair, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A gatherer's file, its variables of other sections unset; its slots and orientation are judged."""
    async with running_simulator(settings) as server:
        sections = {
            "zone": "${NOBODY_SET_THIS}",
            "account": "main",
            "exchange": {
                "environment": "simulator",
                "rest_url": server.rest_url,
                "ws_url": server.ws_url,
                "api_key_id": key.key_id,
                "private_key_file": str(key.private_key_file),
                "reads_per_s": "60",
            },
            "slots": {"orderbook": "30"},
            "connector": {"use_yes_price": "true"},
        }
        file = tmp_path / "gatherer.yaml"
        file.write_text(json.dumps(sections))
        status, lines = await ask(capsys, ["--config", str(file), "--quick"])
    assert status == 0
    assert states(lines, "warn") == {"read budget"}
    assert "exchange.reads_per_s to 20" in lines["read budget"].advice
    assert (
        "36 slots + 1 to move = 37 of 200 this zone may hold of account main"
        in lines["connections"].found
    )
    assert lines["price orientation"].found.endswith("the connector asks for true")
    assert lines["book not crossed"].state == "ok"


async def test_an_unreadable_key_does_not_stop_what_needs_none(
    settings: SimulatorSettings,
    key: KeyPair,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A public key given by mistake is named, by the report alone; REST and the unsigned websocket are still looked at."""
    mistaken = KeyPair(key.key_id, key.public_key_file, key.public_key_file)
    async with running_simulator(settings) as server:
        status, lines = await ask(capsys, words(server, mistaken, "--quick"))
    assert status == 1
    assert states(lines, "fail") == {"key file"}
    assert "is a public key" in lines["key file"].found
    assert "key_file_open" not in [record.message for record in caplog.records]
    assert lines["websocket"].found == "needs: key file"
    assert {"REST", "exchange status", "websocket unsigned", "clock"} <= states(lines, "ok")


async def test_an_exchange_that_turns_prices_round_fails(
    settings: SimulatorSettings,
    key: KeyPair,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Seen from here: what was asked for in its own leg comes on the yes scale, and the other way round."""
    subscribe = commands.subscribe

    def turned(*args: Any, use_yes_price: bool = False, **more: Any) -> bytes:
        return subscribe(*args, use_yes_price=not use_yes_price, **more)

    monkeypatch.setattr(commands, "subscribe", turned)
    async with running_simulator(settings) as server:
        status, lines = await ask(capsys, words(server, key, "--quick"))
    assert status == 1
    assert lines["price orientation"].state == "fail"
    assert "false: yes scale, true: own leg, default: own leg" in lines["price orientation"].found
    assert "do not capture" in lines["price orientation"].advice
    assert states(lines, "fail") <= {"price orientation", "book not crossed"}


async def test_a_field_nobody_knows_is_named_and_stops_nothing(
    settings: SimulatorSettings,
    key: KeyPair,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As if the exchange had begun to send market_id today."""
    known = known_fields.BODIES["ticker"] - {"market_id"}
    monkeypatch.setitem(known_fields.BODIES, "ticker", known)
    async with running_simulator(settings) as server:
        status, lines = await ask(capsys, words(server, key, "--quick"))
    assert status == 0
    assert states(lines, "warn") == {"message fields"}
    assert "ticker.msg.market_id (" in lines["message fields"].found


async def test_time_is_bounded(
    settings: SimulatorSettings, key: KeyPair, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is unfinished at the end of --timeout fails and says so; what was found is kept."""
    async with running_simulator(settings) as server:
        status, lines = await ask(capsys, words(server, key, "--timeout", "0.05"))
    assert status == 1
    assert lines["REST"].found == "not finished within 0.05 s"
    assert "--timeout" in lines["REST"].advice
    assert lines["key file"].state == "ok"


async def _gone(server: SimulatorServer) -> bool:
    """Wait until the exchange has seen every connection close."""
    async with asyncio.timeout(5):
        while server.connections:  # noqa: ASYNC110 - the server tells nobody
            await asyncio.sleep(0.01)
    return True
