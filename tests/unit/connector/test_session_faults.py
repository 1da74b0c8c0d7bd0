"""The session against what an exchange should not do: silence, numbers that come again, wild values, refusals."""

import json
from typing import Any

import pytest

from libs.exchange.errors import SubscriptionRejected
from libs.marketdata.listening import Claim, claims
from libs.store.batches import seal
from services.connector.errors import NumbersReused, Silent
from services.connector.requests import DOUBTED_WAIT
from tests.unit.connector.test_session import MS, NOW, T0, TICKER, Desk, S


def receive(desk: Desk, kind: str, second: float, **more: Any) -> None:
    """A frame of sid 1, sent and received `second` seconds after the start."""
    body = {"type": kind, "sid": 1, "sending_ts_ms": T0 + int(second * 1000)} | more
    kept = {key: value for key, value in body.items() if value is not None}
    desk.raw(json.dumps(kept).encode(), NOW + int(second * S))


def proved(desk: Desk) -> list[Claim]:
    """What the session's rows prove once it is closed."""
    desk.session.close("disconnected", NOW + 10_000 * S)
    return claims(
        desk.rows("listen_ranges"), desk.rows("listen_opened"), desk.rows("listen_closed")
    )


def spans(desk: Desk) -> list[tuple[float, float]]:
    """The same in seconds since the start."""
    return [((c.from_ts - NOW) / S, (c.to_ts - NOW) / S) for c in proved(desk)]


def subscribed() -> Desk:
    """An order-book session with first snapshots of A and B at seq 1 and 2."""
    desk = Desk()
    desk.subscribe()
    desk.snapshot(1)
    desk.snapshot(2, "B")
    return desk


def change(ts: int = T0 + 50) -> dict[str, object]:
    """A delta's message."""
    return {
        "market_ticker": "A", "price_dollars": "0.4000", "delta_fp": "1.00", "side": "yes", "ts_ms": ts,
    }  # fmt: skip


REFUSED_PROBE = {"code": 13, "msg": "Unsupported action"}


def test_answers_to_probes_bridge_no_silence_of_a_channel_without_seq() -> None:
    """Ten minutes without a ticker are not claimed, however often the exchange said something else."""
    desk = Desk("ticker/0", ())
    desk.subscribe()
    for second in range(1, 10):
        receive(desk, "ticker", second, msg=TICKER | {"ts_ms": T0 + second * 1000})
    for second in range(10, 610):
        receive(desk, "error", second, id=second, msg=REFUSED_PROBE)
    for second in range(610, 620):
        receive(desk, "ticker", second, msg=TICKER | {"ts_ms": T0 + second * 1000})
    assert [g.reason for g in desk.rows("gaps")] == ["silent"]
    assert all(end <= 40 or start >= 610 for start, end in spans(desk))


def test_an_answer_of_a_moment_ago_counts_for_a_channel_without_seq() -> None:
    """It came in order behind the data: a hand-over need not wait for the next ticker."""
    desk = Desk("ticker/0", ())
    desk.subscribe()
    receive(desk, "ticker", 1, msg=TICKER | {"ts_ms": T0 + 1000})
    receive(desk, "error", 5, id=9, msg=REFUSED_PROBE)
    assert spans(desk) == [(1, 4)]


def test_a_sid_number_that_comes_again_ends_the_connection() -> None:
    """Else ranges of both subscriptions would join over the time between them; nothing of the first is lost."""
    desk = subscribed()
    receive(desk, "error", 6, seq=3, msg={"code": 25, "msg": "overflow"})
    (command,) = desk.commands(NOW + 6 * S)
    answer = {"channel": "orderbook_delta", "sid": 1}
    with pytest.raises(NumbersReused) as caught:
        receive(desk, "subscribed", 600, sid=None, id=command["id"], msg=answer)
    assert caught.value.retryable
    assert {claim.to_ts for claim in proved(desk)} == {NOW + 5 * S}


@pytest.mark.parametrize(("apart", "frames"), [(0.01, 20), (0.4, 14), (10, 2)])
def test_numbers_that_begin_anew_end_the_connection(apart: float, frames: int) -> None:
    """Twenty old numbers in a row, or five seconds of them: the gap is written, another connection hears on."""
    desk = subscribed()
    for seq in range(3, 50):
        desk.delta(seq)
    with pytest.raises(NumbersReused):
        for count in range(1, 50):
            receive(desk, "orderbook_delta", 1 + count * apart, seq=count, msg=change())
    assert count == frames
    (gap,) = desk.rows("gaps")
    assert (gap.reason, gap.channel, gap.from_ts) == ("seq", "orderbook_delta", NOW + 49 * MS)
    assert len(desk.rows("rejected_frames")) == frames


