"""Slots without a network: dialling, pauses, and holdings that give slots up."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from libs.exchange.errors import AuthRejected, TransportError
from libs.store import control
from libs.store.control import Owned
from libs.store.pool import AnyConnection
from services.connector.holdings import Holdings
from services.connector.part import Part
from services.connector.slot import Slot, Wiring
from services.connector.wiring import DIALS_MAX

NO_CONN = cast(AnyConnection, None)
SLOTS = ["trade/0", "ticker/0", "lifecycle/0", "orderbook/0"]


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slot that is dropped is waited for longer than any test lasts: none gets by with its time running out."""
    monkeypatch.setattr("services.connector.holdings.DROP_S_MAX", 600.0)


@pytest.fixture
def dialled(wiring: Wiring) -> asyncio.Event:
    """An exchange that never answers a dial; set as soon as one is under way."""
    began = asyncio.Event()

    @asynccontextmanager
    async def hang(*_: Any) -> AsyncIterator[None]:
        began.set()
        await asyncio.Event().wait()
        yield None

    wiring.dial = cast(Any, hang)
    return began


def owning(monkeypatch: pytest.MonkeyPatch, rows: list[Owned], heard: dict[str, int]) -> None:
    """Control tables that say this."""

    async def owned(*_: Any) -> list[Owned]:
        return rows

    async def heard_by_others(*_: Any) -> dict[str, int]:
        return heard

    async def nothing(*_: Any) -> dict[str, int]:
        return {}

    monkeypatch.setattr(control, "owned", owned)
    monkeypatch.setattr(control, "heard_by_others", heard_by_others)
    monkeypatch.setattr(control, "slot_versions", nothing)
    monkeypatch.setattr(control, "slot_markets", nothing)


async def test_a_dial_ends_with_its_slot_alone(wiring: Wiring, dialled: asyncio.Event) -> None:
    """Dropping one slot that dials takes no time and leaves the others, and later ones, as they were."""
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        holdings = Holdings("me", wiring, group, SLOTS)
        holdings.serve("trade/0")
        holdings.serve("ticker/0")
        await dialled.wait()
        await holdings.drop("trade/0", "withdrawn")
        assert not holdings.is_closed()
        dialled.clear()
        holdings.serve("lifecycle/0")
        await dialled.wait()
        await holdings.close("drained")
        assert holdings.slots == {}


async def test_a_process_dials_so_many_at_once_and_the_others_in_their_turn(
    wiring: Wiring,
) -> None:
    """All at once would run out of their time together; one that waits for its turn can still be dropped at once."""
    under_way, most, tried = 0, 0, 0
    answer = asyncio.Event()

    @asynccontextmanager
    async def refuse(*_: Any) -> AsyncIterator[None]:
        nonlocal under_way, most, tried
        under_way, tried = under_way + 1, tried + 1
        most = max(most, under_way)
        try:
            await answer.wait()
            if answer.is_set():
                raise TransportError("nobody there")
            yield None
        finally:
            under_way -= 1

    wiring.dial = cast(Any, refuse)
    names = [f"orderbook/{number}" for number in range(3 * DIALS_MAX)]
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        holdings = Holdings("me", wiring, group, names)
        for name in names:
            holdings.serve(name, ["A"])
        while tried < DIALS_MAX:  # noqa: ASYNC110
            await asyncio.sleep(0)
        await holdings.drop(names[-1], "withdrawn")
        assert (tried, names[-1] in holdings.slots) == (DIALS_MAX, False)
        answer.set()
        while tried < len(names) - 1:  # noqa: ASYNC110
            await asyncio.sleep(0)
        await holdings.close("drained")
    assert most == DIALS_MAX
    assert not wiring.dials.locked()


