"""What the two loops of a zone share: its Gatherer, its planner, and what each of them saw last."""

import asyncio
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from libs.kube.cluster import Pod
from libs.store.planner import OPERATOR, Planner
from libs.store.planning import Look, Wishes
from services.operator.resource import Gatherer
from services.operator.status import Fault, Seen


@dataclass(slots=True)
class Zone:
    """One Gatherer while it is there.

    Attributes:
        gatherer: as the API showed it last. changed: set when it shows another one.
        ended: the Gatherer is gone, or the process stops.
        look, fault: of the database: the last look that answered, and why the last one did not.
        pods: as the API showed them last; None before. selector: of them, empty before.
        warning: what the administrator should know besides. missing: what of the API's objects is not there.
        is_told: the API has taken our last word.
    """

    gatherer: Gatherer
    planner: Planner
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    look: Look | None = None
    fault: Fault | None = None
    pods: Collection[Pod] | None = None
    selector: str = ""
    warning: str = ""
    missing: str = ""
    is_told: bool = False

    @property
    def is_anothers(self) -> bool:
        """Whether another operator plans the zone: then the status is its to write."""
        return self.planner.epoch is None and self.planner.other.startswith(OPERATOR)

    @property
    def is_reachable(self) -> bool:
        """Whether the database answered the last look."""
        return self.fault is None and (self.look is not None or self.is_anothers)

    def wishes(self) -> Wishes:
        """What the zone is to look like, for the planner."""
        own = self.gatherer
        return Wishes(
            own.slots.names(),
            own.slots.connections_max,
            own.pins,
            own.shards,
            self._newest_template(),
        )

    def seen(self) -> Seen:
        """What is known now, for the status."""
        ready = None if self.pods is None else {pod.name for pod in self.pods if pod.is_ready}
        warning = "; ".join(text for text in (self.warning, self.missing) if text)
        return Seen(self.fault, self.look, self.planner.epoch, ready, self.selector, warning)

    def _newest_template(self) -> str | None:
        """The template of the shard whose pod was made last; None when the API has not shown its pod."""
        if self.look is None or self.pods is None:
            return None
        return newest_template(
            self.pods, {shard.name: shard.template_hash for shard in self.look.zone.shards}
        )


def newest_template(pods: Iterable[Pod], templates: dict[str, str]) -> str | None:
    """Return the template (by shard's name) of the pod that was made last; None when no shard has a pod."""
    made = [(pod.created, pod.name) for pod in pods if pod.name in templates]
    return templates[max(made)[1]] if made else None
