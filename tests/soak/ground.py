"""What every scenario stands on: one zone with everything it has, the exchange, the merge; and what can be done to it.

The zone's processes are kept alive as by a supervisor: what ends by itself is noted and started again. What a scenario
does is noted with its time, so that the verdict knows the causes.
"""

import asyncio
import inspect
import json
import shutil
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, LiteralString

import yaml
from rich.console import Console

from libs.flow.placement import CHANNELS, is_mirrored, kind_of
from libs.marketdata.units import SECOND
from libs.runtime.clock import Clock, SystemClock
from libs.store.pool import connect
from services.local.demo import finish
from services.local.judge import judge_run
from services.local.processes import ProcessFailed, ProcessSpec
from services.local.run import LocalRun, Options
from services.local.topology import PRODUCTION, connector_process, process
from services.local.troubles import Trouble
from services.local.verdict import Verdict

ZONE = "a"
LOOK_S = 0.2
BACK_S_MAX = 120.0


@dataclass(frozen=True, slots=True)
class Terms:
    """What a run needs: zones, connectors of each, and settings over the committed local ones.

    deduplicator: variables of its environment.
    """

    connectors: int = 2
    gatherer: Mapping[str, Any] = field(default_factory=dict)
    simulated: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 1
    zones: tuple[str, ...] = (ZONE,)
    deduplicator: Mapping[str, str] = field(default_factory=dict)


class Ground:
    """One running zone; made by `running_ground`."""

    def __init__(self, run: LocalRun, console: Console) -> None:
        self.run = run
        self.console = console
        self.clock: Clock = run.clock
        self.troubles: list[Trouble] = []
        self.ended: list[str] = []
        """Processes that ended by themselves and were started again."""
        counts = yaml.safe_load(run.configs.paths[ZONE].read_text())["slots"]
        self.slots: int = sum(
            counts[kind] for kind in ("orderbook", "ticker", "trade", "lifecycle")
        )
        """How many the zone has."""
        self.connections_max: int = counts["connections_max"]
        self._down: dict[str, ProcessSpec] = {}
        self._next_number = run.options.connectors + 1

    # --- looking ---

    def say(self, text: str) -> None:
        self.console.print(f"  {self.clock.now() // 1000 % 1_000_000 / 1000:8.2f}  {text}")

    async def until(self, holds: Callable[[], Any], within_s: float, what: str) -> float:
        """Wait until something holds; return how long that took, seconds.

        Raises:
            AssertionError: it did not in time.
        """
        begun = self.clock.monotonic()
        while True:
            found = holds()
            if inspect.isawaitable(found):
                found = await found
            took = self.clock.monotonic() - begun
            if found:
                return took
            await self.keep_alive()
            assert took < within_s, f"not within {within_s:.0f} s: {what}"
            await asyncio.sleep(LOOK_S)

    async def rest(self, seconds: float) -> None:
        """Let so much time pass, keeping everything alive."""
        end = self.clock.monotonic() + seconds
        await self.until(lambda: self.clock.monotonic() >= end, seconds + 30, "time stands still")

    async def rows(self, query: LiteralString, *arguments: object) -> list[Any]:
        """Ask the zone's database; it must be there."""
        async with connect(self.run.target(ZONE)) as conn:
            return list(await conn.fetch(query, *arguments))

    async def value(self, query: LiteralString, *arguments: object) -> Any:
        (row,) = await self.rows(query, *arguments)
        return row[0]

    async def healths(self, service: str = "connector") -> dict[str, dict[str, Any]]:
        names = self.run.names(ZONE, service)
        documents = await asyncio.gather(*(self.run.health(name) for name in names))
        return dict(zip(names, documents, strict=True))

    async def is_whole(self) -> bool:
        """True when every slot has exactly one row, live, and every market that is wanted was seen since."""
        count = await self.value(
            "select count(*) filter (where state = 'live') - 2 * count(*) filter (where state <> 'live')"
            " from slot_assignments"
        )
        if count != self.slots:
            return False
        healths = list((await self.healths()).values())
        slots = {name: slot for health in healths for name, slot in health.get("slots", {}).items()}
        if len(slots) != self.slots or not all(slot["heard"] for slot in slots.values()):
            return False
        channels = sum(len(CHANNELS[kind_of(name)]) for name in slots if is_mirrored(name))
        wanted = await self.value("select count(*) from markets where wanted")
        said = [health["subscriptions"] for health in healths]
        seen, asked = (sum(counts[key] for counts in said) for key in ("seen", "wanted"))
        return bool(seen == asked == wanted + channels)

    async def until_whole(self, within_s: float = BACK_S_MAX) -> float:
        return await self.until(self.is_whole, within_s, "every slot live once, and heard")

    async def until_balanced(self, within_s: float = BACK_S_MAX) -> float:
        """Wait until all is whole and every connector has its share of the slots."""

        async def is_balanced() -> bool:
            found = [len(health.get("slots", {})) for health in (await self.healths()).values()]
            return min(found) >= self.slots // len(found) - 1 and await self.is_whole()

        return await self.until(is_balanced, within_s, "every connector has its share of the slots")

    # --- doing ---

    async def keep_alive(self) -> None:
        """Start again what ended by itself."""
        children = self.run.supervisor.children
        for name in [name for name, child in children.items() if not child.alive]:
            self.ended.append(children[name].failure())
            self.say(f"{name} ended by itself: {self.ended[-1]}")
            spec = self.run.spec(name)
            if spec.zone is None:
                raise ProcessFailed(self.ended[-1])
            await self.run.supervisor.kill([name])
            await self.run.supervisor.start([spec])

    async def kill(self, name: str) -> None:
        """kill -9 of one process; a connector's takes what it had heard and not committed, also where another heard already."""
        self._down[name] = self.run.spec(name)
        killed_at = self.clock.now()
        await self.run.supervisor.kill([name])
        self.run.note("killed", name)
        if name.startswith("connector"):
            # As long as it takes until its subscriptions end: one cause with what follows, not two.
            self.trouble("killed", killed_at, self.clock.now() + SECOND)

    async def revive(self, name: str) -> None:
        """Start a killed process again, as it was."""
        await self.run.supervisor.start([self._down.pop(name)])
        self.run.note("started", name)

    async def start_connector(self, **environment: str) -> str:
        """Start one more connector under a new name; return the name."""
        number, self._next_number = self._next_number, self._next_number + 1
        config = self.run.configs.paths[ZONE]
        spec = connector_process(ZONE, config, self.run.shards, number, **environment)
        await self.run.supervisor.start([spec])
        self.run.note("started", spec.name)
        return spec.name

    async def drain(self, name: str, grace_s: float) -> float:
        """SIGTERM, and wait until the process has ended in order; return how long that took, seconds.

        Raises:
            ProcessFailed: it did not end with status 0.
        """
        begun = self.clock.monotonic()
        self.run.note("stopping", name)
        await self.run.supervisor.stop([name], grace_s)
        return self.clock.monotonic() - begun

    def begin_drain(self, name: str, grace_s: float) -> asyncio.Task[float]:
        """Begin a drain, to be awaited later."""
        return asyncio.create_task(self.drain(name, grace_s), name=f"drain {name}")

    async def kill_database(self) -> None:
        self.run.note("killed", "database")
        await self.run.servers[ZONE].kill()

    async def stop_database(self, name: str = ZONE) -> None:
        self.run.note("stopping", f"database {name}")
        await self.run.servers[name].stop()

    async def start_database(self, name: str = ZONE) -> None:
        await self.run.servers[name].start()
        self.run.note("started", f"database {name}")

    async def copy_database(self, name: str = ZONE) -> Path:
        """Copy the stopped server's directory."""
        server = self.run.servers[name]
        assert not server.alive
        copy = server.home / "older"
        await asyncio.to_thread(_copy, server.data, copy)
        return copy

    async def replace_database(self, copy: Path, name: str = ZONE) -> None:
        """Put the copy in the stopped server's place."""
        server = self.run.servers[name]
        assert not server.alive
        await asyncio.to_thread(_replace, server.data, copy)

    def trouble(self, kind: str, start: int, end: int) -> None:
        """Remember a cause of gaps, microseconds."""
        self.troubles.append(Trouble(kind, self.run.key_id(ZONE), "", start, end))

    async def inject(self, *entries: Mapping[str, Any]) -> None:
        """Let the exchange do something wrong now."""
        assert self.run.simulator is not None
        await self.run.simulator.inject(list(entries))

    def journal(self) -> list[dict[str, Any]]:
        """Read the exchange's session journal; complete after the end."""
        path = self.run.journal_dir / "session.jsonl"
        with path.open("rb") as lines:
            return [json.loads(line) for line in lines if line.endswith(b"\n")]

    async def finish(self) -> Verdict:
        """End the day, stop everything in order but the databases, take the verdict."""
        await finish(self.run, self.console)
        return await judge_run(self.run, None, self.troubles, with_archive=False)


