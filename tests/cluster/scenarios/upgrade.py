"""8: zone by zone to the next version; a held zone's pods come back old; rollback; uninstall without an operator; install again."""

import asyncio
import json
import os
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar

import yaml

from services.local.topology import merged
from tests.cluster.figures import Figure, at_least, at_most, equal, of_verdict
from tests.cluster.ground import RELEASE, Ground
from tests.cluster.images import ROOT, SERVICES
from tests.cluster.kube import Object, images_of, is_ready, name_of
from tests.cluster.leftovers import leftovers, volumes
from tests.cluster.names import ZONAL
from tests.cluster.previous import copy_as_next, read_previous
from tests.cluster.referee import Case
from tests.cluster.scenario import Scenario
from tests.cluster.scenarios.install import zones_with_rows
from tests.cluster.shell import run
from tests.cluster.values import CHART, ZONES
from tests.cluster.waiting import until, until_true

FIRST, HELD = "a", "b"
SOUND_S, WITHIN_S, ROLLOUT_S = 10, 300, 900
NEW_S_MAX = 300.0
BACK_S_MAX = 120.0
ROLLBACK_S_MAX = 420.0
ANOTHER_EXCHANGE = {"zoneDefaults": {"registry": {"settings": {"full_sync_s": 60}}}}
"""The second installation's exchange is another one, whose markets the old catalogues are to find soon."""
MARK = "kalshi-data.io/version"
"""An annotation of the next version's database pods: its chart has no other database."""
DATABASE = "database"


