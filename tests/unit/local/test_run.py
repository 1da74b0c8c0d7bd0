"""The limits a run keeps before it starts anything on the exchange."""

from pathlib import Path

import pytest

from libs.runtime.clock import SystemClock
from services.local import run as module
from services.local.run import AlreadyRunning, LocalRun, Options, TooManyConnections, exclusive
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
    run = LocalRun(Options(tmp_path, ("a", "b", "c")), SystemClock())
    monkeypatch.setattr(LocalRun, "_server", lambda self, name: Server(1, "k", Path("pw")))
    with pytest.raises(TooManyConnections, match="shared"):
        run.write_configs(exchange("shared", "shared", "other"))
    run.write_configs(exchange("one", "two", "three"))
    assert sorted(path.name for path in (tmp_path / "config").iterdir()) == [
        "a.yaml", "b.yaml", "c.yaml", "production.yaml",
    ]  # fmt: skip


def test_a_directory_belongs_to_one_run(tmp_path: Path) -> None:
    """The second one is refused while the first holds it, and let in afterwards."""
    with exclusive(tmp_path), pytest.raises(AlreadyRunning, match="in use"), exclusive(tmp_path):
        pass
    with exclusive(tmp_path):
        pass
