"""A world: the simulated exchange, three gatherers, what befalls them, and what each of them is told to want.

It keeps its own journal of everything it did, because every gap has to have a cause in a journal.
"""

import asyncio
import json
import zlib
from collections import defaultdict
from dataclasses import dataclass, field

from libs.marketdata.units import MILLISECOND, SECOND
from services.connector.slot import Dial
from services.simulator.faults.menu import On
from tests.simulation.deduplicator import Deduplication
from tests.simulation.gatherer import Gatherer
from tests.simulation.loop import VirtualClock, run_virtually
from tests.simulation.plan import EPOCH, HEAD_S, SECONDS, ZONES, Move, Plan
from tests.simulation.venue import Venue

LISTED_S = 1.0
"""How long a registry takes to have a new market subscribed, seconds."""
TOLD_BY_THEMSELVES = frozenset({"hand_over", "unwant", "kill", "database_back", "database_wiped"})
DELISTED_S = 8.0
"""How long it takes from a market's close until nobody wants it any more, seconds: it learns of it by its settlement."""
REGISTRY_S = 0.5


@dataclass(frozen=True, slots=True)
class Trouble:
    """A line of the world's journal: from when to when (microseconds) something of a zone was not as it should be.

    slot, ticker: what it concerns, empty = everything.
    """

    kind: str
    zone: str
    start: int
    end: int
    slot: str = ""
    ticker: str = ""


@dataclass(slots=True)
class Run:
    """A world that has come to its end."""

    plan: Plan
    venue: Venue
    gatherers: dict[str, Gatherer]
    troubles: list[Trouble] = field(default_factory=list)
    deduplication: Deduplication | None = None
    is_drained: bool = True


def run(plan: Plan) -> Run:
    """Let a world happen."""
    return run_virtually(lambda: _World(plan).run())


def slot_of(ticker: str) -> str:
    """The order-book slot of a market, the same in every zone."""
    return f"orderbook/{zlib.crc32(ticker.encode()) % 2}"