async def test_a_slot_that_must_be_cancelled_closes_no_other(
    wiring: Wiring, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that does not end in time is cancelled; holdings stay open."""

    async def never_ends(_: Slot) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(Slot, "run", never_ends)
    monkeypatch.setattr("services.connector.holdings.DROP_S_MAX", 0.01)
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        holdings = Holdings("me", wiring, group, SLOTS)
        holdings.serve("trade/0")
        await asyncio.sleep(0)
        await holdings.drop("trade/0", "withdrawn")
        assert not holdings.is_closed()


async def test_a_slot_that_fails_closes_all(
    wiring: Wiring, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its error ends the group, so nothing more may be started in it."""
    holdings: list[Holdings] = []

    async def fails(_: Slot) -> None:
        raise AuthRejected("no such key")

    monkeypatch.setattr(Slot, "run", fails)
    with pytest.raises(ExceptionGroup):
        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            holdings.append(Holdings("me", wiring, group, SLOTS))
            holdings[0].serve("trade/0")
    assert holdings[0].is_closed()


async def test_closing_while_slots_are_withdrawn(
    wiring: Wiring, dialled: asyncio.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both want to drop the same slot: each is dropped once, and close() returns when all have ended."""
    owning(monkeypatch, [], {"trade/0": 1, "ticker/0": 1})
    ended: list[str] = []
    run = Slot.run

    async def slowly(slot: Slot) -> None:
        await run(slot)
        await asyncio.sleep(0.02)
        ended.append(slot.name)

    monkeypatch.setattr(Slot, "run", slowly)
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        holdings = Holdings("me", wiring, group, SLOTS)
        holdings.serve("trade/0")
        holdings.serve("ticker/0")
        await dialled.wait()
        following = group.create_task(holdings.follow(NO_CONN))
        await asyncio.sleep(0.001)
        await holdings.close("drained")
        assert sorted(ended) == ["ticker/0", "trade/0"]
        await following


@pytest.mark.parametrize(
    ("heard", "known", "left"),
    [
        ({}, SLOTS, ["ticker/0", "trade/0"]),
        ({"trade/0": 5}, SLOTS, ["ticker/0"]),
        ({}, ["trade/0"], ["trade/0"]),
    ],
)
async def test_slots_without_rows_are_kept_until_others_hear_them(
    wiring: Wiring,
    dialled: asyncio.Event,
    monkeypatch: pytest.MonkeyPatch,
    heard: dict[str, int],
    known: list[str],
    left: list[str],
) -> None:
    """An emptied database is no reason to stop hearing; a slot that the configuration dropped has no other owner."""
    owning(monkeypatch, [], heard)
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        holdings = Holdings("me", wiring, group, known)
        holdings.serve("trade/0")
        holdings.serve("ticker/0")
        await dialled.wait()
        await holdings.follow(NO_CONN)
        assert sorted(holdings.slots) == left
        await holdings.close("drained")


async def test_a_new_market_does_not_silence_a_slot_that_is_heard(wiring: Wiring) -> None:
    """Readiness is judged by what was wanted at first; a slot that was never complete is not heard by wanting less."""
    slot = Slot("orderbook/0", wiring)
    slot.want(["A"])
    said = [slot.is_complete]
    slot.parts[0].is_complete = True
    slot.want(["A", "NEW"])
    assert [*said, slot.is_complete] == [False, True]
    assert slot.tickers == {"A", "NEW"}


async def pauses(
    wiring: Wiring, monkeypatch: pytest.MonkeyPatch, error: Callable[[], Exception], count: int
) -> list[float]:
    """The pauses of a slot whose dials all fail like this, without waiting for them."""
    found: list[float] = []

    def fail(*_: Any) -> None:
        raise error()

    async def no_sleep(part: Part, seconds: float) -> None:
        found.append(seconds)
        if len(found) == count:
            part.close("enough")

    wiring.dial = cast(Any, fail)
    monkeypatch.setattr(Part, "_sleep", no_sleep)
    await Slot("trade/0", wiring).run()
    return found


async def test_a_day_of_failures_pauses_no_longer_than_the_longest_pause(
    wiring: Wiring, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thousands of failures in a row overflow nothing."""
    found = await pauses(wiring, monkeypatch, lambda: TransportError("away"), 3000)
    assert len(found) == 3000
    assert 1.0 <= found[0] <= 2.0
    assert max(found) <= 300.0
    assert found[-1] >= 150.0


async def test_a_key_refused_once_is_tried_again_soon(
    wiring: Wiring, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The exchange refuses good keys in passing: the first pause is the shortest, as after any failure."""
    found = await pauses(wiring, monkeypatch, lambda: AuthRejected("not now"), 3)
    assert found[0] <= 2.0
    assert found[2] <= 8.0
