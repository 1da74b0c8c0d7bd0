"""Looks by name: splitting them over requests, and what becomes of one that fails."""

from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.exchange.errors import TransportError
from libs.exchange.rest_wire import Json, Page
from libs.runtime.clock import ManualClock
from libs.store.errors import StoreUnavailable
from services.registry.looking import LOOK_CHARS_MAX, Looker, chunks
from services.registry.looks import Looks
from tests.unit.registry.factories import NOW


@given(st.lists(st.text("ABC-.", min_size=1, max_size=200), max_size=300))
def test_every_name_is_asked_once_in_addresses_that_fit(tickers: list[str]) -> None:
    """Whatever the tickers' lengths: all of them, in order, at most 100 a request and no line too long."""
    split = list(chunks(tickers))
    assert [ticker for chunk in split for ticker in chunk] == tickers
    assert all(0 < len(chunk) <= 100 for chunk in split)
    assert all(sum(len(t) + 3 for t in chunk) <= LOOK_CHARS_MAX for chunk in split)


class _Keeper:
    """Remembers whose answers came; its database may be away at the end of the misses."""

    def __init__(self) -> None:
        self.looks = Looks()
        self.event_looks = Looks()
        self.listed: list[str] = []
        self.is_away = False
        self.is_paused = False
        self.retired: list[str] = []
        self.missing: dict[str, int] = {}
        self.listed_meanwhile = ""

    async def list_markets(self, items: Sequence[Json], requested_at: int) -> list[str]:
        assert requested_at == NOW - 1
        self.listed += [item["ticker"] for item in items]
        for item in items:
            self.missing.pop(item["ticker"], None)
        return [item["ticker"] for item in items]

    async def retire(self, tickers: Sequence[str]) -> None:
        if self.is_away:
            raise StoreUnavailable("away")
        self.missing.pop(self.listed_meanwhile, None)
        self.retired += tickers


class _Rest:
    """Answers every market asked for, until request number `fails_at`."""

    def __init__(self, fails_at: int, unknown: frozenset[str] = frozenset()) -> None:
        self.requests = 0
        self.fails_at = fails_at
        self.unknown = unknown

    async def markets(self, tickers: Sequence[str]) -> AsyncIterator[Page[Json]]:
        self.requests += 1
        if self.requests == self.fails_at:
            raise TransportError("no answer")
        known = tuple({"ticker": t} for t in tickers if t not in self.unknown)
        yield Page(known, (), NOW - 1, NOW)


@pytest.fixture
def looker(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A looker over a catalogue that knows nothing."""

    class Lent:
        async def __aenter__(self) -> None: ...
        async def __aexit__(self, *_: object) -> None: ...

    async def read_markets(_conn: object, _tickers: Sequence[str]) -> dict[str, Any]:
        return {}

    monkeypatch.setattr("services.registry.looking.lend", lambda _pool: Lent())
    monkeypatch.setattr("services.registry.looking.read_markets", read_markets)
    rest: Any = None
    keeper: Any = _Keeper()
    pool: Any = None
    return Looker(rest, keeper, pool, ManualClock(NOW), 16_000_000, lambda: keeper.is_paused)


async def test_a_failed_request_forgets_no_look(looker: Any) -> None:
    """What was answered before it is done; its own markets and those behind them are looked at next time."""
    looks = looker._keeper.looks
    for number in range(300):
        looks.put_earlier(f"T{number:03}", NOW - 300 + number)
    looker._rest = _Rest(fails_at=2)
    with pytest.raises(TransportError):
        await looker.markets_once()
    assert looker._keeper.listed == [f"T{number:03}" for number in range(100)]
    assert len(looks) == 200
    await looker.markets_once()
    assert sorted(looker._keeper.listed) == [f"T{number:03}" for number in range(300)]
    assert len(looks) == 0


async def test_a_database_that_is_away_forgets_no_look(looker: Any) -> None:
    """The market was not to be found for the last time, but that could not be written down: it is asked for again."""
    looks = looker._keeper.looks
    looks.put_earlier("GHOST", NOW)
    looks.put_earlier("THERE", NOW)
    missing = looker._keeper.missing
    missing["GHOST"] = 9
    looker._rest, looker._keeper.is_away = _Rest(0, frozenset({"GHOST"})), True
    with pytest.raises(StoreUnavailable):
        await looker.markets_once()
    assert len(looks) == 2
    assert missing == {"GHOST": 9}
    looker._keeper.is_away = False
    await looker.markets_once()
    assert (len(looks), missing) == (0, {})


async def test_nothing_is_gone_while_the_exchange_pauses(looker: Any) -> None:
    """A paused exchange that shows nothing is asked again as often as it takes; afterwards its word counts."""
    keeper = looker._keeper
    keeper.looks.put_earlier("QUIET", NOW)
    keeper.missing["QUIET"] = 9
    looker._rest, keeper.is_paused = _Rest(0, frozenset({"QUIET"})), True
    for _ in range(3):
        await looker.markets_once()
        assert (keeper.retired, len(keeper.looks)) == ([], 1)
        keeper.looks.put_earlier("QUIET", NOW)
    keeper.is_paused = False
    await looker.markets_once()
    assert (keeper.retired, len(keeper.looks)) == (["QUIET"], 0)


async def test_a_market_that_was_listed_meanwhile_begins_anew(looker: Any) -> None:
    """Its misses of before say nothing any more, also when it is listed while another one is retired."""
    keeper = looker._keeper
    for ticker, count in (("GHOST", 9), ("SHY", 8), ("LISTED", 9)):
        keeper.looks.put_earlier(ticker, NOW)
        keeper.missing[ticker] = count
    looker._rest = _Rest(0, frozenset({"GHOST", "SHY", "LISTED"}))
    keeper.listed_meanwhile = "SHY"
    del keeper.missing["LISTED"]
    await looker.markets_once()
    assert keeper.retired == ["GHOST"]
    assert keeper.missing == {"SHY": 1, "LISTED": 1}
    assert len(keeper.looks) == 2
