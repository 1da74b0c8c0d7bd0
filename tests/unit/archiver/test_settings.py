from pathlib import Path

import pytest

from libs.runtime.settings import ConfigInvalid, load_settings
from services.archiver.settings import ArchiverSettings


def test_every_fault_of_the_section_is_told(tmp_path: Path) -> None:
    """Durations are bounded."""
    path = tmp_path / "c.yaml"
    path.write_text("root: x\nwindow_s: 0\nlease_s: -1\npoll_s: soon\n")
    with pytest.raises(ConfigInvalid) as caught:
        load_settings(ArchiverSettings, path, {})
    assert {fault.partition(":")[0] for fault in caught.value.faults} == {
        "window_s",
        "lease_s",
        "poll_s",
    }


def test_tables_and_root_are_checked() -> None:
    """Before anything is opened: a wrong table's name, no root."""
    assert list(ArchiverSettings("x").check()) == []
    faults = list(ArchiverSettings("", tables=("trades", "trade")).check())
    assert faults == ["root: must not be empty", "tables: there is no table trade"]
