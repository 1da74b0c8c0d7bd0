"""The REST interface without a socket: a whole exchange in virtual time, asked request by request."""

import json
from collections import Counter
from typing import Any

import pytest

from libs.marketdata.units import SECOND, parse_rfc3339
from services.simulator.answers import Answer
from services.simulator.faults import menu
from services.simulator.journal import MemoryJournal
from services.simulator.keys import KeyRing
from services.simulator.paging import encode_cursor
from services.simulator.rest import PREFIX, Asked, Rest
from services.simulator.settings import SimulatorSettings
from services.simulator.simulation import Simulation

EPOCH = parse_rfc3339("2026-11-21T12:00:00Z")
"""A Saturday: no maintenance."""


class World:
    """An exchange, its REST interface and the time."""

    def __init__(self, **settings: Any) -> None:
        given: dict[str, Any] = {
            "markets": 60,
            "rate": 300.0,
            "epoch_us": EPOCH,
            "tier": "none",
        } | settings
        self.settings = SimulatorSettings(**given)
        self.now = EPOCH
        self.market = MemoryJournal()
        self.session = MemoryJournal()
        self.simulation = Simulation(self.settings, self.market, self.session, EPOCH)
        self.exchange = self.simulation.exchange
        self.rest = Rest(
            self.exchange,
            KeyRing({}, 10_000),
            lambda: self.now,
            self.settings,
            self.simulation.rest_trouble,
        )

    def run(self, seconds: float) -> None:
        self.now += int(seconds * SECOND)
        while not self.simulation.advance(self.now):
            pass

    def ask(self, path: str, method: str = "GET", body: bytes = b"", **headers: str) -> Answer:
        path, _, query = path.partition("?")
        return self.rest.answer(Asked(method, PREFIX + path, query, headers, "10.0.0.1", body))

    def get(self, path: str) -> Any:
        answer = self.ask(path)
        assert answer.status == 200, (path, answer)
        return json.loads(answer.body)

    def pages(self, path: str, name: str) -> list[list[Any]]:
        """Follow the cursor to its end."""
        pages, cursor = [], ""
        for _ in range(1_000):
            body = self.get(path + (f"&cursor={cursor}" if cursor else ""))
            pages.append(body[name])
            cursor = body["cursor"]
            if not cursor:
                return pages
        raise AssertionError("no end")


def fresh(**settings: Any) -> World:
    return World(rest_stale_s_max=0.0, **settings)


# --- listings ---


def test_every_market_is_listed_once_newest_last_to_come() -> None:
    """kalshi-api 1.5: the cursor leads through all of them; what is listed meanwhile is not seen by who reads on."""
    world = fresh(new_market_every_s=0.2)
    world.run(5)
    first = world.get("/markets?limit=7")
    world.run(5)
    seen = [market["ticker"] for market in first["markets"]]
    cursor = first["cursor"]
    while cursor:
        body = world.get(f"/markets?limit=7&cursor={cursor}")
        seen += [market["ticker"] for market in body["markets"]]
        cursor = body["cursor"]
    everything = [
        m["ticker"] for page in world.pages("/markets?limit=1000", "markets") for m in page
    ]
    assert len(seen) == len(set(seen)) >= 60
    assert len(everything) == len(world.exchange.listings) > len(seen)
    assert everything[-len(seen) :] == seen


def test_a_garbage_cursor_gives_the_first_page() -> None:
    """kalshi-api 1.4 and 1.5: 200 and page 1, as recorded; of events and trades too."""
    world = fresh()
    world.run(20)
    for path in ("/markets", "/events", "/markets/trades"):
        first = world.ask(f"{path}?limit=5")
        garbage = world.ask(f"{path}?limit=5&cursor=garbage-cursor-fixture")
        assert garbage == first
        assert json.loads(first.body)["cursor"]


def test_an_empty_page_with_a_cursor_occurs() -> None:
    """kalshi-api 1.5: filters work on what a page looked at; where little fits, pages are empty and go on."""
    world = fresh(closing_share=0.1, close_after_s_min=1, close_after_s_max=2)
    world.run(30)
    pages = world.pages("/markets?limit=2&status=settled", "markets")
    assert [] in pages[:-1]
    found = [market["ticker"] for page in pages for market in page]
    settled = [
        t
        for t, listing in world.exchange.listings.items()
        if listing.status(world.now) == "finalized"
    ]
    assert sorted(found) == sorted(settled) != []


