"""The market model: a pure function of seed, epoch and length, and a world that keeps its own truths."""

from collections import Counter, defaultdict
from dataclasses import replace
from functools import cache
from itertools import pairwise

import pytest

from libs.marketdata.units import MILLISECOND, PRICE_ONE, SECOND
from services.simulator.book import Book
from services.simulator.careers import CREATED_PER_MS, FIRST_ORDER_DELAY
from services.simulator.changes import (
    Change,
    ClockStepped,
    Closed,
    Created,
    Delta,
    Lifecycle,
    Ticker,
    Trade,
)
from services.simulator.instruments import STRUCTURES, PriceStructure
from services.simulator.lifecycle import price_ranges
from services.simulator.model import MarketModel, market_journal
from services.simulator.plan import Intervention, ModelPlan

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


def test_a_ticker_speaks_of_a_change_of_its_second() -> None:
    """News about a market that never changed publishes no ticker: what is sent late widens every listener's margin."""
    plan = replace(PLAN, markets=1_500, rate=20.0, news_every_s=0.05)
    told = [c for c in run(plan, 20 * SECOND, SECOND) if c.at < EPOCH + 20 * SECOND]
    tickers = [change for change in told if isinstance(change, Ticker)]
    assert len(tickers) > 1_000
    assert max(ticker.at - ticker.changed_at for ticker in tickers) <= SECOND
    ticked = {ticker.instrument.ticker for ticker in tickers}
    assert {c.ticker for c in told if isinstance(c, Lifecycle)} - ticked


def test_last_changes_reach_every_channel() -> None:
    """The end has a delta of every trading market, a trade, a ticker, and a message on both lifecycle channels."""
    final = EPOCH + LENGTH + 2 * SECOND
    last = [change for change in changes() if change.at == final]
    assert {type(change) for change in last} == {Delta, Trade, Ticker, Lifecycle, Created}
    assert {c.channel for c in last if isinstance(c, Lifecycle)} == {
        "market_lifecycle_v2",
        "multivariate_market_lifecycle",
    }


def of_type(event_type: str) -> list[Lifecycle]:
    return [c for c in changes() if isinstance(c, Lifecycle) and c.event_type == event_type]


def test_prices_follow_the_grid_that_was_announced_last() -> None:
    """Whatever stands or is quoted after a change of structure lies on the new grid; what did not is pulled before."""
    structures: dict[str, PriceStructure] = {}
    books: dict[str, Book] = {}
    updates = 0
    for change in changes():
        if isinstance(change, Created):
            ticker = change.instrument.ticker
            structures[ticker] = change.instrument.event.series.structure
            books[ticker] = Book(change.yes, change.no)
        elif isinstance(change, Delta):
            ticker = change.instrument.ticker
            books[ticker].apply(change.side, change.price, change.size_delta)
            assert change.size_delta < 0 or structures[ticker].holds(change.price)
        elif isinstance(change, Lifecycle) and change.event_type == "price_level_structure_updated":
            structure = STRUCTURES[str(change.body["price_level_structure"])]
            assert structure is not structures[change.ticker]
            if change.channel == "market_lifecycle_v2":
                assert change.body["price_ranges"] == price_ranges(structure)
            book = books[change.ticker]
            assert all(structure.holds(price) for price in (*book.yes, *book.no))
            structures[change.ticker] = structure
            updates += 1
    assert updates > 10
    assert all(structures[t].holds(price) for t, b in books.items() for price in (*b.yes, *b.no))


def test_combos_live_like_markets_but_are_told_of_elsewhere() -> None:
    """Combos are created, traded and settled; their messages, and only theirs, come on the multivariate channel."""
    combos = {
        c.instrument.ticker for c in changes() if isinstance(c, Created) and c.instrument.is_combo
    }
    told = [c for c in changes() if isinstance(c, Lifecycle) and c.message_type == c.channel]
    assert {c.ticker for c in told if c.channel == "multivariate_market_lifecycle"} <= combos
    assert combos.isdisjoint(c.ticker for c in told if c.channel == "market_lifecycle_v2")
    assert not any(
        "price_ranges" in c.body or c.event_type == "metadata_updated"
        for c in told
        if c.ticker in combos
    )
    assert {"created", "determined", "settled"} <= {
        c.event_type for c in told if c.ticker in combos
    }
    for kind in (Delta, Trade, Ticker, Closed):
        assert combos & {c.instrument.ticker for c in changes() if isinstance(c, kind)}, kind


def test_rare_messages_come_in_their_own_shapes() -> None:
    """metadata_updated is flat, event_fee_update names an event and may take its override back."""
    for told in of_type("metadata_updated"):
        assert set(told.body) - {"strike_type", "floor_strike"} == {
            "market_ticker",
            "event_type",
            "yes_sub_title",
        }
    assert any("floor_strike" in told.body for told in of_type("metadata_updated"))
    fees = [
        c.body
        for c in changes()
        if isinstance(c, Lifecycle) and c.message_type == "event_fee_update"
    ]
    assert {fee["fee_type_override"] for fee in fees} >= {None, "flat"}
    assert all(
        (f["fee_type_override"] is None) == (f["fee_multiplier_override"] is None) for f in fees
    )
    moved = [told for told in of_type("close_date_updated") if told.at < EPOCH + LENGTH]
    assert moved
    closing = {c.instrument.ticker for c in changes() if isinstance(c, Closed)}
    assert closing.isdisjoint(told.ticker for told in moved)


