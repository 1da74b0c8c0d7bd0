"""Metrics of the archiver: objects, windows, retention."""

from libs.telemetry.metric_kinds import MetricKinds


class ArchiveMetrics(MetricKinds):
    """Of the archive."""

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
        self.archive_reopened_total = self._counter(
            "archive_reopened_total", "Dropped ranges loaded back for rows that came late.", "table"
        )
        self.archive_reopenings_failed = self._gauge(
            "archive_reopenings_failed",
            "Dropped ranges that could not be loaded back at the last look; late rows wait for them.",
        )
        self.archive_superseded_total = self._counter(
            "archive_superseded_total",
            "Objects set aside because production does not know them: a crash before the record, or a restore.",
            "table",
        )
