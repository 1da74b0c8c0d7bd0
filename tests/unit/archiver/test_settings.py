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


@pytest.mark.parametrize(
    ("window_s", "retention_s", "fault"),
    [
        (1, 0, ""),
        (10, 86_400, ""),
        (86_400, 0, ""),
        (0.5, 0, "window_s"),
        (1.5, 0, "window_s"),
        (7, 0, "window_s"),
        (172_800, 0, "window_s"),
        (7_200, 604_800, "retention_s"),
        (10, 3_600, "retention_s"),
    ],
)
def test_windows_fill_a_day_and_partitions(window_s: float, retention_s: float, fault: str) -> None:
    """Windows never reach over midnight, nor over a partition's end when partitions are to go; retention is no slip."""
    faults = list(ArchiverSettings("x", window_s=window_s, retention_s=retention_s).check())
    assert [text.partition(":")[0] for text in faults] == ([fault] if fault else [])


def test_production_keeps_a_week_by_default() -> None:
    """What fits 500 GB at 2,200 deltas a second; longer than the 72 hours a gatherer keeps."""
    assert ArchiverSettings("x").retention_s == 7 * 86_400
