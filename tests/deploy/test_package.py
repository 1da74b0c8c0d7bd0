"""The package as pip builds it: it runs where there is no checkout."""

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from tests.deploy.locks import ROOT

BUILD = """
import sys
from setuptools import build_meta
print(build_meta.build_wheel(sys.argv[1]))
"""
"""What pip asks of the build backend, without an environment of its own that would have to be downloaded."""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel of a copy of what git would carry of the packages, so that the checkout stays clean."""
    folder = tmp_path_factory.mktemp("package")
    source, built = folder / "source", folder / "built"
    for path in [ROOT / "pyproject.toml", ROOT / "README.md", *_ours()]:
        copy = source / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    built.mkdir()
    subprocess.run(
        [sys.executable, "-c", BUILD, built], cwd=source, check=True, capture_output=True
    )
    return zipfile.ZipFile(next(built.glob("*.whl")))


def test_the_package_holds_every_module_and_every_file_beside_one(wheel: zipfile.ZipFile) -> None:
    """SQL of the migrations, the simulator's page, what `local` makes its files of: all of it is installed with the code."""
    there = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert there == {path.relative_to(ROOT).as_posix() for path in _ours()}
    for wanted in (
        "config/simulator.local.yaml",
        "migrations/roles.sql",
        "services/simulator/control.html",
    ):
        assert wanted in there


def test_the_package_installs_the_command(wheel: zipfile.ZipFile) -> None:
    """`kalshi-data` is a console script of the distribution, under the project's version."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    scripts = next(name for name in wheel.namelist() if name.endswith("entry_points.txt"))
    assert scripts == f"kalshi_data-{project['version']}.dist-info/entry_points.txt"
    text = wheel.read(scripts).decode()
    assert f"kalshi-data = {project['scripts']['kalshi-data']}" in text


def _ours() -> list[Path]:
    """Files of the packages, what Python makes of them left out."""
    return [
        path
        for room in ("config", "libs", "migrations", "services")
        for path in sorted((ROOT / room).rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    ]
