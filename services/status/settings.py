"""What `status` reads: a zone's file (gatherer.yaml) or the deduplicator's; the file itself tells which of them it is."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from libs.runtime.layers import RANK_ENVIRONMENT, Layers, put_environment, put_file, read_dotenv
from libs.runtime.sections import (
    DEDUPLICATOR_FILE,
    GATHERER_FILE,
    GathererSource,
    HealthSettings,
    SlotSettings,
    StoreSettings,
)
from libs.runtime.settings import load_settings


@dataclass(frozen=True)
class ZoneFile:
    """The part of a zone's gatherer.yaml that `status` reads."""

    zone: str
    """The zone's name."""
    store: StoreSettings
    """The zone's database, as whichever role the file names; every role but the planner's may read what is asked."""
    slots: SlotSettings = field(default_factory=SlotSettings)
    """The zone's slots: what is to be live."""
    health: HealthSettings = HealthSettings()
    """Where the process beside us (the same pod's) answers, which knows what no database does: its spool."""


@dataclass(frozen=True)
class CentralFile:
    """The part of the deduplicator's file that `status` reads: the one file that names every database."""

    gatherers: tuple[GathererSource, ...]
    """The zones."""
    production: StoreSettings
    """The production database."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What was read."""

    file: ZoneFile | CentralFile
    """The settings, of the one kind or the other."""
    storage_bytes_max: int
    """Of a zone: above it its connectors hold back, bytes; 0: no limit, or not known here."""
    layers: Layers
    """Everything the file and the environment set, by dotted path."""


def read_settings(config: Path | None, environ: Mapping[str, str] | None = None) -> Asked:
    """Read the file as what it is.

    Raises:
        ConfigInvalid: with all faults.
    """
    if environ is None:
        environ = {**read_dotenv(Path(".env")), **os.environ}
    layers = Layers()
    # Faults are found again, and told, by the reading that is meant.
    unreadable = config is not None and any(put_file(layers, config, environ, frozenset()))
    of_file = layers if layers.paths() else None
    put_environment(layers, environ, kind="environment", rank=RANK_ENVIRONMENT)
    is_zone = (
        not unreadable
        and not any(map((of_file or layers).any_below, _CENTRAL))
        and (layers.any_below("store"))
    )
    file: ZoneFile | CentralFile
    if is_zone:
        file = load_settings(ZoneFile, config, environ, foreign=GATHERER_FILE).value
    else:
        file = load_settings(CentralFile, config, environ, foreign=DEDUPLICATOR_FILE).value
    return Asked(file, _whole(layers.get("connector.storage_bytes_max")), layers)


_CENTRAL = ("gatherers", "production")
"""Sections that only the deduplicator's file has."""


def _whole(text: str | None) -> int:
    """Read a number that belongs to the connector's settings, who checks it."""
    return int(text) if text is not None and text.strip().isdecimal() else 0
