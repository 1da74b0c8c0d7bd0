"""Whole conversations, as the exchange holds them, and each with one thing wrong."""

import json
from typing import Any

import pytest

from libs.exchange.frames import Frame
from services.doctor.findings import Finding
from services.doctor.judge_feed import (
    judge_channel,
    judge_end,
    judge_get_snapshot,
    judge_schema,
    judge_skip_ack,
)
from services.doctor.transcript import Transcript

T = 1_787_186_161_000_000
MARKET = "KXA-1"
LEVEL = {"market_ticker": MARKET, "market_id": "", "price_dollars": "0.4700", "delta_fp": "-3.00", "side": "yes"}  # fmt: skip
TICKER = {
    "market_ticker": MARKET, "market_id": "x", "price_dollars": "0.5000", "yes_bid_dollars": "0.4000",
    "yes_ask_dollars": "0.6000", "volume_fp": "1.00", "open_interest_fp": "1.00", "dollar_volume": 1,
    "dollar_open_interest": 1, "yes_bid_size_fp": "1.00", "yes_ask_size_fp": "1.00", "last_trade_size_fp": "1.00",
    "ts": 1, "ts_ms": 1000, "time": "2026-08-20T00:36:01Z",
}  # fmt: skip


class Talk:
    """Builds a transcript; every frame comes a millisecond after the last, stamped half of one before."""

    def __init__(self) -> None:
        self.transcript = Transcript()
        self.at = T
        self.seq = 0

    def command(self, command_id: int, action: str, subject: str) -> None:
        self.transcript.say(command_id, action, subject, self.at)

    def frame(self, **message: Any) -> None:
        self.at += 1000
        stamped = {"sending_ts_ms": self.at // 1000} | message
        kept = {name: value for name, value in stamped.items() if value is not None}
        self.raw(json.dumps(kept).encode())

    def raw(self, data: bytes) -> None:
        self.transcript.hear(Frame(data, self.at))

    def subscribed(self, command_id: int, channel: str, sid: int) -> None:
        self.command(command_id, "subscribe", channel)
        self.frame(type="subscribed", id=command_id, msg={"channel": channel, "sid": sid})

    def book(self, **changes: Any) -> None:
        self.seq += 1
        body = {"market_ticker": MARKET, "market_id": "", "yes_dollars_fp": [["0.4700", "3.00"]]}
        self.frame(
            **{"type": "orderbook_snapshot", "sid": 1, "seq": self.seq, "msg": body} | changes
        )

    def delta(self, **changes: Any) -> None:
        self.seq += 1
        body = {**LEVEL, "ts": "2026-06-11T06:31:29.957081Z", "ts_ms": 1_781_159_489_957}
        self.frame(**{"type": "orderbook_delta", "sid": 1, "seq": self.seq, "msg": body} | changes)

    def judge(self, channel: str, *, trading: bool = True) -> Finding:
        return judge_channel(self.transcript, channel, 8.0, trading=trading)


@pytest.fixture
def talk() -> Talk:
    """A conversation with one order-book subscription."""
    talk = Talk()
    talk.subscribed(1, "orderbook_delta", 1)
    talk.book()
    return talk


def test_a_channel_as_documented_is_ok(talk: Talk) -> None:
    """Answer, first frame, numbers and stamps are said with their figures."""
    talk.delta()
    assert talk.judge("orderbook_delta") == Finding(
        "orderbook_delta",
        "ok",
        "subscribed in 1 ms as sid 1; first frame after 1 ms, 2 in 8.0 s, with seq, with sending_ts_ms",
    )


def test_answers_with_sid_and_seq_count_in_the_sequence(talk: Talk) -> None:
    """ok, error and unsubscribed take a number of the sequence; none of them is data."""
    talk.seq += 1
    talk.frame(type="ok", id=9, sid=1, seq=talk.seq, msg={})
    talk.seq += 1
    talk.frame(type="error", id=9, sid=1, seq=talk.seq, msg={"code": 13, "msg": "x"})
    talk.delta()
    finding = talk.judge("orderbook_delta")
    assert finding.state == "ok"
    assert ", 2 in 8.0 s" in finding.found


def test_a_jump_of_the_sequence_is_a_warning(talk: Talk) -> None:
    """It names the numbers."""
    talk.seq += 3
    talk.delta()
    finding = talk.judge("orderbook_delta")
    assert finding.state == "warn"
    assert "seq jumps: 5 after 1" in finding.found


def test_books_without_seq_are_a_fault(talk: Talk) -> None:
    """A loss could not be seen: what is captured could not be trusted."""
    talk.delta(seq=None)
    finding = talk.judge("orderbook_delta")
    assert finding.state == "fail"
    assert "1 frames without seq" in finding.found


def test_frames_without_sending_time_are_a_warning(talk: Talk) -> None:
    """They came so until September 2026."""
    talk.delta(sending_ts_ms=None)
    finding = talk.judge("orderbook_delta")
    assert finding.state == "warn"
    assert "1 frames without sending_ts_ms" in finding.found


def test_a_ticker_with_seq_is_news() -> None:
    """The reference says that it has none."""
    talk = Talk()
    talk.subscribed(1, "ticker", 2)
    talk.frame(type="ticker", sid=2, msg=TICKER)
    assert talk.judge("ticker").state == "ok"
    assert "without seq" in talk.judge("ticker").found
    talk.frame(type="ticker", sid=2, seq=1, msg=TICKER)
    assert talk.judge("ticker").state == "warn"
    assert "which is new" in talk.judge("ticker").found


def test_silence_where_frames_are_expected_is_a_warning() -> None:
    """Unless trading is paused; a lifecycle channel may always be silent."""
    talk = Talk()
    talk.subscribed(1, "trade", 1)
    talk.subscribed(2, "market_lifecycle_v2", 2)
    assert talk.judge("trade").state == "warn"
    assert "silent" in talk.judge("trade").found
    assert talk.judge("trade", trading=False).state == "ok"
    assert talk.judge("trade", trading=False).found.endswith("none is to be expected now")
    assert talk.judge("market_lifecycle_v2").state == "ok"
    assert talk.judge("market_lifecycle_v2").found.endswith("none is to be expected")


@pytest.mark.parametrize(
    ("code", "text", "advice"),
    [(8, "Unknown channel name", "renamed"), (9, "Auth", "scope `read`"), (26, "x", "report it")],
)
def test_a_refused_subscription_is_a_fault(code: int, text: str, advice: str) -> None:
    """With the exchange's number and words."""
    talk = Talk()
    talk.command(1, "subscribe", "trade")
    talk.frame(type="error", id=1, msg={"code": code, "msg": text})
    finding = talk.judge("trade")
    assert finding.state == "fail"
    assert finding.found == f"error {code}: {text}"
    assert advice in finding.advice


def test_no_answer_says_how_the_connection_ended() -> None:
    """A closed connection answers nothing."""
    talk = Talk()
    talk.command(1, "subscribe", "trade")
    talk.transcript.ended = "1001 going away"
    finding = talk.judge("trade")
    assert finding.state == "fail"
    assert "no answer to subscribe in 8 s; the connection ended: 1001 going away" in finding.found


def test_a_connection_that_ends_is_a_warning_of_its_own(talk: Talk) -> None:
    """Also when every channel had spoken before."""
    assert judge_end(talk.transcript) == []
    talk.transcript.ended = "1011 internal error"
    (finding,) = judge_end(talk.transcript)
    assert finding.state == "warn"
    assert "1011 internal error" in finding.found


def test_unknown_fields_are_named(talk: Talk) -> None:
    """In the envelope, in the body, and in a lifecycle's metadata; each once, with its count."""
    talk.delta(shard=3)
    talk.delta(msg={**LEVEL, "ts_ms": 1, "queue": 7})
    talk.delta(msg={**LEVEL, "ts_ms": 1, "queue": 8})
    body = {"market_ticker": "KXA-2", "event_type": "created", "additional_metadata": {"mood": 1}}
    talk.frame(type="market_lifecycle_v2", sid=4, seq=1, msg=body)
    finding = judge_schema(talk.transcript)
    assert finding.state == "warn"
    assert finding.found == (
        "the exchange sends what is not known: orderbook_delta.shard (1x), orderbook_delta.msg.queue (2x),"
        " market_lifecycle_v2.msg.additional_metadata.mood (1x)"
    )


def test_an_unknown_type_is_a_warning(talk: Talk) -> None:
    """A new message costs nothing."""
    talk.frame(type="weather", sid=1, seq=2, msg={})
    finding = judge_schema(talk.transcript)
    assert finding.state == "warn"
    assert "unknown type 'weather' (1x)" in finding.found


def test_a_renamed_field_is_a_fault(talk: Talk) -> None:
    """What the decoder needs is gone: captures would keep bytes instead of rows."""
    body = {"market_ticker": MARKET, "price": "0.4700", "delta_fp": "-3.00", "side": "yes"}
    talk.delta(msg=body)
    finding = judge_schema(talk.transcript)
    assert finding.state == "fail"
    assert "price_dollars" in finding.found


@pytest.mark.parametrize("data", [b"<html>", b"[1]", b"", b'{"type":"tick'])
def test_frames_that_are_no_objects_are_a_fault(talk: Talk, data: bytes) -> None:
    """They are counted, and nothing breaks."""
    talk.raw(data)
    finding = judge_schema(talk.transcript)
    assert finding.state == "fail"
    assert "not a JSON object (1x)" in finding.found


def test_drift_is_bounded(talk: Talk) -> None:
    """A thousand new names keep forty."""
    for number in range(1_000):
        talk.frame(type="ticker", sid=2, msg={**TICKER, f"field{number}": 1})
    assert len(talk.transcript.unknown) == 40
    assert "and 32 more" in judge_schema(talk.transcript).found


def test_no_drift_is_ok(talk: Talk) -> None:
    """The number of frames looked at is said."""
    assert judge_schema(talk.transcript) == Finding("message fields", "ok", "2 frames, every field known")  # fmt: skip


def test_skip_ticker_ack_is_judged_by_the_ok() -> None:
    """Honoured, not honoured, refused, unanswered."""
    for answer, state, words in (
        ({"type": "ok", "msg": {}}, "ok", "honoured"),
        ({"type": "ok"}, "ok", "honoured"),
        ({"type": "ok", "msg": {"market_tickers": ["A", "B"]}}, "warn", "lists 2 markets"),
        ({"type": "error", "msg": {"code": 27, "msg": "slow"}}, "fail", "error 27: slow"),
        (None, "fail", "no answer"),
    ):
        talk = Talk()
        talk.command(7, "add_markets", "B")
        if answer is not None:
            talk.frame(id=7, sid=1, seq=1, **answer)
        finding = judge_skip_ack(talk.transcript)
        assert (finding.state, words in finding.found) == (state, True), finding


def test_get_snapshot_is_judged_by_its_id(talk: Talk) -> None:
    """Unanswered, answered without the id, answered with it, refused."""
    talk.command(8, "get_snapshot", MARKET)
    assert judge_get_snapshot(talk.transcript).state == "fail"
    talk.book()
    assert judge_get_snapshot(talk.transcript).state == "warn"
    talk.book(id=8)
    assert judge_get_snapshot(talk.transcript).state == "ok"
    refused = Talk()
    refused.command(8, "get_snapshot", MARKET)
    refused.frame(type="error", id=8, msg={"code": 14, "msg": "Market Ticker required"})
    finding = judge_get_snapshot(refused.transcript)
    assert (finding.state, finding.found) == ("fail", "error 14: Market Ticker required")


def test_stamps_know_what_was_asked_for(talk: Talk) -> None:
    """An answer bounds the clock from below, a pushed frame does not; a wild stamp is none."""
    talk.delta(sending_ts_ms=5)
    answered, pushed = talk.transcript.stamps
    assert answered.asked_at == T
    assert pushed.asked_at is None


def test_answers_to_ids_of_other_types_are_nobodys(talk: Talk) -> None:
    """An id that is a list or a text answers no command of ours."""
    talk.frame(type="ok", id=[1], msg={})
    talk.frame(type="ok", id="1", msg={})
    assert [len(said) for said in talk.transcript.answers.values()] == [1]
