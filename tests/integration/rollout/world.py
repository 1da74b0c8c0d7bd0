"""Programs named helm and kubectl on PATH that answer from a file of state and write down what they were asked."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

PROGRAM = Path(__file__).with_name("program")
"""What both programs are: a script without a suffix, which starts in a hundredth of a second."""
INSTALLED = {"revision": 4, "status": "deployed", "description": "Install complete"}


class World:
    """The state the programs answer from, and what they were asked."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.change(history=[INSTALLED], zones=["a", "b"], looks={})

    def change(self, **values: Any) -> None:
        """Set parts of the state."""
        self._path.write_text(json.dumps({**self.state, **values}), encoding="utf-8")

    @property
    def _path(self) -> Path:
        return self._folder / "state.json"

    @property
    def state(self) -> dict[str, Any]:
        """What the programs left."""
        return json.loads(self._path.read_text()) if self._path.exists() else {}

    def calls(self) -> list[list[str]]:
        """Every call, and forget them."""
        path = self._folder / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return [json.loads(line) for line in lines]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """Two programs on PATH, a release of two zones, a chart, a file of values."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("helm", "kubectl"):
        program = programs / name
        program.write_text(f"#!{sys.executable} -SE\n" + PROGRAM.read_text(encoding="utf-8"))
        program.chmod(0o755)
    (tmp_path / "chart").mkdir()
    (tmp_path / "mine.yaml").write_text("image: {tag: new}\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_FOLDER", str(tmp_path))
    return World(tmp_path)
