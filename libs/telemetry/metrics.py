"""Every metric of the platform: name, kind, labels, unit and meaning, in one place; prometheus-client stays behind it.

An attribute of `Metrics` is the metric's name without the prefix `kalshi_data_`. Labels are few and small (channel, table,
family, reason, gatherer, endpoint, status), never a market. Bind a label's child once, outside the loop (0.25 µs an
increment instead of 1.15):

    self._frames = metrics.ws_frames_received_total.labels(channel="trade")
    self._frames.inc()

The zone stands on every sample of a zone's process by itself. Each process, and each test, has its own registry.
"""

from collections.abc import Iterable, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric

__all__ = ["Counter", "Gauge", "Histogram", "Metrics"]

PREFIX = "kalshi_data_"
LATENCY_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
"""Upper bounds in seconds, 5 ms to 5 min: from a good flush to an outage."""
CYCLE_BUCKETS = (1.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0, 1800.0, 3600.0)
"""Upper bounds in seconds, 1 s to 1 h, around the 15 minutes of a snapshot cycle."""


class _ZonedRegistry(CollectorRegistry):
    """A registry that adds the zone to every sample, and leaves out the `_created` twins that nobody queries."""

    def __init__(self, zone: str) -> None:
        super().__init__(auto_describe=True)
        self._zone = {"zone": zone} if zone else {}

    def collect(self) -> Iterable[Metric]:
        for metric in super().collect():
            metric.samples = [
                sample._replace(labels={**self._zone, **sample.labels})
                for sample in metric.samples
                if not sample.name.endswith("_created")
            ]
            yield metric


