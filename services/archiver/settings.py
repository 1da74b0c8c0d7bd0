"""Settings of the archiver."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from libs.marketdata.tables import GATHERER_TABLES
from libs.runtime.secret import Secret
from libs.runtime.sections import (
    HealthSettings,
    LogSettings,
    MetricsSettings,
    Seconds,
    StoreSettings,
)


@dataclass(frozen=True)
class S3Settings:
    """How to reach S3 when the root is s3://; with nothing set, the machine's own identity and region are used."""

    endpoint_url: str = ""
    """URL of an S3 server that is not Amazon's (versitygw, moto); empty: Amazon's."""
    region: str = ""
    """Region of the bucket; empty: the environment's."""
    access_key_id: Secret = Secret("")
    """Access key; empty: the machine's identity (pod identity, instance role), which is the better way on EKS."""
    secret_access_key: Secret = Secret("")
    """Secret of the access key."""


@dataclass(frozen=True)
class ArchiverSettings:
    """The section `archiver:`."""

    root: str
    """Where objects go: s3://bucket/prefix, or a folder's path. No default: an archive must be chosen."""
    window_s: Seconds = 3600.0
    """Width of a window, seconds: one object per table and window. An hour keeps objects in the tens of megabytes."""
    close_after_s: Seconds = 900.0
    """A window closes at the latest this long after its end, seconds, even when a gatherer is away; what comes later
    becomes a supplement."""
    poll_s: Seconds = 10.0
    """Pause between two looks for windows to export, seconds."""
    tables: tuple[str, ...] = tuple(GATHERER_TABLES)
    """Tables to archive: all of them by default, since claims and gaps prove what the facts are worth."""
    retention_s: Seconds = 604_800.0
    """Age at which production's partitions may go, seconds, and only when manifests account for every row. 7 days:
    2,200 deltas a second are about 40 GB a day with the key's index, so that 500 GB hold them with room to spare."""
    retention_poll_s: Seconds = 3600.0
    """Pause between two looks for partitions that may go, seconds."""
    lease_s: Seconds = 15.0
    """Lease of the one archiver, seconds; another one takes over after it."""
    work_dir: str = ""
    """Folder for files being made; empty: the system's temporary folder. One window of the largest table must fit."""
    s3: S3Settings = field(default_factory=S3Settings)
    """How to reach S3."""

    def check(self) -> Iterator[str]:
        """What no type says."""
        if not self.root:
            yield "root: must not be empty"
        for name in self.tables:
            if name not in GATHERER_TABLES:
                yield f"tables: there is no table {name}"


@dataclass(frozen=True)
class Settings:
    """What the archiver reads from config/deduplicator.yaml."""

    archiver: ArchiverSettings
    """The archiver's own section."""
    production: StoreSettings
    """The production database."""
    health: HealthSettings = HealthSettings()
    """Probes."""
    metrics: MetricsSettings = MetricsSettings()
    """Metrics."""
    log: LogSettings = LogSettings()
    """Logging."""


def storage_options(s3: S3Settings) -> dict[str, object]:
    """Return s3fs's options for these settings; what is not set is left to the environment."""
    options: dict[str, object] = {}
    if s3.access_key_id.reveal():
        options |= {"key": s3.access_key_id.reveal(), "secret": s3.secret_access_key.reveal()}
    client = {"endpoint_url": s3.endpoint_url, "region_name": s3.region}
    client = {name: value for name, value in client.items() if value}
    return options | ({"client_kwargs": client} if client else {})
