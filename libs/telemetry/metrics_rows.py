"""Metrics of rows on their way into a zone's database: batches, buffer, spool, storage."""

from libs.telemetry.metric_kinds import LATENCY_BUCKETS, MetricKinds


class RowMetrics(MetricKinds):
    """Of a zone's writers."""

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
        self.storage_bytes = self._gauge("storage_bytes", "Bytes of the zone's database.")
        self.storage_bytes_max = self._gauge(
            "storage_bytes_max", "Bytes it may take, 0 for no limit; alert above 90 % of them."
        )
        self.storage_level = self._gauge(
            "storage_level", "0: room; 1: above 90 % of the limit; 2: deltas and tickers are held."
        )
