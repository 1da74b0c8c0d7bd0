"""Metrics of the operator: what it sees of each zone, and what it does there."""

from libs.telemetry.metric_kinds import LATENCY_BUCKETS, MetricKinds


class OperatorMetrics(MetricKinds):
    """Of the slot plan as the operator makes it. gatherer: the zone's name."""

    def _define_operator(self) -> None:
        self.assignment_epoch = self._gauge(
            "assignment_epoch", "Epoch of this operator's plans; 0 while another plans.", "gatherer"
        )
        self.assignment_slots = self._gauge(
            "assignment_slots",
            "Slots by state: live (heard), moving (two owners), unassigned (nobody's).",
            "gatherer",
            "state",
        )
        self.assignment_shards = self._gauge(
            "assignment_shards",
            "Shards by state: wanted, alive (lease, not draining), ready (their pods), draining.",
            "gatherer",
            "state",
        )
        self.assignment_frozen = self._gauge(
            "assignment_frozen",
            "1 while most shards of a zone have vanished together, so that none of their slots moves.",
            "gatherer",
        )
        self.assignment_changes_total = self._counter(
            "assignment_changes_total",
            "Changes of slot assignments that were written: insert, release, restore, withdraw, bury.",
            "gatherer",
            "kind",
        )
        self.reconcile_seconds = self._histogram(
            "reconcile_seconds",
            "One look at a zone: read, plan, write, in seconds.",
            LATENCY_BUCKETS,
            "gatherer",
        )
        self.planned_database_reachable = self._gauge(
            "planned_database_reachable",
            "1 while the operator reaches the zone's database, else 0.",
            "gatherer",
        )
        self.kube_reachable = self._gauge(
            "kube_reachable", "1 while the Kubernetes API answers the operator, else 0."
        )
        self.accounts_overbooked = self._gauge(
            "accounts_overbooked",
            "Exchange accounts whose zones together have more slots than connections.",
        )
