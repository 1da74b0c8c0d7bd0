"""Reading recordings: wrappers and bare frames, orientation, and lines that are none."""

import json

import pytest

from services.simulator.facts import Facts
from services.simulator.recording import RecordingInvalid, express, parse_recording

DELTA = {
    "type": "orderbook_delta",
    "sid": 1,
    "seq": 2,
    "msg": {
        "market_ticker": "KXA-1-B",
        "market_id": "m",
        "price_dollars": "0.3000",
        "delta_fp": "-1.50",
        "side": "no",
        "ts_ms": 1_786_956_597_530,
    },
}


def test_wrapper_bare_command_and_blank_lines() -> None:
    """A command tells the orientation and is no frame; blank lines are nothing; both forms give the same frame."""
    command = {"command": {"cmd": "subscribe", "params": {"use_yes_price": True}}}
    wrapper = {"recv_at": "2026-08-17T08:49:57.5+00:00", "ordinal": 1, "frame": DELTA}
    lines = [json.dumps(command), "", json.dumps(wrapper), json.dumps(DELTA), "  "]
    recording = parse_recording(lines, use_yes_price=False)
    assert recording.use_yes_price
    assert [frame.envelope for frame in recording.frames] == [DELTA, DELTA]
    assert recording.frames[0].at == 1_786_956_597_500_000
    assert recording.frames[1].at == 1_786_956_597_530_000


def test_express_turns_only_no_prices() -> None:
    """A no price changes its scale when the subscriber asked for the other one, a yes price never."""
    frame = parse_recording([json.dumps(DELTA)], False).frames[0]
    assert express(frame, recorded=True, wanted=False)["price_dollars"] == "0.7000"
    assert express(frame, recorded=False, wanted=True)["price_dollars"] == "0.7000"
    assert express(frame, recorded=True, wanted=True) == frame.body
    yes = parse_recording([json.dumps(DELTA | {"msg": DELTA["msg"] | {"side": "yes"}})], False)  # type: ignore[operator]
    assert express(yes.frames[0], recorded=True, wanted=False)["price_dollars"] == "0.3000"


@pytest.mark.parametrize("line", ["{", "[1]", '{"frame":3}'])
def test_a_line_that_is_no_frame_is_named(line: str) -> None:
    """The error says which line it is."""
    with pytest.raises(RecordingInvalid, match="line 2"):
        parse_recording([json.dumps(DELTA), line], False)


def test_book_before_the_first_delta_is_the_least_that_fits() -> None:
    """Without a recorded snapshot a market opens with just the size its deltas take away."""
    facts = Facts(parse_recording([json.dumps(DELTA), json.dumps(DELTA)], True))
    assert facts.openings == {"KXA-1-B": ("m", (), ((70_000, 300),))}
    assert facts.books["KXA-1-B"].is_empty
    assert [json.loads(line)["price"] for line in facts.lines] == [70_000, 70_000]


def test_values_that_do_not_fit_are_unreadable_facts() -> None:
    """A price finer than our unit is sent as it is and journalled as unreadable."""
    odd = DELTA | {"msg": DELTA["msg"] | {"price_dollars": "0.123456"}}  # type: ignore[operator]
    facts = Facts(parse_recording([json.dumps(odd)], False))
    assert [json.loads(line)["kind"] for line in facts.lines] == ["unreadable"]