class Upgrade(Scenario):
    """Ends with a fresh installation on the old volumes."""

    number: ClassVar[int] = 8
    title: ClassVar[str] = (
        "zone-by-zone upgrade, a held zone's pods come back old, rollback, uninstall without an operator, install again"
    )
    timeout_s: ClassVar[float] = 1_500.0

    async def play(self, ground: Ground) -> list[Figure]:
        previous = read_previous()
        ground.say(previous.said)
        image = {"tag": ground.images.tags[SERVICES]}
        if previous.released:
            repository, _, tag = previous.image.rpartition(":")
            image = {"repository": repository, "tag": tag}
            more = merged(previous.values, {"image": image})
            await ground.remove()
            await ground.install(ZONES, ground.helm, more, previous.chart)
            await ground.steady(ZONES)
        else:
            await self._take_over_numbers(ground)
        old = image["tag"]
        since = ground.clock.now()
        figures = [Figure("upgrade", previous.said, "said", True)]
        figures += await self._roll_out(ground, image)
        figures += await self._roll_back(ground, old)
        figures += await self._judged(ground, since)
        figures += await self._uninstall(ground)
        figures += await self._install_again(ground)
        return figures

    async def _take_over_numbers(self, ground: Ground) -> None:
        """Have a revision with the numbers of connectors that the zones have: Helm 4 goes back to no other.

        Since `kubectl scale` they are kubectl's, and a rollback that says another one is a conflict.
        """
        words = ("get", "manifest", RELEASE, "--namespace", ground.kube.namespace)
        said = numbers(yaml.safe_load_all(await ground.helm(*words)))
        if said != numbers(await ground.kube.items("gatherers.kalshi-data.io")):
            await ground.upgrade(ZONES)

    async def _roll_out(self, ground: Ground, old: dict[str, str]) -> list[Figure]:
        """Zone by zone, while nobody loses anything; a held zone's pods that are deleted by hand come back old."""
        new = f"{ground.images.tags[SERVICES]}-next"
        await ground.builder.services(new)
        chart = copy_as_next(CHART, ground.scratch / "next-chart")
        # The exchange is none of ours: it goes on, or there would be no truth.
        more = {
            "simulator": {"image": old},
            "zoneDefaults": {"database": {"podAnnotations": {MARK: "next"}}},
        }
        images = ground.images.with_services(new)
        files = ground.files(ground.values(ZONES, more, images), "next")
        begun = ground.clock.monotonic()
        words = [word for path in files for word in ("--values", str(path))]
        seconds = (
            "--sound-s",
            str(SOUND_S),
            "--within-s",
            str(WITHIN_S),
            "--rollout-s",
            str(ROLLOUT_S),
        )
        command = asyncio.create_task(
            run(
                sys.executable, "-m", "services.cli", "rollout", RELEASE, str(chart), "--namespace", ground.kube.namespace,
                *seconds, *words, timeout_s=ROLLOUT_S, env=environment(ground),
            ),
            name="rollout",
        )  # fmt: skip
        try:
            held = await self._delete_held(ground, command, new, old["tag"])
            said = await command
        finally:
            if not command.done():
                command.cancel()
                await asyncio.gather(command, return_exceptions=True)
        ground.say(
            f"rollout: {said.strip().splitlines()[-1]}, {ground.clock.monotonic() - begun:.0f} s"
        )
        runs = {tag_of(image) for zone in ZONES for image in await ground.images_in(zone)}
        return [
            *held,
            equal("images after the rollout", sorted(runs), [new]),
            equal("databases after the rollout", await self._marks(ground, ZONES), ["next"] * 3),
        ]

    async def _marks(self, ground: Ground, zones: Iterable[str]) -> list[str]:
        """Return which version the zones' database pods are of."""
        pods = [pod for zone in zones for pod in await ground.ready(DATABASE, zone)]
        return [pod["metadata"].get("annotations", {}).get(MARK, "old") for pod in pods]

    async def _delete_held(
        self, ground: Ground, command: "asyncio.Task[str]", new: str, old: str
    ) -> list[Figure]:
        """When the first zone runs the new version, delete a pod of each kind in a zone that is still held."""

        async def first_is_new() -> bool:
            pods = [pod for pod in await ground.pods("connector", FIRST) if is_ready(pod)]
            return command.done() or any(tag_of(image) == new for image in images_of(pods))

        what = f"zone {FIRST} has a new connector"
        await until_true(first_is_new, NEW_S_MAX, what, say=ground.say)
        if command.done():
            # Too early: it says itself why it ended.
            await command
        return await self._come_back(ground, old)

    async def _come_back(self, ground: Ground, old: str) -> list[Figure]:
        """Delete a pod of each kind in a held zone, and look at all of its pods when they are back."""

        async def held() -> list[list[Object]]:
            return [await ground.ready(name, HELD) for name in (*ZONAL, DATABASE)]

        what = f"registry, connectors, poller and database of {HELD} ready"
        there = await until(held, all, BACK_S_MAX, what, say=ground.say)
        doomed = {uid_of(pods[0]): name_of(pods[0]) for pods in there}
        await ground.kube("delete", "pod", *doomed.values(), "--wait=false")
        ground.say(f"deleted by hand while zone {HELD} is held: {', '.join(doomed.values())}")

        def others(found: list[list[Object]]) -> list[Object]:
            return [pod for pods in found for pod in pods if uid_of(pod) not in doomed]

        # A connector that nobody deleted does not stand for the one that has to come.
        count = sum(map(len, there))
        found = await until(
            held, lambda pods: len(others(pods)) >= count, BACK_S_MAX, what, say=ground.say
        )
        tags = sorted({tag_of(image) for image in images_of(others(found[:-1]))})
        return [
            equal("images of a held zone's pods that came back", tags, [old]),
            equal("its database", await self._marks(ground, [HELD]), ["old"]),
        ]

    async def _roll_back(self, ground: Ground, old: str) -> list[Figure]:
        """helm rollback to the revision before the rollout."""
        begun = ground.clock.monotonic()
        history = await ground.helm(
            "history", RELEASE, "--namespace", ground.kube.namespace, "--output", "json"
        )
        target = before_rollout(history)
        await ground.helm("rollback", RELEASE, str(target), "--namespace", ground.kube.namespace)
        for zone in ZONES:
            for name in ZONAL:
                await ground.rolled(name, zone)
        what = "every database of the version before"
        await until(
            lambda: self._marks(ground, ZONES), lambda found: found == ["old"] * len(ZONES),
            BACK_S_MAX, what, say=ground.say,
        )  # fmt: skip
        await ground.settle(ZONES)
        took = ground.clock.monotonic() - begun
        runs = {tag_of(image) for zone in ZONES for image in await ground.images_in(zone)}
        return [
            at_most(f"rollback to revision {target}", took, ROLLBACK_S_MAX, " s"),
            equal("images after the rollback", sorted(runs), [old]),
        ]

    async def _judged(self, ground: Ground, since: int) -> list[Figure]:
        """Whether anything was lost on the way to the next version and back."""
        await ground.referee.begin()
        verdict = await ground.judge(case := Case(since))
        return of_verdict(verdict, case)

    async def _uninstall(self, ground: Ground) -> list[Figure]:
        """With the operator dead: what is left are volumes, their passwords, and configurations."""
        # The deduplicator stops first, so that what it says of its last merge is true of the volumes.
        stopped = ("operator", "deduplicator")
        names = [f"deployment/{ground.names.object(component)}" for component in stopped]
        await ground.kube("scale", *names, "--replicas=0")
        for component in stopped:
            await ground.gone(await ground.pods(component))
        # Helm leaves its tests' pods to whoever asked for them; the referee and its policies are ours.
        await ground.kube("delete", "pod", ground.names.object("test"), "--ignore-not-found")
        await ground.referee.leave()
        self._cursors = await self._merged(ground)
        there = await volumes(ground)
        begun = ground.clock.monotonic()
        await ground.helm.uninstall(RELEASE, ground.kube.namespace)
        ground.installed = ()
        await ground.gone(await ground.kube.items("pods", ground.names.labels()))
        took = ground.clock.monotonic() - begun
        return [
            at_most("uninstall", took, 240, " s"),
            equal("left beyond volumes, passwords and configurations", await leftovers(ground), []),
            at_least("data volumes", len(there), len(ZONES) + 2),
            equal("data volumes left", await volumes(ground), there),
        ]

    async def _install_again(self, ground: Ground) -> list[Figure]:
        """The volumes are taken up, and the deduplicator goes on where it was."""
        rows, merge_no, cursors = self._cursors
        await ground.install(ZONES, ground.helm, ANOTHER_EXCHANGE)
        await ground.settle(ZONES)
        since = ground.clock.now()
        seen = await zones_with_rows(ground, since)
        # Markets may bear the name of one that closed at the exchange before: those stay unheard, which is no fault.
        await ground.referee.begin()
        verdict = await ground.judge(case := Case(since, no_gap=()))
        after = await self._merged(ground)
        behind = await ground.number(
            "production", f"SELECT count(*) FROM merges WHERE merge_no = {merge_no + 1}"
        )
        lost = [lane for lane, batch in cursors.items() if after[2].get(lane, 0) < batch]
        known = "SELECT zone, status FROM gatherers WHERE zone = ANY ('{a,b,c}') ORDER BY zone"
        zones = await ground.sql("production", known)
        return [
            at_least("rows of production, then and now", after[0], rows),
            equal("merges go on with the next number", behind, 1),
            equal("cursors that went back", lost, []),
            equal("zones whose rows come again", sorted(seen), sorted(ZONES)),
            equal("gatherers as production knows them", zones, [[zone, "ok"] for zone in ZONES]),
            *of_verdict(verdict, case),
        ]

    async def _merged(self, ground: Ground) -> tuple[int, int, dict[str, int]]:
        """Return production's rows of deltas and trades, its last merge, and its cursors by lane."""
        rows = await ground.number(
            "production",
            "SELECT (SELECT count(*) FROM orderbook_deltas) + (SELECT count(*) FROM trades)",
        )
        merge_no = await ground.number("production", "SELECT merge_no FROM writer_lease")
        cursors = await ground.sql("production", "SELECT lane, batch_no FROM sync_cursors")
        return rows, merge_no, {lane: int(batch) for lane, batch in cursors}