def test_block_trades_leave_the_book_alone() -> None:
    """A block trade moves the sums a ticker speaks of, and no level."""
    blocks = [c for c in changes() if isinstance(c, Trade) and c.is_block]
    assert len(blocks) > 10
    deltas = {(c.instrument.ticker, c.at, -c.size_delta) for c in changes() if isinstance(c, Delta)}
    assert not any((trade.instrument.ticker, trade.at, trade.size) in deltas for trade in blocks)
    volumes: Counter[str] = Counter()
    last: dict[str, int] = {}
    for change in changes():
        if isinstance(change, Trade):
            volumes[change.instrument.ticker] += change.size
        elif isinstance(change, Ticker):
            last[change.instrument.ticker] = change.state.volume
    traded = {trade.instrument.ticker for trade in blocks}
    assert all(last[ticker] == volumes[ticker] for ticker in traded)


INTERVENTIONS: list[Intervention] = [
    ("clock", -3 * SECOND, EPOCH + SECOND + 123),
    ("create", 100, EPOCH + 2 * SECOND),
    ("halt", EPOCH + 3 * SECOND, EPOCH + 2 * SECOND + 500 * MILLISECOND),
    ("clock", 5 * SECOND, EPOCH + 4 * SECOND),
]


@cache
def intervened(step: int, most: int = 1 << 62) -> list[Change]:
    """Run 10 s in which the interventions come when their time has come, as a live exchange hears of them."""
    model = MarketModel(PLAN, EPOCH)
    found: list[Change] = list(model.start())
    left = list(INTERVENTIONS)
    for until in range(EPOCH + step, EPOCH + 10 * SECOND + 1, step):
        while left and left[0][2] < until:
            model.intervene(*left.pop(0))
        while not model.is_through(until):
            found += model.advance(until, most)
        found += model.advance(until)
    return found + model.finish(EPOCH + 12 * SECOND)


@pytest.mark.parametrize(("step", "most"), [(5 * MILLISECOND, 3), (500 * MILLISECOND, 1 << 62)])
def test_interventions_are_part_of_the_journal(step: int, most: int) -> None:
    """The same interventions give the same bytes, whether known before or heard of late, in whatever steps."""
    live = "".join(change.journal_line() for change in intervened(step, most)).encode()
    end, final = EPOCH + 10 * SECOND, EPOCH + 12 * SECOND
    assert live == market_journal(PLAN, EPOCH, end, final, INTERVENTIONS)


def test_a_clock_step_shifts_what_the_engine_says_and_nothing_else() -> None:
    """Deltas, trades and what tickers speak of are off by the sum of the steps; other times are true."""
    off, true_time = 0, EPOCH
    seen: Counter[int] = Counter()
    for change in intervened(500 * MILLISECOND):
        if isinstance(change, ClockStepped):
            off += change.by
        if isinstance(change, Delta | Trade):
            seen[off] += 1
            assert change.at >= true_time + off - SECOND
        elif not isinstance(change, Created):
            assert change.at >= true_time
            true_time = change.at
    assert set(seen) == {0, -3 * SECOND, 2 * SECOND}
    assert off == 2 * SECOND


def test_a_halt_stops_trading_until_its_end() -> None:
    """No delta and no trade lies in the halt, and there are some after it."""
    begin, end, off = EPOCH + 2_500 * MILLISECOND, EPOCH + 3 * SECOND, -3 * SECOND
    times = [c.at for c in intervened(500 * MILLISECOND) if isinstance(c, Delta | Trade)]
    assert not any(begin + off <= at < end + off for at in times)
    assert any(end + off <= at < end + off + SECOND // 2 for at in times)


def test_many_markets_are_created_at_once() -> None:
    """Each is announced within some milliseconds, some in every one; their first orders come 6 s later."""
    born = [
        c for c in intervened(500 * MILLISECOND)
        if isinstance(c, Created) and EPOCH + 2 * SECOND <= c.at < EPOCH + 2 * SECOND + 10 * MILLISECOND
    ]  # fmt: skip
    each = Counter(created.at for created in born)
    assert sum(each.values()) >= 100
    assert max(each.values()) <= CREATED_PER_MS + 1
    named = {created.instrument.ticker for created in born}
    assert len(named) == len(born)
    told = {c.ticker for c in intervened(500 * MILLISECOND) if isinstance(c, Lifecycle)}
    assert named <= told
    first = [
        c.at
        for c in intervened(500 * MILLISECOND)
        if isinstance(c, Delta) and c.instrument.ticker in named
    ]
    assert min(first) >= EPOCH + 2 * SECOND + FIRST_ORDER_DELAY
