"""Packing old chunks: what production has acknowledged is turned into columns where the server has them."""

import asyncio
from typing import Any

from libs.marketdata.units import SECOND
from libs.runtime.service import Runtime
from libs.store.catalogue import lend
from libs.store.columnstore import Converted, convert_acknowledged
from libs.store.pool import Pool
from libs.telemetry.logging import get_logger

log = get_logger(__name__)


class Packer:
    """Converts chunks, one turn after the other.

    Attributes: packed counts converted chunks since the start; waiting says how many could be by age but are not.
    """

    def __init__(self, runtime: Runtime, pool: Pool, after_s: float) -> None:
        self._runtime = runtime
        self._pool = pool
        self._after = int(after_s * SECOND)
        self.packed = self.waiting = 0
        self.last_reason = ""

    def facts(self) -> dict[str, Any]:
        """Say in /health what was packed and what keeps the rest."""
        return {"packed": self.packed, "waiting": self.waiting, "last_reason": self.last_reason}

    async def pack_once(self) -> None:
        """Convert what may be; a stop breaks the conversion off, which undoes it.

        Raises:
            StoreUnavailable: the database is away.
        """
        work = asyncio.create_task(self._convert(), name="convert-chunks")
        stop = asyncio.create_task(self._runtime.stop.wait(), name="wait-for-stop")
        try:
            await asyncio.wait({work, stop}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stop.cancel()
            if not work.done():
                work.cancel()
            await asyncio.wait({work, stop})
        if not work.cancelled():
            self._note(work.result())

    async def _convert(self) -> Converted:
        async with lend(self._pool) as conn:
            return await convert_acknowledged(conn, self._runtime.clock.now(), after=self._after)

    def _note(self, result: Converted) -> None:
        self.packed += len(result.converted)
        self.waiting = len(result.kept)
        self.last_reason = result.kept[-1][1] if result.kept else ""
        if result.converted:
            log.info("chunks_packed", chunks=[chunk.name for chunk in result.converted])