def test_one_wild_number_costs_a_reconnect_not_the_rest_of_the_day() -> None:
    """What followed it was old; the frame itself stands alone."""
    desk = subscribed()
    desk.delta(2**40)
    with pytest.raises(NumbersReused):
        for seq in range(4, 100):
            receive(desk, "orderbook_delta", 1 + seq / 1000, seq=seq, msg=change())
    assert seq == 23
    assert [g.reason for g in desk.rows("gaps")] == ["seq", "seq"]


def test_repeated_frames_between_others_cost_nothing() -> None:
    """Each one that counts begins the run anew."""
    desk = subscribed()
    for seq in range(3, 100):
        receive(desk, "orderbook_delta", seq, seq=seq, msg=change())
        receive(desk, "orderbook_delta", seq, seq=seq, msg=change())
    assert (len(desk.rows("orderbook_deltas")), len(desk.rows("rejected_frames"))) == (97, 97)
    assert desk.rows("gaps") == []


def test_a_terminal_error_that_answers_the_waiting_command_is_that_commands() -> None:
    """An internal error of add_markets ends nothing; the command is sent again."""
    desk = subscribed()
    desk.session.want(("A", "B", "C"))
    (command,) = desk.commands(NOW + S)
    receive(desk, "error", 1, seq=3, id=command["id"], msg={"code": 17, "msg": "internal"})
    (again,) = desk.commands(NOW + 3 * S)
    assert again["params"]["market_tickers"] == ["C"]
    assert list(desk.session.sids) == [1]


def test_an_unknown_subscription_is_not_one_of_ours_that_ended() -> None:
    """Error 7 answers a command that came too late; nothing is subscribed anew."""
    desk = subscribed()
    receive(desk, "error", 1, sid=None, id=77, msg={"code": 7, "msg": "unknown"})
    assert desk.commands(NOW + 2 * S) == []
    assert desk.session.is_complete


@pytest.mark.parametrize("slot", ["orderbook/0", "trade/0", "lifecycle/0", "ticker/0"])
def test_a_sid_that_answers_no_probe_ends_the_connection(slot: str) -> None:
    """The socket may live, by its pings; the sid does not. A channel without seq is asked only once it claims nothing."""
    desk = subscribed() if slot == "orderbook/0" else Desk(slot, ())
    if slot != "orderbook/0":
        desk.subscribe()
    asked = []
    with pytest.raises(Silent):
        for second in range(1, 120):
            if desk.commands(NOW + second * S):
                asked.append(second)
    assert asked[0] == {"ticker/0": 31, "orderbook/0": 11}.get(slot, 10)
    assert second == asked[0] + 31


@pytest.mark.parametrize("slot", ["orderbook/0", "trade/0", "ticker/0"])
def test_an_answered_probe_keeps_the_connection(slot: str) -> None:
    """By a frame of the sid, or for a channel that takes no number for it, by the command's id."""
    desk = subscribed() if slot == "orderbook/0" else Desk(slot, ())
    if slot != "orderbook/0":
        desk.subscribe()
    seq = 3
    for second in range(1, 600):
        for command in desk.commands(NOW + second * S):
            assert command["params"]["action"] == "get_snapshot"
            (ticker,) = command["params"]["market_tickers"]
            if slot == "orderbook/0":
                receive(desk, "orderbook_snapshot", second, seq=seq, msg={"market_ticker": ticker})
            else:
                receive(desk, "error", second, sid=None, id=command["id"], msg=REFUSED_PROBE)
            seq += 1
    assert seq > 50
    assert desk.rows("gaps") == []


def test_a_probe_that_finds_its_sid_unknown_ends_the_connection() -> None:
    """Nothing more will come on it, and it was not said when it ended."""
    desk = Desk("trade/0", ())
    desk.subscribe()
    (command,) = desk.commands(NOW + 10 * S)
    with pytest.raises(Silent, match="does not know"):
        receive(desk, "error", 10, sid=None, id=command["id"], msg={"code": 7, "msg": "unknown"})


