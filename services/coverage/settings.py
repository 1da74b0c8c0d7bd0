"""What `gaps` and `coverage` read: where production is."""

from dataclasses import dataclass

from libs.runtime.sections import StoreSettings


@dataclass(frozen=True)
class Settings:
    """The section of config/deduplicator.yaml that is of use here."""

    production: StoreSettings
    """The production database; a user that may read is enough."""
