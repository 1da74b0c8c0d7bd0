"""The market model: a pure function of seed, epoch and length, and a world that keeps its own truths."""

from collections import Counter, defaultdict
from functools import cache
from itertools import pairwise

import pytest

from libs.marketdata.units import MILLISECOND, PRICE_ONE, SECOND
from services.simulator.book import Book
from services.simulator.careers import FIRST_ORDER_DELAY
from services.simulator.changes import (
    Change,
    Closed,
    Created,
    Delta,
    Lifecycle,
    Ticker,
    Trade,
)
from services.simulator.model import MarketModel, market_journal
from services.simulator.plan import ModelPlan

EPOCH = 1_795_000_000 * SECOND
PLAN = ModelPlan(
    seed=7,
    markets=40,
    rate=800.0,
    new_market_every_s=4.0,
    closing_share=0.3,
    close_after_s_min=5.0,
    close_after_s_max=15.0,
    pause_every_s=5.0,
    combo_share=0.1,
    news_every_s=0.5,
)
LENGTH = 25 * SECOND


def run(plan: ModelPlan, length: int, step: int) -> list[Change]:
    model = MarketModel(plan, EPOCH)
    changes: list[Change] = list(model.start())
    for until in range(EPOCH + step, EPOCH + length + 1, step):
        changes += model.advance(until)
    return changes + model.finish(EPOCH + length + 2 * SECOND)


@cache
def changes() -> list[Change]:
    return run(PLAN, LENGTH, 5 * MILLISECOND)


def deltas_by_market() -> dict[str, list[Delta]]:
    found: dict[str, list[Delta]] = defaultdict(list)
    for change in changes():
        if isinstance(change, Delta):
            found[change.instrument.ticker].append(change)
    return found


@pytest.mark.parametrize("step", [1 * MILLISECOND, 7 * MILLISECOND, LENGTH])
def test_journal_does_not_depend_on_the_steps(step: int) -> None:
    """The same seed, epoch and length give the same bytes, in however many steps time passes."""
    length = LENGTH if step == LENGTH else 7 * 500 * MILLISECOND
    live = "".join(change.journal_line() for change in run(PLAN, length, step)).encode()
    assert live == market_journal(PLAN, EPOCH, EPOCH + length, EPOCH + length + 2 * SECOND)


def test_another_seed_gives_another_journal() -> None:
    """The seed matters."""
    other = ModelPlan(**{**{n: getattr(PLAN, n) for n in PLAN.__slots__}, "seed": 8})
    end = EPOCH + SECOND
    assert market_journal(PLAN, EPOCH, end, end) != market_journal(other, EPOCH, end, end)


def test_time_never_decreases_within_a_market() -> None:
    """Deltas and trades of one market come in order of their time."""
    last: dict[str, int] = {}
    for change in changes():
        if isinstance(change, Delta | Trade):
            ticker = change.instrument.ticker
            assert change.at >= last.get(ticker, 0)
            last[ticker] = change.at


def test_positions_count_every_delta_from_one() -> None:
    """A market's deltas are numbered without a hole."""
    for deltas in deltas_by_market().values():
        assert [delta.position for delta in deltas] == list(range(1, len(deltas) + 1))


def test_books_are_never_negative_nor_crossed() -> None:
    """Every delta leaves a level at or above zero and the best bids below a dollar together."""
    books = {
        change.instrument.ticker: Book(change.yes, change.no)
        for change in changes()
        if isinstance(change, Created)
    }
    assert not any(book.is_crossed for book in books.values())
    for change in changes():
        if isinstance(change, Delta):
            book = books[change.instrument.ticker]
            assert book.apply(change.side, change.price, change.size_delta) >= 0
            assert 0 < change.price < PRICE_ONE
            assert not book.is_crossed


