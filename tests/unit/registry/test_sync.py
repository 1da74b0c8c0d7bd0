"""Splitting names over requests, and the /debug page's query."""

from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.exchange.errors import TransportError
from libs.exchange.rest_wire import Json, Page
from libs.runtime.clock import ManualClock
from libs.runtime.health import PageInvalid
from libs.store.errors import StoreUnavailable
from services.registry.debug import read_limit
from services.registry.schedule import Schedule
from services.registry.sync import LOOK_CHARS_MAX, Syncer, chunks
from tests.unit.registry.factories import NOW


@given(st.lists(st.text("ABC-.", min_size=1, max_size=200), max_size=300))
def test_every_name_is_asked_once_in_addresses_that_fit(tickers: list[str]) -> None:
    """Whatever the tickers' lengths: all of them, in order, at most 100 a request and no line too long."""
    split = list(chunks(tickers))
    assert [ticker for chunk in split for ticker in chunk] == tickers
    assert all(0 < len(chunk) <= 100 for chunk in split)
    assert all(sum(len(t) + 3 for t in chunk) <= LOOK_CHARS_MAX for chunk in split)


def test_the_page_size_is_a_number_within_bounds() -> None:
    """100 by default; a wrong number or an unknown key is refused by name."""
    assert read_limit({}) == 100
    assert read_limit({"limit": "1000", "status": "active", "after": "A"}) == 1000
    for query in ({"limit": "0"}, {"limit": "1001"}, {"limit": "ten"}, {"limit": "-1"}):
        with pytest.raises(PageInvalid, match="limit"):
            read_limit(query)
    with pytest.raises(PageInvalid, match="stauts"):
        read_limit({"stauts": "active"})


class _Keeper:
    """Remembers whose answers came; its database may be away at the end of the misses."""

    def __init__(self) -> None:
        self.looks = Schedule()
        self.listed: list[str] = []
        self.is_away = False

    async def list_markets(self, items: Sequence[Json], requested_at: int) -> list[str]:
        assert requested_at == NOW - 1
        self.listed += [item["ticker"] for item in items]
        return [item["ticker"] for item in items]

    async def retire(self, tickers: Sequence[str]) -> None:
        if self.is_away:
            raise StoreUnavailable("away")


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
def syncer(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A syncer over a catalogue that knows nothing."""

    class Lent:
        async def __aenter__(self) -> None: ...
        async def __aexit__(self, *_: object) -> None: ...

    async def read_markets(_conn: object, _tickers: Sequence[str]) -> dict[str, Any]:
        return {}

    monkeypatch.setattr("services.registry.sync.lend", lambda _pool: Lent())
    monkeypatch.setattr("services.registry.sync.read_markets", read_markets)
    made: Any = Syncer.__new__(Syncer)
    made._keeper, made._pool, made._clock = _Keeper(), None, ManualClock(NOW)
    made._misses, made.markets_listed = {}, 0
    return made


async def test_a_failed_request_forgets_no_look(syncer: Any) -> None:
    """What was answered before it is done; its own markets and those behind them are looked at next time."""
    looks = syncer._keeper.looks
    for number in range(300):
        looks.put(f"T{number:03}", NOW - 300 + number)
    syncer._rest = _Rest(fails_at=2)
    with pytest.raises(TransportError):
        await syncer.look_once()
    assert syncer._keeper.listed == [f"T{number:03}" for number in range(100)]
    assert len(looks) == 200
    await syncer.look_once()
    assert sorted(syncer._keeper.listed) == [f"T{number:03}" for number in range(300)]
    assert len(looks) == 0


async def test_a_database_that_is_away_forgets_no_look(syncer: Any) -> None:
    """The market was not to be found for the last time, but that could not be written down: it is asked for again."""
    looks = syncer._keeper.looks
    looks.put("GHOST", NOW)
    looks.put("THERE", NOW)
    syncer._misses["GHOST"] = 9
    syncer._rest, syncer._keeper.is_away = _Rest(0, frozenset({"GHOST"})), True
    with pytest.raises(StoreUnavailable):
        await syncer.look_once()
    assert len(looks) == 2
    assert syncer._misses == {"GHOST": 9}
    syncer._keeper.is_away = False
    await syncer.look_once()
    assert (len(looks), syncer._misses) == (0, {})


async def test_a_full_listing_asks_for_every_status_but_settled(
    syncer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Open, unopened and paused whole; of the closed ones those of the last two days, by their close time."""
    ago = {"1": "2026-11-17T11:00:00Z", "3": "2026-11-15T11:00:00Z", "": ""}
    asked: list[str] = []

    class Rest:
        async def series(self) -> Page[Json]:
            return Page((), (), NOW, NOW)

        async def events(self, status: str) -> AsyncIterator[Page[Json]]:
            yield Page((), (), NOW, NOW)

        async def markets(self, status: str, mve_filter: str) -> AsyncIterator[Page[Json]]:
            assert mve_filter == "exclude"
            asked.append(status)
            items = tuple({"ticker": status + day, "close_time": at} for day, at in ago.items())
            yield Page(items, (), NOW - 1, NOW)

    async def nothing(*_: object) -> tuple[()]:
        return ()

    monkeypatch.setattr("services.registry.sync.read_wanted", nothing)
    monkeypatch.setattr(syncer, "_remember", nothing)
    syncer._keeper.list_series = nothing
    syncer._rest, syncer._combos, syncer.full_listings = Rest(), False, 0
    await syncer.list_all()
    assert sorted(asked) == ["closed", "open", "paused", "unopened"]
    listed = {ticker for ticker in syncer._keeper.listed if ticker.startswith("closed")}
    assert listed == {"closed1"}
    assert {"paused1", "paused3", "paused"} <= set(syncer._keeper.listed)
