"""The frame around every service: arguments, settings, logging, loop, signals, health; then the service's own `run`.

    def main() -> NoReturn:
        service_main("registry", Settings, run, foreign=sections.GATHERER_FILE)

`run(settings, runtime)` opens its resources in one `async with` list, starts its loops in `runtime.tasks()`, and returns
after `runtime.stop` was set. Exit statuses: 0 stopped as asked (also while a database was away), 1 fault, 2 configuration,
3 the exchange refused the key, 4 a second writer, 5 the schema does not fit.
"""

import argparse
import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, Protocol, TypeVar

import uvloop

from libs.exchange.errors import AuthRejected
from libs.runtime.clock import Clock, SystemClock
from libs.runtime.errors import EternalTaskEnded
from libs.runtime.health import HealthServer, HealthState
from libs.runtime.sections import HealthSettings, LogSettings, MetricsSettings
from libs.runtime.settings import ConfigInvalid, load_settings
from libs.runtime.signals import stop_on_signals
from libs.runtime.version import build_info
from libs.store.errors import SchemaMismatch, StoreConflict, StoreUnavailable
from libs.telemetry import logging, tracing
from libs.telemetry.metrics import Metrics

log = logging.get_logger(__name__)

LAG_PERIOD_S = 1.0
EXIT_OK, EXIT_FAULT, EXIT_CONFIG = 0, 1, 2
EXIT_BY_ERROR: tuple[tuple[type[Exception], int], ...] = (
    (ConfigInvalid, EXIT_CONFIG),
    (AuthRejected, 3),
    (StoreConflict, 4),
    (SchemaMismatch, 5),
)


class CommonSettings(Protocol):
    """What every service's settings have; `zone` beside it where the service belongs to one."""

    @property
    def health(self) -> HealthSettings: ...
    @property
    def metrics(self) -> MetricsSettings: ...
    @property
    def log(self) -> LogSettings: ...


S = TypeVar("S", bound=CommonSettings)


