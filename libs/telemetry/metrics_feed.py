"""Metrics of a connector: sockets, subscriptions, what their frames say."""

from libs.telemetry.metric_kinds import MetricKinds


class FeedMetrics(MetricKinds):
    """Of the websocket feed."""

    def _define_sockets(self) -> None:
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

    def _define_subscriptions(self) -> None:
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

    def _define_frames(self) -> None:
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
            "margin_exceeded_total",
            "Messages sent later after their exchange time than the margin allows.",
        )
