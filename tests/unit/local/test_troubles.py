"""Faults of the simulated exchange as causes of gaps."""

import json
from typing import Any

from libs.marketdata.units import SECOND
from services.local.troubles import (
    MOMENT,
    WATCHDOG_S,
    Trouble,
    added_fields,
    read_troubles,
    spans_of,
    tickers_heard,
)
from services.local.verdict import ClaimIndex, Gap, loose
from services.simulator.faults.menu import NewField


def lines(*entries: dict[str, Any]) -> list[bytes]:
    return [json.dumps(entry, separators=(",", ":")).encode() for entry in entries]


def fault(phase: str, kind: str, at: int, **more: Any) -> dict[str, Any]:
    return {"kind": "fault", "fault": kind, "number": 1, "phase": phase, "at": at, **more}


OPENED = {"kind": "opened", "connection": 7, "key_id": "key-a"}


def read(*entries: dict[str, Any]) -> list[Trouble]:
    return read_troubles(lines(OPENED, *entries), lambda zone: f"key-{zone}")


def test_a_frame_that_is_hit_troubles_its_connections_key_at_that_moment() -> None:
    """A lost frame is a cause of its channel's gap; a repeated one is none."""
    hit = fault("hit", "drop", 5, connection=7, channel="trade")
    assert read(hit) == [Trouble("drop", "key-a", "trade", 5, 5 + MOMENT)]
    assert read(fault("hit", "duplicate", 5, connection=7, channel="trade")) == []


def test_a_moment_explains_the_gap_around_it() -> None:
    """A hit without a width would be lost where spans are joined."""
    at = 100 * SECOND
    troubles = read(fault("hit", "drop", at, connection=7, channel="trade"))
    gaps = [Gap("A", at - SECOND, at + 2 * SECOND), Gap("A", at + 20 * SECOND, at + 21 * SECOND)]
    assert loose(gaps, lambda _: spans_of(troubles, "key-a", "trade")) == gaps[1:]


def test_fields_that_a_fault_adds_are_known_by_name() -> None:
    """Named by the fault, or by the menu."""
    begin = fault("begin", "new_field", 1, entry={"fault": "new_field", "field": "x"})
    other = fault("begin", "new_field", 1, entry={"fault": "new_field"})
    assert added_fields(lines(begin, other)) == {"x", NewField().field}


def test_a_dead_socket_is_a_cause_until_the_watchdog_sees_it() -> None:
    """Nobody can know before."""
    found = read(fault("hit", "half_open", 5, connection=7))
    assert found == [Trouble("half_open", "key-a", "", 5, 5 + int(WATCHDOG_S * SECOND))]


def test_what_lasts_is_a_cause_as_long_as_it_lasted() -> None:
    """Its target is a zone, a key, a connection or everyone; a fault that never ended is none that a run outlives."""
    for on, key in (
        ({"zone": "b"}, "key-b"),
        ({"key": "other"}, "other"),
        ({"connection": 7}, "key-a"),
        ({}, ""),
    ):
        begin = fault("begin", "stall", 1 * SECOND, entry={"fault": "stall", "on": on})
        end = fault("end", "stall", 4 * SECOND)
        assert read(begin, end) == [Trouble("stall", key, "", 1 * SECOND, 4 * SECOND)]


def test_frames_that_come_too_late_are_a_cause_until_they_have_come() -> None:
    """A short delay costs nothing; a drip is as late in the end as it has grown."""
    for kind, more, late in (
        ("delay", {"delay_ms": 900}, None),
        ("delay", {"delay_ms": 3000}, 3 * SECOND),
        ("drip", {"growth": 0.5}, 2 * SECOND),
    ):
        begin = fault("begin", kind, 0, entry={"fault": kind, **more})
        found = read(begin, fault("end", kind, 4 * SECOND))
        assert [t.end for t in found] == ([] if late is None else [4 * SECOND + late])


def test_the_exchanges_clock_set_back_troubles_everyone() -> None:
    """Set forth it costs nothing."""
    assert read(fault("hit", "clock_step", 5, by_ms=-10)) == [
        Trouble("clock_step", "", "", 5, 5 + MOMENT)
    ]
    assert read(fault("hit", "clock_step", 5, by_ms=10)) == []


def test_spans_of_a_key_are_its_own_and_everyones() -> None:
    """Of its channel and of all channels."""
    troubles = [
        Trouble("a", "key-a", "", 1, 2),
        Trouble("b", "", "trade", 3, 4),
        Trouble("c", "key-b", "", 5, 6),
        Trouble("d", "key-a", "ticker", 7, 8),
    ]
    assert spans_of(troubles, "key-a", "trade") == [(1, 2), (3, 4)]
    assert spans_of(troubles, "key-b", "ticker") == [(5, 6)]


def test_tickers_lost_unseen_are_not_held_against_the_zone_that_lost_them() -> None:
    """Another zone's claim of the same span stands."""
    whole = ClaimIndex([(None, 0, 100 * SECOND)])
    lost = Trouble("drop", "key-a", "ticker", 50 * SECOND, 50 * SECOND)
    alone = tickers_heard({"key-a": whole}, [lost], "ticker")
    assert not alone.heard("A", 50 * SECOND) and alone.heard("A", 40 * SECOND)
    both = tickers_heard({"key-a": whole, "key-b": whole}, [lost], "ticker")
    assert both.heard("A", 50 * SECOND)
