"""A process that exports a window and dies between put and record, as kill -9 kills it."""

import asyncio
import os
import signal
import sys
import uuid

from libs.archive.keys import Window
from libs.archive.objects import ObjectStore
from libs.marketdata.tables import ORDERBOOK_DELTAS
from libs.store.leases import Lease
from libs.store.pool import Target, open_pool
from services.archiver.export import export_window


class Crashing(ObjectStore):
    """Dies once the manifest is in the store and before production hears of it."""

    def put_small(self, key: str, data: bytes) -> None:
        super().put_small(key, data)
        os.kill(os.getpid(), signal.SIGKILL)


async def export_and_crash(target: Target, root: str, window: Window) -> None:
    async with open_pool(target) as pool:
        lease = Lease(pool, "archiver", uuid.uuid4(), 0.5)
        assert await lease.take_once()
        await export_window(pool, Crashing(root), ORDERBOOK_DELTAS, window, lease)


if __name__ == "__main__":
    host, port, user, password, database, root, start, end = sys.argv[1:]
    target = Target(host, int(port), database, user, password)
    asyncio.run(export_and_crash(target, root, Window(int(start), int(end))))
