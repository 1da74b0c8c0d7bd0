import json
from pathlib import Path

import pytest

from libs.runtime.errors import ConfigInvalid
from services.doctor.command import main
from services.doctor.settings import Plan, read_settings

ROOT = Path(__file__).parents[3]
KEY = {"exchange.api_key_id": "id", "exchange.private_key_file": "k.pem"}


def test_the_committed_configuration_is_enough() -> None:
    """Of config/gatherer.yaml only what the exchange is asked for is read: no database, no zone."""
    environ = {"KALSHI_API_KEY_ID": "id-1"}
    settings, plan = read_settings(ROOT / "config" / "gatherer.yaml", {}, environ)
    assert settings.exchange.api_key_id == "id-1"
    assert settings.exchange.environment == "prod"
    assert settings.slots.total == 150
    assert plan == Plan()


def test_words_win_over_environment_and_file(tmp_path: Path) -> None:
    """The file says prod, the environment demo, the command line another key."""
    file = tmp_path / "g.yaml"
    file.write_text(json.dumps({"exchange": {"environment": "prod", "api_key_id": "file"}}))
    environ = {"KALSHI_DATA_EXCHANGE__ENVIRONMENT": "demo"}
    settings, _ = read_settings(file, KEY, environ)
    assert settings.exchange.environment == "demo"
    assert settings.exchange.api_key_id == "id"


def test_the_services_shares_are_read_where_they_stand(tmp_path: Path) -> None:
    """Read shares, the poller's period and the connector's orientation, with the environment over the file."""
    file = tmp_path / "g.yaml"
    sections = {
        "zone": "${NOBODY_SET_THIS}",
        "registry": {"read_share": "0.2", "full_sync_s": "1"},
        "poller": {"read_share": "0.3", "period_s": "60"},
        "connector": {"use_yes_price": "true", "shard": "${NOR_THIS}"},
    }
    file.write_text(json.dumps(sections))
    _, plan = read_settings(file, KEY, {"KALSHI_DATA_POLLER__READ_SHARE": "0.7"})
    assert plan == Plan(0.2, 0.7, 60.0, use_yes_price=True)


def test_faults_are_all_named(tmp_path: Path) -> None:
    """A share that is no number, and a file that is none."""
    file = tmp_path / "g.yaml"
    file.write_text("poller: {read_share: half}")
    with pytest.raises(ConfigInvalid) as caught:
        read_settings(file, KEY, {})
    assert caught.value.faults == ("poller.read_share: expected a number, got 'half'",)
    with pytest.raises(ConfigInvalid) as caught:
        read_settings(tmp_path / "none.yaml", KEY, {})
    assert "cannot be read" in caught.value.faults[0]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ([], "exchange.api_key_id: missing"),
        (["--api-key-id", "x"], "exchange.private_key_file: missing"),
        (["--environment", "simulator", "--api-key-id", "x", "--private-key-file", "y"], "the simulator has no address"),
        (["--api-key-id", "x", "--private-key-file", "y", "--rest-url", "http://h"], "must begin with https://"),
    ],
)  # fmt: skip
def test_not_knowing_whom_to_ask_is_wrong_usage(
    words: list[str],
    complaint: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """Status 2, what is missing, and the words that give it; nothing is asked."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("KALSHI_DATA_CONFIG", raising=False)
    assert main(words) == 2
    complaints = capsys.readouterr().err
    assert complaint in complaints
    assert "--private-key-file" in complaints


@pytest.mark.parametrize("words", [["--timeout", "0"], ["--timeout", "x"], ["--environment", "moon"]])  # fmt: skip
def test_wrong_words_are_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """As argparse does."""
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 2
    assert words[0] in capsys.readouterr().err