def test_many_markets_list_without_looking_at_those_before() -> None:
    """The last page of many is as near as the first: it makes only the markets it shows."""
    world = fresh(markets=20_000, rate=0.0)
    made = 0
    listings = world.exchange.listings
    after = listings.after

    def counting(position: int) -> Any:
        nonlocal made
        for row in after(position):
            made += 1
            yield row

    listings.after = counting  # type: ignore[method-assign]
    last = world.get("/markets?limit=100&cursor=" + encode_cursor(99))
    assert len(last["markets"]) == 100
    assert last["cursor"] == ""
    assert made <= 600


def test_named_markets_are_found_wherever_they_are() -> None:
    """kalshi-api 1.7: `tickers` and `event_ticker` look at the named ones only; unknown ones are left out."""
    world = fresh(markets=500)
    tickers = [market["ticker"] for market in world.get("/markets?limit=500")["markets"]]
    named = [tickers[3], tickers[400]]
    body = world.get(f"/markets?limit=1000&tickers={','.join([*named, 'KXNOBODY-1-A'])}")
    assert sorted(market["ticker"] for market in body["markets"]) == sorted(named)
    assert body["cursor"] == ""
    event = body["markets"][0]["event_ticker"]
    of_event = world.get(f"/markets?event_ticker={event}")["markets"]
    assert {market["event_ticker"] for market in of_event} == {event}
    assert len(of_event) == sum(t.rpartition("-")[0] == event for t in tickers)
    assert world.get(f"/markets?event_ticker={event}&limit=1")["cursor"]
    assert world.get("/markets?event_ticker=KXNOBODY-1")["markets"] == []


def test_combos_are_left_out_or_alone() -> None:
    """kalshi-api 1.7: mve_filter; /events without combos, /events/multivariate with nothing else."""
    world = fresh(combo_share=0.5)
    every = world.get("/markets?limit=1000")["markets"]
    only = world.get("/markets?limit=1000&mve_filter=only")["markets"]
    rest = world.get("/markets?limit=1000&mve_filter=exclude")["markets"]
    assert only
    assert rest
    assert len(only) + len(rest) == len(every)
    assert {market["ticker"].startswith("KXMVE") for market in only} == {True}
    assert not any(market["ticker"].startswith("KXMVE") for market in rest)
    plain = {event["event_ticker"] for event in world.get("/events")["events"]}
    combos = {event["event_ticker"] for event in world.get("/events/multivariate")["events"]}
    assert {market["event_ticker"] for market in rest} == plain
    assert {market["event_ticker"] for market in only} == combos


def test_events_filter_and_nest() -> None:
    """kalshi-api 1.6: series_ticker, tickers, status, min_updated_ts, with_nested_markets, with_milestones."""
    world = fresh(markets=36, combo_share=0.0)
    events = world.get("/events?with_nested_markets=true")["events"]
    assert Counter(len(event["markets"]) for event in events) == {6: 6}
    one = events[0]
    assert [
        e["event_ticker"] for e in world.get(f"/events?tickers={one['event_ticker']}")["events"]
    ] == [one["event_ticker"]]
    series = world.get(f"/events?series_ticker={one['series_ticker']}")["events"]
    assert {event["series_ticker"] for event in series} == {one["series_ticker"]}
    assert world.get("/events?status=settled")["events"] == []
    assert len(world.get("/events?status=open")["events"]) == 6
    assert world.get(f"/events?min_updated_ts={EPOCH // SECOND}")["events"] == []
    assert world.get("/events?with_milestones=true")["milestones"] == []
    assert "milestones" not in world.get("/events")
    assert "markets" not in world.get("/events")["events"][0]
    single = world.get(f"/events/{one['event_ticker']}")
    assert [m["ticker"] for m in single["markets"]] == [m["ticker"] for m in one["markets"]]
    assert world.ask("/events?limit=201").status == 400
    assert world.ask("/events?status=active").status == 400


def test_series_are_one_answer() -> None:
    """kalshi-api 1.5: series are not paginated; category and min_updated_ts filter them."""
    world = fresh(combo_share=0.0)
    series = world.get("/series")["series"]
    assert len(series) == 6
    assert {s["category"] for s in world.get("/series?category=Sports")["series"]} == {"Sports"}
    assert world.get(f"/series?min_updated_ts={EPOCH // SECOND}")["series"] == []
    assert world.get("/series?min_updated_ts=1")["series"] == series
    assert world.get(f"/series/{series[0]['ticker']}") == {"series": series[0]}
    assert world.ask("/series/KXNOBODY").status == 404


