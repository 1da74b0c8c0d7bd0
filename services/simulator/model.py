"""The market model: a made-up exchange as a timeline of events, a pure function of seed, epoch and length.

One heap of things to happen, one stream of chance drawn from in the order they happen: so it makes no difference in how
many steps time is advanced. Deltas arrive in clusters (a burst of orders on one market): most small, some of sixty and
more, which gives counts per second the high dispersion that recordings have.
"""

import heapq
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from libs.marketdata.units import MILLISECOND, SECOND, floor_ms
from services.simulator import lifecycle
from services.simulator.chance import Chance
from services.simulator.changes import Change, Closed, Created, Delta, Ticker
from services.simulator.instruments import Instrument
from services.simulator.orders import OrderFlow, TradedMarket
from services.simulator.settings import SimulatorSettings
from services.simulator.world import World

TICKER_PHASE = 556 * MILLISECOND
"""When in each second the tickers of all changed markets are published, in one burst."""
OPEN_DELAY = 2 * SECOND
FIRST_ORDER_DELAY = 6 * SECOND
"""From `created` to a market's first order: never less than 5 s, so that a capture can be there before it."""
DETERMINE_DELAY = 2 * SECOND
SETTLE_DELAY = 2 * SECOND
PAUSE_LENGTH = 1_500 * MILLISECOND
INITIAL_TICKERS_MAX = 10_000
"""Markets whose ticker is published at the epoch; a burst of a million in one moment is no exchange's habit."""
_DRAWS_MAX = 64

_LARGE_SHARE = 0.08
_SMALL_MEAN = 2.5
_LARGE_MIN = 20
_LARGE_MEAN = 40.0
_GAP_MEAN = 4_000.0
"""Mean time between two actions of a burst, microseconds."""


def mean_of_floored(mean: float) -> float:
    """Return the mean of floor(X) for an exponential X."""
    return 1.0 / math.expm1(1.0 / mean)


CLUSTER_MEAN = (1.0 - _LARGE_SHARE) * (1.0 + mean_of_floored(_SMALL_MEAN)) + _LARGE_SHARE * (
    _LARGE_MIN + mean_of_floored(_LARGE_MEAN)
)


@dataclass(frozen=True, slots=True)
class ModelPlan:
    """What of the settings the journal depends on, besides epoch and length; rates per second, times in seconds."""

    seed: int
    markets: int
    rate: float
    new_market_every_s: float
    closing_share: float
    close_after_s_min: float
    close_after_s_max: float
    pause_every_s: float

    @classmethod
    def of(cls, settings: SimulatorSettings) -> "ModelPlan":
        return cls(**{name: getattr(settings, name) for name in cls.__slots__})


