"""The market model: a made-up exchange as a timeline of events, a pure function of seed, epoch and length.

One heap of things to happen, one stream of chance drawn from in the order they happen: so it makes no difference in how
many steps time is advanced. Deltas arrive in clusters (a burst of orders on one market): most small, some of sixty and
more, which gives counts per second the high dispersion that recordings have.
"""

import math
from collections.abc import Iterable, Iterator

from libs.marketdata.units import MILLISECOND, SECOND, floor_ms
from services.simulator import lifecycle
from services.simulator.careers import Careers, closing_time
from services.simulator.catalogue import OPENINGS_MAX, Catalogue
from services.simulator.chance import Chance
from services.simulator.changes import Change, ClockStepped, Created, Delta, Halted, Ticker
from services.simulator.crowd import Crowd
from services.simulator.news import News
from services.simulator.orders import OrderFlow
from services.simulator.plan import Intervention, Kind, ModelPlan
from services.simulator.timeline import Timeline
from services.simulator.traded import TradedMarket

TICKER_PHASE = 556 * MILLISECOND
"""When in each second the tickers of all changed markets are published, in one burst."""
INITIAL_TICKERS_MAX = 1_000
"""Markets whose ticker is published at the epoch; a burst of a million in one moment is no exchange's habit."""
LAST_MAX = 1_000
"""Markets that have a last change at the end: enough to reach every channel."""

_LARGE_SHARE = 0.08
_SMALL_MEAN = 2.5
_LARGE_MIN = 20
_LARGE_MEAN = 40.0
_GAP_MEAN = 4_000.0
"""Mean time between two actions of a burst, microseconds."""
_FIRST_ORDERS = 6
_BLOCK_SHARE = 0.02
"""Share of the bursts that come with a block trade."""


def mean_of_floored(mean: float) -> float:
    """Return the mean of floor(X) for an exponential X."""
    return 1.0 / math.expm1(1.0 / mean)


CLUSTER_MEAN = (1.0 - _LARGE_SHARE) * (1.0 + mean_of_floored(_SMALL_MEAN)) + _LARGE_SHARE * (
    _LARGE_MIN + mean_of_floored(_LARGE_MEAN)
)


