"""What an upgrade begins with."""

from pathlib import Path

import pytest
import yaml

from tests.cluster.previous import copy_as_next, next_version, read_previous


def test_before_the_first_release_it_is_this_one_and_says_so(tmp_path: Path) -> None:
    """No commit, no chart: the current chart under the next version."""
    found = read_previous()
    assert (found.released, "nothing was released yet" in found.said) == (False, True)
    next_chart = copy_as_next(found.chart, tmp_path / "next")
    versions = [
        yaml.safe_load((p / "Chart.yaml").read_text())["version"] for p in (found.chart, next_chart)
    ]
    assert versions[1] == next_version(versions[0])
    assert (next_chart / "values.schema.json").is_file()


def test_a_release_without_its_chart_is_refused(tmp_path: Path) -> None:
    """Rather than that the upgrade begins with the wrong one."""
    told = {"version": "1.2.3", "commit": "abcdef", "image": "r/kalshi-data:1.2.3"}
    (tmp_path / "previous.yaml").write_text(yaml.safe_dump(told))
    with pytest.raises(ValueError, match=r"1\.2\.3"):
        read_previous(tmp_path)
    (tmp_path / "chart").mkdir()
    (tmp_path / "chart/Chart.yaml").write_text("version: 1.2.3\n")
    found = read_previous(tmp_path)
    assert (found.said, found.image, found.values) == (
        "from 1.2.3 (abcdef)",
        "r/kalshi-data:1.2.3",
        {},
    )
    (tmp_path / "values.yaml").write_text("zoneDefaults: {shardsWere: 2}\n")
    assert read_previous(tmp_path).values == {"zoneDefaults": {"shardsWere": 2}}
