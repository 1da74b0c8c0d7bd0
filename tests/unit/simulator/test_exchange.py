"""The exchange as it is listed: markets by number, found by every name, kept only once they change."""

from itertools import islice

import pytest

from libs.marketdata.units import SECOND
from services.simulator import lifecycle
from services.simulator.catalogue import Catalogue
from services.simulator.changes import Created, Delta, Ticker, TickerState, Trade
from services.simulator.exchange import Exchange
from services.simulator.instruments import COMBO_SERIES, DECI_CENT, SERIES
from services.simulator.world import World

EPOCH = 1_795_000_000 * SECOND


def catalogue(markets: int, combos: int = 0) -> Catalogue:
    return Catalogue(7, EPOCH, markets, combos, {1: EPOCH + 30 * SECOND})


def exchange(markets: int, combos: int = 0) -> Exchange:
    made = Exchange(trades_kept=10)
    made.begin_with(catalogue(markets, combos))
    return made


@pytest.mark.parametrize(("markets", "combos"), [(1, 0), (5, 0), (40, 3), (216, 216), (1_000, 50)])
def test_every_market_is_found_by_position_ticker_and_id(markets: int, combos: int) -> None:
    """All tickers and ids differ, and each leads back to its market and no other."""
    made = exchange(markets, combos)
    listed = [listing.instrument for _, listing in made.listings.after(0)]
    assert len(made.listings) == len(listed) == markets
    assert (
        len({item.ticker for item in listed}) == len({item.market_id for item in listed}) == markets
    )
    assert sum(item.is_combo for item in listed) == combos
    for item in listed:
        assert made.listings[item.ticker].instrument == item
        assert made.ticker_of(item.market_id) == item.ticker
        assert made.market_id_of(item.ticker) == item.market_id
    assert list(made.listings) == [item.ticker for item in listed]


@pytest.mark.parametrize(
    "ticker",
    ["", "KXMLBGAME", "KXMLBGAME-26NOV18", "KXBTCD-26NOV1810AAA-T50000.99", "KXNOBODY-26NOV1810LPR-ABC", "a-b-c", "--", "KXBTCD-26NOV1810ÄÖÜ-T1.99"],
)  # fmt: skip
def test_a_name_that_is_none_is_nobodys(ticker: str) -> None:
    """Whatever is not a market's exact ticker is unknown; so is an id of another making."""
    made = exchange(1_000, 50)
    assert made.listings.get(ticker) is None
    assert made.events.get(ticker) is None
    assert made.ticker_of(ticker) is None
    assert made.ticker_of("11111111-2222-3333-4444-555555555555") is None
    first = next(iter(made.listings))
    assert made.listings.get(first.lower()) is None
    assert exchange(1).listings.get(list(made.listings)[1]) is None


def test_events_hold_their_markets() -> None:
    """Six markets to an event but for the last ones, a combo alone; every market is in exactly one."""
    made = exchange(100, 7)
    seen: list[str] = []
    for _, event in made.events.after(0):
        markets = made.markets_of(event.ticker)
        assert {listing.instrument.event for listing in markets} == {event}
        assert len(markets) == 1 if event.series is COMBO_SERIES else 1 <= len(markets) <= 6
        seen += [listing.instrument.ticker for listing in markets]
    assert sorted(seen) == sorted(made.listings)
    assert list(made.series) == [series.ticker for series in (*SERIES, COMBO_SERIES)]


def test_positions_stay_when_more_is_listed() -> None:
    """Later markets come behind, the first of them in events that are not full; a page can begin anywhere."""
    found = catalogue(40, 2)
    made = Exchange(trades_kept=10)
    made.begin_with(found)
    before = dict(made.listings.after(0))
    world: World = found.world()
    events = len(made.events)
    for second in range(30):
        instrument, is_new = world.instrument(EPOCH + second * SECOND, EPOCH + second * SECOND)
        assert is_new == (instrument.event.ticker not in made.events)
        made.publish([Created(EPOCH, instrument, is_initial=False)], 0)
    after = dict(made.listings.after(0))
    assert [after[n].instrument for n in before] == [before[n].instrument for n in before]
    assert list(after) == list(range(70))
    assert len({listing.instrument.ticker for listing in after.values()}) == 70
    assert all(len(made.markets_of(event)) <= 6 for event in made.events)
    assert len(made.events) == len(list(made.events.after(0))) > events
    tail = [listing.instrument for _, listing in islice(made.listings.after(38), 10)]
    assert tail == [after[number].instrument for number in range(38, 48)]


def test_a_market_is_kept_once_it_changes() -> None:
    """What nobody touched is made anew with the same book; what changed stays changed."""
    made = exchange(40)
    listing = made.listings[next(iter(made.listings))]
    again = made.listings[listing.instrument.ticker]
    assert again is not listing
    assert again.book_record() == listing.book_record()
    assert list(made.listings.changed()) == []
    made.publish([Delta(EPOCH + 1_500, listing.instrument, True, 1_000, 700, 1)], 0)
    kept = made.listings[listing.instrument.ticker]
    assert list(made.listings.changed()) == [kept]
    assert kept.book.yes[1_000] == listing.book.yes.get(1_000, 0) + 700
    assert (kept.position, kept.changed_at) == (1, EPOCH + 1_000)
    assert [record["ticker"] for record in made.books()] == list(made.listings)


def test_a_book_that_never_traded_has_its_best_prices_shown() -> None:
    """Until a ticker says more, the state of a market is read off its book."""
    made = exchange(40)
    listing = next(found for _, found in made.listings.after(0) if found.book.yes and found.book.no)
    state = listing.state
    assert (state.yes_bid, state.yes_ask) == (max(listing.book.yes), 100_000 - max(listing.book.no))
    told = TickerState(5, 4, 6, 1, 1, 1, 1, 1, 1, 1)
    made.publish([Ticker(EPOCH, EPOCH, listing.instrument, told)], 0)
    assert made.listings[listing.instrument.ticker].state is told


def test_messages_change_what_is_listed() -> None:
    """Another grid, sub-title and close time are the market's from then on, an event's fees the event's."""
    made = exchange(40)
    instrument = made.listings[next(iter(made.listings))].instrument
    at = EPOCH + SECOND
    fee = ("flat", 1.0)
    made.publish(
        [
            lifecycle.structure_updated(instrument, at, DECI_CENT),
            lifecycle.metadata_updated(instrument, at + 1, "another"),
            lifecycle.close_date_updated(instrument, at + 2, EPOCH + 9 * SECOND),
            lifecycle.event_fee_updated(instrument.event, at + 3, fee),
        ],
        0,
    )
    listing = made.listings[instrument.ticker]
    assert (listing.structure, listing.sub_title) == (DECI_CENT, "another")
    assert (listing.close_at, listing.updated_at) == (EPOCH + 9 * SECOND, at + 2)
    event = made.events[instrument.event.ticker]
    assert (event.fee, event.updated_at) == (fee, at + 3)
    assert dict(made.events.after(0))[event.number] is event
    made.publish([lifecycle.event_fee_updated(instrument.event, at + 4, None)], 0)
    assert made.events[instrument.event.ticker].fee is None


def test_the_tape_is_numbered_and_forgets() -> None:
    """Trades keep their numbers when the oldest ones are forgotten."""
    made = exchange(40)
    instrument = made.listings[next(iter(made.listings))].instrument
    made.publish([Trade(EPOCH, instrument, str(n), 500, 100, True) for n in range(25)], 0)
    assert [(number, trade.trade_id) for number, trade in made.tape] == [
        (number, str(number - 1)) for number in range(16, 26)
    ]
