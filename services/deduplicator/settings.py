"""Settings of the deduplicator."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

from libs.runtime.sections import (
    Count,
    GathererSource,
    HealthSettings,
    LogSettings,
    MetricsSettings,
    Milliseconds,
    Seconds,
    StoreSettings,
)
from libs.runtime.settings import Between


@dataclass(frozen=True)
class DeduplicatorSettings:
    """The section `deduplicator:`."""

    poll_ms: Milliseconds = 100
    """Longest pause between two looks into a gatherer's ledger, milliseconds. A wake-up ends it earlier."""
    poll_ms_min: Milliseconds = 20
    """Shortest pause after a page that was not full, milliseconds: wake-ups come in bursts, pages should not."""
    page_rows: Count = 5000
    """Rows of a page, whole batches, at least one. 5000 keeps a page's memory and time small on a shared core."""
    pages_ahead: Count = 4
    """Pages a reader may have read that are not merged yet. 4 keep the writer busy and the memory bounded."""
    transaction_rows: Count = 50_000
    """Rows that arrive in one transaction at most, beyond its first page. Larger ones save little and lock longer."""
    horizon_s: Seconds = 600.0
    """How long identities are remembered, seconds of exchange time. Copies of a fact come within seconds; 10 min spare
    the key a look-up even for a zone that was away for a while."""
    identities_max: Count = 3_000_000
    """Identities remembered per table. 3 million are 20 min at 2,200 deltas a second and about 1 GB."""
    agreement_sample: Annotated[int, Between(0, 1_000_000)] = 16
    """Every n-th market's streams are compared with each other; 1 compares all, 0 none. 16 costs 2 % of a core."""
    lease_s: Seconds = 10.0
    """Seconds the writer's lease lasts without a transaction: how long a second deduplicator waits for a dead one."""
    transaction_s_max: Seconds = 60.0
    """Seconds after which a transaction is given up; whether it was committed is then found out anew."""
    read_s_max: Seconds = 30.0
    """Seconds after which a gatherer that does not answer a page counts as away."""
    backoff_s_min: Seconds = 0.2
    """Seconds before the first attempt to reach a database again; doubled each time."""
    backoff_s_max: Seconds = 5.0
    """Longest pause between two attempts, seconds: data waits for us, nothing is lost by asking every 5 s."""
    ack_s: Seconds = 1.0
    """Seconds between two acknowledgements to a gatherer."""
    cursor_copy_s: Seconds = 3600.0
    """Seconds between two copies of all cursors, from which releases are taken."""
    release_after_s: Seconds = 259_200.0
    """Age at which a copy's batches are released for retention, seconds. 72 h: longer than production's restore point
    may be old."""
    housekeeping_s: Seconds = 60.0
    """Seconds between two looks at partitions, cursor copies and releases."""
    grace_s: Seconds = 20.0
    """Seconds a stop may take to merge what reachable gatherers still hold. Below Kubernetes' 30 s."""

    def check(self) -> Iterator[str]:
        """What spans fields."""
        if self.backoff_s_min > self.backoff_s_max:
            yield "backoff_s_min: must not be above backoff_s_max"
        if self.cursor_copy_s > self.release_after_s:
            yield "cursor_copy_s: must not be above release_after_s, or nothing would ever be released"


@dataclass(frozen=True)
class Settings:
    """What the deduplicator reads from config/deduplicator.yaml."""

    gatherers: tuple[GathererSource, ...]
    """The zones; one that is away does not stop the others."""
    production: StoreSettings
    """The production database's writer endpoint, never a replica."""
    deduplicator: DeduplicatorSettings = DeduplicatorSettings()
    """The deduplicator's own section."""
    health: HealthSettings = HealthSettings()
    """Probes."""
    metrics: MetricsSettings = MetricsSettings()
    """Metrics."""
    log: LogSettings = LogSettings()
    """Logging."""

    def check(self) -> Iterator[str]:
        """What spans fields."""
        zones = [source.zone for source in self.gatherers]
        if not zones:
            yield "gatherers: missing; name at least one zone"
        for zone in sorted({zone for zone in zones if zones.count(zone) > 1}):
            yield f"gatherers: zone {zone} is named twice"
