"""8: zone by zone to the next version; a held zone's pods come back old; rollback; uninstall without an operator; install again."""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import ClassVar

from tests.cluster.figures import Figure, at_least, at_most, equal, of_verdict
from tests.cluster.ground import RELEASE, Ground
from tests.cluster.images import ROOT, SERVICES
from tests.cluster.kube import images_of, is_going, is_ready, name_of
from tests.cluster.names import ZONAL
from tests.cluster.previous import copy_as_next, read_previous
from tests.cluster.referee import Case
from tests.cluster.scenario import Scenario
from tests.cluster.shell import run
from tests.cluster.values import CHART, ZONES
from tests.cluster.waiting import until, until_true

FIRST, HELD = "a", "b"
SOUND_S, WITHIN_S, ROLLOUT_S = 15, 300, 900
NEW_S_MAX = 240.0
BACK_S_MAX = 120.0
KEPT = {
    "PersistentVolumeClaim": "data volumes",
    "Secret": "passwords",
    "ConfigMap": "configurations",
}
"""What an uninstall leaves: the volumes, the passwords that open them, and configurations that old pods may still have."""
LEFT_KINDS = "deployments,statefulsets,replicasets,jobs,pods,services,networkpolicies,gatherers.kalshi-data.io,roles,rolebindings,serviceaccounts,poddisruptionbudgets,secrets,configmaps,persistentvolumeclaims"  # fmt: skip


