"""Composition of the archiver: production's pool, the lease, the object store, one loop."""

import uuid

from libs.archive.objects import ObjectStore
from libs.runtime.repeat import repeat
from libs.runtime.service import Runtime
from libs.store.leases import Lease
from libs.store.pool import open_pool
from libs.store.schema import wait_for_level
from services.archiver.settings import Settings, storage_options
from services.archiver.tasks import Archiver


async def run(settings: Settings, runtime: Runtime) -> None:
    """Be the archiver until stop; windows that are open then are exported too."""
    own = settings.archiver
    store = ObjectStore(own.root, storage_options(own.s3))
    async with open_pool(
        settings.production.target(), stop=runtime.stop, application="kalshi-data archiver"
    ) as pool:
        await wait_for_level(pool, "production", runtime.stop)
        lease = Lease(pool, "archiver", uuid.uuid4(), own.lease_s)
        if not await lease.acquire(runtime.stop):
            return
        runtime.health.ready = True
        async with runtime.tasks() as tasks:
            archiver = Archiver(own, pool, store, runtime)
            tasks.start("export-windows", archiver.run(lease))
            turn = repeat(runtime, "drop-partitions", archiver.drop_once, own.retention_poll_s)
            tasks.start("drop-partitions", turn)
        await lease.release()
