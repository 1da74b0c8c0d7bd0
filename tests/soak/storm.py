"""A reconnect storm during a hand-over: all connections closed several times, refused for a while, under tight limits.

The exchange's own journal is the judge: how many connections a key had at once, and what was refused for being too much.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Any, ClassVar

from libs.marketdata.units import SECOND
from tests.soak.evidence import Evidence, Measured, heard_enough
from tests.soak.ground import ZONE, Ground, Terms
from tests.soak.rolling import GRACE_S
from tests.soak.scenario import Scenario

CALM_S = 3.0
RECOVERY_S = 45.0
"""After the last refusal a market is heard within this: connections refused by number wait longest, and open one by one."""


@dataclass
class Storm(Scenario):
    """closes of all connections, one every every_s; between them refusals of refuse_s by 502 and by 429.

    connectors: of the zone; all are replaced, one after the other, each under such a storm.
    """

    name: ClassVar[str] = "storm"
    closes: int = 10
    every_s: float = 10.0
    refuse_s: float = 8.0
    connectors: int = 2
    slots: int = 30
    spare: int = 4
    """Connections the account has beyond one per slot."""
    markets: int = 300
    rate: float = 200.0
    timeout_s: float = 900.0

    def terms(self) -> Terms:
        most = self.slots + 6 + self.spare
        return Terms(
            connectors=self.connectors,
            gatherer={
                "slots": {"orderbook": self.slots, "ticker": 2, "trade": 2, "lifecycle": 2, "connections_max": most},
                "connector": {"extra_connections_max": 0, "grace_s": GRACE_S},
            },
            simulated={"connections_max": most, "markets": self.markets, "rate": self.rate},
        )  # fmt: skip

    async def act(self, ground: Ground) -> None:
        self._begun = ground.clock.now()
        for old in ground.run.names(ZONE, "connector"):
            new = await ground.start_connector(
                KALSHI_DATA_CONNECTOR__TEMPLATE_HASH="v2", KALSHI_DATA_CONNECTOR__GRACE_S="1"
            )
            await ground.until(lambda new=new: ground.run.is_ready(new), 60, f"{new} ready")  # type: ignore[misc]
            stopping = ground.begin_drain(old, GRACE_S)
            await self._storm(ground)
            await stopping
            ground.say(f"{old} is gone, its slots are elsewhere")
        await ground.until_whole()
        await ground.rest(CALM_S)
        self._done = ground.clock.now()

    async def _storm(self, ground: Ground) -> None:
        for number in range(self.closes):
            await ground.inject({"fault": "close", "code": 1001})
            status = (502, 429, 0)[number % 3]
            if status:
                await ground.inject({"fault": "refuse", "for_s": self.refuse_s, "status": status})
            await ground.rest(self.every_s)

    async def measure(self, ground: Ground, evidence: Evidence) -> list[Measured]:
        journal = ground.journal()
        limit, storm_s = ground.connections_max, self.closes * self.every_s
        most = most_at_once(journal)
        kinds = Counter(line["kind"] for line in journal)
        opened, refused, throttled = kinds["opened"], kinds["refused"], kinds["throttled"]
        return [
            Measured("connections opened", str(opened), f"> {limit}", opened > limit),
            Measured("most connections at once", str(most), f"<= {limit}", most <= limit),
            Measured("attempts beyond the limit", str(refused), "0", refused == 0),
            Measured("reads beyond the budget", str(throttled), "0", throttled == 0),
            *heard_enough(evidence, (self._begun - SECOND, self._done), storm_s + RECOVERY_S),
        ]


def most_at_once(journal: list[dict[str, Any]]) -> int:
    """Return the most connections that were open at one time."""
    now = most = 0
    for line in journal:
        now += (line["kind"] == "opened") - (line["kind"] == "closed")
        most = max(most, now)
    return most
