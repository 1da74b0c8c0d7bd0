"""What is performed: the model's made-up market, or a recording. Both move the exchange and feed the sessions."""

from collections.abc import Iterable
from typing import Protocol

from libs.marketdata.units import MILLISECOND, SECOND, floor_ms
from services.simulator.changes import Change
from services.simulator.exchange import Exchange
from services.simulator.journal import Sink
from services.simulator.model import MarketModel, ModelPlan
from services.simulator.replay import Replay
from services.simulator.settings import SimulatorSettings
from services.simulator.subscription import Feed

LISTING_TIME = 60
"""What listing a market may take, microseconds; measured 33 on a laptop."""
SLICE = 100 * MILLISECOND
"""Model time published in one go: a late round catches up in slices, so that nobody waits for all of it."""


class Stage(Protocol):
    """One source of frames. All times in microseconds since 1970."""

    mode: str
    epoch: int
    lag_max: int
    """Largest delay of a change so far, microseconds: what a stalled machine did to the promise of 1 s."""

    @property
    def feed(self) -> Feed:
        """Where sessions get their data from."""

    @property
    def sids(self) -> dict[str, int]:
        """Sids that sessions have to use, by channel; usually none."""

    @property
    def stamps(self) -> bool:
        """Whether frames carry sending_ts_ms."""

    def tick(self, now: int) -> bool:
        """Publish what has happened; False when there is more to do at once."""

    def end(self, now: int) -> int:
        """Publish everything before `now` and return where publishing ended."""

    def finish(self, at: int, now: int) -> None:
        """Make the last changes, at `at`."""


class LiveStage:
    """The market model in real time: published time = epoch + model time."""

    mode = "model"
    stamps = True

    def __init__(
        self, settings: SimulatorSettings, exchange: Exchange, journal: Sink, now: int
    ) -> None:
        # Listing the markets takes its time, which must lie before the epoch: the first deltas would be late.
        ready = now + settings.markets * LISTING_TIME
        self.epoch = settings.epoch_us or -(-ready // SECOND) * SECOND
        self._exchange = exchange
        self._journal = journal
        self._model = MarketModel(ModelPlan.of(settings), self.epoch)
        self.lag_max = 0
        self.published_until = self.epoch
        """Everything before this has been published; a whole millisecond."""
        self._publish(self._model.start(), now)

    @property
    def feed(self) -> Feed:
        return self._exchange

    @property
    def sids(self) -> dict[str, int]:
        return {}

    def tick(self, now: int) -> bool:
        self.lag_max = max(self.lag_max, now - self.published_until)
        until = min(floor_ms(now), self.published_until + SLICE)
        if until > self.published_until:
            self._publish(self._model.advance(until), now)
            self.published_until = until
        return now - self.published_until < SLICE

    def end(self, now: int) -> int:
        while not self.tick(now):
            pass
        self.tick(now)
        return self.published_until

    def finish(self, at: int, now: int) -> None:
        self._publish(self._model.finish(at), now)

    def _publish(self, changes: Iterable[Change], now: int) -> None:
        changes = list(changes)
        for change in changes:
            self._journal.line(change.journal_line())
        self._exchange.publish(changes, now // MILLISECOND)


class ReplayStage:
    """A recording: every subscription plays it for itself. Frames carry sending_ts_ms only if recorded with it."""

    mode = "replay"
    stamps = False

    def __init__(self, replay: Replay, journal: Sink, now: int) -> None:
        self.epoch = now
        self.lag_max = 0
        self._replay = replay
        for line in replay.lines:
            journal.line(line)

    @property
    def feed(self) -> Feed:
        return self._replay

    @property
    def sids(self) -> dict[str, int]:
        return self._replay.sids

    def tick(self, now: int) -> bool:
        self._replay.tick(now)
        return True

    def end(self, now: int) -> int:
        return floor_ms(now)

    def finish(self, at: int, now: int) -> None:
        """A recording ends as it was recorded."""
