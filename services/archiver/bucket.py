"""Tries the object store from the start: an identity that may only list would otherwise be found out when a window closes."""

import asyncio
from typing import Final

from libs.archive.errors import ArchiveError
from libs.archive.objects import ObjectStore
from libs.archive.trial import UNTRIED, WELL, try_store
from libs.runtime.service import Runtime
from libs.telemetry.logging import get_logger

log = get_logger(__name__)

NAME: Final = "archiver"
FACT: Final = "bucket"
"""What /health calls the outcome, and doctor looks for."""


async def try_bucket(store: ObjectStore, runtime: Runtime, pause_s: float) -> None:
    """Try the store until it does everything once, then wait for stop; /health tells the outcome of the last attempt.

    Nothing else depends on it: readiness is the rounds', which go on.

    Args:
        pause_s: seconds between a failed attempt and the next.
    """
    outcome = UNTRIED
    runtime.health.set(FACT, outcome)
    while not runtime.stop.is_set():
        before, outcome = outcome, await asyncio.to_thread(_outcome, store)
        runtime.health.set(FACT, outcome)
        if outcome == WELL:
            log.info("bucket_usable", root=store.root)
            break
        if outcome != before:
            log.warning("bucket_refused", error=outcome)
        await runtime.sleep(pause_s)
    await runtime.stop.wait()


def _outcome(store: ObjectStore) -> str:
    try:
        try_store(store, NAME)
    except ArchiveError as error:
        return str(error)
    return WELL
