"""Rolling restarts of all connectors of the only zone, as a Deployment with surge 1 does them: nothing lost, no gap."""

from dataclasses import dataclass
from typing import ClassVar

from tests.soak.evidence import Evidence, Measured
from tests.soak.ground import ZONE, Ground, Terms
from tests.soak.scenario import Scenario

READY_S_MAX = 120.0
GRACE_S = 600
CALM_S = 3.0


@dataclass
class Rolling(Scenario):
    """times all connectors are replaced; a new one must have been ready for ready_s before the old one is told to go."""

    name: ClassVar[str] = "rolling"
    times: int = 10
    ready_s: float = 5.0
    timeout_s: float = 1200.0

    def terms(self) -> Terms:
        return Terms(gatherer={"connector": {"grace_s": GRACE_S}})

    async def act(self, ground: Ground) -> None:
        await ground.rest(CALM_S)
        self._begun = ground.clock.now()
        self._drains: list[float] = []
        for time in range(1, self.times + 1):
            # Whoever is there at the end of a run has nobody to hand over to.
            grace_s = 1 if time == self.times else GRACE_S
            for old in ground.run.names(ZONE, "connector"):
                await self._replace(ground, old, f"v{time}", grace_s)
            ground.say(
                f"roll-out {time} of {self.times}: the slowest drain took {max(self._drains):.1f} s"
            )
        await ground.until_whole()
        # What follows has to be heard before this moment is proved, the later the longer the machine keeps frames waiting.
        self._done = ground.clock.now()
        await ground.rest(CALM_S)

    async def _replace(self, ground: Ground, old: str, version: str, grace_s: int) -> None:
        new = await ground.start_connector(
            KALSHI_DATA_CONNECTOR__TEMPLATE_HASH=version,
            KALSHI_DATA_CONNECTOR__GRACE_S=str(grace_s),
        )
        await ground.until(lambda: ground.run.is_ready(new), READY_S_MAX, f"{new} ready")
        await ground.rest(self.ready_s)
        self._drains.append(await ground.drain(old, GRACE_S))

    async def measure(self, ground: Ground, evidence: Evidence) -> list[Measured]:
        span = (self._begun, self._done)
        lost, gaps = evidence.missing(span), evidence.gaps(span)
        reasons = await ground.rows(
            "select distinct reason from gaps where from_ts < $2 and to_ts > $1 and reason <> 'not_subscribed'", *span
        )  # fmt: skip
        moved: int = await ground.value(
            "select count(distinct connection) from listen_closed where reason = 'handed over'"
        )
        least = self.times * ground.slots
        said = ", ".join(row["reason"] for row in reasons) or "none"
        return [
            Measured("connectors replaced", str(len(self._drains)), ">= 1", bool(self._drains)),
            Measured("connections handed over", str(moved), f">= {least}", moved >= least),
            Measured("slowest drain", f"{max(self._drains):.1f} s", f"< {GRACE_S} s", True),
            Measured("deltas and trades lost", str(len(lost)), "0", not lost),
            Measured(
                "gaps of markets heard before", str(len(gaps)), f"0 {gaps[:2] or ''}", not gaps
            ),
            Measured("causes written, but not_subscribed", said, "none", not reasons),
        ]
