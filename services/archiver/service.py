"""Composition of the archiver: production's pool, the lease, the object store, one loop."""

import asyncio
import functools
import uuid

from libs.archive.objects import ObjectStore
from libs.runtime.leasing import keep_lease, leased
from libs.runtime.repeat import repeat
from libs.runtime.service import Runtime
from libs.runtime.stores import open_store
from services.archiver.bucket import try_bucket
from services.archiver.reopening import Reopener
from services.archiver.settings import Settings, storage_options
from services.archiver.tasks import Archiver


async def run(settings: Settings, runtime: Runtime) -> None:
    """Be the archiver until stop; windows that are open then are exported too.

    Raises:
        LeaseLost: another archiver took over; the process ends.
        StoreUnavailable: production was away at the end.
    """
    own = settings.archiver
    store = ObjectStore(own.root, functools.partial(storage_options, own.s3))
    async with (
        open_store(
            settings.production, "production", runtime, application="kalshi-data archiver"
        ) as pool,
        leased(pool, "archiver", uuid.uuid4(), own.lease_s, runtime) as lease,
    ):
        if lease is None:
            return
        archiver, done = Archiver(own, pool, store, runtime, lease), asyncio.Event()
        runtime.health.ready = True
        async with runtime.tasks() as tasks:
            tasks.start("keep-lease", keep_lease(runtime, lease, done))
            tasks.start("try-bucket", try_bucket(store, runtime, own.poll_s))
            tasks.start("export-windows", archiver.run(done))
            reopener = Reopener(own, pool, store, runtime, lease)
            turn = repeat(runtime, "reopen-ranges", reopener.reopen_once, own.reopening_poll_s)
            tasks.start("reopen-ranges", turn)
            if own.retention_s:
                poll_s = own.retention_poll_s
                turn = repeat(runtime, "drop-partitions", archiver.drop_once, poll_s)
                tasks.start("drop-partitions", turn)