class MarketModel:
    """The timeline. `advance` moves it, `finish` ends it; both return what was published, in order.

    Attributes:
        catalogue: the markets that exist at the epoch.
    """

    def __init__(self, plan: ModelPlan, epoch: int) -> None:
        assert epoch % SECOND == 0, "the epoch is a whole second"
        self._plan = plan
        self._epoch = epoch
        self._chance = Chance(plan.seed)
        self._time = Timeline(self._chance, epoch)
        self._out: list[Change] = []
        self._changed: dict[TradedMarket, None] = {}
        self._halted_until = 0
        closing = self._closing_times()
        combos = round(plan.markets * plan.combo_share)
        self.catalogue = Catalogue(plan.seed, epoch, plan.markets, combos, closing)
        self._world = self.catalogue.world()
        self._flow = OrderFlow(self._chance, self._world)
        self._crowd = Crowd(self._chance, self.catalogue, self._out.append)
        self._news = News(self._chance, self._flow)
        self._careers = Careers(
            plan, self._chance, self._time, self._world, self._crowd, self._out.append, self._draw, self._begin
        )  # fmt: skip
        self._schedule(closing)

    def start(self) -> Iterator[Created]:
        """Yield the first markets that exist at the epoch, with their books; call once, first."""
        return map(self._crowd.opening, range(min(self._plan.markets, OPENINGS_MAX)))

    def advance(self, until: int, most: int = 1 << 62) -> list[Change]:
        """Let everything happen that lies before `until`, a whole millisecond in microseconds since 1970.

        Args:
            most: stop after about so many changes; `is_through` says whether that was before the end.
        """
        assert until % MILLISECOND == 0, "whole milliseconds, so that none is ever split"
        self._time.run(until, lambda: len(self._out) >= most)
        return self._take_out()

    def is_through(self, until: int) -> bool:
        """Say whether everything before `until` has happened."""
        return self._time.is_through(until)

    def intervene(self, kind: Kind, value: int, at: int) -> int:
        """Let something happen that the plan does not know, before anything else of its millisecond.

        Args:
            kind, value: "clock": the engine's clock jumps by `value`; "create": so many markets are created, from then
                on CREATED_PER_MS in a millisecond; "halt": trading stands still until `value`. Microseconds.
            at: when; the next whole millisecond that has not happened yet.

        Returns:
            When it will happen.
        """
        create = self._careers.create_many
        happen = {"clock": self._step_clock, "create": create, "halt": self._halt}[kind]
        return self._time.before_all(at, happen, value)

    def finish(self, at: int) -> list[Change]:
        """Make the last changes, all at `at`: deltas of trading markets, and a frame on every channel."""
        trading = list(self._crowd.trading(LAST_MAX))
        for market in trading:
            self._out.extend(self._flow.last(market, at))
            self._changed[market] = None
        self._tickers(at, again=False)
        if trading:
            self._out.append(self._news.close_date(trading[0], at))
        combo = self._world.combo(at, at)
        self._out.append(Created(at, combo, is_initial=False))
        self._out.append(lifecycle.created(combo, at))
        return self._take_out()

    def _take_out(self) -> list[Change]:
        out = self._out.copy()
        self._out.clear()
        return out

    def _schedule(self, closing: dict[int, int]) -> None:
        for number, close_at in closing.items():
            self._time.at(-(-close_at // SECOND) * SECOND, self._careers.close, number)
        for number in range(min(self._plan.markets, INITIAL_TICKERS_MAX)):
            self._changed[self._crowd.market(number)] = None
        self._time.at(self._epoch + TICKER_PHASE, self._tickers)
        if self._plan.rate > 0:
            self._time.next(self._epoch, CLUSTER_MEAN / self._plan.rate, self._cluster)
        self._time.next(self._epoch, self._plan.new_market_every_s, self._careers.create)
        self._time.next(self._epoch, self._plan.pause_every_s, self._careers.pause)
        self._time.next(self._epoch, self._plan.news_every_s, self._tell_news)

    def _closing_times(self) -> dict[int, int]:
        times = {}
        for number in range(self._plan.markets):
            close_at = closing_time(self._chance, self._plan, self._epoch)
            if close_at is not None:
                times[number] = close_at
        return times

    def _draw(self, at: int) -> TradedMarket | None:
        return None if at < self._halted_until else self._crowd.draw()

    def _cluster(self, at: int, _: None) -> None:
        self._time.next(at, CLUSTER_MEAN / self._plan.rate, self._cluster)
        market = self._draw(at)
        if market is None:
            return
        if self._chance.draw() < _LARGE_SHARE:
            budget = _LARGE_MIN + int(self._chance.exponential(_LARGE_MEAN))
        else:
            budget = 1 + int(self._chance.exponential(_SMALL_MEAN))
        self._flow.drift(market)
        if self._chance.draw() < _BLOCK_SHARE:
            self._out.append(self._flow.block(market, at))
        self._burst(at, (market, budget))

    def _burst(self, at: int, subject: tuple[TradedMarket, int]) -> None:
        market, budget = subject
        if not market.is_trading or at < self._halted_until:
            return
        done = self._flow.act(market, at, budget)
        self._out.extend(done)
        self._changed[market] = None
        budget -= sum(isinstance(change, Delta) for change in done)
        if budget > 0:
            gap = 1 + int(self._chance.exponential(_GAP_MEAN))
            self._time.at(at + gap, self._burst, (market, budget))

    def _begin(self, at: int, market: TradedMarket) -> None:
        self._burst(at, (market, _FIRST_ORDERS))

    def _tickers(self, at: int, _: None = None, again: bool = True) -> None:
        for market in self._changed:
            state = market.ticker_state()
            if state != market.last_ticker:
                market.last_ticker = state
                self._out.append(Ticker(at, market.stamp, market.instrument, state))
        self._changed.clear()
        if again:
            self._time.at(at + SECOND, self._tickers)

    def _tell_news(self, at: int, _: None) -> None:
        self._time.next(at, self._plan.news_every_s, self._tell_news)
        market = self._draw(at)
        if market is None:
            return
        told = self._news.of(market, at)
        self._out.extend(told)
        # Most news says nothing that a ticker holds: of a market that never traded, that one would be as old as the epoch.
        if any(isinstance(change, Delta) for change in told):
            self._changed[market] = None

    def _step_clock(self, at: int, by: int) -> None:
        self._flow.clock_error += by
        self._out.append(ClockStepped(at, by))

    def _halt(self, at: int, until: int) -> None:
        self._halted_until = until
        self._out.append(Halted(at, until))


def market_journal(
    plan: ModelPlan, epoch: int, end: int, final: int, interventions: Iterable[Intervention] = ()
) -> bytes:
    """Return the whole market journal of a run: what a live run of the same seed, epoch and length published.

    Args:
        end: publishing stopped before this millisecond. final: time of the last changes; microseconds.
        interventions: what happened besides.
    """
    model = MarketModel(plan, epoch)
    for kind, value, at in interventions:
        model.intervene(kind, value, at)
    changes = [*model.start(), *model.advance(floor_ms(end)), *model.finish(final)]
    return "".join(change.journal_line() for change in changes).encode()
