"""One connection's way out: pings, ends, dead sockets, and the bytes of it."""

from typing import Any

import pytest

from libs.marketdata.units import MILLISECOND
from services.simulator.line import Close, Ping, Reset
from services.simulator.wire import wire_bytes
from tests.unit.simulator.faulty import Faulty

QUIET: dict[str, Any] = {
    "rate": 0.0, "news_every_s": 0.0, "pause_every_s": 0.0, "new_market_every_s": 0.0, "closing_share": 0.0,
}  # fmt: skip


@pytest.mark.parametrize(
    ("length", "header"),
    [
        (0, b"\x81\x00"),
        (125, b"\x81\x7d"),
        (126, b"\x81\x7e\x00\x7e"),
        (65_535, b"\x81\x7e\xff\xff"),
        (65_536, b"\x81\x7f\x00\x00\x00\x00\x00\x01\x00\x00"),
    ],
)
def test_every_length_has_its_header(length: int, header: bytes) -> None:
    """Final, unmasked text frames with 7, 16 and 64 bit lengths, one after the other."""
    payload = b"x" * length
    assert wire_bytes([payload, b"y"]) == header + payload + b"\x81\x01y"


def test_pings_and_ends_have_their_bytes() -> None:
    """A ping with the exchange's payload, a close with code and reason; a reset is nothing one could write."""
    assert wire_bytes([Ping()]) == b"\x89\x09heartbeat"
    assert wire_bytes([b"a", Close(1001, "bye")]) == b"\x81\x01a\x88\x05\x03\xe9bye"
    assert wire_bytes([Reset()]) == b""


def test_a_ping_every_ping_s_and_next_due_says_when() -> None:
    """Without a word of anybody the line is due again at its next ping only."""
    play = Faulty(ping_s=10.0, **QUIET)
    heard = play.connect_as("key-a")
    opened = play.now // MILLISECOND
    assert heard.line.next_due() == opened + 10_000
    assert not heard.line.is_due(opened + 9_999)
    assert heard.line.take(opened + 9_999) == []
    assert heard.line.take(opened + 10_000) == [Ping(b"heartbeat")]
    assert heard.line.next_due() == opened + 20_000


@pytest.mark.parametrize("code", [1000, 1001, 1008, 1009, 1011])
def test_a_close_is_the_last_thing_on_the_line(code: int) -> None:
    """The subscriptions end at once, nothing is sent or heard after the close frame, and the journal says why."""
    play = Faulty()
    heard, other = play.books(), play.books("key-b")
    play.fault(fault="close", code=code, on={"zone": "a"})
    assert heard.others == [(play.now // MILLISECOND, Close(code))]
    assert heard.line.is_over
    assert heard.line.next_due() is None
    count, others = len(heard.raw), len(other.raw)
    heard.subscribe("trade")
    play.wait(1)
    assert len(heard.raw) == count
    assert len(other.raw) > others
    assert list(play.simulation.lines) == [2]
    (hit,) = play.told("hit")
    (closed,) = play.told("", "closed")
    assert (hit["fault"], hit["connection"], closed["connection"]) == ("close", 1, 1)
    play.simulation.disconnect(heard.line, play.now)
    assert len(play.told("", "closed")) == 1


def test_a_reset_comes_without_a_close() -> None:
    """Only the connection that is named breaks."""
    play = Faulty()
    heard, other = play.books(), play.books()
    play.fault(fault="reset", on={"connection": 2})
    assert [action for _, action in other.others] == [Reset()]
    assert heard.others == []
    assert list(play.simulation.lines) == [1]


def test_what_a_fault_held_back_does_not_follow_a_close() -> None:
    """Frames that were late when the connection was closed are gone."""
    play = Faulty()
    heard = play.books()
    play.fault(fault="delay", delay_ms=60_000, for_s=30)
    play.wait(1)
    count = len(heard.raw)
    play.fault(fault="close")
    play.wait(70)
    assert len(heard.raw) == count
    assert [action for _, action in heard.others] == [Close(1001)]


def test_a_half_open_line_neither_speaks_nor_hears() -> None:
    """No frame, no ping, no answer; it counts as open until the client goes."""
    play = Faulty(ping_s=0.5)
    heard = play.books()
    count = len(heard.raw)
    play.fault(fault="half_open", on={"connection": 1})
    assert heard.subscribe("trade") == []
    play.wait(3)
    assert (len(heard.raw), heard.others) == (count, [])
    assert heard.line.is_dead
    assert not heard.line.answers(play.now // MILLISECOND)
    assert heard.line.next_due() is None
    assert list(heard.line.session.subscriptions) == [1]
    assert play.simulation.state(play.now)["connections"][0]["is_dead"]  # type: ignore[index]
    play.simulation.disconnect(heard.line, play.now)
    assert play.simulation.lines == {}
