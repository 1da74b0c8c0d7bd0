"""The referee: a pod beside the release that holds production against what the exchange published.

It is the deduplicator's pod with nothing to do: the same image, configuration and Secrets, and the archiver's of the S3
server. The release's policies do not know it, so the test brings one of its own; the chart has none for it.
"""

import asyncio
import contextlib
import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from libs.marketdata.listening import Span
from libs.marketdata.units import SECOND
from libs.runtime.clock import Clock
from tests.cluster.errors import CommandFailed
from tests.cluster.kube import Kube, Object, is_ready
from tests.cluster.names import Names
from tests.cluster.waiting import Say, until_true

POD = "referee"
MARK = {"kalshi-data.io/referee": "yes"}
CONFIG = "/etc/kalshi-data/deduplicator.yaml"
READY_S_MAX = 90.0
TAKE_S_MAX = 240.0
WAIT_S = 10.0
"""From a span's end to the first look: a quiet sid is proved by the probe after it, and the merge has to follow."""
HOLDS_S_MAX = 180.0
EVERY_S = 6.0
MEMORY = {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "4Gi"}}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What `kalshi-data verdict --json` said; times in microseconds."""

    told: Mapping[str, Any]
    span: Span

    @property
    def holds(self) -> bool:
        """Nothing extra, nothing missing that somebody claims, every gap with its cause."""
        return bool(self.told["holds"])

    @property
    def reasons(self) -> list[str]:
        return list(self.told["reasons"])

    def sum(self, figure: str) -> int:
        """Return truth, stored, missing, extra or unsound over all tables."""
        return sum(int(table[figure]) for table in self.told["tables"].values())

    def gaps(self, who: str) -> int:
        """Return how many gaps a zone (or `production`) has beyond those of new and of closing markets."""
        return int(self.told["unplanned_gaps"][who]["count"])

    def widest(self, who: str) -> str:
        """Return the widest of them in words, empty when there is none."""
        longest = self.told["unplanned_gaps"][who]["longest"]
        return "; ".join(f"{t} {(high - low) / SECOND:.1f} s" for t, low, high in longest[:2])

    def brief(self) -> str:
        """Return one line."""
        seconds = (self.span[1] - self.span[0]) / SECOND
        snapshots, books = self.told["snapshots"], self.told["books"]
        return (
            f"{seconds:.0f} s: {self.sum('truth'):,} facts, missing {self.sum('missing')}, extra {self.sum('extra')},"
            f" unsound {self.sum('unsound')}; snapshots {snapshots[0]:,}/{snapshots[1]:,}, books {books[0]:,}/{books[1]:,};"
            f" gaps of production {self.gaps('production')}"
        )


@dataclass(frozen=True, slots=True)
class Case:
    """What is judged: a span, when zones were away, what else was done to them."""

    since: int
    away: Sequence[tuple[str, Span]] = ()
    trouble: Sequence[tuple[str, Span]] = ()
    no_gap: Sequence[str] = field(default_factory=lambda: ("production",))
    """Who is to have no gap (zones, `production`)."""

    def is_met_by(self, verdict: Verdict) -> bool:
        """True when it holds, and nobody who must not has a gap."""
        return verdict.holds and not any(verdict.gaps(who) for who in self.no_gap)

    def words(self) -> list[str]:
        """Return the arguments of `kalshi-data verdict`."""
        found = []
        for flag, entries in (("--away", self.away), ("--trouble", self.trouble)):
            for zone, (low, high) in entries:
                found += [flag, f"{zone}={low}..{high}"]
        return found


class Referee:
    """One release's; `begin` makes it."""

    def __init__(self, kube: Kube, names: Names, clock: Clock, say: Say) -> None:
        self._kube = kube
        self._names = names
        self._clock = clock
        self._say = say

    async def begin(self) -> None:
        """Make the pod and its policies, anew when there is one. Raises CommandFailed, NotInTime."""
        await self._kube(
            "delete", "pod", POD, "--ignore-not-found", "--grace-period=1", timeout_s=60
        )
        deployments = [
            await self._kube.get("deployment", self._names.object(name))
            for name in ("deduplicator", "archiver")
        ]
        await self._kube.apply(pod_of(*deployments), *policies_of(self._names))
        await until_true(self._is_ready, READY_S_MAX, "the referee is ready", say=self._say)

    async def leave(self) -> None:
        """Take the pod and its policies away. Raises CommandFailed."""
        names = [policy["metadata"]["name"] for policy in policies_of(self._names)]
        await self._kube("delete", "networkpolicy", *names, "--ignore-not-found")
        await self._kube("delete", "pod", POD, "--ignore-not-found", "--grace-period=1")

    async def _is_ready(self) -> bool:
        return is_ready(await self._kube.get("pod", POD))

    async def take(self, case: Case, *, within_s: float = HOLDS_S_MAX) -> Verdict:
        """Judge from the case's beginning to now, until it holds; return the last verdict, which may not.

        A span that is over only becomes more whole: what is under way to production arrives.
        """
        span = (case.since, self._clock.now())

        async def look() -> Verdict:
            return Verdict(await self._ask(span, case), span)

        await asyncio.sleep(WAIT_S)
        found = await look()
        deadline = self._clock.monotonic() + within_s
        while not case.is_met_by(found) and not found.sum("extra") and self._clock.monotonic() < deadline:  # fmt: skip
            self._say(
                f"... the verdict does not hold yet: {'; '.join(found.reasons)[:200] or found.brief()}"
            )
            await asyncio.sleep(EVERY_S)
            found = await look()
        self._say(f"verdict over {found.brief()}")
        if within_s and not case.is_met_by(found):
            with contextlib.suppress(CommandFailed):
                late = (await self.exchange_state())["lag_us_max"] / SECOND
                self._say(f"the exchange was {late:.1f} s behind its own clock at most")
        return found

    async def _ask(self, span: Span, case: Case) -> dict[str, Any]:
        address = f"http://{self._names.object('simulator')}:8700"
        words = [
            "--config", CONFIG, "--exchange", address, "--key-id", self._names.key_id(), "--json",
            "--from", str(span[0]), "--to", str(span[1]), *case.words(),
        ]  # fmt: skip
        # A verdict that does not hold is an answer, too.
        script = 'kalshi-data verdict "$@"; test $? -lt 2'
        said = await self._kube.execute(
            POD, "sh", "-c", script, "verdict", *words, timeout_s=TAKE_S_MAX
        )
        found = json.loads(said)
        assert isinstance(found, dict)
        return found

    async def archive_verify(self) -> str:
        """Prove every object of the archive; return the last line said. Raises CommandFailed."""
        words = ("kalshi-data", "archive", "verify", "--config", CONFIG)
        said = await self._kube.execute(POD, *words, timeout_s=TAKE_S_MAX)
        return said.strip().splitlines()[-1]

    async def exchange_state(self) -> dict[str, Any]:
        """Return what the simulator says of itself. Raises CommandFailed."""
        script = (
            "import sys, urllib.request; "
            "sys.stdout.write(urllib.request.urlopen(sys.argv[1], timeout=20).read().decode())"
        )
        address = f"http://{self._names.object('simulator')}:8700/control/state"
        found = json.loads(await self._kube.execute(POD, "python", "-c", script, address))
        assert isinstance(found, dict)
        return found