def test_a_numbered_refusal_proves_a_quiet_channel_heard() -> None:
    """It takes the next seq, so a lost trade would show; the claim reaches up to it."""
    desk = Desk("trade/0", ())
    desk.subscribe()
    (command,) = desk.commands(NOW + 10 * S)
    receive(desk, "error", 10, seq=1, id=command["id"], msg=REFUSED_PROBE)
    assert spans(desk) == [(1, 9)]


def test_a_terminal_error_without_sid_ends_the_only_one_or_the_connection() -> None:
    """Errors named no sid before September 2026."""
    desk = subscribed()
    receive(desk, "error", 1, sid=None, msg={"code": 10, "msg": "channel"})
    assert [c["cmd"] for c in desk.commands(NOW + 2 * S)] == ["subscribe"]
    both = Desk("lifecycle/0", ())
    both.subscribe()
    with pytest.raises(Silent, match="not which"):
        receive(both, "error", 1, sid=None, msg={"code": 10, "msg": "channel"})


def test_a_sid_without_markets_is_left_alone_and_keeps_nobody_waiting() -> None:
    """It claims nothing: no probe, no end of the connection, and a hand-over passes it by."""
    desk = subscribed()
    desk.session.want(())
    (command,) = desk.commands(NOW + S)
    receive(desk, "ok", 1, seq=3, id=command["id"])
    for second in range(2, 700):
        assert desk.commands(NOW + second * S) == []
    assert desk.release(NOW + 600 * S, NOW + 700 * S)


def test_the_start_told_to_the_old_owner_rises_with_every_interruption() -> None:
    """A gap, a rejected frame, a time that goes back: what was told before them nobody would cover."""
    desk = subscribed()
    told = [desk.session.listening_from]
    receive(desk, "orderbook_delta", 5, seq=9, msg=change())
    told.append(desk.session.listening_from)
    receive(desk, "orderbook_delta", 6, seq=10, msg=change() | {"price_dollars": "7.0000"})
    told.append(desk.session.listening_from)
    receive(desk, "orderbook_snapshot", 7, seq=11, msg={"market_ticker": "A"})
    told.append(desk.session.listening_from)
    receive(desk, "orderbook_delta", 8, seq=12, msg=change())
    receive(desk, "orderbook_delta", 9, seq=13, msg=change(T0 + 49))
    told.append(desk.session.listening_from)
    assert told == [NOW + 2 * MS + S, NOW + 6 * S, None, NOW + 8 * S, NOW + 10 * S]
    receive(desk, "orderbook_snapshot", 100, seq=14, msg={"market_ticker": "B"})
    last = {claim.ticker: claim.from_ts for claim in proved(desk)}
    assert last == {"A": NOW + 10 * S, "B": NOW + 6 * S}


def test_a_channel_that_is_to_begin_anew_tells_no_start() -> None:
    """The next frame shows from when it is heard again."""
    desk = Desk("ticker/0", ())
    desk.subscribe()
    receive(desk, "ticker", 1, msg=TICKER)
    desk.raw(b"garbage", NOW + 2 * S)
    told = [desk.session.listening_from]
    receive(desk, "ticker", 3, msg=TICKER)
    assert [*told, desk.session.listening_from] == [None, NOW + 4 * S]


def answer_all(desk: Desk, bad: set[str], seconds: int, code: int, *, names: bool) -> list[Any]:
    """Play an exchange that refuses every command with a bad market; returns what was asked for."""
    seq, asked = 0, []
    for second in range(seconds):
        for command in desk.commands(NOW + second * S):
            tickers = command["params"]["market_tickers"]
            asked.append((second, tickers))
            wrong = [ticker for ticker in tickers if ticker in bad]
            action = command["params"].get("action", command["cmd"])
            if wrong and action != "get_snapshot":
                msg: dict[str, Any] = {"code": code, "msg": "refused"}
                if names:
                    msg["market_ticker"] = wrong[0]
                receive(desk, "error", second, sid=None, id=command["id"], msg=msg)
                continue
            if action == "subscribe":
                first = {"channel": "orderbook_delta", "sid": 1}
                receive(desk, "subscribed", second, sid=None, id=command["id"], msg=first)
            elif action == "add_markets":
                seq += 1
                receive(desk, "ok", second, seq=seq, id=command["id"])
            for ticker in tickers:
                seq += 1
                receive(desk, "orderbook_snapshot", second, seq=seq, msg={"market_ticker": ticker})
    return asked


