"""Faults aimed at somebody who is not there."""

import pytest

from services.simulator.faults.aims import unknown_aim
from services.simulator.faults.entries import FaultInvalid
from services.simulator.faults.menu import On
from tests.unit.simulator.faulty import Faulty

ZONES = {"one": "a", "two": "b", "three": ""}


@pytest.mark.parametrize(
    ("on", "said"),
    [
        (On(), ""),
        (On(zone="a"), ""),
        (On(key="three", connection=99), ""),
        (On(zone="b", key="two"), ""),
        (On(zone="c"), "on.zone: no key is of the zone 'c'; there are a, b"),
        (On(key="four"), "on.key: there is no key 'four'; there are one, three, two"),
        (On(zone="b", key="one"), "on: the key 'one' is of the zone 'a', not of 'b'"),
    ],
)
def test_a_name_that_nobody_bears_is_said_with_those_there_are(on: On, said: str) -> None:
    """A connection may still come; a key or zone may not."""
    assert unknown_aim(on, ZONES) == said


def test_without_keys_nothing_is_said() -> None:
    """An exchange in a process lets anybody in."""
    assert unknown_aim(On(zone="a"), {}) == ""


def test_an_exchange_refuses_such_a_fault() -> None:
    """It does not begin, and no line of the journal says that it did."""
    play = Faulty()
    with pytest.raises(FaultInvalid, match=r"on\.zone: no key is of the zone 'c'; there are a, b"):
        play.fault(fault="drop", for_s=1, on={"zone": "c"})
    play.fault(fault="drop", for_s=1, on={"zone": "b"})
    assert [line["number"] for line in play.told("begin")] == [1]