class _World:
    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._name = f"world {plan.seed}"
        self._clock = VirtualClock(EPOCH)
        self._venue = Venue(
            plan.exchange, self._clock, self._name, plan.lost_dials, plan.faults, self._step_clocks
        )
        self._gatherers = {zone: self._gatherer(zone) for zone in ZONES}
        self._deduplication: Deduplication | None = None
        if plan.merges:
            databases = {zone: gatherer.database for zone, gatherer in self._gatherers.items()}
            self._deduplication = Deduplication(databases, self._clock, self._name)
        self._troubles: list[Trouble] = []
        self._unwanted: dict[tuple[str, str], int] = defaultdict(int)
        self._listed: dict[str, int] = {}
        self._delisted: dict[str, int] = {}

    def _gatherer(self, zone: str) -> Gatherer:
        clock = VirtualClock(EPOCH, self._plan.skews[zone])
        build = self._plan.builds[zone]

        def dial_of(slot: str) -> Dial:
            return self._venue.dial_of(zone, slot)

        return Gatherer(zone, clock, dial_of, build, f"{self._name} {zone}")

    async def run(self) -> Run:
        if self._deduplication is None:
            await self._happen()
            return Run(self._plan, self._venue, self._gatherers, self._troubles)
        with self._deduplication.servers.reached():
            self._deduplication.start()
            await self._happen()
            is_drained = await self._deduplication.drain()
        return Run(
            self._plan,
            self._venue,
            self._gatherers,
            self._troubles,
            self._deduplication,
            is_drained,
        )

    async def _happen(self) -> None:
        async with asyncio.TaskGroup() as group:
            publishing = group.create_task(self._venue.publish())
            registry = group.create_task(self._registry())
            zones = [group.create_task(g.run()) for g in self._gatherers.values()]
            moves = [group.create_task(self._carry_out(m)) for m in self._plan.moves]
            await asyncio.sleep(HEAD_S + SECONDS)
            registry.cancel()
            await self._venue.finish()
            await asyncio.gather(*moves)
            await asyncio.gather(*(g.drain() for g in self._gatherers.values()))
            await asyncio.gather(*zones)
            publishing.cancel()

    # --- what is wanted ---

    async def _registry(self) -> None:
        """Follow the exchange's listings as every zone's registry does: markets come and go some time later."""
        read = 0
        while True:
            lines = self._venue.market.lines
            for line in lines[read:]:
                if line.startswith(('{"kind":"created"', '{"kind":"closed"')):
                    self._list(json.loads(line))
            read = len(lines)
            for gatherer in self._gatherers.values():
                self._want(gatherer)
            await asyncio.sleep(REGISTRY_S)

    def _list(self, entry: dict[str, object]) -> None:
        ticker, at = entry["ticker"], entry["at"]
        assert isinstance(ticker, str)
        assert isinstance(at, int)
        if entry["kind"] == "created":
            self._listed[ticker] = 0 if entry["initial"] else at + int(LISTED_S * SECOND)
        else:
            self._delisted[ticker] = at + int(DELISTED_S * SECOND)

    def _want(self, gatherer: Gatherer) -> None:
        now = self._clock.now()
        lists: dict[str, set[str]] = {"orderbook/0": set(), "orderbook/1": set()}
        for ticker, since in self._listed.items():
            is_over = self._delisted.get(ticker, now + 1) <= now
            if since <= now and not is_over and not self._unwanted[gatherer.zone, ticker]:
                lists[slot_of(ticker)].add(ticker)
        for slot, found in lists.items():
            tickers = frozenset(found)
            if gatherer.wanted.get(slot) != tickers:
                gatherer.want(slot, tickers)

    # --- what befalls them ---

    def _step_clocks(self, on: On, by_ms: int) -> None:
        for zone, gatherer in self._gatherers.items():
            if on.takes_key(zone, zone):
                gatherer.clock.skew += by_ms * MILLISECOND

    async def _carry_out(self, move: Move) -> None:
        await asyncio.sleep(move.at_s)
        if not move.zone:
            assert self._deduplication is not None
            await getattr(self, f"_{move.kind}")(self._deduplication, move)
            return
        gatherer = self._gatherers[move.zone]
        began = self._clock.now()
        await getattr(self, f"_{move.kind}")(gatherer, move)
        ended = self._clock.now()
        if move.kind not in TOLD_BY_THEMSELVES:
            self._troubles.append(Trouble(move.kind, move.zone, began, ended))

    async def _database_away(self, gatherer: Gatherer, move: Move) -> None:
        gatherer.database.away += 1
        await asyncio.sleep(move.for_s)
        gatherer.database.away -= 1

    async def _database_slow(self, gatherer: Gatherer, move: Move) -> None:
        gatherer.database.slow += move.amount
        await asyncio.sleep(move.for_s)
        gatherer.database.slow -= move.amount

    async def _database_doubt(self, gatherer: Gatherer, move: Move) -> None:
        gatherer.database.doubt_share = move.amount
        await asyncio.sleep(move.for_s)
        gatherer.database.doubt_share = 0.0

    async def _database_back(self, gatherer: Gatherer, move: Move) -> None:
        lost_from = gatherer.database.go_back(self._clock.monotonic() - move.amount)
        if lost_from is not None:
            self._troubles.append(Trouble(move.kind, move.zone, lost_from, self._clock.now()))

    async def _lanes_closed(self, gatherer: Gatherer, move: Move) -> None:
        gatherer.database.close_lanes()

    async def _kill(self, gatherer: Gatherer, move: Move) -> None:
        gatherer.kill(move.for_s)

    async def _hand_over(self, gatherer: Gatherer, move: Move) -> None:
        if gatherer.process is not None and gatherer.serves(move.slot):
            await gatherer.process.hand_over(move.slot)

    async def _unwant(self, gatherer: Gatherer, move: Move) -> None:
        """Take a market off the zone's lists for a while, as a change of the capture filter does."""
        wanted = sorted(t for tickers in gatherer.wanted.values() for t in tickers)
        if not wanted:
            return
        ticker = wanted[int(move.amount) % len(wanted)]
        began = self._clock.now()
        self._unwanted[gatherer.zone, ticker] += 1
        await asyncio.sleep(move.for_s)
        self._unwanted[gatherer.zone, ticker] -= 1
        ended = self._clock.now() + int(REGISTRY_S * SECOND)
        self._troubles.append(Trouble("unwanted", gatherer.zone, began, ended, ticker=ticker))

    async def _database_wiped(self, gatherer: Gatherer, move: Move) -> None:
        lost_from = gatherer.database.wipe()
        if lost_from is not None:
            self._troubles.append(Trouble(move.kind, move.zone, lost_from, self._clock.now()))

    async def _batch_held(self, gatherer: Gatherer, move: Move) -> None:
        """Let a transaction be open while others commit; it may begin a second later."""
        gatherer.database.held_s = move.for_s
        await asyncio.sleep(move.for_s + 1.0)

    async def _rolled_back(self, gatherer: Gatherer, move: Move) -> None:
        gatherer.database.rolled_back_share = move.amount
        await asyncio.sleep(move.for_s)
        gatherer.database.rolled_back_share = 0.0

    # --- what befalls those who merge ---

    async def _merger_kill(self, merging: Deduplication, move: Move) -> None:
        await merging.kill()
        await asyncio.sleep(move.for_s)
        merging.start()

    async def _merger_twin(self, merging: Deduplication, move: Move) -> None:
        """Let another one wait for the lease; then the one that has it dies."""
        merging.start()
        await asyncio.sleep(move.for_s)
        await merging.kill()

    async def _production_away(self, merging: Deduplication, move: Move) -> None:
        merging.production.away += 1
        merging.production.cut()
        await asyncio.sleep(move.for_s)
        merging.production.away -= 1

    async def _production_doubt(self, merging: Deduplication, move: Move) -> None:
        merging.production.doubt_share = move.amount
        await asyncio.sleep(move.for_s)
        merging.production.doubt_share = 0.0

    async def _production_back(self, merging: Deduplication, move: Move) -> None:
        merging.production.go_back(self._clock.monotonic() - move.amount)
