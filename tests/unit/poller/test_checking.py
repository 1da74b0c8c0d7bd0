"""When answers are compared, and how often."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import cast

import pytest

from libs.exchange.rest_wire import BookSides, RestBook
from libs.marketdata.units import SECOND
from libs.runtime.clock import ManualClock
from libs.store.errors import StoreUnavailable
from libs.store.pool import Pool
from libs.telemetry.metrics import Metrics
from services.poller import checking
from services.poller.checking import Checker
from services.poller.evidence import Evidence, Pair
from services.poller.settings import PollerSettings


class Reading:
    """A database that takes its time; `turns` are the markets compared by each reading."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock, self.takes_s, self.fails = clock, 0.0, False
        self.meanwhile: Callable[[], None] = lambda: None
        self.turns: list[list[str]] = []

    async def read(self, _: object, due: Sequence[Pair], *__: object) -> Evidence:
        self.clock.advance(self.takes_s)
        self.meanwhile()
        if self.fails:
            raise StoreUnavailable("canceling statement due to statement timeout")
        self.turns.append([look.ticker for look, _ in due])
        return Evidence({}, {}, None)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(1_000 * SECOND)


@pytest.fixture
def reading(clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> Reading:
    @asynccontextmanager
    async def lend(_: Pool) -> AsyncIterator[None]:
        yield None

    async def nothing(*_: object) -> None: ...

    found = Reading(clock)
    monkeypatch.setattr(checking, "lend", lend)
    monkeypatch.setattr(checking, "read_evidence", found.read)
    monkeypatch.setattr(checking, "add_checks", nothing)
    monkeypatch.setattr(checking, "forget_checks", nothing)
    return found


@pytest.fixture
def checker(clock: ManualClock) -> Checker:
    made = Checker(cast(Pool, None), clock, Metrics(), PollerSettings(check_delay_s=2.0))
    made._now = frozenset("ABCD")
    return made


def offer(checker: Checker, clock: ManualClock, ticker: str) -> None:
    checker.offer([RestBook(BookSides(), ticker)], clock.now(), clock.now())


async def test_answers_wait_for_their_time(
    checker: Checker, reading: Reading, clock: ManualClock
) -> None:
    """Together when it has come for several."""
    offer(checker, clock, "A")
    clock.advance(1.0)
    offer(checker, clock, "B")
    await checker.check_once()
    assert reading.turns == []
    clock.advance(2.0)
    await checker.check_once()
    assert reading.turns == [["A", "B"]]
    assert checker.outcomes == {"agree": 0, "disagree": 0, "unknown": 2}


@pytest.mark.parametrize("fails", [False, True])
async def test_a_turn_that_took_long_is_followed_by_a_rest(
    checker: Checker, reading: Reading, clock: ManualClock, fails: bool
) -> None:
    """Nine times as long, also when it failed: the database is there for writers; what waits is compared together."""
    offer(checker, clock, "A")
    clock.advance(3.0)
    reading.takes_s, reading.fails = 4.0, fails
    if fails:
        with pytest.raises(StoreUnavailable):
            await checker.check_once()
    else:
        await checker.check_once()
    reading.takes_s, reading.fails, reading.turns = 0.0, False, []
    offer(checker, clock, "B")
    clock.advance(20.0)
    offer(checker, clock, "C")
    clock.advance(15.9)
    await checker.check_once()
    assert reading.turns == []
    clock.advance(0.2)
    await checker.check_once()
    assert reading.turns == [["A", "B", "C"] if fails else ["B", "C"]]


@pytest.mark.parametrize("fails", [False, True])
async def test_answers_that_come_while_others_are_compared_take_nothing_from_them(
    checker: Checker, reading: Reading, clock: ManualClock, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:  # fmt: skip
    """More than may wait come in between: of these the oldest go, counted; what is compared is compared, once."""
    monkeypatch.setattr(checking, "WAITING_MAX", 2)
    offer(checker, clock, "A")
    clock.advance(3.0)

    def meanwhile() -> None:
        for ticker in "BCD":
            offer(checker, clock, ticker)

    reading.meanwhile, reading.fails = meanwhile, fails
    if fails:
        with pytest.raises(StoreUnavailable):
            await checker.check_once()
    else:
        await checker.check_once()
    reading.meanwhile, reading.fails = lambda: None, False
    clock.advance(3.0)
    await checker.check_once()
    assert reading.turns == ([["A", "C", "D"]] if fails else [["A"], ["C", "D"]])
    assert checker.reasons == {"late": 1, "no_base": 3}
    assert checker._asked == set()
