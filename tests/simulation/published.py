"""What an exchange publishes of a few markets, delta by delta, with everything in it that makes identity hard.

Legitimate repeats (one millisecond, level and size several times), pairs of +5 and -5 inside a millisecond, equal tuples
on both sides of a millisecond's border, and frames that are sent later than those of later changes of other markets.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from random import Random
from typing import NamedTuple

from libs.marketdata.units import MILLISECOND, SECOND
from services.simulator.changes import Created, Delta
from services.simulator.instruments import LINEAR_CENT, Event, Instrument, Series

EPOCH = 1_800_000_000_000_000
TICKERS = ("KXU-A", "KXU-B", "KXU-C")
LATE_MAX = 600 * MILLISECOND
"""From a change to its frame's sending, microseconds; with a gatherer's own lag it stays below the margin of a second."""
AHEAD = 400 * MILLISECOND
"""By how much the clock of the matching engine may be ahead of the one that says when frames are sent, microseconds."""

Content = tuple[str, int, bool, int, int]
"""ticker, exchange_ts, side, price, size_delta: a delta but for its occurrence."""


class Published(NamedTuple):
    """One delta in the order of sending. at: whole milliseconds, sent: when its frame goes out; microseconds."""

    ticker: str
    at: int
    side: bool
    price: int
    size: int
    sent: int

    @property
    def content(self) -> Content:
        return self.ticker, self.at, self.side, self.price, self.size

    def change(self, position: int) -> Delta:
        """As the simulator's model says it."""
        return Delta(self.at, INSTRUMENTS[self.ticker], self.side, self.price, self.size, position)


Truth = Sequence[Published]


def _instrument(number: int, ticker: str) -> Instrument:
    series = Series("KXU", "Made up", "Sports", LINEAR_CENT)
    event = Event("KXU", series, "Made up", "", EPOCH)
    listed = EPOCH - 3_600 * SECOND
    return Instrument(ticker, f"id-{number}", event, ticker, listed, listed, EPOCH + 3_600 * SECOND)


INSTRUMENTS = {ticker: _instrument(number, ticker) for number, ticker in enumerate(TICKERS)}


def listings() -> list[Created]:
    """The markets, with empty books."""
    return [Created(i.created_at, i, is_initial=True) for i in INSTRUMENTS.values()]


def short_truth(epoch: int = EPOCH) -> Truth:
    """Two markets, ten deltas, three milliseconds of A with repeats, pairs and equal tuples across their borders."""
    a, b, _ = TICKERS
    first, next_ms, later = 0, MILLISECOND, 2_500 * MILLISECOND
    told = [
        (a, first, 500), (a, first, -500), (a, first, 500), (b, first, 100), (a, first, 500), (a, next_ms, 500),
        (a, next_ms, 500), (b, later, 100), (a, later, 500), (a, later, -500),
    ]  # fmt: skip
    return [
        Published(ticker, epoch + at, True, 40_000, size, epoch + at + 20 * MILLISECOND)
        for ticker, at, size in told
    ]


def random_truth(chance: Random, epoch: int = EPOCH) -> Truth:
    """A dozen seconds of bursts; what is said of one market keeps its order, of several it need not."""
    found: list[Published] = []
    ahead = chance.choice([0, AHEAD])
    for ticker in TICKERS[: chance.randint(1, 3)]:
        at, sent = epoch + chance.randrange(SECOND), 0
        while at < epoch + 12 * SECOND:
            at += chance.choice([1, 1, 2, 40, 700, 1_500]) * MILLISECOND
            at -= at % MILLISECOND
            late = chance.choice([5, 20, 300, LATE_MAX // MILLISECOND]) * MILLISECOND
            for size in _burst(chance):
                sent = max(sent, at + late - ahead)
                side, price = chance.random() < 0.7, chance.choice([40_000, 41_000])
                found.append(Published(ticker, at, side, price, size, sent))
    return sorted(found, key=lambda delta: delta.sent)


def _burst(chance: Random) -> list[int]:
    kind = chance.random()
    if kind < 0.3:
        return [500, -500] * chance.randint(1, 3)
    if kind < 0.6:
        return [100] * chance.randint(2, 4)
    return [chance.choice([100, 500, -500]) for _ in range(chance.choice([1, 1, 2, 6]))]


def milliseconds(truth: Iterable[Published]) -> dict[tuple[str, int], list[int]]:
    """Return the places in the truth of each market's millisecond."""
    found: dict[tuple[str, int], list[int]] = defaultdict(list)
    for index, delta in enumerate(truth):
        found[delta.ticker, delta.at].append(index)
    return found
