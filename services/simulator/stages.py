"""What is performed: the model's made-up market, or a recording. Both move the exchange and feed the sessions."""

from typing import Protocol

from libs.marketdata.units import MILLISECOND, SECOND, floor_ms
from services.simulator.catalogue import OPENINGS_MAX
from services.simulator.changes import Change
from services.simulator.exchange import Exchange
from services.simulator.journal import Sink
from services.simulator.model import MarketModel
from services.simulator.plan import ModelPlan
from services.simulator.replay import Replay
from services.simulator.settings import SimulatorSettings
from services.simulator.subscription import Feed

LISTING_TIME, COUNTING_TIME = 80, 5
"""What it may take to journal a market with its book, and to know of one, microseconds; measured 40 and 2."""
SLICE = 100 * MILLISECOND
"""Model time published in one go: a late round catches up in slices, so that nobody waits for all of it."""
CHANGES_MAX = 1_000
"""Changes published in one go, about: a crowd of them in one moment is no reason to keep everybody else waiting."""


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
        journalled = min(settings.markets, OPENINGS_MAX)
        ready = now + settings.markets * COUNTING_TIME + journalled * LISTING_TIME
        self.epoch = settings.epoch_us or -(-ready // SECOND) * SECOND
        self._exchange = exchange
        self._journal = journal
        self._model = MarketModel(ModelPlan.of(settings), self.epoch)
        self.lag_max = 0
        self.published_until = self.epoch
        """Everything before this has been published; a whole millisecond."""
        exchange.begin_with(self._model.catalogue)
        for opening in self._model.start():
            journal.line(opening.journal_line())

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
            self._publish(self._model.advance(until, CHANGES_MAX), now)
            if not self._model.is_through(until):
                return False
            self.published_until = until
        return now - self.published_until < SLICE

    def end(self, now: int) -> int:
        while self.published_until < floor_ms(now):
            self.tick(now)
        return self.published_until

    def finish(self, at: int, now: int) -> None:
        self._publish(self._model.finish(at), now)

    def clock_step(self, by_ms: int, at: int) -> int:
        """Let the clock of the matching engine jump; what deltas, trades and tickers say later is wrong by that.

        Args:
            at: when, microseconds: the first whole millisecond from then on that is not published yet.

        Returns:
            When it happens. Call this before the `tick` that publishes `at`, and every run of the seed is the same.
        """
        return self._model.intervene("clock", by_ms * MILLISECOND, at)

    def create_markets(self, count: int, at: int) -> int:
        """Create so many markets, CREATED_PER_MS in each millisecond from `at` on; as clock_step otherwise."""
        return self._model.intervene("create", count, at)

    def halt(self, until: int, at: int) -> int:
        """Stop trading from `at` until a time, and let the exchange say so now; as clock_step otherwise."""
        self._exchange.pause = until
        return self._model.intervene("halt", until, at)

    def _publish(self, changes: list[Change], now: int) -> None:
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
