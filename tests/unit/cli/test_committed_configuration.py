"""The committed files are what a user starts from: each must load for each of its services, and say all its keys right."""

import dataclasses
import importlib.util
import re
from pathlib import Path

import pytest

from libs.runtime.settings import describe, load_settings
from services.cli.catalogue import SERVICES, settings_class
from services.doctor.cluster.settings import CheckedZone, ClusterSettings, DoctorFile

ROOT = Path(__file__).parents[3]
CONFIG = ROOT / "config"
CASES = [
    (service, f"{entry.file}{kind}.yaml")
    for service, entry in SERVICES.items()
    for kind in ("", ".local")
]


@pytest.mark.parametrize(("service", "name"), CASES)
def test_each_file_loads_for_each_of_its_services(service: str, name: str, tmp_path: Path) -> None:
    """With only the variables it asks for set; and all keys of the service's own section are written in it."""
    if importlib.util.find_spec(f"services.{service}.settings") is None:
        pytest.skip(f"services.{service} has no settings yet")
    secret = tmp_path / "secret"
    secret.write_text("s")
    path = CONFIG / name
    needed = set(re.findall(r"\$\{([A-Z_]+)\}", path.read_text()))
    files = set(re.findall(r"password_file: \$\{([A-Z_]+)", path.read_text()))
    environ = dict.fromkeys(needed, "x") | dict.fromkeys(files, str(secret))
    cls = settings_class(service)
    loaded = load_settings(cls, path, environ, foreign=SERVICES[service].sections)
    assert {key for key, _, _ in describe(loaded)} <= loaded.sources.keys()
    assert service in {field.name for field in dataclasses.fields(cls)}


@pytest.mark.parametrize("name", sorted(path.name for path in CONFIG.glob("*.yaml")))
def test_every_file_belongs_to_a_service(name: str) -> None:
    """No file lies there that nothing reads."""
    assert name in {"doctor.yaml", *(case[1] for case in CASES)}


def test_the_doctors_file_loads() -> None:
    """Also where no Secret is mounted; every key of a zone and of the release is written in it."""
    loaded = load_settings(DoctorFile, CONFIG / "doctor.yaml", {"PRODUCTION_HOST": "x"})
    (zone,) = loaded.value.cluster.zones
    assert (zone.topology_zone, zone.store.secret_file.split("/")[-1]) == ("us-east-1a", "password")
    written = (CONFIG / "doctor.yaml").read_text()
    keys = {
        field.name for cls in (ClusterSettings, CheckedZone) for field in dataclasses.fields(cls)
    }
    assert {key for key in keys if f"{key}:" not in written} == set()


def test_the_local_gatherer_is_small(tmp_path: Path) -> None:
    """The figures a laptop is promised: slots 8/1/1/1, 50 markets every 5 minutes."""
    text = (CONFIG / "gatherer.local.yaml").read_text()
    assert "slots: {orderbook: 8, ticker: 1, trade: 1, lifecycle: 1" in text
    assert "period_s: 300" in text
    assert "markets_max: 50" in text


def test_the_example_of_dotenv_is_understood(tmp_path: Path) -> None:
    """Every variable in it with our prefix is a setting, every other one is a reference of a local file."""
    names = re.findall(r"^#?([A-Z_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE)
    references = set()
    for path in CONFIG.glob("*.local.yaml"):
        references |= set(re.findall(r"\$\{([A-Z_]+)", path.read_text()))
    assert names
    assert {name for name in names if not name.startswith("KALSHI_DATA_")} <= references
    assert [n for n in names if n.startswith("KALSHI_DATA_")] == ["KALSHI_DATA_LOG__LEVEL"]
