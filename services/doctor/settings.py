"""What the doctor reads: a gatherer's configuration file, overridden by the words of the command line."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from libs.runtime.convert import from_text
from libs.runtime.errors import ConfigInvalid
from libs.runtime.layers import (
    RANK_ENVIRONMENT,
    Layers,
    put_environment,
    put_file,
    read_dotenv,
    variable_of,
)
from libs.runtime.sections import GATHERER_FILE, ExchangeSettings, SlotSettings
from libs.runtime.settings import load_settings


@dataclass(frozen=True)
class DoctorSettings:
    """The sections of config/gatherer.yaml that decide what the exchange is asked for."""

    exchange: ExchangeSettings
    """Which exchange, as whom."""
    account: str = "default"
    """The exchange account; a label only."""
    slots: SlotSettings = field(default_factory=SlotSettings)
    """The zone's connection slots: how many connections capturing takes."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Single values of sections that belong to services, whose other settings do not matter here."""

    registry_share: float = 0.4
    """Share (0..1) of the account's reads the registry takes; its own default."""
    poller_share: float = 0.5
    """Share (0..1) of the account's reads the poller takes; its own default."""
    period_s: float = 900.0
    """Seconds the poller has for a round over every open market; its own default."""
    use_yes_price: bool = False
    """Orientation of no prices the connector asks for; its own default."""


_PLANNED = {
    "registry_share": "registry.read_share",
    "poller_share": "poller.read_share",
    "period_s": "poller.period_s",
    "use_yes_price": "connector.use_yes_price",
}


def read_settings(
    config: Path | None, given: Mapping[str, str], environ: Mapping[str, str] | None = None
) -> tuple[DoctorSettings, Plan]:
    """Read both; `given` maps dotted keys of the command line to texts and wins over file and environment.

    Raises:
        ConfigInvalid: with all faults.
    """
    if environ is None:
        environ = {**read_dotenv(Path(".env")), **os.environ}
    environ = {**environ, **{variable_of(key): text for key, text in given.items()}}
    loaded = load_settings(DoctorSettings, config, environ, foreign=GATHERER_FILE)
    return loaded.value, _read_plan(config, environ)


def _read_plan(config: Path | None, environ: Mapping[str, str]) -> Plan:
    """Pick the planned values out of sections that are otherwise not looked at; a service checks its own."""
    found = Layers()
    read = {path.partition(".")[0] for path in _PLANNED.values()}
    if config is not None:
        for fault in put_file(found, config, environ, GATHERER_FILE - read):
            raise ConfigInvalid([fault])
    put_environment(found, environ, kind="environment", rank=RANK_ENVIRONMENT)
    values = {}
    for name, path in _PLANNED.items():
        text = None if path in found.broken else found.get(path)
        if text is not None:
            kind = bool if name == "use_yes_price" else float
            try:
                values[name] = from_text(text, kind)
            except ValueError as error:
                raise ConfigInvalid([f"{path}: {error}"]) from error
    return Plan(**values)
