"""The connector's settings: the common sections it uses and its own."""

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Annotated, Literal

from libs.flow.batch import Limits
from libs.marketdata.tables import Family
from libs.marketdata.units import MILLISECOND, SECOND
from libs.runtime.sections import (
    BatchSettings,
    CaptureSettings,
    Count,
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
from libs.store.control import LEASE_S
from services.connector.judge import SessionSettings

TICKERS_REMEMBERED = 200_000
"""Tickers whose verdict of the capture filter is kept; a hundred bytes each."""


Bytes = Annotated[int, Between(0, 1 << 50)]


@dataclass(frozen=True)
class SpoolSettings:
    """The disk spool in `state_dir`: where batches wait when the database is slow or away."""

    bytes_max: Bytes = 4 << 30
    """Bytes of all its files: 60 % for deltas, 15 % for trades, 10 % for tickers, 15 % for the rest. 4 GiB hold some hours of a
    zone; keep it below the volume's own limit (a pod whose emptyDir is over its sizeLimit is evicted). 0: no spool."""
    free_bytes_min: Bytes = 256 << 20
    """Bytes that must stay free on the disk. 256 MiB, so that nothing else on it fails because of the spool."""
    rows_high: Count = 50_000
    """Rows of a family in memory from which on everything goes to the disk. 50,000 are some 10 MB, twenty slow seconds."""
    rows_low: Annotated[int, Between(0, 1_000_000_000)] = 10_000
    """Rows of a family on the disk from which on new batches stay in memory again. 10,000, a fraction of a second."""
    age_s_max: Seconds = 5.0
    """Seconds a batch may wait in memory; then it goes to the disk, however few there are. 5 s of a database that is away
    are what a crash of this process can lose, and what a restart of the database costs no writing."""
    fsync: Literal["always", "interval", "never"] = "interval"
    """When the disk is waited for. A crash of the process loses nothing that was written in any case; a power cut may lose
    "always": nothing, "interval": the last fsync_ms, "never": what the system had not written by itself (some 30 s).
    What is lost is a recorded gap. "interval", because a zone that loses power loses more than that anyway."""
    fsync_ms: Milliseconds = 1000
    """Milliseconds between two syncs with fsync: interval. 1 s costs a disk next to nothing."""
    replay_rows_per_s: Annotated[int, Between(1, 10_000_000)] = 50_000
    """Rows a second that come back from the disk, per family. 50,000: ten times what a zone hears, and less than what one
    writer can do, so that live capture of the other families and processes has its share of the database."""

    def check(self) -> Iterator[str]:
        """What spans fields."""
        if self.rows_low >= self.rows_high:
            yield "rows_low: must be below rows_high"


@dataclass(frozen=True)
class ConnectorSettings:
    """Who this shard is, and how it takes up slots and gives them away."""

    shard: str
    """The shard's name, unique in its zone and the same after a restart: the pod's name. No default, so that two never
    share one."""
    template_hash: str = ""
    """Hash of the pod template, so that a rollout moves slots once. Empty: all shards count as alike."""
    capacity: Annotated[int, Between(1, 1_000)] = 1
    """This shard's share of the slots relative to the others (a number without unit). 1: all alike."""
    heartbeat_s: Seconds = 2.0
    """Seconds between two heartbeats. 2 s, a third of the lease, which is the same for all (libs/store/control)."""
    plan_s: Seconds = 1.0
    """Seconds between two looks for assignments and markets (and plans) when no wake-up comes."""
    settle_s: Seconds = 2.0
    """Seconds a new planner waits before its first plan, so that shards that start together are all seen."""
    probe_s: Seconds = 5.0
    """Seconds of silence after which an order-book connection is asked for a snapshot of one market, so that a lost last frame
    shows. 5 s: the gap that a fault leaves in a quiet book is wider than its cause by this, a look each second and the
    margins, and may be so by 10. It costs a silent connection one command and one book every 5 s, some kB at most."""
    answer_s: Seconds = 30.0
    """Seconds a command may stay without its answer; then the connection is opened anew."""
    subscribe_chunk: Count = 500
    """Markets of one command. 500 are known to work; the exchange publishes no limit."""
    extra_connections_max: Annotated[int, Between(0, 1_000)] = 4
    """Connections this process may open beyond one per slot, for slots that one connection cannot carry (a frame too
    large, too many markets). 4; they are reserved in the zone's database, as far as all the zone's connectors together
    leave room for them below connections_max."""
    use_yes_price: bool = False
    """Orientation of no prices asked for and expected. False: each side in its own leg, as it is stored."""
    grace_s: Seconds = 520.0
    """Seconds after SIGTERM that slots are kept for others to take over, or while the database is away. 520 s: a pod's own
    grace is 600, and what comes then (connections that close, a spool that was found, the last batches) takes up to 80."""
    flush_s: Seconds = 20.0
    """Seconds that the last batches may take to be committed at the end."""
    rejected_bytes_per_hour: Count = 64 * 1024 * 1024
    """Bytes of unreadable frames kept per hour. 64 MiB, so that a change at the exchange cannot fill the disk."""
    storage_bytes_max: Bytes = 0
    """Bytes that the zone's database may take (all its files but the write-ahead log). Above it deltas and tickers are not
    committed any more but spooled, trades and the rest are; below 95 % of it everything resumes; above 90 % somebody is
    told. Say 85 % of the volume. 0: no limit, as on a laptop."""
    state_dir: str = ""
    """Directory of what outlives the process: the last assignment, from which a restarted connector captures without a
    database, and the spool. Empty: neither, and what does not fit into memory while the database is away is a gap."""
    spool: SpoolSettings = field(default_factory=SpoolSettings)
    """The disk spool."""

    def check(self) -> Iterator[str]:
        """What spans fields."""
        if not self.shard:
            yield "shard: must not be empty"
        if self.heartbeat_s * 2 > LEASE_S:
            yield (
                f"heartbeat_s: must be at most half of the shards' lease of {LEASE_S} s,"
                " or one lost heartbeat ends it"
            )


@dataclass(frozen=True)
class Settings:
    """Everything the connector reads of config/gatherer.yaml."""

    zone: str
    """The zone's name; a label only."""
    exchange: ExchangeSettings
    """Which exchange, as whom, how gently."""
    store: StoreSettings
    """The zone's own database."""
    connector: ConnectorSettings
    """The connector's own section."""
    account: str = "default"
    """The exchange account whose connections this zone uses."""
    health: HealthSettings = field(default_factory=HealthSettings)
    """Where /livez, /readyz and /health answer."""
    metrics: MetricsSettings = field(default_factory=MetricsSettings)
    """Where /metrics answers."""
    log: LogSettings = field(default_factory=LogSettings)
    """What is logged, and how."""
    slots: SlotSettings = field(default_factory=SlotSettings)
    """The zone's connection slots."""
    batches: BatchSettings = field(default_factory=BatchSettings)
    """When rows become a transaction."""
    capture: CaptureSettings = field(default_factory=CaptureSettings)
    """Which markets are captured; the registry applies it."""

    def check(self) -> Iterator[str]:
        """What spans sections."""
        extra, slots = self.connector.extra_connections_max, self.slots
        needed = slots.total + 1 + extra
        if slots.total < slots.connections_max < needed:
            yield (
                f"connector.extra_connections_max: {slots.total} slots + 1 to move + {extra} extra are {needed} connections,"
                f" {needed - slots.connections_max} above slots.connections_max of {slots.connections_max}; lower it"
            )

    def session(self) -> SessionSettings:
        """What a session needs of it."""
        own = self.connector
        return SessionSettings(
            use_yes_price=own.use_yes_price,
            chunk=own.subscribe_chunk,
            wants=self._wants(),
            probe=int(own.probe_s * SECOND),
            silence=int(self.exchange.silence_s_max * SECOND),
            answer=int(own.answer_s * SECOND),
        )

    def _wants(self) -> Callable[[str], bool] | None:
        """The capture filter as far as a ticker alone tells; None when everything passes."""
        chosen = self.capture.capture_filter()
        if chosen.is_everything and chosen.combos:
            return None
        return functools.lru_cache(maxsize=TICKERS_REMEMBERED)(chosen.may_want)

    def limits(self) -> dict[Family, Limits]:
        """When a batch of each family is due."""
        b = self.batches
        return {
            Family.DELTAS: Limits(b.deltas_rows, b.bytes_max, b.deltas_age_ms * MILLISECOND),
            Family.TRADES: Limits(b.trades_rows, b.bytes_max, b.trades_age_ms * MILLISECOND),
            Family.TICKERS: Limits(b.tickers_rows, b.bytes_max, b.tickers_age_ms * MILLISECOND),
            Family.REST: Limits(b.snapshots_rows, b.bytes_max, b.snapshots_age_ms * MILLISECOND),
        }

    def slot_names(self) -> list[str]:
        """Every slot of the zone, `kind/number`."""
        return self.slots.names()