def test_a_new_market_is_not_found_at_first() -> None:
    """kalshi-api 3.7: GET /markets/{t} may be 404 right after `created`; the listing has it, soon it is found."""
    world = fresh(new_market_every_s=0.5, rest_unknown_s_max=5.0)
    world.run(1)
    known: Counter[int] = Counter()
    for _ in range(100):
        world.run(0.1)
        for market in world.get("/markets?limit=5")["markets"]:
            known[world.ask(f"/markets/{market['ticker']}").status] += 1
            age = world.now - parse_rfc3339(market["created_time"])
            if age > 5 * SECOND:
                assert world.ask(f"/markets/{market['ticker']}").status == 200
    assert known[404] > 5
    assert known[200] > 5


def test_the_market_object_follows_the_market() -> None:
    """kalshi-api 1.7: status by the clock, result and settlement when they are there, structure as it is now."""
    world = fresh(closing_share=1.0, close_after_s_min=3, close_after_s_max=4, news_every_s=0.2)
    before = {m["ticker"]: m for m in world.get("/markets?limit=1000")["markets"]}
    assert {m["status"] for m in before.values()} == {"active"}
    assert not any("settlement_ts" in m for m in before.values())
    world.run(20)
    after = {m["ticker"]: m for m in world.get("/markets?limit=1000&status=settled")["markets"]}
    assert after
    for ticker, market in after.items():
        listing = world.exchange.listings[ticker]
        assert market["result"] in ("yes", "no")
        assert (
            market["settlement_value_dollars"]
            == {"yes": "1.0000", "no": "0.0000"}[market["result"]]
        )
        assert parse_rfc3339(market["settlement_ts"]) == listing.settled_at
        assert market["price_level_structure"] == listing.structure.name
        assert parse_rfc3339(market["updated_time"]) == listing.updated_at


# --- books ---


def test_books_ascend_and_are_in_their_own_leg() -> None:
    """kalshi-api 1.6: both sides bids, best last; depth keeps the best; the batch says the same."""
    world = fresh()
    world.run(10)
    tickers = [market["ticker"] for market in world.get("/markets?limit=60")["markets"]]
    batch = world.get("/markets/orderbooks?" + "&".join(f"tickers={t}" for t in tickers))
    assert [book["ticker"] for book in batch["orderbooks"]] == tickers
    levels = 0
    for book in batch["orderbooks"]:
        both = book["orderbook_fp"]
        assert set(both) == {"yes_dollars", "no_dollars"}
        single = world.get(f"/markets/{book['ticker']}/orderbook")
        assert single == {"orderbook_fp": both}
        two = world.get(f"/markets/{book['ticker']}/orderbook?depth=2")["orderbook_fp"]
        listing = world.exchange.listings[book["ticker"]]
        for side, name in ((True, "yes_dollars"), (False, "no_dollars")):
            assert two[name] == both[name][-2:]
            assert both[name] == sorted(both[name], key=lambda level: float(level[0]))
            assert len(both[name]) == len(listing.book.ladder(side))
            levels += len(both[name])
    assert levels > 100


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("&".join(f"tickers=T{n}" for n in range(101)), ("Tickers", "max")),
        ("tickers=" + "A" * 201, ("Tickers[0]", "max")),
        ("tickers=A&tickers=" + "A" * 201, ("Tickers[1]", "max")),
        ("", ("Tickers", "required")),
    ],
)
def test_orderbooks_take_1_to_100_tickers_of_200_characters(
    query: str, words: tuple[str, str]
) -> None:
    """kalshi-api 1.6: more, longer or none are 400 in the shape of a validation message."""
    answer = fresh().ask(f"/markets/orderbooks?{query}")
    assert answer.status == 400
    message = json.loads(answer.body)["msg"]
    assert f"Field validation for '{words[0]}' failed on the '{words[1]}' tag" in message


def test_unknown_markets_of_a_batch_are_left_out() -> None:
    """A hundred names are fine; a name twice is one book, a list with commas is one unknown name."""
    world = fresh()
    ticker = world.get("/markets?limit=1")["markets"][0]["ticker"]
    names = [ticker, ticker, "A" * 200, *(f"KXNOBODY-{n}-A" for n in range(97))]
    body = world.get("/markets/orderbooks?" + "&".join(f"tickers={name}" for name in names))
    assert [book["ticker"] for book in body["orderbooks"]] == [ticker]
    assert world.get(f"/markets/orderbooks?tickers={ticker},{ticker}")["orderbooks"] == []
    assert world.ask("/markets/KXNOBODY-1-A/orderbook").status == 404
    assert world.ask(f"/markets/{ticker}/orderbook?depth=101").status == 400


