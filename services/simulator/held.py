"""Before publishing begins: an exchange that is open and lists nothing yet."""

from libs.marketdata.units import floor_ms
from services.simulator.exchange import Exchange
from services.simulator.subscription import Feed


class HeldStage:
    """A stage on which nothing happens; who connects already stays when the real one takes its place."""

    mode = "held"
    stamps = True

    def __init__(self, exchange: Exchange, now: int) -> None:
        self.epoch = floor_ms(now)
        self.lag_max = 0
        self._exchange = exchange

    @property
    def feed(self) -> Feed:
        return self._exchange

    @property
    def sids(self) -> dict[str, int]:
        return {}

    def tick(self, _now: int) -> bool:
        return True

    def end(self, now: int) -> int:
        return floor_ms(now)

    def finish(self, at: int, now: int) -> None:
        """There is nothing to end."""
