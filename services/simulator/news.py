"""The rarer messages about live markets: another price grid, another sub-title, another close time, an event's fees."""

from libs.marketdata.units import DAY
from services.simulator import lifecycle
from services.simulator.chance import Chance
from services.simulator.changes import Delta, Lifecycle, Trade
from services.simulator.instruments import STRUCTURES
from services.simulator.orders import OrderFlow
from services.simulator.traded import TradedMarket

_FEES = (None, ("flat", 1.0), ("quadratic", 0.5), ("quadratic_with_maker_fees", 1.0))


class News:
    """Makes them up; every draw comes from the given chance."""

    def __init__(self, chance: Chance, flow: OrderFlow) -> None:
        self._chance = chance
        self._flow = flow
        self._titles = 0

    def of(self, market: TradedMarket, at: int) -> list[Delta | Trade | Lifecycle]:
        """Let one thing happen to a market, or to its event.

        Another structure takes the orders away that stand off its grid, just before it is announced.
        """
        draw = self._chance.draw()
        instrument = market.instrument
        if draw < 0.4:
            others = [found for found in STRUCTURES.values() if found is not market.structure]
            market.structure = self._chance.pick(others)
            pulled = self._flow.pull_off_grid(market, at)
            return [*pulled, lifecycle.structure_updated(instrument, at, market.structure)]
        if draw < 0.6 and not instrument.is_combo:
            self._titles += 1
            title = f"{instrument.sub_title} (revision {self._titles})"
            return [lifecycle.metadata_updated(instrument, at, title)]
        if draw < 0.8 and not instrument.is_combo:
            fee = self._chance.pick(_FEES)
            return [lifecycle.event_fee_updated(instrument.event, at, fee)]
        # A market that closes while the simulator runs keeps its time.
        return [self.close_date(market, at)] if market.close_at > at + DAY else []

    @staticmethod
    def close_date(market: TradedMarket, at: int) -> Lifecycle:
        """Move a market's close time by a day."""
        market.close_at += DAY
        return lifecycle.close_date_updated(market.instrument, at, market.close_at)
