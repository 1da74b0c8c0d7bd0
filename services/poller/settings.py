"""The poller's settings: the common sections it uses and its own."""

from dataclasses import dataclass, field
from typing import Annotated

from libs.runtime.sections import (
    BatchSettings,
    CaptureSettings,
    Count,
    ExchangeSettings,
    HealthSettings,
    LogSettings,
    MetricsSettings,
    Seconds,
    StoreSettings,
)
from libs.runtime.settings import Between


@dataclass(frozen=True)
class PollerSettings:
    """How often, how many, how fast."""

    period_s: Seconds = 900.0
    """Seconds of one round over every open market. 15 min is what the read budget allows for 100,000 markets."""
    markets_max: Annotated[int, Between(0, 10_000_000)] = 0
    """Most markets a round, the busiest first. 0 (default): all open ones; a laptop takes 50."""
    concurrency: Count = 4
    """Requests at once. 4 hide the latency; the read budget bounds the rate."""
    read_share: Annotated[float, Between(0.01, 1.0)] = 0.5
    """Share (0..1) of the account's reads. 0.5, the registry's 0.4 and a spare tenth make one account."""
    full_s: Seconds = 86_400.0
    """Seconds after which an unchanged book is written with its ladders again. A day, so that no reader looks further."""
    lease_s: Seconds = 6.0
    """Seconds the poller's lease lasts; renewed every third of it. 6 s, as for shards."""
    repair_s: Seconds = 5.0
    """Seconds between looks for new gaps of the trade channel. 5 s: the tape itself is 15 s behind."""
    repair_delay_s: Seconds = 20.0
    """Seconds after a gap was recorded until the tape is read. 20 s, because the exchange's cache holds 15 s."""
    repair_silence_s: Seconds = 60.0
    """Seconds without a claim on the trade channel until the tape is read for it. 60 s: the whole tape is never silent
    that long while trading goes on; with every connector dead it is read once in that time."""
    repair_age_s_max: Seconds = 259_200.0
    """Oldest trade that is still read from the tape, seconds. 3 days: as long as a gatherer keeps its rows."""
    check_sample: Annotated[int, Between(0, 1_000_000)] = 1_000
    """Markets a round whose book is compared with what we stored; more where a day's rounds could not reach all.
    1,000 are every market of 90,000 within a day. 0: none."""
    check_stale_s: Seconds = 15.0
    """How old a REST book may be, seconds. 15 s: the exchange's cache."""
    check_skew_s: Seconds = 1.0
    """How far our clock and the exchange's may be apart, seconds. 1 s, as the margin of listening assumes."""
    check_delay_s: Seconds = 30.0
    """Seconds from an answer until it is compared. 30 s: by then silent connections were probed and rows committed."""
    check_lookback_s: Seconds = 1_200.0
    """How old a book of the socket may be to be rebuilt from, seconds. 20 min: the round before is a base otherwise."""
    check_deltas_max: Count = 20_000
    """Deltas of one market that are read for a comparison; a busier one counts as unknown. 20,000 are 20 a second."""


@dataclass(frozen=True)
class Settings:
    """Everything the poller reads of config/gatherer.yaml."""

    zone: str
    """The zone's name; a label only."""
    exchange: ExchangeSettings
    """Which exchange, as whom, how gently."""
    store: StoreSettings
    """The zone's own database."""
    account: str = "default"
    """The exchange account whose limits this zone shares."""
    health: HealthSettings = field(default_factory=HealthSettings)
    """Where /livez, /readyz and /health answer."""
    metrics: MetricsSettings = field(default_factory=MetricsSettings)
    """Where /metrics answers."""
    log: LogSettings = field(default_factory=LogSettings)
    """Form and level of log lines."""
    batches: BatchSettings = field(default_factory=BatchSettings)
    """When rows become a transaction; here the snapshots' and trades' numbers of rows."""
    capture: CaptureSettings = field(default_factory=CaptureSettings)
    """Which markets are captured; repaired trades are of these alone."""
    poller: PollerSettings = field(default_factory=PollerSettings)
    """The poller's own section."""
