"""The registry's settings: the common sections it uses and its own."""

from dataclasses import dataclass, field
from typing import Annotated

from libs.runtime.sections import (
    CaptureSettings,
    ExchangeSettings,
    HealthSettings,
    LogSettings,
    MetricsSettings,
    Milliseconds,
    Seconds,
    SlotSettings,
    StoreSettings,
)
from libs.runtime.settings import Between


@dataclass(frozen=True)
class RegistrySettings:
    """How often the registry looks, and how far ahead."""

    full_sync_s: Seconds = 3600.0
    """Seconds between two listings of the whole catalogue. 1 h: it only finds what incremental listings missed."""
    incremental_s: Seconds = 30.0
    """Seconds between two listings of what changed. 30 s: new markets are announced by message, this is the net."""
    overlap_s: Seconds = 120.0
    """Seconds that an incremental listing reaches behind the last. 120 s covers the exchange's cache and clock skew."""
    lifecycle_poll_ms: Milliseconds = 200
    """Milliseconds between looks for lifecycle rows when no wake-up comes. 200 ms keeps a new market below 2 s."""
    status_s: Seconds = 15.0
    """Seconds between two readings of the exchange's status, each a row. 15 s is as old as its cache."""
    schedule_s: Seconds = 600.0
    """Seconds between two readings of the exchange's schedule, each a row. 10 min: it is announced days ahead."""
    read_share: Annotated[float, Between(0.01, 1.0)] = 0.4
    """Share (0..1) of the account's reads. 0.4, the poller's 0.5 and a spare tenth make one account."""
    open_ahead_s: Seconds = 3600.0
    """Seconds before its scheduled opening that a market is subscribed. 1 h, so that an early opening is heard."""
    cache_s: Seconds = 16.0
    """Seconds after a change until REST surely shows it. The exchange's cache holds answers for 15 s."""
    lease_s: Seconds = 6.0
    """Seconds the registry's lease lasts; renewed every third of it. 6 s, as for shards."""
    move_settle_s: Seconds = 45.0
    """Seconds that a market whose slot has changed is heard in both. 45 s: the old slot's claim must reach past the new
    one's begin, and a silent connection is probed every 5 s, a late one given up at 10 s."""
    housekeeping_s: Seconds = 30.0
    """Seconds between two rounds of housekeeping: partitions ahead, lanes of the dead. 30 s, since nothing waits for it."""
    drop_s: Seconds = 3600.0
    """Seconds between two looks for partitions that may go: those of which every batch is released. 1 h, a chunk's width."""
    pack_s: Seconds = 900.0
    """Seconds between looks for old chunks to turn into columns (TimescaleDB). 15 min: nothing waits for it."""
    pack_after_s: Seconds = 3_600.0
    """Seconds after its end that a chunk stays rows at least. 1 h: what is a little late comes before."""
    ledger_keep_s: Seconds = 604_800.0
    """Seconds that ledger rows outlive their facts, and lanes their end. 7 d: a reader that was away finds its place."""


@dataclass(frozen=True)
class Settings:
    """Everything the registry reads of config/gatherer.yaml."""

    zone: str
    """The zone's name; a label only."""
    exchange: ExchangeSettings
    """Which exchange, as whom, how gently."""
    store: StoreSettings
    """The zone's own database."""
    account: str = "default"
    """The exchange account whose limits this zone shares."""
    health: HealthSettings = field(default_factory=HealthSettings)
    """Where /livez, /readyz, /health and /debug/markets answer."""
    metrics: MetricsSettings = field(default_factory=MetricsSettings)
    """Where /metrics answers."""
    log: LogSettings = field(default_factory=LogSettings)
    """Form and level of log lines."""
    slots: SlotSettings = field(default_factory=SlotSettings)
    """How many slots the zone has; only the order-book slots matter here."""
    capture: CaptureSettings = field(default_factory=CaptureSettings)
    """Which markets are captured."""
    registry: RegistrySettings = field(default_factory=RegistrySettings)
    """The registry's own section."""

    def fingerprint(self) -> str:
        """Name what decides where a market goes; another one asks for a full listing."""
        return f"{self.capture!r} {self.slots.orderbook}"