class Metrics:
    """The metrics of one process.

    Args:
        zone: label of every sample; empty for a process that belongs to no zone.
    """

    def __init__(self, zone: str = "") -> None:
        self.registry = _ZonedRegistry(zone)
        self._define_process()
        self._define_websocket()
        self._define_rows()
        self._define_rest()
        self._define_merge()
        self._define_archive()

    def exposition(self, accept: str = "") -> tuple[bytes, str]:
        """The body and content type of /metrics for an Accept header."""
        encode, content_type = choose_encoder(accept)
        return encode(self.registry), content_type

    def _define_process(self) -> None:
        self.build_info = self._gauge(
            "build_info", "Always 1; the labels say what runs.", "service", "version", "revision"
        )
        self.event_loop_lag_seconds = self._gauge(
            "event_loop_lag_seconds", "How late the event loop woke last, in seconds."
        )
        self.ready = self._gauge("ready", "1 while the service does its job, else 0.")
        self.task_faults_total = self._counter(
            "task_faults_total", "Failures of a task's single turn that were retried.", "task"
        )

    def _define_websocket(self) -> None:
        self.ws_frames_received_total = self._counter(
            "ws_frames_received_total", "Websocket frames received.", "channel"
        )
        self.ws_bytes_received_total = self._counter(
            "ws_bytes_received_total", "Bytes of websocket frames received.", "channel"
        )
        self.ws_connections = self._gauge("ws_connections", "Websocket connections open now.")
        self.ws_reconnects_total = self._counter(
            "ws_reconnects_total", "Websocket connections that had to be opened again.", "reason"
        )
        self.ws_sequence_gaps_total = self._counter(
            "ws_sequence_gaps_total", "Jumps of a subscription's sequence number."
        )
        self.ws_last_frame_timestamp_seconds = self._gauge(
            "ws_last_frame_timestamp_seconds", "When the last frame came, seconds since the epoch."
        )
        self.subscriptions_wanted = self._gauge(
            "subscriptions_wanted", "Markets this process should be subscribed to."
        )
        self.subscriptions_acked = self._gauge(
            "subscriptions_acked", "Markets the exchange has acknowledged to this process."
        )
        self.subscriptions_seen = self._gauge(
            "subscriptions_seen", "Markets whose first snapshot has come to this process."
        )
        self.slots_owned = self._gauge("slots_owned", "Connection slots assigned to this process.")
        self.slots_live = self._gauge("slots_live", "Assigned slots that are subscribed and heard.")
        self.slot_splits_total = self._counter(
            "slot_splits_total",
            "Slots one connection could not carry: split, or refused a further connection.",
            "cause",
            "outcome",
        )
        self.ws_extra_connections = self._gauge(
            "ws_extra_connections", "Websocket connections beyond one per slot, of split slots."
        )
        self.ws_lateness_seconds = self._gauge(
            "ws_lateness_seconds",
            "Most by which a connection's frames now come later than at its best, seconds.",
        )
        self.clock_steps_total = self._counter(
            "clock_steps_total", "Times this machine's wall clock was set, forward or back."
        )
        self.rejected_frames_total = self._counter(
            "rejected_frames_total",
            "Frames that could not be read and were kept as bytes.",
            "reason",
        )
        self.stream_time_regressions_total = self._counter(
            "stream_time_regressions_total",
            "Messages whose exchange time lies before their stream's.",
        )
        self.margin_exceeded_total = self._counter(
            "margin_exceeded_total", "Exchange times further from our clock than the margin allows."
        )

    def _define_rows(self) -> None:
        self.rows_written_total = self._counter(
            "rows_written_total", "Rows committed to the zone's database.", "table"
        )
        self.rows_dropped_total = self._counter(
            "rows_dropped_total",
            "Rows lost on the way to the database; each is a gap.",
            "table",
            "reason",
        )
        self.batches_committed_total = self._counter(
            "batches_committed_total", "Batches committed with their ledger row.", "family"
        )
        self.flush_seconds = self._histogram(
            "flush_seconds",
            "Duration of one batch's transaction, seconds.",
            LATENCY_BUCKETS,
            "family",
        )
        self.buffer_rows = self._gauge("buffer_rows", "Rows that wait for the database.", "family")
        self.spool_bytes = self._gauge(
            "spool_bytes", "Bytes of the files of the disk spool.", "family"
        )
        self.spool_replayed_batches_total = self._counter(
            "spool_replayed_batches_total", "Batches that came back from the disk spool.", "family"
        )
        self.spool_torn_records_total = self._counter(
            "spool_torn_records_total", "Batches that the disk spool did not give back.", "family"
        )
        self.spool_faults_total = self._counter(
            "spool_faults_total", "Errors of the disk under the spool.", "family"
        )

    def _define_rest(self) -> None:
        self.rest_requests_total = self._counter(
            "rest_requests_total",
            "Attempts of REST requests by endpoint and HTTP status; none: no answer came.",
            "endpoint",
            "status",
        )
        self.snapshot_cycle_seconds = self._histogram(
            "snapshot_cycle_seconds", "Duration of one round of snapshots, seconds.", CYCLE_BUCKETS
        )
        self.snapshots_taken_total = self._counter(
            "snapshots_taken_total", "Order-book snapshots taken by REST."
        )
        self.snapshot_period_seconds = self._gauge(
            "snapshot_period_seconds",
            "Time between the starts of the last two rounds of snapshots, seconds.",
        )
        self.rest_reads_per_second = self._gauge(
            "rest_reads_per_second", "REST reads a second this process allows itself now."
        )
        self.trades_healed_total = self._counter(
            "trades_healed_total", "Trades nobody heard that were stored from the exchange's tape."
        )
        self.trade_repairs_total = self._counter(
            "trade_repairs_total",
            "Spans of the trade channel that were looked at again, by how it ended.",
            "outcome",
        )
        self.trade_repairs_open = self._gauge(
            "trade_repairs_open", "Spans of the trade channel that wait to be read from the tape."
        )
        self.book_checks_total = self._counter(
            "book_checks_total",
            "Books rebuilt from a stream and compared with the exchange's answer, by outcome.",
            "outcome",
        )
        self.markets_known = self._gauge("markets_known", "Markets in the catalogue.", "status")
        self.catalogue_lag_seconds = self._histogram(
            "catalogue_lag_seconds",
            "From the sending of a lifecycle message until the catalogue holds what it says, seconds.",
            LATENCY_BUCKETS,
        )
        self.exchange_paused = self._gauge(
            "exchange_paused",
            "1 while the exchange is known to pause, by its word or its schedule.",
        )
        self.exchange_resumes_at_seconds = self._gauge(
            "exchange_resumes_at_seconds",
            "When a pause is expected to end, seconds since the epoch; 0 when there is none, or nobody says.",
        )
        self.exchange_maintenance_at_seconds = self._gauge(
            "exchange_maintenance_at_seconds",
            "Begin of the next planned maintenance, seconds since the epoch; 0 when none is known.",
        )

    def _define_merge(self) -> None:
        self.merge_rows_read_total = self._counter(
            "merge_rows_read_total", "Rows read from a gatherer.", "gatherer", "table"
        )
        self.merge_rows_inserted_total = self._counter(
            "merge_rows_inserted_total", "Rows inserted into production.", "table"
        )
        self.merge_duplicates_total = self._counter(
            "merge_duplicates_total", "Rows production already had from another stream.", "table"
        )
        self.merge_conflicts_total = self._counter(
            "merge_conflicts_total", "Rows with production's identity but other contents."
        )
        self.merge_lag_seconds = self._gauge(
            "merge_lag_seconds",
            "Age of the newest ledger row merged from a gatherer, seconds.",
            "gatherer",
        )
        self.merge_seconds = self._histogram(
            "merge_seconds", "Duration of one merge transaction, seconds.", LATENCY_BUCKETS
        )
        self.gatherer_quarantined = self._gauge(
            "gatherer_quarantined",
            "1 while a gatherer is not merged because its data is wrong.",
            "gatherer",
        )
        self.gatherer_reachable = self._gauge(
            "gatherer_reachable", "1 while a gatherer's database answers, else 0.", "gatherer"
        )
        self.stream_disagreements_total = self._counter(
            "stream_disagreements_total",
            "Milliseconds in which whole streams heard different things.",
        )

    def _define_archive(self) -> None:
        self.archive_objects_total = self._counter(
            "archive_objects_total", "Parquet objects written and verified.", "table"
        )
        self.archive_rows_total = self._counter(
            "archive_rows_total", "Rows in verified Parquet objects.", "table"
        )
        self.archive_bytes_total = self._counter(
            "archive_bytes_total", "Bytes of verified Parquet objects.", "table"
        )
        self.archive_watermark_seconds = self._gauge(
            "archive_watermark_seconds",
            "All windows before it are archived, seconds since the epoch.",
            "table",
        )

    def _counter(self, name: str, meaning: str, *labels: str) -> Counter:
        return Counter(PREFIX + name, meaning, labels, registry=self.registry)

    def _gauge(self, name: str, meaning: str, *labels: str) -> Gauge:
        return Gauge(PREFIX + name, meaning, labels, registry=self.registry)

    def _histogram(
        self, name: str, meaning: str, buckets: Sequence[float], *labels: str
    ) -> Histogram:
        return Histogram(PREFIX + name, meaning, labels, registry=self.registry, buckets=buckets)