# --- trades ---


def test_trades_are_newest_first_with_microseconds() -> None:
    """kalshi-api 1.6 and 3.8: newest first over all pages, times of 0 to 6 digits without trailing zeros."""
    world = fresh()
    world.run(30)
    trades = [trade for page in world.pages("/markets/trades?limit=10", "trades") for trade in page]
    times = [parse_rfc3339(trade["created_time"]) for trade in trades]
    assert times == sorted(times, reverse=True)
    assert [trade["trade_id"] for trade in reversed(trades)] == [
        trade.trade_id for _, trade in world.exchange.tape
    ]
    assert any(at % 1_000 for at in times)
    fractions = [trade["created_time"][:-1].partition(".")[2] for trade in trades]
    assert not any(fraction.endswith("0") for fraction in fractions)


def test_trades_filter() -> None:
    """kalshi-api 1.6: ticker, min_ts, max_ts (whole seconds, included), is_block_trade."""
    world = fresh(rate=400.0)
    world.run(40)
    every = [t for page in world.pages("/markets/trades?limit=1000", "trades") for t in page]
    ticker = Counter(trade["ticker"] for trade in every).most_common(1)[0][0]
    mine = world.get(f"/markets/trades?limit=1000&ticker={ticker}")["trades"]
    assert mine == [trade for trade in every if trade["ticker"] == ticker]
    low, high = EPOCH // SECOND + 10, EPOCH // SECOND + 19
    between = world.get(f"/markets/trades?limit=1000&min_ts={low}&max_ts={high}")["trades"]
    inside = [t for t in every if low <= parse_rfc3339(t["created_time"]) // SECOND <= high]
    assert between == inside != []
    for word, wanted in (("true", True), ("false", False)):
        path = f"/markets/trades?limit=1000&is_block_trade={word}"
        found = [trade for page in world.pages(path, "trades") for trade in page]
        assert found == [trade for trade in every if trade["is_block_trade"] is wanted] != []
    assert world.ask("/markets/trades?is_block_trade=maybe").status == 400
    assert world.ask("/markets/trades?limit=1001").status == 400


# --- the way there ---


def test_reads_come_out_of_a_cache() -> None:
    """kalshi-api 1.3: a book can be 15 s old and says nothing of it; status and account are never cached."""
    world = World(rate=2_000.0)
    ticker = world.get("/markets?limit=1")["markets"][0]["ticker"]
    path = f"/markets/{ticker}/orderbook"
    seen = []
    for _ in range(60):
        world.run(0.5)
        seen.append(world.ask(path))
    assert 4 <= len({answer.body for answer in seen}) < 30
    for answer in seen:
        headers = dict(answer.headers)
        assert headers["cache-control"] == "public, max-age=15"
        assert int(headers["x-kalshi-cache-hits"]) >= 0
    assert world.ask("/exchange/status").headers == ()
    assert world.ask("/account/endpoint_costs").headers == ()


def test_the_cache_leaves_the_market_journal_alone() -> None:
    """Who asks what, and how old it is told, changes nothing of what is published."""
    journals = []
    for stale in (0.0, 15.0):
        world = World(rest_stale_s_max=stale)
        for _ in range(10):
            world.run(1)
            world.get("/markets?limit=1000")
        journals.append(world.market.bytes())
    assert journals[0] == journals[1]


def test_reads_beyond_the_budget_are_refused() -> None:
    """kalshi-api 1.3: unsigned reads by address; both bodies in turn, cached answers cost the same, no Retry-After."""
    world = World(tier="basic")
    answers = [world.ask("/markets?limit=1") for _ in range(60)]
    refused = [answer for answer in answers if answer.status == 429]
    assert [answer.status for answer in answers[:46]] == [200] * 46
    assert len(refused) == 14
    assert len({answer.body for answer in refused}) == 2
    assert all(answer.headers == () for answer in refused)
    assert sum('"kind":"throttled"' in line for line in world.session.lines) == 14
    world.now += SECOND
    assert world.ask("/markets?limit=1").status == 200


def test_trades_are_all_there_after_a_step_of_the_exchanges_clock() -> None:
    """kalshi-api 1.6: min_ts and max_ts find what their times say, though the tape's times went back in between."""
    world = World(rate=2_000.0, rest_stale_s_max=0.0)
    world.run(5)
    before = len(world.exchange.tape)
    world.simulation.inject(menu.ClockStep(by_ms=-3_000), world.now)
    world.run(2)
    low, high = EPOCH // SECOND + 3, EPOCH // SECOND + 4
    fits = [low * SECOND <= trade.at < (high + 1) * SECOND for _, trade in world.exchange.tape]
    assert any(fits[:before])
    assert any(fits[before:])
    found = world.get(f"/markets/trades?limit=1000&min_ts={low}&max_ts={high}")
    assert found["cursor"] == ""
    expected = [
        trade.trade_id for (_, trade), fit in zip(world.exchange.tape, fits, strict=True) if fit
    ]
    assert [trade["trade_id"] for trade in found["trades"]] == expected[::-1]


def test_faults_come_before_handlers_and_cost_nothing() -> None:
    """A burst of 503 hides the exchange, stands hit by hit in the session journal, and uses up no budget."""
    world = World(tier="basic")
    fault = menu.Rest(status=503, body="empty", for_s=60.0)
    active = world.simulation.inject(fault, world.now)
    for _ in range(100):
        assert world.ask("/markets?limit=1") == Answer(503, b"", "text/plain")
    assert world.simulation.faults.end(active.number, world.now)
    assert world.ask("/markets?limit=1").status == 200
    told = [
        line for line in map(json.loads, world.session.lines) if line.get("number") == active.number
    ]
    assert [line["phase"] for line in told] == ["begin", *["hit"] * 100, "end"]
    assert {(line["path"], line["status"]) for line in told[1:-1]} == {("/markets", 503)}
    assert told[-1]["hits"] == active.hits == 100


def test_the_four_shapes_of_errors() -> None:
    """kalshi-api 1.4: nested 404 and 401, flat for malformed JSON, a message for a parameter, a string for 429."""
    world = World(tier="basic")
    not_found = json.loads(world.ask("/markets/KXNOBODY-1-A").body)
    assert set(not_found["error"]) == {"code", "message"}
    unsigned = world.ask("/account/limits")
    assert unsigned.status == 401
    assert json.loads(unsigned.body)["error"]["code"] == "signature_is_missing_from_headers"
    assert set(json.loads(world.ask("/markets?limit=1001").body)) == {"msg"}
    while (refused := world.ask("/exchange/status")).status != 429:
        pass
    assert json.loads(refused.body) == {"error": "too many requests"}
    assert world.ask("/nothing/here", "POST", b"{}").status == 401


def test_the_status_follows_the_plan_and_the_pause() -> None:
    """kalshi-api 1.6 and 4: in the Thursday window trading pauses until its end; a pause of everything is said."""
    world = fresh()
    assert world.get("/exchange/status")["trading_active"] is True
    window = world.get("/exchange/schedule")["schedule"]["maintenance_windows"][0]
    world.now = parse_rfc3339(window["start_datetime"])
    status = world.get("/exchange/status")
    assert status["trading_active"] is False
    assert status["exchange_estimated_resume_time"] == window["end_datetime"]
    world.now = parse_rfc3339(window["end_datetime"])
    assert world.get("/exchange/status")["trading_active"] is True
    world.exchange.pause = world.now + 60 * SECOND
    status = world.get("/exchange/status")
    assert (status["exchange_active"], status["trading_active"]) == (False, False)
    assert parse_rfc3339(status["exchange_estimated_resume_time"]) == world.exchange.pause


@pytest.mark.parametrize("cursor", [encode_cursor(10**9), encode_cursor(-1), "AAAA", "%00%FF"])
@pytest.mark.parametrize(
    "path",
    ["/markets?limit=5", "/markets?tickers=A,B", "/events?limit=5", "/markets/trades?limit=5"],
)
def test_no_cursor_breaks_a_listing(path: str, cursor: str) -> None:
    """kalshi-api 1.5: whatever stands in a cursor, the answer is 200."""
    world = fresh(markets=12)
    world.run(5)
    assert world.ask(f"{path}&cursor={cursor}").status == 200


def test_too_many_parameters_are_a_bad_request() -> None:
    """A query that no endpoint takes is refused in the exchange's manner."""
    answer = fresh(markets=12).ask("/markets?" + "&".join(f"a={n}" for n in range(2_000)))
    assert (answer.status, b"too many parameters" in answer.body) == (400, True)
