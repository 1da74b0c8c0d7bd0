"""Metrics of the deduplicator: reading, merging, coverage."""

from libs.telemetry.metric_kinds import LATENCY_BUCKETS, MetricKinds


class MergeMetrics(MetricKinds):
    """Of the merge into production."""

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

    def _define_soundness(self) -> None:
        self.gatherer_quarantined = self._gauge(
            "gatherer_quarantined",
            "1 while a gatherer is not merged because its data is wrong.",
            "gatherer",
        )
        self.default_partition_rows = self._gauge(
            "default_partition_rows",
            "Rows of production that lie where no partition is made: their time is far from their receipt.",
            "table",
        )
        self.gatherer_reopening = self._gauge(
            "gatherer_reopening",
            "Ranges of production that are to be opened again before a gatherer is merged on.",
            "gatherer",
        )
        self.gatherer_reachable = self._gauge(
            "gatherer_reachable", "1 while a gatherer's database answers, else 0.", "gatherer"
        )
        self.gatherer_database_changes_total = self._counter(
            "gatherer_database_changes_total",
            "Times a zone's database was found to be another one (new_identity) or an older copy of itself (restored).",
            "gatherer",
            "change",
        )
        self.stream_disagreements_total = self._counter(
            "stream_disagreements_total",
            "Milliseconds in which whole streams heard different things.",
        )
        self.completeness = self._gauge(
            "completeness",
            "Share of a minute's facts that every gatherer delivered, of those all claim to have heard.",
            "table",
        )
