import json
import re
from pathlib import Path

from libs.runtime.version import build_info, find_build_info


def test_the_line_has_the_promised_form() -> None:
    """Number, short commit and date, in this checkout or outside of one."""
    form = (
        r"kalshi-data v\d+\.\d+\.\d+ \(([0-9a-f]{7}|unknown)\) built (\d{4}-\d\d-\d\d\S*|unknown)"
    )
    assert re.fullmatch(form, str(build_info()))


def test_an_image_says_it_by_variables(tmp_path: Path) -> None:
    """KALSHI_DATA_BUILD_* win over the file of a wheel; a long commit is shortened."""
    (tmp_path / "build_info.json").write_text(
        json.dumps({"commit": "f" * 40, "date": "2020-01-01"})
    )
    environ = {
        "KALSHI_DATA_BUILD_VERSION": "1.2.3",
        "KALSHI_DATA_BUILD_COMMIT": "abc1234" + "0" * 33,
    }
    info = find_build_info(environ, tmp_path)
    assert str(info) == "kalshi-data v1.2.3 (abc1234) built 2020-01-01"


def test_nothing_known_is_no_error(tmp_path: Path) -> None:
    """Outside a checkout, without variables and with a broken file: unknown."""
    folder = tmp_path / "libs" / "runtime"
    folder.mkdir(parents=True)
    (folder / "build_info.json").write_text("{")
    info = find_build_info({}, folder)
    assert (info.commit, info.date) == ("unknown", "unknown")


def test_a_folder_that_only_looks_like_a_checkout_is_no_error(tmp_path: Path) -> None:
    """An empty .git makes git fail, and that is unknown too."""
    folder = tmp_path / "libs" / "runtime"
    folder.mkdir(parents=True)
    (tmp_path / ".git").mkdir()
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "kalshi-data"\nversion = "9.9.9"\n')
    assert str(find_build_info({}, folder)) == "kalshi-data v9.9.9 (unknown) built unknown"
