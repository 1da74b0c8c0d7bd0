"""Settings of the archiver."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Final

from libs.marketdata.tables import GATHERER_TABLES
from libs.marketdata.units import DAY, HOUR, SECOND
from libs.runtime.convert import Between
from libs.runtime.secret import Secret
from libs.runtime.sections import (
    HealthSettings,
    LogSettings,
    MetricsSettings,
    Seconds,
    StoreSettings,
)
from libs.store import windows

DAY_S: Final = DAY // SECOND
HOUR_S: Final = HOUR // SECOND
DAILY_TABLES: Final = frozenset({"market_versions"})
"""Tables with so few rows that an object holds a day."""


@dataclass(frozen=True)
class S3Settings:
    """How to reach S3 when the root is s3://; with nothing set, the machine's own identity and region are used."""

    endpoint_url: str = ""
    """URL of an S3 server that is not Amazon's (versitygw, moto); empty: Amazon's."""
    region: str = ""
    """Region of the bucket; empty: the environment's."""
    access_key_id: Secret = Secret("")
    """Access key; empty: the machine's identity (pod identity, instance role), which is the better way on EKS. As
    `access_key_id_file`, and the secret likewise, it is read again whenever the store is used."""
    secret_access_key: Secret = Secret("")
    """Secret of the access key."""


@dataclass(frozen=True)
class ArchiverSettings:
    """The section `archiver:`."""

    root: str
    """Where objects go: s3://bucket/prefix, or a folder's path. No default: an archive must be chosen."""
    window_s: Seconds = 3600.0
    """Width of a window, whole seconds that divide a day: one object per table and window. An hour keeps objects in the
    tens of megabytes. Of market_versions, which are few, a window is a UTC day whatever is set here. A UTC day whose first window was of another width keeps that one, for late rows too, so that
    windows never overlap and no row is archived twice: a change takes effect with the next day."""
    close_after_s: Seconds = 900.0
    """A window closes at the latest this long after its end, seconds, even when a gatherer is away. What comes later
    becomes a supplement, and a window gets at most one of those in this time; only a stop exports at once."""
    export_s_max: Annotated[float, Between(1, 86_400)] = windows.EXPORT_S_MAX
    """Seconds that reading one window out of production may take, in place of production's statement_timeout_s. An hour
    of the largest table is sorted and read in minutes."""
    poll_s: Seconds = 10.0
    """Pause between two looks for windows to export, seconds."""
    tables: tuple[str, ...] = tuple(GATHERER_TABLES)
    """Tables to archive: all of them by default, since claims and gaps prove what the facts are worth."""
    retention_s: Annotated[float, Between(0, 31_536_000)] = 604_800.0
    """Age at which production's partitions may go, seconds from their end, at least a day, and only when manifests account
    for every row; 0: they never go. 7 days fit 500 GB: 2,200 deltas a second are 190 million rows a day, at 210 to 260
    bytes with the key's index 40 to 50 GB, so 8 days at most (7 and the one being filled) are 320 to 400 GB; the rest is
    for the other tables, the WAL and what is opened again. Later rows wait until their range is opened again."""
    retention_poll_s: Seconds = 3600.0
    """Pause between two looks for partitions that may go, seconds."""
    reopening_poll_s: Seconds = 5.0
    """Pause between two looks for dropped ranges that late rows need, seconds."""
    reopening_retry_s_max: Seconds = 600.0
    """Longest pause before a range whose object is missing or wrong is tried again, seconds; the first is 10 s."""
    reopened_quiet_s: Seconds = 3600.0
    """A range that was opened again goes once nobody has waited for it or merged into it for so long, seconds, and its
    late rows are archived. An hour: a gatherer that was away brings its rows in one go."""
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
        if self.window_s < 1 or self.window_s % 1 or DAY_S % self.window_s:
            yield f"window_s: must be whole seconds that divide a day, not {self.window_s:g}"
        elif self.retention_s and HOUR_S % self.window_s:
            yield f"retention_s: with it window_s must divide an hour, as partitions do, not {self.window_s:g}"
        if 0 < self.retention_s < DAY_S:
            yield f"retention_s: must be 0 (never) or at least a day ({DAY_S}), not {self.retention_s:g}"


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


@dataclass(frozen=True)
class ArchiveSettings:
    """What looking at an archive needs: production may be lost."""

    archiver: ArchiverSettings
    """The archiver's own section."""


def width_of(own: ArchiverSettings, table: str) -> int:
    """Return the width of a table's windows, microseconds."""
    return DAY if table in DAILY_TABLES else int(own.window_s * SECOND)


def storage_options(s3: S3Settings) -> dict[str, object]:
    """Return s3fs's options for these settings; what is not set is left to the environment."""
    options: dict[str, object] = {}
    if s3.access_key_id.reveal():
        options |= {"key": s3.access_key_id.reveal(), "secret": s3.secret_access_key.reveal()}
    client = {"endpoint_url": s3.endpoint_url, "region_name": s3.region}
    client = {name: value for name, value in client.items() if value}
    # An endpoint that takes connections and stays silent is told of within two minutes; the archiver asks again by itself.
    limits = {"connect_timeout": 5, "read_timeout": 10, "retries": {"total_max_attempts": 2}}
    return options | {"config_kwargs": limits} | ({"client_kwargs": client} if client else {})
