"""The rollout itself: step by step, telling what it does; it ends with everything released, or with the reason why not."""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from libs.runtime.clock import Clock
from services.rollout.cluster import Cluster, Workload, unfinished
from services.rollout.errors import AnswerUnreadable, Stopped, ToolFailed
from services.rollout.helm import Helm
from services.rollout.judge import Reading, Watch, troubles
from services.rollout.plan import (
    Step,
    all_steps,
    description_of,
    find_start,
    is_complete,
    next_step,
    still_there,
)
from services.rollout.progress import Progress
from services.rollout.prune import may_go
from services.rollout.words import Wanted

LOOK_S: Final = 5.0
"""Seconds between two looks at a zone, or at Jobs."""
DEADLINE: Final = "exceeded its progress deadline"
"""What kubectl says of a Deployment whose pods are late by its own deadline: Kubernetes goes on with it all the same."""
SLOW: Final = {
    "registry": "ready once it has listed the exchange: a million markets take minutes",
    "poller": "ready once it has its first books from the exchange",
    "connector": "pod by pod; each hands its slots over first",
}
"""Why a workload of a zone takes as long as it does."""
FULL: Final = (
    "zone {zone} has filled {share:.0%} of its storage_bytes_max: rows that its connectors hold back are lost with their pods."
    " Bring production back, so that room is given back, and run this again; or give these rows up: --despite-full"
)
QUIET_S_MAX: Final = 300.0
"""Seconds that a zone's own troubles are waited for before its step."""