def numbers(documents: Iterable[Object | None]) -> dict[str, int]:
    """Return how many connectors each Gatherer among these objects is to have."""
    gatherers = [found for found in documents if found and found["kind"] == "Gatherer"]
    return {name_of(found): int(found["spec"]["shards"]) for found in gatherers}


def uid_of(pod: Object) -> str:
    """Return what tells a pod from one of its name before it."""
    return str(pod["metadata"]["uid"])


def tag_of(image: str) -> str:
    """Return an image reference's tag."""
    return image.rpartition(":")[2]


def before_rollout(history: str) -> int:
    """Return the newest revision that no rollout made, out of `helm history --output json`."""
    entries = json.loads(history)
    return max(
        int(entry["revision"])
        for entry in entries
        if not str(entry["description"]).startswith("kalshi-data rollout")
        and entry["status"] in ("deployed", "superseded")
    )


def environment(ground: Ground) -> dict[str, str]:
    """Return the environment in which `helm` is the release's own, whatever its file is called."""
    folder = ground.scratch / f"helm{ground.helm.major}"
    folder.mkdir(exist_ok=True)
    helm, program = folder / "helm", shutil.which(ground.helm.program)
    assert program is not None
    if not helm.is_symlink():
        helm.symlink_to(Path(program).resolve())
    return {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