class MarketModel:
    """The timeline. `advance` moves it, `finish` ends it; both return what was published, in order."""

    def __init__(self, plan: ModelPlan, epoch: int) -> None:
        assert epoch % SECOND == 0, "the epoch is a whole second"
        self._plan = plan
        self._epoch = epoch
        self._chance = Chance(plan.seed)
        self._world = World(plan.seed, epoch)
        self._flow = OrderFlow(self._chance, self._world)
        self._heap: list[tuple[int, int, Callable[[int, Any], None], Any]] = []
        self._numbers = itertools.count()
        self._drawable: list[TradedMarket] = []
        self._cumulative: list[float] = []
        self._closed = 0
        self._changed: dict[str, TradedMarket] = {}
        self._out: list[Change] = []

    def start(self) -> list[Change]:
        """List the markets that exist at the epoch, with their books; call once, first."""
        for number in range(self._plan.markets):
            self._list_initial(number)
        self._at(self._epoch + TICKER_PHASE, self._tickers, None)
        if self._plan.rate > 0:
            self._next(self._epoch, CLUSTER_MEAN / self._plan.rate, self._cluster)
        self._next(self._epoch, self._plan.new_market_every_s, self._create)
        self._next(self._epoch, self._plan.pause_every_s, self._pause)
        return self._take_out()

    def advance(self, until: int) -> list[Change]:
        """Let everything happen that lies before `until`, a whole millisecond in microseconds since 1970."""
        assert until % MILLISECOND == 0, "whole milliseconds, so that none is ever split"
        heap = self._heap
        while heap and heap[0][0] < until:
            at, _, happen, subject = heapq.heappop(heap)
            happen(at, subject)
        return self._take_out()

    def finish(self, at: int) -> list[Change]:
        """Make the last changes, all at `at`: a delta of every trading market, and a frame on every channel."""
        trading = [market for market in self._drawable if market.is_trading]
        for market in trading:
            self._out.extend(self._flow.last(market, at))
            self._changed[market.instrument.ticker] = market
        self._tickers(at, None, again=False)
        if trading:
            self._out.append(lifecycle.close_date_updated(trading[0].instrument, at))
        combo = self._world.combo(at)
        self._out.append(Created(at, combo, is_initial=False))
        self._out.append(lifecycle.created(combo, at))
        return self._take_out()

    def _take_out(self) -> list[Change]:
        out, self._out = self._out, []
        return out

    def _at(self, at: int, happen: Callable[[int, Any], None], subject: object) -> None:
        heapq.heappush(self._heap, (at, next(self._numbers), happen, subject))

    def _next(self, at: int, mean_s: float, happen: Callable[[int, Any], None]) -> None:
        """Let something happen after an exponential time; never when the mean is 0."""
        if mean_s > 0:
            self._at(at + 1 + int(self._chance.exponential(mean_s * SECOND)), happen, None)

    def _list_initial(self, number: int) -> None:
        created_at = self._epoch - 3_600 * SECOND - number * SECOND
        close_at = self._close_time(self._epoch)
        instrument, _ = self._world.instrument(created_at, created_at + OPEN_DELAY, close_at)
        market = self._traded(instrument)
        # A few books stay empty or one-sided: snapshots then lack a key, or both.
        if self._chance.draw() > 0.06:
            self._flow.open(market, self._chance.between(1, 16))
        market.changed_at = self._epoch
        self._start_trading(market)
        if number < INITIAL_TICKERS_MAX:
            self._changed[instrument.ticker] = market
        yes, no = market.book.ladder(True), market.book.ladder(False)
        self._out.append(Created(created_at, instrument, is_initial=True, yes=yes, no=no))
        if close_at is not None:
            self._at(instrument.close_at, self._close, market)

    def _traded(self, instrument: Instrument) -> TradedMarket:
        fair = 1_000 * self._chance.between(8, 92)
        # Few markets make most of the messages: weights fall like 1/rank over about three decades.
        return TradedMarket(instrument, fair, 1.0 / (0.02 + self._chance.draw()))

    def _close_time(self, earliest: int) -> int | None:
        """Draw whether and when a market closes while the simulator runs."""
        plan = self._plan
        closes = self._chance.draw() < plan.closing_share
        span = plan.close_after_s_min + self._chance.draw() * (
            plan.close_after_s_max - plan.close_after_s_min
        )
        return earliest + int(span * SECOND) if closes else None

    def _start_trading(self, market: TradedMarket) -> None:
        market.is_trading = True
        total = self._cumulative[-1] if self._cumulative else 0.0
        self._drawable.append(market)
        self._cumulative.append(total + market.weight)

    def _draw(self) -> TradedMarket | None:
        """Draw a trading market by weight; those that do not trade are drawn again, a bounded number of times."""
        if self._cumulative:
            for _ in range(_DRAWS_MAX):
                market = self._drawable[self._chance.weighted(self._cumulative)]
                if market.is_trading:
                    return market
        return None

    def _sweep(self) -> None:
        """Forget closed markets once they are the half of what is drawn from."""
        self._closed += 1
        if self._closed * 2 > len(self._drawable):
            self._closed = 0
            kept = (m for m in self._drawable if m.is_trading or m.is_paused)
            self._drawable = list(kept)
            self._cumulative = list(itertools.accumulate(m.weight for m in self._drawable))

    def _cluster(self, at: int, _: None) -> None:
        self._next(at, CLUSTER_MEAN / self._plan.rate, self._cluster)
        market = self._draw()
        if market is None:
            return
        if self._chance.draw() < _LARGE_SHARE:
            budget = _LARGE_MIN + int(self._chance.exponential(_LARGE_MEAN))
        else:
            budget = 1 + int(self._chance.exponential(_SMALL_MEAN))
        self._flow.drift(market)
        self._burst(at, (market, budget))

    def _burst(self, at: int, subject: tuple[TradedMarket, int]) -> None:
        market, budget = subject
        if not market.is_trading:
            return
        done = self._flow.act(market, at, budget)
        self._out.extend(done)
        self._changed[market.instrument.ticker] = market
        budget -= sum(isinstance(change, Delta) for change in done)
        if budget > 0:
            gap = 1 + int(self._chance.exponential(_GAP_MEAN))
            self._at(at + gap, self._burst, (market, budget))

    def _tickers(self, at: int, _: None, again: bool = True) -> None:
        for market in self._changed.values():
            state = market.ticker_state()
            if state != market.last_ticker:
                market.last_ticker = state
                self._out.append(Ticker(at, market.changed_at, market.instrument, state))
        self._changed.clear()
        if again:
            self._at(at + SECOND, self._tickers, None)

    def _create(self, at: int, _: None) -> None:
        self._next(at, self._plan.new_market_every_s, self._create)
        close_at = self._close_time(at + FIRST_ORDER_DELAY)
        instrument, event_is_new = self._world.instrument(at, at + OPEN_DELAY, close_at)
        market = self._traded(instrument)
        self._out.append(Created(at, instrument, is_initial=False))
        if event_is_new:
            self._out.append(lifecycle.event_created(instrument.event, at))
        self._out.append(lifecycle.created(instrument, at))
        self._at(at + FIRST_ORDER_DELAY, self._first_order, market)
        if close_at is not None:
            self._at(instrument.close_at, self._close, market)

    def _first_order(self, at: int, market: TradedMarket) -> None:
        if at >= market.instrument.close_at:
            return
        self._start_trading(market)
        self._burst(at, (market, 6))

    def _close(self, at: int, market: TradedMarket) -> None:
        market.is_trading = market.is_paused = False
        self._sweep()
        self._out.append(Closed(at, market.instrument))
        self._at(at + DETERMINE_DELAY, self._determine, market)

    def _determine(self, at: int, market: TradedMarket) -> None:
        result = "yes" if self._chance.draw() * 100_000 < market.fair else "no"
        self._out.append(lifecycle.determined(market.instrument, at, result))
        self._at(at + SETTLE_DELAY, self._settle, market)

    def _settle(self, at: int, market: TradedMarket) -> None:
        self._out.append(lifecycle.settled(market.instrument, at))

    def _pause(self, at: int, _: None) -> None:
        self._next(at, self._plan.pause_every_s, self._pause)
        market = self._draw()
        if market is None:
            return
        market.is_trading, market.is_paused = False, True
        self._out.append(lifecycle.paused(market.instrument, at, is_deactivated=True))
        self._at(at + PAUSE_LENGTH, self._resume, market)

    def _resume(self, at: int, market: TradedMarket) -> None:
        if not market.is_paused:
            return
        self._out.append(lifecycle.paused(market.instrument, at, is_deactivated=False))
        market.is_trading, market.is_paused = True, False


def market_journal(plan: ModelPlan, epoch: int, end: int, final: int) -> bytes:
    """Return the whole market journal of a run: what a live run of the same seed, epoch and length published.

    Args:
        end: publishing stopped before this millisecond. final: time of the last changes; microseconds.
    """
    model = MarketModel(plan, epoch)
    changes = [*model.start(), *model.advance(floor_ms(end)), *model.finish(final)]
    return "".join(change.journal_line() for change in changes).encode()