@dataclass(slots=True)
class Rollout:
    """One run.

    Attributes:
        say: told each thing that is done. look_s: seconds between two looks.
    """

    helm: Helm
    cluster: Cluster
    wanted: Wanted
    fingerprint: str
    clock: Clock
    say: Callable[[str], None]
    look_s: float = LOOK_S
    progress: Progress = field(default_factory=Progress)

    async def first(self) -> Step:
        """Find out where to begin. Raises RolloutError."""
        progress = self.progress
        history = await self.helm.history()
        progress.start = start = find_start(self.wanted.release, history, self.fingerprint)
        progress.zones = await self.cluster.zones()
        if not progress.zones:
            # Without a zone to look at, the next step would be everybody at once.
            raise Stopped(
                f"helm knows {self.wanted.release}, and kubectl no Gatherer of it: not the same place (-n)?"
                " Or all were deleted for other slots: then helm upgrade makes them again"
                " (--set-json rollout.released=[] for no pod to follow yet), and this goes on"
            )
        first = still_there(start.step, progress.zones)
        progress.released = first.released
        return first

    def steps(self, first: Step) -> list[Step]:
        """Every step from the first one on, as far as is known before it."""
        return all_steps(self.progress.zones, self.wanted.held, first)

    async def run(self, first: Step) -> None:
        """Go through the steps.

        Raises:
            Stopped: a step did not end well. RolloutError: helm or kubectl failed.
        """
        step: Step | None = first
        while step is not None:
            await self._take(step)
            step = next_step(self.progress.zones, self.wanted.held, step)
        if is_complete(self.progress.zones, Step(self.progress.released)):
            await self._prune()

    async def _take(self, step: Step) -> None:
        since, step_at = await self._quiet(step.zone), self.clock.monotonic()
        named = "all" if step.released is None else ", ".join(step.released) or "none"
        self.say(f"helm upgrade: released {named}")
        self.progress.begun, self.progress.released = True, step.released
        description = description_of(self.fingerprint, step)
        await self.helm.upgrade(self.wanted.chart, self.wanted.helm, step.released, description)
        # A zone that this version brings is there only now.
        self.progress.zones = zones = await self.cluster.zones()
        if unknown := sorted(self.wanted.held - set(zones)):
            raise Stopped(
                f"--hold {', '.join(unknown)}: no such zone; there are: {', '.join(zones)}"
            )
        await self._jobs()
        workloads = await self.cluster.workloads()
        if step.released is None:
            await self._replaced(workloads)
        else:
            await self._replaced([one for one in workloads if one.zone == step.zone])
        if step.zone:
            await self._watch(Watch(step.zone, since, self.wanted.demands, step_at), step.zone)

    async def _quiet(self, zone: str) -> int | None:
        """Wait until what troubled the zone before its step is over; return its database's time, microseconds.

        A zone that cannot be asked (None), or does not become quiet, is no reason not to bring it what may mend it.

        Raises:
            Stopped: its storage is full.
        """
        if not zone:
            return None
        deadline, said = self.clock.monotonic() + QUIET_S_MAX, ""
        while True:
            try:
                reading = await self.cluster.reading(zone)
            except (AnswerUnreadable, ToolFailed) as error:
                self.say(f"zone {zone} before its step: {error}")
                return None
            if reading.is_full and not self.wanted.despite_full:
                raise Stopped(FULL.format(zone=zone, share=reading.storage))
            found = troubles(reading, self.wanted.demands)
            if not found:
                return reading.now
            if ", ".join(found) != said:
                said = ", ".join(found)
                self.say(f"zone {zone} before its step: {said}")
            if self.clock.monotonic() > deadline:
                return reading.now
            await asyncio.sleep(self.look_s)

    async def _jobs(self) -> None:
        """Wait for the migrations: nothing new starts before its schema is there."""
        deadline, said = self.clock.monotonic() + self.wanted.rollout_s, ""
        while working := unfinished(await self.cluster.jobs()):
            if ", ".join(working) != said:
                said = ", ".join(working)
                self.say(f"waiting for {said}")
            if self.clock.monotonic() > deadline:
                raise Stopped(f"not finished after {self.wanted.rollout_s:g} s: {said}")
            await asyncio.sleep(self.look_s)

    async def _replaced(self, workloads: list[Workload]) -> None:
        """Wait until every pod is new: databases first, their TimescaleDB next, then what writes to them."""
        for one in workloads:
            why = SLOW.get(one.component, "")
            self.say(f"waiting for {one.address}" + (f" ({why})" if why else ""))
            await self._ready(one)
            if one.kind == "StatefulSet" and one.component in ("database", "production"):
                extension = await self.cluster.update_extension(one.component, one.zone)
                self.say(f"{one.name}: {extension.says}")

    async def _ready(self, workload: Workload) -> None:
        """Wait until a workload's pods are new and ready, by our own deadline: kubectl breaks off at the Deployment's."""
        deadline, said = self.clock.monotonic() + self.wanted.rollout_s, False
        what = "kubectl describe and logs of its pods say why"
        while True:
            left = deadline - self.clock.monotonic()
            try:
                return await self.cluster.wait_for(workload, max(left, 1.0))
            except ToolFailed as error:
                if DEADLINE not in str(error) or left <= 0:
                    raise Stopped(f"{workload.address} is not there: {error}; {what}") from error
            if not said:
                self.say(f"{workload.address} is late, waited for {left:.0f} s more; {what}")
                said = True
            await asyncio.sleep(self.look_s)

    async def _watch(self, watch: Watch, zone: str) -> None:
        """Look at the zone until it was sound for long enough, or will not be."""
        said = ""
        while True:
            reading: Reading | str
            try:
                reading = await self.cluster.reading(zone)
                if reading.lag_p99_ms is None and (other := await self._who_hears(zone)):
                    reading = f"nothing stored for a minute, while zone {other} stores"
            except (AnswerUnreadable, ToolFailed) as error:
                reading = str(error)
            verdict = watch.see(reading, self.clock.monotonic())
            if verdict.then == "stop":
                raise Stopped(verdict.why)
            if verdict.why != said:
                said = verdict.why
                self.say(f"zone {zone}: {said}")
            if verdict.then == "go on":
                return
            await asyncio.sleep(self.look_s)

    async def _who_hears(self, zone: str) -> str:
        """Name another zone that has stored something of late; empty where the exchange is silent to all of them."""
        for other in self.progress.zones:
            if other != zone:
                with contextlib.suppress(AnswerUnreadable, ToolFailed):
                    if (await self.cluster.reading(other)).lag_p99_ms is not None:
                        return other
        return ""

    async def _prune(self) -> None:
        maps, used = await self.cluster.config_maps()
        gone = may_go(maps, used)
        if gone:
            await self.cluster.forget_maps(gone)
            self.say(f"removed {len(gone)} former ConfigMaps that nothing uses: {', '.join(gone)}")