def test_identical_deltas_share_a_millisecond() -> None:
    """Equal deltas in one millisecond happen, and so do opposite ones at one price."""
    tuples = Counter(
        (ticker, delta.at // 1000, delta.side, delta.price, delta.size_delta)
        for ticker, deltas in deltas_by_market().items()
        for delta in deltas
    )
    assert sum(number > 1 for number in tuples.values()) > 100
    flashes = [key for key in tuples if key[4] == 500 and (*key[:4], -500) in tuples]
    assert len(flashes) > 100


def test_many_consecutive_deltas_share_a_millisecond() -> None:
    """15 to 35 % of consecutive deltas of a market share a millisecond, as measured on the exchange."""
    pairs = [
        (a.at // 1000 == b.at // 1000)
        for deltas in deltas_by_market().values()
        for a, b in pairwise(deltas)
    ]
    assert 0.15 < sum(pairs) / len(pairs) < 0.35


def test_rate_and_dispersion() -> None:
    """The mean rate is the configured one, and counts per second are bursty."""
    plan = ModelPlan(1, 40, 1000.0, 0, 0, 1, 2, 0)
    model = MarketModel(plan, EPOCH)
    seconds = Counter(
        (change.at - EPOCH) // SECOND
        for change in model.advance(EPOCH + 200 * SECOND)
        if isinstance(change, Delta)
    )
    counts = [seconds[second] for second in range(200)]
    mean = sum(counts) / len(counts)
    variance = sum((count - mean) ** 2 for count in counts) / len(counts)
    assert 900 < mean < 1100
    assert variance / mean > 20


def test_sizes_and_prices_are_finer_than_whole() -> None:
    """Sizes have fractions of a contract; prices have ticks below a cent."""
    deltas = [delta for deltas in deltas_by_market().values() for delta in deltas]
    assert any(delta.size_delta % 100 for delta in deltas)
    assert any(delta.price % 1_000 for delta in deltas)
    assert any(delta.price % 100 for delta in deltas)


def test_trades_share_their_time_with_a_delta() -> None:
    """Each trade has a delta of the same market, time and size that took it from the book."""
    taken = {
        (delta.instrument.ticker, delta.at, -delta.size_delta)
        for deltas in deltas_by_market().values()
        for delta in deltas
    }
    trades = [change for change in changes() if isinstance(change, Trade) and not change.is_block]
    assert len(trades) > 500
    assert all((trade.instrument.ticker, trade.at, trade.size) in taken for trade in trades)
    assert len({trade.trade_id for trade in trades}) == len(trades)


def test_first_order_of_a_new_market_comes_late() -> None:
    """No delta, trade or ticker of a created market comes sooner than 5 s after it was created."""
    born = {
        change.instrument.ticker: change.at
        for change in changes()
        if isinstance(change, Created) and not change.is_initial
    }
    first: dict[str, int] = {}
    for change in changes():
        if isinstance(change, Delta | Trade | Ticker):
            first.setdefault(change.instrument.ticker, change.at)
    late = [first[ticker] - at for ticker, at in born.items() if ticker in first]
    assert len(late) >= 2
    assert min(late) >= FIRST_ORDER_DELAY > 5 * SECOND


def test_created_markets_are_announced() -> None:
    """Every market that is created while running has a `created` message of the same time."""
    announced = {
        (change.ticker, change.at)
        for change in changes()
        if isinstance(change, Lifecycle) and change.event_type == "created"
    }
    born = {
        (change.instrument.ticker, change.at)
        for change in changes()
        if isinstance(change, Created) and not change.is_initial
    }
    assert announced == born


def test_closed_markets_fall_silent_then_settle() -> None:
    """After its close a market has no order; it is determined, then settled; close itself says nothing."""
    closed = {c.instrument.ticker: c.at for c in changes() if isinstance(c, Closed)}
    assert len(closed) > 3
    for ticker, deltas in deltas_by_market().items():
        assert all(delta.at < closed.get(ticker, 1 << 62) for delta in deltas)
    told = [
        (change.ticker, change.event_type)
        for change in changes()
        if isinstance(change, Lifecycle) and change.ticker in closed
    ]
    settled = [ticker for ticker, event_type in told if event_type == "settled"]
    assert len(settled) > 2
    assert all(told.index((t, "determined")) < told.index((t, "settled")) for t in settled)


def test_tickers_come_once_a_second_in_a_burst() -> None:
    """A market has at most one ticker a second, all published at one moment of the second."""
    tickers = [c for c in changes() if isinstance(c, Ticker) and c.at < EPOCH + LENGTH]
    keys = [(ticker.instrument.ticker, ticker.at) for ticker in tickers]
    assert len(set(keys)) == len(keys)
    assert {ticker.at % SECOND for ticker in tickers} == {556 * MILLISECOND}
    assert all(ticker.changed_at <= ticker.at for ticker in tickers)


def test_last_changes_reach_every_channel() -> None:
    """The end has a delta of every trading market, a trade, a ticker, and a message on both lifecycle channels."""
    final = EPOCH + LENGTH + 2 * SECOND
    last = [change for change in changes() if change.at == final]
    assert {type(change) for change in last} == {Delta, Trade, Ticker, Lifecycle, Created}
    assert {c.channel for c in last if isinstance(c, Lifecycle)} == {
        "market_lifecycle_v2",
        "multivariate_market_lifecycle",
    }
