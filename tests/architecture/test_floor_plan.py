"""The plan in ARCHITECTURE.md and the plan the machine keeps are the same plan."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

from tests.architecture.house import ROOT, sources, tracked_files

MACHINE_PATHS = re.compile(rb"(?<![A-Za-z0-9_.])/(?:work|root|farm|tmp/kd)(?:/|\b)")
LIBRARIES = ("runtime", "exchange", "store", "archive", "kube", "telemetry", "flow", "marketdata")


def test_imports_go_down_and_through_doors() -> None:
    """import-linter keeps every contract of pyproject.toml."""
    program = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run(
        [program, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


def test_the_libraries_are_those_of_the_plan() -> None:
    """A new room of libs/ gets a storey in the contract, or does not come to be."""
    found = {path.name for path in (ROOT / "libs").iterdir() if (path / "__init__.py").exists()}
    assert found <= set(LIBRARIES)
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"][
        "contracts"
    ]
    layers = [layer.strip("()").removeprefix("libs.") for layer in contracts[0]["layers"]]
    assert layers == ["services", *LIBRARIES]


def test_services_have_the_same_doors() -> None:
    """Every process: what it is, how it starts, what can be set, how it is put together."""
    processes = {
        *("registry", "connector", "poller", "deduplicator", "archiver", "simulator", "operator")
    }
    for name in processes:
        folder = ROOT / "services" / name
        for door in ("__init__.py", "__main__.py", "settings.py", "service.py"):
            assert (folder / door).exists(), f"services/{name}/{door}"


def test_services_is_no_import_root() -> None:
    """No configuration puts services/ itself on sys.path, where services/operator would hide the standard library's."""
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    assert tools["pytest"]["ini_options"]["pythonpath"] == ["."]
    assert tools["setuptools"]["packages"]["find"]["where"] == ["."]
    assert not any("sys.path" in source.text for source in sources())


def test_no_path_of_a_developers_machine_is_committed() -> None:
    """What is tracked works anywhere."""
    here = Path(__file__)
    found = [
        f"{path.relative_to(ROOT)}: {match.group().decode()}"
        for path in tracked_files()
        if path != here
        for match in MACHINE_PATHS.finditer(path.read_bytes())
    ]
    assert found == []


def test_the_lock_is_complete_and_names_no_host() -> None:
    """Every requirement is pinned with hashes; no URL; every direct dependency is in it."""
    text = (ROOT / "requirements.lock").read_text()
    assert "://" not in text
    entries = re.findall(
        r"^([A-Za-z0-9_.-]+)(?:\[[^\]]*\])?==\S+.*\\\n    --hash=sha256:", text, re.MULTILINE
    )
    starts = [line for line in text.splitlines() if line and line[0] not in " #"]
    assert len(entries) == len(starts)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [line for group in project["optional-dependencies"].values() for line in group]
    wanted = {
        re.match(r"[A-Za-z0-9_.-]+", line).group().lower().replace("_", "-")  # type: ignore[union-attr]
        for line in project["dependencies"] + extras
    }
    assert wanted - {"kalshi-data"} <= {name.lower().replace("_", "-") for name in entries}


def test_there_is_an_extra_per_service() -> None:
    """An image installs what its service needs and nothing else."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    services = {
        path.name for path in (ROOT / "services").iterdir() if (path / "__init__.py").exists()
    }
    assert services - {"cli"} <= project["optional-dependencies"].keys()


def test_every_requirement_names_its_floor() -> None:
    """Except our own extras: a minimum that was tried."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [line for group in project["optional-dependencies"].values() for line in group]
    loose = [line for line in project["dependencies"] + extras if ">=" not in line]
    assert all(line.startswith("kalshi-data[") for line in loose), loose