class Upgrade(Scenario):
    """Ends with a fresh installation on the old volumes."""

    number: ClassVar[int] = 8
    title: ClassVar[str] = (
        "zone-by-zone upgrade, a held zone's pods come back old, rollback, uninstall without an operator, install again"
    )
    timeout_s: ClassVar[float] = 1_200.0

    async def play(self, ground: Ground) -> list[Figure]:
        previous = read_previous()
        ground.say(previous.said)
        if previous.released:
            await self._begin_with(ground, previous.chart, previous.image)
        old = ground.images.tags[SERVICES] if not previous.released else previous.image
        figures = [Figure("upgrade", previous.said, "said", True)]
        figures += await self._roll_out(ground, old)
        figures += await self._roll_back(ground, old)
        figures += await self._uninstall(ground)
        figures += await self._install_again(ground)
        return figures

    async def _begin_with(self, ground: Ground, chart: Path, image: str) -> None:
        """Have the last release in place of this tree's."""
        await ground.remove()
        registry, _, tag = image.rpartition(":")
        more = {"image": {"repository": registry, "tag": tag}}
        await ground.install(ZONES, ground.helm, more, chart)
        await ground.steady(ZONES)

    async def _roll_out(self, ground: Ground, old: str) -> list[Figure]:
        """Zone by zone, while nobody loses anything; a held zone's pods that are deleted by hand come back old."""
        new = f"{ground.images.tags[SERVICES]}-next"
        await ground.builder.services(new)
        chart = copy_as_next(CHART, ground.scratch / "next-chart")
        # The exchange is none of ours: it goes on, or there would be no truth.
        more = {"simulator": {"image": {"tag": old}}}
        images = ground.images.with_services(new)
        files = ground.files(ground.values(ZONES, more, images), "next")
        since, begun = ground.clock.now(), ground.clock.monotonic()
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
            held = await self._delete_held(ground, command, new, old)
            said = await command
        finally:
            if not command.done():
                command.cancel()
                await asyncio.gather(command, return_exceptions=True)
        ground.say(
            f"rollout: {said.strip().splitlines()[-1]}, {ground.clock.monotonic() - begun:.0f} s"
        )
        await ground.settle(ZONES)
        runs = {tag_of(image) for zone in ZONES for image in await ground.images_in(zone)}
        verdict = await ground.judge(case := Case(since))
        return [
            *held,
            equal("images after the rollout", sorted(runs), [new]),
            *of_verdict(verdict, case),
        ]

    async def _delete_held(
        self, ground: Ground, command: "asyncio.Task[str]", new: str, old: str
    ) -> list[Figure]:
        """When the first zone runs the new version, delete a pod of each kind in a zone that is still held."""

        async def first_is_new() -> bool:
            if command.done():
                await command
                return True
            pods = [pod for pod in await ground.pods("connector", FIRST) if is_ready(pod)]
            return any(tag_of(image) == new for image in images_of(pods))

        await until_true(
            first_is_new, NEW_S_MAX, f"zone {FIRST} has a new connector", say=ground.say
        )
        doomed = [(await ground.ready(name, HELD))[0] for name in ZONAL]
        await ground.kube("delete", "pod", *map(name_of, doomed), "--wait=false")
        ground.say(f"deleted by hand while zone {HELD} is held: {', '.join(map(name_of, doomed))}")
        gone = {name_of(pod) for pod in doomed}

        async def replacements() -> list[str]:
            pods = [pod for name in ZONAL for pod in await ground.pods(name, HELD)]
            fresh = [pod for pod in pods if not is_going(pod) and name_of(pod) not in gone]
            return (
                [tag_of(image) for image in sorted(images_of(fresh))]
                if len(fresh) >= len(doomed)
                else []
            )

        tags = await until(
            replacements, bool, BACK_S_MAX, "the deleted pods are replaced", say=ground.say
        )
        return [equal("images of a held zone's pods that came back", tags, [old])]

    async def _roll_back(self, ground: Ground, old: str) -> list[Figure]:
        """helm rollback to the revision before the rollout."""
        since, begun = ground.clock.now(), ground.clock.monotonic()
        history = await ground.helm(
            "history", RELEASE, "--namespace", ground.kube.namespace, "--output", "json"
        )
        target = before_rollout(history)
        await ground.helm("rollback", RELEASE, str(target), "--namespace", ground.kube.namespace)
        for zone in ZONES:
            for name in ZONAL:
                await ground.rolled(name, zone)
        await ground.settle(ZONES)
        took = ground.clock.monotonic() - begun
        runs = {tag_of(image) for zone in ZONES for image in await ground.images_in(zone)}
        await ground.referee.begin()
        verdict = await ground.judge(case := Case(since))
        return [
            at_most(f"rollback to revision {target}", took, 300, " s"),
            equal("images after the rollback", sorted(runs), [old]),
            *of_verdict(verdict, case),
        ]

    async def _uninstall(self, ground: Ground) -> list[Figure]:
        """With the operator dead: what is left are volumes, their passwords, and configurations."""
        await ground.kube("scale", f"deployment/{ground.names.object('operator')}", "--replicas=0")
        await ground.gone(await ground.pods("operator"))
        # Helm leaves its tests' pods to whoever asked for them.
        mine = ("referee", ground.names.object("test"))
        await ground.kube("delete", "pod", *mine, "--ignore-not-found")
        self._cursors = await self._merged(ground)
        begun = ground.clock.monotonic()
        await ground.helm.uninstall(RELEASE, ground.kube.namespace)
        await ground.gone(await ground.kube.items("pods", ground.names.labels()))
        took = ground.clock.monotonic() - begun
        found = await ground.kube.items(LEFT_KINDS, ground.names.labels())
        kinds = {item["kind"] for item in found}
        claims = sum(item["kind"] == "PersistentVolumeClaim" for item in found)
        ground.installed = ()
        return [
            at_most("uninstall", took, 240, " s"),
            equal(
                "left beyond volumes, passwords and configurations", sorted(kinds - set(KEPT)), []
            ),
            equal("data volumes left", claims, len(ZONES) + 2),
        ]

    async def _install_again(self, ground: Ground) -> list[Figure]:
        """The volumes are taken up, and the deduplicator goes on where it was."""
        rows, merge_no, cursors = self._cursors
        await ground.install(ZONES, ground.helm)
        await ground.steady(ZONES)
        verdict = await ground.judge(case := Case(ground.since, no_gap=("production", *ZONES)))
        after = await self._merged(ground)
        behind = await ground.number(
            "production", f"SELECT count(*) FROM merges WHERE merge_no = {merge_no + 1}"
        )
        lost = [lane for lane, batch in cursors.items() if after[2].get(lane, 0) < batch]
        zones = await ground.sql("production", "SELECT zone, status FROM gatherers ORDER BY zone")
        return [
            at_least("rows of production, then and now", after[0], rows),
            equal("merges go on with the next number", behind, 1),
            equal("cursors that went back", lost, []),
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
    """Return the environment in which `helm` is the release's own."""
    folder = str(Path(ground.helm.program).resolve().parent)
    return {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
