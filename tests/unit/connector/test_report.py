"""What the connector says of itself: counts over all connections, and a wall clock that was set."""

import pytest

from services.connector.part import Part
from services.connector.report import ClockSteps, portrait, subscriptions
from services.connector.shares import WHOLE
from services.connector.slot import Slot, Wiring
from tests.unit.connector.test_session import T0, Desk

S = 1_000_000
NOW = 1_795_000_000 * S


def wanted_acked_seen(slots: list[Slot]) -> tuple[int, int, int]:
    found = subscriptions(slots)
    return found["wanted"], found["acked"], found["seen"]


def test_wanted_acked_and_seen_are_told_apart(wiring: Wiring) -> None:
    """Wanted from the intent on, connected or not, acknowledged with the answer, seen with the first book.

    A market that a part hears for another one counts once.
    """
    books, trades = Desk(tickers=("A", "B")), Desk("trade/0", ())
    slots = [Slot("orderbook/0", wiring), Slot("trade/0", wiring), Slot("ticker/0", wiring)]
    for slot, desk in zip(slots, (books, trades), strict=False):
        slot.parts[0].session = desk.session
    slots[0].want(("A", "B"))
    said = [wanted_acked_seen(slots)]
    books.subscribe()
    said.append(wanted_acked_seen(slots))
    books.snapshot(1)
    said.append(wanted_acked_seen(slots))
    books.snapshot(2, "B")
    trades.subscribe()
    said.append(wanted_acked_seen(slots))
    slots[0].want(("B", "C"))
    said.append(wanted_acked_seen(slots))
    heir = Desk(tickers=("B",))
    heir.subscribe()
    slots[0]._parts.append(Part("orderbook/0", 1, WHOLE, wiring, slots[0]))
    slots[0].parts[1].session = heir.session
    said.append(wanted_acked_seen(slots))
    for part in (*slots[0].parts, *slots[1].parts):
        part.session = None
    said.append(wanted_acked_seen(slots))
    assert said == [(4, 0, 0), (4, 2, 0), (4, 2, 1), (4, 3, 3), (4, 2, 2), (4, 2, 2), (4, 0, 0)]


def test_a_slot_tells_how_far_behind_its_claims_are(wiring: Wiring) -> None:
    """Twice the largest delay of a message, and never less than a second; nothing while there is no connection."""
    desk, slot = Desk(tickers=("A",)), Slot("orderbook/0", wiring)
    said = [portrait(slot, "assigned")["margin_s"]]
    slot.parts[0].session = desk.session
    desk.subscribe()
    desk.snapshot(1)
    said.append(portrait(slot, "live")["margin_s"])
    desk.delta(2, ts=T0 + 2 - 40_000)
    desk.delta(3)
    said.append(portrait(slot, "releasing")["margin_s"])
    assert said == [None, 1.0, 80.0]


@pytest.mark.parametrize("step_s", [-3600.0, -0.6, 0.6, 86_400.0])
def test_a_clock_that_was_set_is_told_once(step_s: float) -> None:
    """By how much; a look that comes late, or a clock that is steered, is no step."""
    steps = ClockSteps(NOW, 100.0)
    moments = [1.0, 2.0, 9.5, 10.5, 11.5]
    said = []
    for moment in moments:
        set_by = step_s if moment > 10 else 0.0
        steered = moment * 0.0005
        said.append(steps.look(NOW + round((moment + steered + set_by) * S), 100.0 + moment))
    assert [round(by, 2) for by in said] == [0.0, 0.0, 0.0, round(step_s, 2), 0.0]
