"""The limits a run keeps before it starts anything on the exchange."""

from pathlib import Path

import pytest
import yaml

from services.local import config_files as module
from services.local.config_files import ConfigFiles, TooManyConnections
from services.local.state_dir import AlreadyRunning, exclusive
from services.local.topology import Exchange, Server


def exchange(*keys: str) -> Exchange:
    return Exchange("prod", "", "", dict(zip("abc", keys, strict=True)), Path("k.pem"))


def test_zones_of_one_account_fit_its_connections_or_nothing_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three zones with one key count together; the error names the account."""
    template = {
        "slots": {"orderbook": 60, "ticker": 1, "trade": 1, "lifecycle": 1, "connections_max": 100}
    }
    monkeypatch.setattr(module, "_template", lambda name: template if "gatherer" in name else {})
    files = ConfigFiles(tmp_path / "config")
    zones = dict.fromkeys("abc", Server(1, "k", Path("pw")))
    with pytest.raises(TooManyConnections, match="shared"):
        files.write_gatherers(zones, exchange("shared", "shared", "other"))
    assert files.paths == {}
    files.write_gatherers(zones, exchange("one", "two", "three"))
    files.write_production(zones, zones["a"], tmp_path, 10.0)
    assert sorted(path.name for path in (tmp_path / "config").iterdir()) == [
        "a.yaml", "b.yaml", "c.yaml", "production.yaml",
    ]  # fmt: skip


def test_zones_of_one_account_divide_it(tmp_path: Path) -> None:
    """Its connections and its reads: together they use no more than one zone with an account of its own may."""
    zones = dict.fromkeys("abc", Server(1, "k", Path("pw")))
    files = ConfigFiles(tmp_path)
    files.write_gatherers(zones, exchange("shared", "shared", "other"))
    read = {zone: yaml.safe_load(files.paths[zone].read_text()) for zone in zones}
    assert [read[zone]["slots"]["connections_max"] for zone in "abc"] == [25, 25, 50]
    assert [read[zone]["registry"]["read_share"] for zone in "abc"] == [0.2, 0.2, 0.4]
    assert [read[zone]["poller"]["read_share"] for zone in "abc"] == [0.25, 0.25, 0.5]


def test_settings_of_a_run_go_over_the_committed_ones(tmp_path: Path) -> None:
    """Also where they decide whether the zone fits its account."""
    files = ConfigFiles(tmp_path)
    own = {"slots": {"orderbook": 3}, "connector": {"spool": {"rows_high": 60}}}
    files.write_gatherers({"a": Server(1, "k", Path("pw"))}, exchange("one", "two", "three"), own)
    written = yaml.safe_load(files.paths["a"].read_text())
    assert written["slots"]["orderbook"] == 3 and written["slots"]["ticker"] == 1
    assert written["connector"]["spool"]["rows_high"] == 60
    crowded = {"slots": {"orderbook": 300, "connections_max": 200}}
    with pytest.raises(TooManyConnections):
        files.write_gatherers(
            {"a": Server(1, "k", Path("pw"))}, exchange("one", "two", "three"), crowded
        )


def test_a_directory_belongs_to_one_run(tmp_path: Path) -> None:
    """The second one is refused while the first holds it, and let in afterwards."""
    with exclusive(tmp_path), pytest.raises(AlreadyRunning, match="in use"), exclusive(tmp_path):
        pass
    with exclusive(tmp_path):
        pass
