"""So many markets subscribed, every first snapshot seen: from the catalogue in the database, and from nothing."""

from dataclasses import dataclass
from typing import ClassVar

from services.local.topology import connector_process
from tests.soak.evidence import Evidence, Measured
from tests.soak.ground import ZONE, Ground, Terms, start_service
from tests.soak.scenario import Scenario

GIVE_UP_S = 600.0
CALM_S = 2.0


@dataclass
class Subscribe(Scenario):
    """markets of the exchange; order-book slots of the zone; is_listed: the catalogue is there before the connectors."""

    name: ClassVar[str] = "subscribe-100k"
    markets: int = 100_000
    orderbook: int = 144
    connectors: int = 2
    is_listed: bool = True
    within_s: float = 60.0
    rate: float = 200.0
    timeout_s: float = 1500.0

    def terms(self) -> Terms:
        slots = {
            "orderbook": self.orderbook,
            "ticker": 2,
            "trade": 2,
            "lifecycle": 2,
            "connections_max": 200,
        }
        quiet = {"combo_share": 0.0, "new_market_every_s": 0.0, "closing_share": 0.0}
        return Terms(
            gatherer={"slots": slots, "connector": {"subscribe_chunk": 500}},
            simulated={"markets": self.markets, "rate": self.rate, **quiet},
            connectors=self.connectors,
        )  # fmt: skip

    async def begin(self, ground: Ground) -> None:
        """Start the registry alone."""
        self._listed_s = 0.0
        await start_service(ground, "registry")
        if self.is_listed:
            self._listed_s = await ground.until(lambda: self._listed(ground), GIVE_UP_S, "listed")
            ground.say(f"{self.markets} markets in the catalogue after {self._listed_s:.1f} s")
            await ground.rest(CALM_S)

    async def _listed(self, ground: Ground) -> bool:
        wanted = await ground.value(
            "select count(*) from markets where wanted and slot is not null"
        )
        return bool(wanted >= self.markets)

    async def act(self, ground: Ground) -> None:
        config, run = ground.run.configs.paths[ZONE], ground.run
        numbers = range(1, self.connectors + 1)
        await run.supervisor.start(
            [connector_process(ZONE, config, run.shards, number) for number in numbers]
        )

        async def seen() -> bool:
            counts = [
                h.get("subscriptions", {}).get("seen", 0) for h in (await ground.healths()).values()
            ]
            return int(sum(counts)) >= self.markets

        self._seen_s = await ground.until(seen, GIVE_UP_S, f"{self.markets} first snapshots")
        ground.say(f"every first snapshot is there after {self._seen_s:.1f} s")
        await ground.until_whole(GIVE_UP_S)
        await start_service(ground, "poller")
        await ground.rest(CALM_S)

    async def measure(self, ground: Ground, evidence: Evidence) -> list[Measured]:
        within = f"< {self.within_s:.0f} s"
        stored = {s.ticker for s in evidence.stored.snapshots if s.source == "ws"}
        missing = len(evidence.truth.markets.keys() - stored)
        start = "the catalogue is in the database" if self.is_listed else "nothing"
        return [
            Measured("markets, order-book slots, connectors", f"{self.markets:,}, {self.orderbook}, {self.connectors}", "-", True),
            Measured("listed by the registry alone", f"{self._listed_s:.1f} s", "-", True),
            Measured(f"all subscribed and seen, from {start}", f"{self._seen_s:.1f} s", within, self._seen_s < self.within_s),
            Measured("markets without a stored first snapshot", str(missing), "0", missing == 0),
        ]  # fmt: skip
