"""What a migration needs of the two configuration files: where the database is, and a gatherer's zone."""

from dataclasses import dataclass, field

from libs.runtime.sections import LogSettings, StoreSettings


@dataclass(frozen=True)
class GathererSettings:
    """The part of gatherer.yaml that a migration reads."""

    zone: str
    """The zone's label, written with the database's identity when it has none."""
    store: StoreSettings
    """The zone's database; the user must be kd_owner or a superuser, with --roles one that may create roles."""
    log: LogSettings = field(default_factory=LogSettings)
    """How lines are written."""


@dataclass(frozen=True)
class ProductionSettings:
    """The part of deduplicator.yaml that a migration reads."""

    production: StoreSettings
    """The production database; the user must be kd_owner or one that may create roles."""
    log: LogSettings = field(default_factory=LogSettings)
    """How lines are written."""
