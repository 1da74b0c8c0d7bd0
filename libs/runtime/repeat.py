"""The loop around a task's single turn: again and again until stop, patient with what may be retried.

`work` is the task's `_once` half. Errors of the store that are retryable, and every error of the exchange but a
refused key, are counted, logged, shown in /health and waited out with a doubling delay; anything else ends the process.
"""

from collections.abc import Awaitable, Callable
from typing import Final

from libs.exchange.errors import AuthRejected, ExchangeError
from libs.runtime.service import Runtime
from libs.store.errors import StoreError
from libs.telemetry.logging import get_logger

log = get_logger(__name__)

FAULT_WAIT_S_MIN: Final = 0.5
STORE_WAIT_S_MAX: Final = 2.0
"""Longest wait for the zone's own database, seconds: what waits for it is late by that much when it is back."""
EXCHANGE_WAIT_S_MAX: Final = 30.0
"""Longest wait for the exchange, seconds; its client has waited before."""


def is_worth_repeating(error: Exception) -> bool:
    """Decide whether a task goes on after this error of its single turn."""
    if isinstance(error, StoreError):
        return error.retryable
    return isinstance(error, ExchangeError) and not isinstance(error, AuthRejected)


async def repeat(
    runtime: Runtime,
    name: str,
    work: Callable[[], Awaitable[None]],
    period_s: float,
    *,
    wake: Callable[[float], Awaitable[object]] | None = None,
) -> None:
    """Call `work` until stop, `period_s` seconds between the end of one turn and the next.

    wake(seconds) may replace the waiting between turns; it must return by then, and soon after stop.
    """
    wait, faults = FAULT_WAIT_S_MIN, 0
    while not runtime.stop.is_set():
        try:
            await work()
        except (StoreError, ExchangeError) as error:
            if not is_worth_repeating(error):
                raise
            if runtime.stop.is_set():
                return
            faults += 1
            runtime.health.set(f"fault {name}", f"{type(error).__name__}: {error}")
            runtime.metrics.task_faults_total.labels(name).inc()
            log.warning(
                "task_fault", task=name, error=f"{type(error).__name__}: {error}", wait_s=wait
            )
            await runtime.sleep(wait)
            longest = STORE_WAIT_S_MAX if isinstance(error, StoreError) else EXCHANGE_WAIT_S_MAX
            wait = min(2 * wait, longest)
            continue
        if faults:
            log.info("task_recovered", task=name, faults=faults)
            runtime.health.set(f"fault {name}", None)
        wait, faults = FAULT_WAIT_S_MIN, 0
        if wake is None:
            await runtime.sleep(period_s)
        else:
            await wake(period_s)