@pytest.mark.parametrize(("code", "names"), [(16, True), (16, False), (11, False)])
@pytest.mark.parametrize("bad", [{"M03"}, {"M00", "M01", "M02", "M03", "M04"}])
def test_markets_the_exchange_refuses_do_not_stop_the_others(
    bad: set[str], code: int, names: bool
) -> None:
    """Named ones are left out at once, others are found by halves; each is written down once and asked for again alone."""
    desk = Desk(tickers=tuple(f"M{n:02}" for n in range(40)))
    asked = answer_all(desk, bad, 59, code, names=names)
    assert desk.session.markets.acked == desk.session.markets.wanted - bad
    assert desk.session.is_complete
    assert {(g.reason, g.ticker) for g in desk.rows("gaps")} == {("not_subscribed", b) for b in bad}
    assert len(asked) < 60
    later = [
        c["params"]["market_tickers"] for s in range(59, 88) for c in desk.commands(NOW + s * S)[:1]
    ]
    assert [min(bad)] in later


def test_a_market_that_was_refused_for_a_while_comes_in() -> None:
    """It is asked for again a minute later."""
    desk = Desk(tickers=("A", "B"))
    answer_all(desk, {"B"}, 30, 16, names=True)
    assert desk.session.markets.acked == {"A"}
    for second in range(30, 100):
        for command in desk.commands(NOW + second * S):
            if command["params"]["action"] == "add_markets":
                assert (second >= 60, command["params"]["market_tickers"]) == (True, ["B"])
                receive(desk, "ok", second, seq=2, id=command["id"])
                receive(desk, "orderbook_snapshot", second, seq=3, msg={"market_ticker": "B"})
            elif desk.session.markets.acked == {"A", "B"}:
                return
    assert desk.session.markets.seen == {"A", "B"}


def test_a_success_forgets_the_refusals_before_it() -> None:
    """Only those in a row tell of a changed exchange."""
    desk, seq = subscribed(), 2

    def turn(second: int, wanted: tuple[str, ...], kind: str, msg: dict[str, Any]) -> None:
        nonlocal seq
        desk.session.want(wanted)
        for command in desk.commands(NOW + second * S):
            if command["params"]["action"] != "get_snapshot":
                seq += 1
                receive(desk, kind, second, seq=seq, id=command["id"], msg=msg)

    refusal = {"code": 11, "msg": "no"}
    for n in range(4):
        turn(6 * n, ("A", *"CDEF"[:n]), "error", refusal)
        turn(6 * n + 3, ("A", "B", *"CDEF"[: n + 1]), "ok", {})
    assert desk.session.markets.acked == set("ABCDEF")
    with pytest.raises(SubscriptionRejected):
        for n in range(3):
            turn(30 + 3 * n, ("A",), "error", refusal)


def test_a_delta_without_a_number_interrupts_all_streams_of_its_sid() -> None:
    """It took none, so no jump will show it: the next frame begins them anew, a delta too."""
    desk = subscribed()
    desk.delta(3)
    receive(desk, "orderbook_delta", 5, msg=change())
    receive(desk, "orderbook_delta", 6, seq=4, msg=change(T0 + 6000))
    assert [(r.ticker, r.seq, r.reason) for r in desk.rows("listen_closed")] == [
        (None, 3, "rejected")
    ]
    assert [(r.ticker, r.seq) for r in desk.rows("listen_opened")][2:] == [(None, 4)]


@pytest.mark.parametrize("seq", [2**62, 2**62 + 1, 2**63 - 2, 2**63 - 1, 2**63, 2**64, -1])
def test_wild_numbers_can_be_stored(seq: int) -> None:
    """Whatever a frame says of itself, the batch that keeps the evidence can be packed."""
    for slot in ("orderbook/0", "trade/0", "ticker/0"):
        desk = subscribed() if slot == "orderbook/0" else Desk(slot, ())
        if slot != "orderbook/0":
            desk.subscribe()
        receive(desk, "orderbook_delta", 1, seq=seq, msg=change())
        receive(desk, "error", 2, seq=seq, msg={"code": 13, "msg": "no"})
        receive(desk, "ticker", 3, seq=seq, msg=TICKER)
        desk.session.close("drained", NOW + 4 * S)
        for batcher in desk.outlets.batchers.values():
            batch = batcher.cut(NOW + 4 * S)
            if batch is not None:
                seal(batch.rows)