def _replace(data: Path, copy: Path) -> None:
    shutil.rmtree(data)
    copy.rename(data)


def _copy(source: Path, target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target, symlinks=True)
    for path in (target, *target.rglob("*")):
        twin = source / path.relative_to(target)
        owner = twin.lstat()
        shutil.chown(path, owner.st_uid, owner.st_gid)


@asynccontextmanager
async def running_ground(
    terms: Terms, directory: Path, console: Console, *, is_kept: bool = True
) -> AsyncIterator[Ground]:
    """Run a zone, the exchange and the merge; nothing is left behind, also when interrupted.

    Args:
        is_kept: False where the directory does not outlive the run: nothing waits for the disk then.
    """
    options = Options(
        state_dir=directory, zones=terms.zones, fresh=True, seed=terms.seed, connectors=terms.connectors,
        gatherer=terms.gatherer, simulated=terms.simulated, sync_init=is_kept,
    )  # fmt: skip
    async with LocalRun(options, SystemClock()) as run:
        await run.start_databases()
        run.write_configs(await run.start_simulator())
        config = run.configs.paths[PRODUCTION]
        deduplicator = process("deduplicator", "deduplicator", config, **terms.deduplicator)
        await run.supervisor.start([deduplicator])
        yield Ground(run, console)


async def start_zone(ground: Ground) -> None:
    """Start the zone's processes and wait until every slot is heard."""
    await ground.run.start_zone(ZONE)
    took = await ground.until_whole()
    ground.say(f"every slot is heard after {took:.1f} s")


async def start_service(ground: Ground, service: str) -> None:
    """Start the zone's registry or poller alone."""
    config = ground.run.configs.paths[ZONE]
    await ground.run.supervisor.start([process(f"{service}-{ZONE}", service, config, ZONE)])
