"""Settings of the operator. What belongs to a zone (slots, database, limit of connections) stands in its Gatherer."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

from libs.runtime.sections import HealthSettings, LogSettings, MetricsSettings, Seconds
from libs.runtime.settings import Between


@dataclass(frozen=True)
class OperatorSettings:
    """The section `operator:`."""

    namespace: str = ""
    """The namespace whose Gatherers are reconciled. Empty: the pod's own, or that of the kubeconfig's context."""
    name: str = "operator"
    """This process among operators, as the planner's rows and the peering show it: the pod's name."""
    kubeconfig: str = ""
    """Path of a kubeconfig. Empty: the pod's service account, and outside of a cluster what kubectl would take."""
    peering: str = ""
    """Name of the KopfPeering by which operators see each other; it is made if it is not there. Empty, or where the
    cluster does not know the kind: none. Which of two operators plans is decided by each zone's database in any case."""
    peering_s: Annotated[int, Between(15, 3_600)] = 30
    """Seconds until a peer that says nothing counts as gone. 30 s: half of kopf's own, so that a crash is over sooner."""
    owner: str = ""
    """Name of the Deployment this process belongs to: the peering is its dependent and goes with it. Empty: nobody's."""
    plan_s: Seconds = 1.0
    """Seconds between two looks at a zone. 1 s, as of the shards that stand in."""
    settle_s: Seconds = 2.0
    """Seconds a new planner waits before its first plan, so that shards that start together are all seen."""
    resync_s: Seconds = 30.0
    """Longest time between two lists of all Gatherers, seconds; a change is followed at once. 30 s: what a watch misses
    (kopf is paused, a stream hangs) is found by then, at two requests a minute."""
    request_s: Seconds = 10.0
    """Seconds a request to the Kubernetes API may take."""
    turn_s_max: Seconds = 10.0
    """Seconds a look at a zone's database may take; then its connection is given up, and the zone counts as away."""
    retry_s: Seconds = 5.0
    """Seconds between two attempts to connect to a zone's database, and between two starts of the watch."""

    def check(self) -> Iterator[str]:
        """What a field's type does not say."""
        if not self.name:
            yield "name: must not be empty; two operators must not share one"


@dataclass(frozen=True)
class Settings:
    """What the operator reads from config/operator.yaml."""

    operator: OperatorSettings = OperatorSettings()
    """The operator's own section."""
    health: HealthSettings = HealthSettings()
    """Probes."""
    metrics: MetricsSettings = MetricsSettings()
    """Metrics."""
    log: LogSettings = LogSettings()
    """Logging."""