@pytest.mark.parametrize(
    "wild", [(T0 + 3000) * 1000, T0 - 86_500_000, T0 + 86_500_000, 0, -5, 2**70]
)
def test_a_sending_time_that_cannot_be_one_is_none(wild: int) -> None:
    """Microseconds for milliseconds would claim the next fifty thousand years: our clock stands in, with five seconds."""
    desk = subscribed()
    body = {"type": "orderbook_snapshot", "sid": 1, "seq": 3, "sending_ts_ms": wild}
    desk.raw(json.dumps(body | {"msg": {"market_ticker": "A"}}).encode(), NOW + 20 * S)
    body = {"type": "orderbook_delta", "sid": 1, "seq": 4, "sending_ts_ms": wild, "msg": change()}
    desk.raw(json.dumps(body | {"msg": change(T0 + 19_000)}).encode(), NOW + 20 * S)
    assert desk.rows("rejected_frames") == []
    assert [(r.seq, r.sent_at, r.exchange_ts) for r in desk.rows("orderbook_deltas")] == [
        (4, None, NOW + 19 * S)
    ]
    (row,) = (r for r in desk.rows("orderbook_snapshots") if r.seq == 3)
    assert (row.sent_at, row.observed_at, row.observed_is_sent) == (None, NOW + 20 * S, False)
    assert {claim.to_ts for claim in proved(desk)} == {NOW + 15 * S}
    assert desk.session.noted["sending time"] == 2


TRADE = {
    "trade_id": "t1", "market_ticker": "A", "yes_price_dollars": "0.4000", "no_price_dollars": "0.6000",
    "count_fp": "1.00", "taker_side": "yes", "ts_ms": T0,
}  # fmt: skip


def test_a_channel_that_has_numbers_after_all_claims_nothing_of_what_was_counted_without() -> None:
    """A first frame that lost its seq makes us count ourselves, which shows no loss: with the first seq all is taken back."""
    desk = Desk("trade/0", ())
    desk.subscribe()
    receive(desk, "trade", 1, msg=TRADE)
    receive(desk, "trade", 20, msg=TRADE)
    desk.rows("trades")
    with pytest.raises(NumbersReused):
        receive(desk, "trade", 21, msg=TRADE, seq=9)
    assert [(r.reason, r.detail) for r in desk.rows("gaps")] == [
        ("seq", "counted as a channel without seq")
    ]
    assert proved(desk) == []


def test_what_a_channel_claimed_before_a_silence_is_taken_back_too() -> None:
    """A silence or a rejected frame begins another stream, but none of them could have shown a loss."""
    desk = Desk("trade/0", ())
    desk.subscribe()
    for second in (1, 10, 50, 60, 120, 130):
        receive(desk, "trade", second, msg=TRADE)
    desk.raw(b"garbage", NOW + 131 * S)
    receive(desk, "trade", 132, msg=TRADE)
    with pytest.raises(NumbersReused):
        receive(desk, "trade", 133, msg=TRADE, seq=20)
    gap = desk.rows("gaps")[-1]
    assert (gap.reason, gap.from_ts, gap.to_ts) == ("seq", NOW, NOW + 132 * S)
    assert proved(desk) == []


def test_a_first_book_that_was_overtaken_is_asked_for_soon() -> None:
    """Its number is old by then and counts nothing; the market must not wait until its answer is overdue."""
    desk = Desk()
    desk.subscribe()
    desk.snapshot(2, "B")
    desk.snapshot(1)
    assert [r.reason for r in desk.rows("rejected_frames")] == ["repeated seq"]
    desk.commands()
    (asked,) = desk.commands(NOW + DOUBTED_WAIT + 2 * MS)
    assert (asked["params"]["action"], asked["params"]["market_tickers"]) == ("get_snapshot", ["A"])


def test_a_channel_without_seq_that_may_have_lost_a_frame_writes_down_why() -> None:
    """What cannot be read at all may have been a ticker: the gap in what is claimed has its row."""
    desk = Desk("ticker/0", ())
    desk.subscribe()
    receive(desk, "ticker", 1, msg=TICKER)
    desk.raw(b"garbage")
    receive(desk, "ticker", 2, msg=TICKER)
    (told,) = desk.rows("gaps")
    assert (told.reason, told.channel, told.from_ts, told.to_ts) == (
        "rejected", "ticker", NOW + 1 * S, NOW + 2 * S,
    )  # fmt: skip
