"""The configuration files of a run, written from the committed local set: what a process reads can be read by anybody."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

import services
from libs.marketdata.capture import CaptureFilter
from libs.runtime.sections import CaptureSettings, SlotSettings, account_faults, account_shares
from services.local.topology import (
    PRODUCTION,
    Exchange,
    Server,
    gatherer_config,
    merged,
    production_config,
)

TEMPLATES = Path(services.__file__).resolve().parents[1] / "config"


class TooManyConnections(RuntimeError):
    """Run fewer zones, or give every zone a key of another account."""


class ConfigFiles:
    """One folder of them; `paths` names each file by its zone, "production" or "simulator"."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.paths: dict[str, Path] = {}

    def write_gatherers(
        self,
        zones: Mapping[str, Server],
        exchange: Exchange,
        own: Mapping[str, Any] | None = None,
    ) -> None:
        """Write one file a zone, shared by its registry, connectors and poller; `own` goes over the committed settings.

        Raises:
            TooManyConnections: the zones of one account need more than the exchange allows it.
        """
        template = merged(_template("gatherer.local.yaml"), own or {})
        slots = SlotSettings(**template["slots"])
        sharing = [(zone, exchange.api_key_ids[zone], slots) for zone in zones]
        faults = account_faults(sharing)
        if faults:
            raise TooManyConnections("; ".join(faults))
        shares = account_shares(sharing)
        for zone, server in zones.items():
            account = exchange.api_key_ids[zone]
            of_account = sum(name == account for _, name, _ in sharing)
            part = merged(template, _part(template, shares[zone], of_account))
            self._write(zone, gatherer_config(part, zone, server, exchange))

    def write_production(
        self, zones: Mapping[str, Server], production: Server, archive: Path, window_s: float
    ) -> None:
        """Write the file of deduplicator and archiver."""
        template = _template("deduplicator.local.yaml")
        self._write(PRODUCTION, production_config(template, zones, production, archive, window_s))

    def write_simulator(self, own: Mapping[str, Any]) -> Path:
        """Write the simulator's file, with these values in its own section."""
        return self._write(
            "simulator", merged(_template("simulator.local.yaml"), {"simulator": own})
        )

    def _write(self, name: str, config: Mapping[str, Any]) -> Path:
        self._folder.mkdir(exist_ok=True)
        path = self.paths[name] = self._folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(dict(config), sort_keys=False))
        return path


def _part(template: Mapping[str, Any], connections: int, zones: int) -> dict[str, Any]:
    """Return what of its account a zone has: connections, and where others use it, too, as much of the reads as each."""
    part: dict[str, Any] = {"slots": {"connections_max": connections}}
    for section in ("registry", "poller"):
        share = template.get(section, {}).get("read_share")
        if zones > 1 and share is not None:
            part[section] = {"read_share": round(share / zones, 4)}
    return part


def capture_filter() -> CaptureFilter:
    """Return which markets the zones of a run capture."""
    chosen: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in _template("gatherer.local.yaml").get("capture", {}).items()
    }
    return CaptureSettings(**chosen).capture_filter()


def _template(name: str) -> dict[str, Any]:
    loaded = yaml.safe_load((TEMPLATES / name).read_text())
    assert isinstance(loaded, dict), name
    return loaded
