"""Composition root of the operator: the API's client, the watch, the Gatherers with their loops."""

import asyncio

from libs.kube.client import open_kube
from libs.runtime.service import Runtime
from services.operator.report import describe
from services.operator.settings import Settings
from services.operator.tasks import Gatherers, keep_readiness
from services.operator.watching import Watch


async def run(settings: Settings, runtime: Runtime) -> None:
    """Be the operator until stop; then let the shards plan at once.

    Raises:
        KubeNotConfigured: no cluster is named.
    """
    own, begun = settings.operator, asyncio.Event()
    async with open_kube(own.kubeconfig, namespace=own.namespace, timeout_s=own.request_s) as kube:
        gatherers = Gatherers(kube, runtime, own)
        watch = Watch(kube, own, gatherers.holder, begun=begun.set, changed=gatherers.wake.set)
        runtime.health.set("namespace", kube.namespace)
        runtime.health.set("holder", gatherers.holder)
        runtime.health.set(
            "gatherers",
            lambda: {name: describe(zone) for name, zone in sorted(gatherers.zones.items())},
        )
        async with runtime.tasks() as tasks:
            tasks.start("watch", watch.keep(runtime))
            tasks.start("gatherers", gatherers.keep(begun))
            tasks.start("readiness", keep_readiness(runtime, gatherers))