class EternalTasks:
    """Starts named tasks that must run until `stop`; the first that ends earlier ends them all."""

    def __init__(self, group: asyncio.TaskGroup, stop: asyncio.Event) -> None:
        self._group = group
        self._stop = stop

    def start(self, name: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run `work` until it returns after `stop`.

        Raises:
            EternalTaskEnded: out of the group, when `work` returns before `stop`.
        """
        return self._group.create_task(self._guard(name, work), name=name)

    async def _guard(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        await work
        if not self._stop.is_set():
            raise EternalTaskEnded(f"the task {name} ended before the stop signal")


@dataclass
class Runtime:
    """What the frame lends to a service.

    Attributes:
        clock: the door to time.
        stop: set by SIGTERM and SIGINT; whoever waits for anything waits for this too.
        health: the state /readyz and /health answer.
        metrics: the process's metrics.
        port: where the probes listen.
    """

    clock: Clock
    stop: asyncio.Event
    health: HealthState
    metrics: Metrics
    port: int = 0

    @asynccontextmanager
    async def tasks(self) -> AsyncIterator[EternalTasks]:
        """One TaskGroup of eternal tasks; leaves when all have returned, raises what the first fault was.

        Raises:
            ExceptionGroup: several tasks failed at once.
        """
        try:
            async with asyncio.TaskGroup() as group:
                yield EternalTasks(group, self.stop)
        except BaseExceptionGroup as faults:
            only = _only(faults)
            if only is None:
                raise
            raise only from only.__cause__

    async def sleep(self, seconds: float, until: asyncio.Event | None = None) -> bool:
        """Wait, at most until `stop`, or until another event in its place.

        Returns:
            Whether the process should go on: the event was not set.
        """
        try:
            async with asyncio.timeout(seconds):
                await (until or self.stop).wait()
        except TimeoutError:
            return True
        return False


def service_main(
    name: str,
    settings_cls: type[S],
    run: Callable[[S, Runtime], Awaitable[None]],
    *,
    foreign: frozenset[str] = frozenset(),
) -> NoReturn:
    """Be the process of a service: parse sys.argv, run, exit with the status that says how it ended."""
    sys.exit(service_status(name, settings_cls, run, sys.argv[1:], foreign=foreign))


def service_status(
    name: str,
    settings_cls: type[S],
    run: Callable[[S, Runtime], Awaitable[None]],
    argv: Sequence[str],
    *,
    foreign: frozenset[str] = frozenset(),
) -> int:
    """As service_main, with the arguments given and the exit status returned."""
    arguments = _parser(name).parse_args(argv)
    try:
        settings = load_settings(settings_cls, arguments.config, foreign=foreign).value
    except ConfigInvalid as error:
        _complain(name, error)
        return EXIT_CONFIG
    if arguments.check:
        sys.stdout.write(f"{name}: the configuration is complete\n")
        return EXIT_OK
    zone = getattr(settings, "zone", "")
    logging.configure(settings.log.format, settings.log.level, name, zone)
    try:
        tracing.configure(os.environ, name, zone, build_info().version)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_run(name, zone, settings, run))
    except KeyboardInterrupt:
        return EXIT_OK
    except Exception as error:  # noqa: BLE001 - the one place: whatever it is, it is logged once and becomes a status
        return _report(error)
    finally:
        tracing.shut_down()
    return EXIT_OK


async def _run(
    name: str, zone: str, settings: S, run: Callable[[S, Runtime], Awaitable[None]]
) -> None:
    clock, metrics, stop = SystemClock(), Metrics(zone), asyncio.Event()
    state = HealthState(name, zone, clock, metrics)
    build = build_info()
    metrics.build_info.labels(name, build.version, build.commit).set(1)
    with stop_on_signals(stop):
        log.info("started", version=build.version, commit=build.commit, pid=os.getpid())
        async with HealthServer(state, metrics, settings.health, settings.metrics) as server:
            runtime = Runtime(clock, stop, state, metrics, server.port)
            lag = asyncio.create_task(_watch_loop(runtime), name="watch-loop")
            try:
                await orderly(run(settings, runtime), stop)
            finally:
                lag.cancel()
                await asyncio.wait([lag])
        if not stop.is_set():
            raise EternalTaskEnded(f"the service {name} ended before the stop signal")
        log.info("stopped")


async def orderly(work: Awaitable[None], stop: asyncio.Event) -> None:
    """Do a service's work; that a database is away while the service stops is an orderly end, and logged."""
    try:
        await work
    except Exception as error:
        leaves = _leaves(error)
        if not (stop.is_set() and all(isinstance(leaf, StoreUnavailable) for leaf in leaves)):
            raise
        log.warning("stopped_without_database", error=str(leaves[0]))


async def _watch_loop(runtime: Runtime) -> None:
    """Measure every second how late the loop wakes; ends by cancellation."""
    while True:
        before = runtime.clock.monotonic()
        await asyncio.sleep(LAG_PERIOD_S)
        late = runtime.clock.monotonic() - before - LAG_PERIOD_S
        runtime.metrics.event_loop_lag_seconds.set(max(late, 0.0))


def _parser(name: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"kalshi-data run {name}", description=f"The {name}.")
    parser.add_argument(
        "--config",
        type=Path,
        default=os.environ.get("KALSHI_DATA_CONFIG"),
        help="the YAML file; default: KALSHI_DATA_CONFIG, else the environment alone",
    )
    parser.add_argument("--check", action="store_true", help="only read the configuration")
    parser.add_argument("--version", action="version", version=str(build_info()))
    return parser


def _complain(name: str, error: ConfigInvalid) -> None:
    sys.stderr.write(f"{name}: the configuration is not usable:\n")
    for fault in error.faults:
        sys.stderr.write(f"  {fault}\n")


def _report(error: Exception) -> int:
    """Log what ended the process, once: a known fault as one line, anything else with its traceback."""
    leaves = _leaves(error)
    statuses = [exit_status(leaf) for leaf in leaves]
    status = max(statuses)
    worst = leaves[statuses.index(status)]
    known = status != EXIT_FAULT or (len(leaves) == 1 and hasattr(worst, "retryable"))
    write = log.error if known else log.exception
    write("service_failed", error=type(worst).__name__, reason=_sentence(worst), status=status)
    return status


def _sentence(error: BaseException) -> str:
    """The error's own words, else what its class says to the operator."""
    return str(error) or (type(error).__doc__ or "").partition("\n")[0]


def exit_status(error: BaseException) -> int:
    """The process's exit status for the error that ended it."""
    for kind, status in EXIT_BY_ERROR:
        if isinstance(error, kind):
            return status
    return EXIT_FAULT


def _leaves(error: BaseException) -> "list[BaseException]":
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in _leaves(inner)]
    return [error]


def _only(faults: BaseExceptionGroup[BaseException]) -> BaseException | None:
    leaves = _leaves(faults)
    return leaves[0] if len(leaves) == 1 else None
