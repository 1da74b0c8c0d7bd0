"""The full listing: what it asks for, and what its page looks like while it goes on."""

from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from libs.exchange.errors import TransportError
from libs.exchange.rest_wire import Json, Page
from libs.runtime.clock import ManualClock
from services.registry.counts import Counts
from services.registry.progress import Progress
from services.registry.sync import Syncer
from tests.unit.registry.factories import NOW


class _Keeper:
    """Remembers what was listed."""

    def __init__(self) -> None:
        self.listed: list[str] = []

    async def list_markets(self, items: Sequence[Json], requested_at: int) -> list[str]:
        assert requested_at == NOW - 1
        self.listed += [item["ticker"] for item in items]
        return [item["ticker"] for item in items]

    async def list_series(self, items: Sequence[Json]) -> None:
        self.listed += [item["ticker"] for item in items]


class _Rest:
    """An exchange without series and events."""

    async def series(self) -> Page[Json]:
        return Page((), (), NOW, NOW)

    async def events(self, status: str) -> AsyncIterator[Page[Json]]:
        yield Page((), (), NOW, NOW)


@pytest.fixture
def syncer(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A syncer over a catalogue that knows nothing and remembers nothing."""

    class Lent:
        async def __aenter__(self) -> None: ...
        async def __aexit__(self, *_: object) -> None: ...

    async def nothing(*_: object) -> tuple[()]:
        return ()

    monkeypatch.setattr("services.registry.sync.lend", lambda _pool: Lent())
    monkeypatch.setattr("services.registry.sync.read_wanted", nothing)
    made: Any = Syncer.__new__(Syncer)
    made._keeper, made._pool, made._clock = _Keeper(), None, ManualClock(NOW)
    made.markets_listed, made.full_listings, made._combos, made.progress = 0, 0, False, Progress()
    made._needs_no_events = True
    made._forgotten = 0
    made._remember = nothing
    return made


async def test_a_full_listing_asks_for_every_status_but_settled(syncer: Any) -> None:
    """Open, unopened and paused whole; of the closed ones those of the last two days, by their close time."""
    ago = {"1": "2026-11-17T11:00:00Z", "3": "2026-11-15T11:00:00Z", "": ""}
    asked: list[str] = []

    class Rest(_Rest):
        async def markets(self, status: str, mve_filter: str) -> AsyncIterator[Page[Json]]:
            assert mve_filter == "exclude"
            asked.append(status)
            items = tuple({"ticker": status + day, "close_time": at} for day, at in ago.items())
            yield Page(items, (), NOW - 1, NOW)

    syncer._rest = Rest()
    await syncer.list_all()
    assert sorted(asked) == ["closed", "open", "paused", "unopened"]
    listed = {ticker for ticker in syncer._keeper.listed if ticker.startswith("closed")}
    assert listed == {"closed1"}
    assert {"paused1", "paused3", "paused"} <= set(syncer._keeper.listed)


def _pages(count: int, fails_at: int = 0) -> AsyncIterator[Page[Json]]:
    async def pages() -> AsyncIterator[Page[Json]]:
        for number in range(1, count + 1):
            if number == fails_at:
                raise TransportError("no answer")
            yield Page(({"ticker": f"T{number}"},), (), NOW - 1, NOW)

    return pages()


async def test_pages_are_taken_in_order_and_a_fault_ends_the_listing(syncer: Any) -> None:
    """The next page is asked for while one is taken; what was answered before a fault is kept, the fault is told."""
    assert await syncer._take_markets(_pages(3)) == ["T1", "T2", "T3"]
    with pytest.raises(TransportError):
        await syncer._take_markets(_pages(5, fails_at=3))
    assert syncer._keeper.listed == ["T1", "T2", "T3", "T1", "T2"]


async def test_thousands_of_series_are_taken_in_parts(syncer: Any) -> None:
    """One answer holds them all; the keeper gets them by the thousand."""
    sizes: list[int] = []

    async def list_series(items: Sequence[Json]) -> None:
        sizes.append(len(items))

    syncer._keeper.list_series = list_series
    await syncer._take_series(Page(tuple({"ticker": str(n)} for n in range(2_300)), (), NOW, NOW))
    assert sizes == [1000, 1000, 300]


def test_progress_is_told_while_a_listing_goes_on() -> None:
    """Part, pages and objects so far; nothing before and after."""
    progress = Progress()
    assert progress.facts() is None
    progress.begin(NOW)
    progress.enter("markets open")
    progress.count(1000, NOW + 1)
    progress.count(7, NOW + 2)
    said = {"part": "markets open", "pages": 2, "objects": 1007, "since": NOW}
    assert progress.facts() == said
    progress.end()
    assert progress.facts() is None


@pytest.mark.parametrize("is_lost", [False, True])
async def test_a_listing_in_which_the_database_lost_its_beginning_does_not_count(
    syncer: Any, is_lost: bool
) -> None:
    """It is noted as not done, so that the next turn lists everything again; what changed since then is known."""
    noted: list[tuple[int | None, int]] = []
    counts = syncer._keeper.markets = Counts()
    counts.set({"total": 1})

    class Rest(_Rest):
        async def markets(self, status: str, mve_filter: str) -> AsyncIterator[Page[Json]]:
            if is_lost and status == "paused":
                syncer.forget()
            yield Page(({"ticker": status},), (), NOW - 1, NOW)

    async def remember(full_at: int | None, updated_from: int) -> None:
        noted.append((full_at, updated_from))

    syncer._rest, syncer._remember = Rest(), remember
    await syncer.list_all()
    assert noted == [(None if is_lost else NOW, NOW)]
    assert counts.is_known is not is_lost
