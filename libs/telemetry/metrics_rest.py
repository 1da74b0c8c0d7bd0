"""Metrics of what is asked by REST, and of the catalogue it fills."""

from libs.telemetry.metric_kinds import CYCLE_BUCKETS, LATENCY_BUCKETS, MetricKinds


class RestMetrics(MetricKinds):
    """Of registry and poller."""

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

    def _define_catalogue(self) -> None:
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
