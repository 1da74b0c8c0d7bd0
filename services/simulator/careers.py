"""The career of a market: created, opened, now and then paused, closed, determined, settled."""

from collections.abc import Callable

from libs.marketdata.units import MILLISECOND, SECOND
from services.simulator import lifecycle
from services.simulator.catalogue import OPEN_DELAY, fair_price
from services.simulator.chance import Chance
from services.simulator.changes import Change, Closed, Created
from services.simulator.crowd import Crowd
from services.simulator.plan import ModelPlan
from services.simulator.timeline import Timeline
from services.simulator.traded import TradedMarket
from services.simulator.world import World

FIRST_ORDER_DELAY = 6 * SECOND
"""From `created` to a market's first order: never less than 5 s, so that a capture can be there before it."""
DETERMINE_DELAY = 2 * SECOND
SETTLE_DELAY = 2 * SECOND
PAUSE_LENGTH = 1_500 * MILLISECOND
CREATED_PER_MS = 16
"""Markets that a mass creation lists in one millisecond: 100,000 within 7 s, and the rest of the exchange goes on."""


def closing_time(chance: Chance, plan: ModelPlan, earliest: int) -> int | None:
    """Draw whether and when a market closes while the simulator runs, microseconds."""
    closes = chance.draw() < plan.closing_share
    span = plan.close_after_s_min + chance.draw() * (
        plan.close_after_s_max - plan.close_after_s_min
    )
    return earliest + int(span * SECOND) if closes else None


class Careers:
    """Lets markets come and go.

    Args:
        say: takes what is published. draw: finds a market that trades at a time. begin: makes a market's first orders.
    """

    def __init__(
        self,
        plan: ModelPlan,
        chance: Chance,
        time: Timeline,
        world: World,
        crowd: Crowd,
        say: Callable[[Change], None],
        draw: Callable[[int], TradedMarket | None],
        begin: Callable[[int, TradedMarket], None],
    ) -> None:
        self._plan = plan
        self._chance = chance
        self._time = time
        self._world = world
        self._crowd = crowd
        self._say = say
        self._draw = draw
        self._begin = begin

    def create(self, at: int, _: None) -> None:
        self._time.next(at, self._plan.new_market_every_s, self.create)
        self._time.at(at + FIRST_ORDER_DELAY, self._first_order, self._list(at))

    def create_many(self, at: int, left: int) -> None:
        now = min(left, CREATED_PER_MS)
        self._time.at(at + FIRST_ORDER_DELAY, self._admit, [self._list(at) for _ in range(now)])
        if left > now:
            self._time.at(at + MILLISECOND, self.create_many, left - now)

    def _list(self, at: int) -> int:
        """Create a market and say so; returns its number."""
        close_at = closing_time(self._chance, self._plan, at + FIRST_ORDER_DELAY)
        number, open_at = self._world.markets, at + OPEN_DELAY
        event_is_new = False
        if self._chance.draw() < self._plan.combo_share:
            instrument = self._world.combo(at, open_at, close_at)
        else:
            instrument, event_is_new = self._world.instrument(at, open_at, close_at)
        market = TradedMarket(instrument, fair_price(self._chance, instrument))
        self._crowd.expect(number, market)
        self._say(Created(at, instrument, is_initial=False))
        if event_is_new:
            self._say(lifecycle.event_created(instrument.event, at))
        self._say(lifecycle.created(instrument, at))
        if close_at is not None:
            self._time.at(instrument.close_at, self.close, number)
        return number

    def _first_order(self, at: int, number: int) -> None:
        market = self._crowd.admit(number, at)
        if market is not None:
            self._begin(at, market)

    def _admit(self, at: int, numbers: list[int]) -> None:
        """Begin to trade many markets; their first orders come when they are drawn."""
        for number in numbers:
            self._crowd.admit(number, at)

    def close(self, at: int, number: int) -> None:
        market = self._crowd.close(number)
        self._say(Closed(at, market.instrument))
        self._time.at(at + DETERMINE_DELAY, self._determine, (number, market))

    def _determine(self, at: int, subject: tuple[int, TradedMarket]) -> None:
        market = subject[1]
        result = "yes" if self._chance.draw() * 100_000 < market.fair else "no"
        self._say(lifecycle.determined(market.instrument, at, result))
        self._time.at(at + SETTLE_DELAY, self._settle, subject)

    def _settle(self, at: int, subject: tuple[int, TradedMarket]) -> None:
        number, market = subject
        self._crowd.forget(number)
        self._say(lifecycle.settled(market.instrument, at))

    def pause(self, at: int, _: None) -> None:
        self._time.next(at, self._plan.pause_every_s, self.pause)
        market = self._draw(at)
        if market is None:
            return
        market.is_trading, market.is_paused = False, True
        self._say(lifecycle.paused(market.instrument, at, is_deactivated=True))
        self._time.at(at + PAUSE_LENGTH, self._resume, market)

    def _resume(self, at: int, market: TradedMarket) -> None:
        if not market.is_paused:
            return
        self._say(lifecycle.paused(market.instrument, at, is_deactivated=False))
        market.is_trading, market.is_paused = True, False
