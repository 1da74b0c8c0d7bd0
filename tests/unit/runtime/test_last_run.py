"""Which run's configuration a command takes when nobody names one."""

import os
from pathlib import Path

import pytest

from libs.runtime.last_run import FILES, last_run_config


def test_the_run_that_began_last_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A demo after a local run, or the other way round; none without any."""
    monkeypatch.chdir(tmp_path)
    assert last_run_config() is None
    for number, path in enumerate(FILES):
        path.parent.mkdir(parents=True)
        path.touch()
        os.utime(path, (number, number))
    assert last_run_config() == FILES[1]
    os.utime(FILES[0], (9, 9))
    assert last_run_config() == FILES[0]
