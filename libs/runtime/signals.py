"""SIGTERM and SIGINT set the stop event and nothing else, however often they come.

A second signal is not a reason to die half-way through a transaction; whoever cannot wait sends SIGKILL.
"""

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from libs.telemetry.logging import get_logger

log = get_logger(__name__)
_STOPPING = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def stop_on_signals(stop: asyncio.Event) -> Iterator[None]:
    """Set `stop` on SIGTERM and SIGINT while inside; must be entered in the main thread, with the loop running."""

    def handle(number: signal.Signals) -> None:
        if stop.is_set():
            log.info("already_stopping", signal=number.name)
        else:
            log.info("stopping", signal=number.name)
            stop.set()

    loop = asyncio.get_running_loop()
    for number in _STOPPING:
        loop.add_signal_handler(number, handle, number)
    try:
        yield
    finally:
        for number in _STOPPING:
            loop.remove_signal_handler(number)