def pod_of(deduplicator: Object, archiver: Object) -> Object:
    """Return the referee's pod: the deduplicator's with the archiver's volumes, asleep, and no part of the release."""
    spec = copy.deepcopy(deduplicator["spec"]["template"]["spec"])
    other = copy.deepcopy(archiver["spec"]["template"]["spec"])
    (container,) = spec["containers"]
    (its,) = other["containers"]
    known = {volume["name"] for volume in spec["volumes"]}
    spec["volumes"] += [volume for volume in other["volumes"] if volume["name"] not in known]
    container["volumeMounts"] += [m for m in its["volumeMounts"] if m["name"] not in known]
    for key in ("startupProbe", "livenessProbe", "readinessProbe", "ports", "args"):
        container.pop(key, None)
    container |= {"name": POD, "command": ["sleep", "infinity"], "resources": MEMORY}
    for volume in spec["volumes"]:
        if volume["name"] == "tmp":
            volume["emptyDir"] = {"sizeLimit": "4Gi"}
    spec |= {"restartPolicy": "Always", "terminationGracePeriodSeconds": 1}
    spec.pop("serviceAccountName", None)
    spec.pop("serviceAccount", None)
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": POD, "labels": dict(MARK)},
        "spec": spec,
    }


def policies_of(names: Names) -> list[Object]:
    """Return the policies that let the referee in; it may itself go anywhere, since no policy selects it."""
    doors = {"database": 5432, "production": 5432, "simulator": 8700, "s3": 7070}
    return [
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": f"{POD}-{component}"},
            "spec": {
                "podSelector": {"matchLabels": names.labels(component)},
                "policyTypes": ["Ingress"],
                "ingress": [
                    {
                        "from": [{"podSelector": {"matchLabels": dict(MARK)}}],
                        "ports": [{"protocol": "TCP", "port": port}],
                    }
                ],
            },
        }
        for component, port in doors.items()
    ]
