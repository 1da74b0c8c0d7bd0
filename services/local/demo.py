"""The two ways to run the topology: as a demo with a power cut and a verdict, or until somebody stops it."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from rich.console import Console
from rich.live import Live

from libs.marketdata.units import SECOND
from libs.runtime.clock import Clock
from services.local import live
from services.local.judge import judge_run
from services.local.processes import ProcessFailed
from services.local.report import print_verdict
from services.local.run import LocalRun, Options
from services.local.topology import PRODUCTION

T = TypeVar("T")
REFRESH_S = 1.0
POLL_S = 0.2
PLAIN_EVERY = 10
SETTLE_S_MAX = 30.0
DRAIN_S_MAX = 60.0
CUT_AT, BACK_AT = 0.5, 0.7
"""A zone loses its power after half of the demo and has it back after seven tenths."""


async def run_demo(options: Options, seconds: float, console: Console, clock: Clock) -> int:
    """Run the topology for so long, cut one zone's power halfway, stop in order; 0 only if the verdict holds."""
    async with LocalRun(options, clock) as run:
        await _start(run, console)
        screen = Screen(run, console)
        await screen.watch(
            (run.opens_at - clock.now()) / SECOND, "waiting for the exchange to open"
        )
        victim = options.zones[-1] if len(options.zones) > 1 else None
        phases = [
            (CUT_AT, "capturing"),
            (BACK_AT, f"zone {victim} has lost its power"),
            (1.0, "all zones are back"),
        ]
        begun = clock.monotonic()
        for share, title in phases:
            left = begun + share * seconds - clock.monotonic()
            await screen.watch(left, title if victim else "capturing")
            if share == CUT_AT and victim:
                await run.kill_zone(victim)
            elif share == BACK_AT and victim:
                await run.revive_zone(victim)
        await finish(run, console)
        verdict = await _step(console, "taking the verdict", judge_run(run, victim))
    return print_verdict(verdict, console)


async def run_until_stopped(options: Options, console: Console, clock: Clock) -> int:
    """Run the topology until cancelled; what was captured stays in the state directory."""
    async with LocalRun(options, clock) as run:
        await _start(run, console)
        console.print(
            f"data, logs and archive are in {options.state_dir}; Ctrl-C stops everything in order"
        )
        screen = Screen(run, console)
        while True:
            await screen.watch(3600.0, "capturing")


async def _step(console: Console, what: str, work: Awaitable[T]) -> T:
    """Say what is being done, and how long it took."""
    begun = time.monotonic()
    with console.status(what):
        result = await work
    console.print(f"{what}: {time.monotonic() - begun:.1f} s")
    return result


async def _start(run: LocalRun, console: Console) -> None:
    """Start everything, saying what; returns when every process is ready."""
    await _step(console, f"starting {len(run.zones) + 1} PostgreSQL servers", run.start_databases())
    if run.options.environment == "simulator":
        exchange = await _step(console, "starting the simulated exchange", run.start_simulator())
    else:
        exchange = run.real_exchange()
    run.write_configs(exchange)
    await asyncio.gather(*(run.start_zone(zone) for zone in run.zones), run.start_production())
    await _step(
        console, "starting gatherers, deduplicator and archiver", run.until_ready(run.names())
    )
    for line in _addresses(run):
        console.print(line, soft_wrap=True)


def _addresses(run: LocalRun) -> list[str]:
    """Say where a person can look: in a browser at exchange and markets, with psql at the databases."""
    found = []
    if run.simulator is not None:
        found.append(f"simulated exchange: {run.simulator.page_url} to watch it and to break it")
    for zone in run.zones:
        (registry,) = run.names(zone, "registry")
        markets = f"http://127.0.0.1:{run.spec(registry).health_port}/debug/markets"
        found.append(f"zone {zone}: markets {markets}, {_database(run, zone)}")
    found.append(f"production: {_database(run, PRODUCTION)}")
    return found


def _database(run: LocalRun, name: str) -> str:
    return f"database {run.target(name).address}, password in {run.servers[name].home / 'password'}"


async def finish(run: LocalRun, console: Console) -> None:
    """End the exchange's day, then stop capture, merge and archive, each after it has taken in everything."""
    assert run.simulator is not None
    await _step(console, "ending the exchange's day", run.simulator.stop())
    await _step(console, "waiting for the last frames", _settled(run))
    for service in ("poller", "registry", "connector"):
        await _step(
            console,
            f"stopping every {service}",
            run.supervisor.stop(run.names(service=service), SETTLE_S_MAX),
        )
    await _step(console, "waiting for the merge", _drained(run, run.clock.now()))
    # The exchange last: what it still answered after its day stands in its journal only once that is closed.
    for service in ("deduplicator", "archiver", "simulator"):
        await _step(
            console,
            f"stopping the {service}",
            run.supervisor.stop(run.names(service=service), DRAIN_S_MAX),
        )


async def _settled(run: LocalRun) -> None:
    """Wait until no connector has received a frame for a second.

    Raises:
        ProcessFailed: they still do after SETTLE_S_MAX.
    """
    before: Any = None

    async def settled() -> bool:
        nonlocal before
        names = run.names(service="connector")
        frames = [(await run.health(name)).get("frames") for name in names]
        is_same, before = frames == before and None not in frames, frames
        return is_same

    await _until(run, settled, REFRESH_S, SETTLE_S_MAX, "connectors still receive frames")


async def _drained(run: LocalRun, since: int) -> None:
    """Wait until the deduplicator has read every lane of every zone to its end, later than `since` (microseconds).

    Raises:
        ProcessFailed: it has not after DRAIN_S_MAX.
    """

    async def drained() -> bool:
        return ((await run.health("deduplicator")).get("drained_at") or 0) > since

    await _until(run, drained, POLL_S, DRAIN_S_MAX, "the deduplicator has not read everything")


async def _until(
    run: LocalRun,
    check: Callable[[], Awaitable[bool]],
    every_s: float,
    within_s: float,
    failure: str,
) -> None:
    end = time.monotonic() + within_s
    while not await check():
        run.supervisor.check()
        if time.monotonic() > end:
            raise ProcessFailed(f"{failure} after {within_s:.0f} s")
        await asyncio.sleep(every_s)


class Screen:
    """The live table in a terminal; a plain copy of it every ten seconds where there is none."""

    def __init__(self, run: LocalRun, console: Console) -> None:
        self._run = run
        self._console = console
        self._before: live.Moment | None = None

    async def watch(self, seconds: float, title: str) -> None:
        """Show the table for so long.

        Raises:
            ProcessFailed: a process ended by itself.
        """
        end = time.monotonic() + seconds
        with Live(console=self._console, auto_refresh=False, transient=True) as screen:
            shown = 0
            while (left := end - time.monotonic()) > 0:
                self._run.supervisor.check()
                moment = await self._moment()
                table = live.table_of(moment, self._before, title)
                self._before = moment
                if self._console.is_terminal:
                    screen.update(table, refresh=True)
                elif shown % PLAIN_EVERY == PLAIN_EVERY - 1:
                    self._console.print(table)
                shown += 1
                await asyncio.sleep(min(REFRESH_S, left))

    async def _moment(self) -> live.Moment:
        names = self._run.names()
        healths = dict(zip(names, await asyncio.gather(*map(self._run.health, names)), strict=True))
        zones = {
            zone: live.zone_figures([healths[name] for name in self._run.names(zone)])
            for zone in self._run.zones
        }
        merge = live.merge_figures(healths.get("deduplicator", {}), healths.get("archiver", {}))
        return live.Moment(time.monotonic(), zones, merge)
