"""The session against frames that changed their shape, and a gap on a sid with thousands of markets."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from libs.marketdata.listening import claims
from tests.unit.connector.test_session import MS, NOW, T0, TICKER, Desk, S
from tests.unit.connector.test_session_faults import change, receive, subscribed


def body(seq: int, **more: Any) -> dict[str, Any]:
    """A delta's whole frame."""
    found = {"type": "orderbook_delta", "sid": 1, "seq": seq, "sending_ts_ms": T0 + seq}
    return found | {"msg": change(T0 + seq)} | more


def renamed(field: str) -> Callable[[dict[str, Any]], bytes]:
    """Give a field of the message another name."""

    def spoil(frame: dict[str, Any]) -> bytes:
        frame["msg"][f"{field}_v2"] = frame["msg"].pop(field)
        return json.dumps(frame).encode()

    return spoil


def cut(share: float) -> Callable[[dict[str, Any]], bytes]:
    """Leave only the first part of a frame."""

    def spoil(frame: dict[str, Any]) -> bytes:
        data = json.dumps(frame).encode()
        return data[: int(len(data) * share)]

    return spoil


SPOILED: dict[str, Callable[[dict[str, Any]], bytes]] = {
    "unknown type": lambda frame: json.dumps(frame | {"type": "orderbook_delta_v2"}).encode(),
    "price renamed": renamed("price_dollars"),
    "size renamed": renamed("delta_fp"),
    "market renamed": renamed("market_ticker"),
    "a number for a text": lambda f: json.dumps(f | {"msg": f["msg"] | {"delta_fp": 1}}).encode(),
    "another unit": lambda f: json.dumps(f | {"msg": f["msg"] | {"price_dollars": "40"}}).encode(),
    "no time": lambda f: json.dumps(f | {"msg": f["msg"] | {"ts_ms": None}}).encode(),
    "cut behind the market": cut(0.75),
    "cut in the envelope": cut(0.2),
    "no JSON": lambda _: b"<html>502 Bad Gateway</html>",
    "empty": lambda _: b"",
    "binary": lambda _: bytes(range(256)),
}


@pytest.mark.parametrize("how", SPOILED)
def test_a_frame_that_changed_its_shape_is_one_rejected_frame_and_one_gap(how: str) -> None:
    """Its bytes are kept, the gap begins before it, its markets are asked for, and everything after it counts."""
    desk = subscribed()
    desk.delta(3)
    data = SPOILED[how](body(4))
    desk.raw(data, NOW + 4 * MS)
    for seq in range(5, 10):
        desk.delta(seq)
    (rejected,) = desk.rows("rejected_frames")
    assert rejected.frame == data
    assert rejected.reason
    (gap,) = desk.rows("gaps")
    assert gap.reason in ("rejected", "seq")
    assert (gap.from_ts, gap.seq_from, gap.seq_to) == ((T0 + 3) * MS, 4, 4)
    assert [row.seq for row in desk.rows("orderbook_deltas")] == [3, 5, 6, 7, 8, 9]
    asked = [c["params"]["market_tickers"] for c in desk.commands(NOW + S)]
    assert asked in ([["A"]], [["A", "B"]])
    desk.session.close("drained", NOW + 20 * S)
    found = claims(
        desk.rows("listen_ranges"), desk.rows("listen_opened"), desk.rows("listen_closed")
    )
    lost = (T0 + 4) * MS
    assert not any(c.ticker == "A" and c.from_ts <= lost < c.to_ts for c in found)


TRADE = {
    "trade_id": "t", "market_ticker": "A", "yes_price_dollars": "0.1000", "no_price_dollars": "0.9000",
    "count_fp": "1.00", "taker_outcome_side": "yes", "ts_ms": T0,
}  # fmt: skip
CHANNEL_FRAMES: dict[str, tuple[str, dict[str, Any]]] = {
    "trade/0": ("trade", TRADE),
    "ticker/0": ("ticker", TICKER),
    "lifecycle/0": ("market_lifecycle_v2", {"market_ticker": "A", "event_type": "activated"}),
}


@pytest.mark.parametrize("slot", ["trade/0", "ticker/0", "lifecycle/0"])
@pytest.mark.parametrize("how", ["unknown type", "cut in the envelope", "no JSON", "renamed"])
def test_whole_channels_lose_one_frame_too(slot: str, how: str) -> None:
    """Also where frames carry no number: the stream is interrupted there, once."""
    desk = Desk(slot, ())
    desk.subscribe()
    kind, msg = CHANNEL_FRAMES[slot]
    numbered = slot != "ticker/0"

    def frame(seq: int) -> dict[str, Any]:
        envelope: dict[str, Any] = {
            "type": kind,
            "sid": 1,
            "sending_ts_ms": T0 + seq,
            "msg": dict(msg),
        }
        if "trade_id" in msg:
            envelope["msg"]["trade_id"] = str(seq)
        return envelope | ({"seq": seq} if numbered else {})

    for seq in range(1, 9):
        data = json.dumps(frame(seq)).encode()
        if seq == 4:
            data = (
                renamed("market_ticker")(frame(4)) if how == "renamed" else SPOILED[how](frame(4))
            )
        desk.raw(data, NOW + seq * MS)
    table = {"trade/0": "trades", "ticker/0": "tickers", "lifecycle/0": "market_lifecycle"}[slot]
    assert len(desk.rows(table)) == 7
    assert len(desk.rows("rejected_frames")) == 1
    closed = [row for row in desk.rows("listen_closed") if row.sid == 1]
    assert [(row.reason, row.sent_at) for row in closed] in (
        [("rejected", (T0 + 3) * MS)],
        [("seq", (T0 + 3) * MS)],
    )
    assert len([row for row in desk.rows("listen_opened") if row.sid == 1]) == 2


def test_new_fields_and_a_field_that_was_always_deprecated_cost_nothing() -> None:
    """In the envelope and in the message; a missing `ts` and one of another type."""
    desk = subscribed()
    for seq, more in ((3, {"new": [1]}), (4, {"ts": 17}), (5, {"ts": None}), (6, {})):
        frame = body(seq) | {"shard": {"a": 1}}
        frame["msg"] |= more
        desk.raw(json.dumps(frame).encode(), NOW + seq * MS)
    assert [row.seq for row in desk.rows("orderbook_deltas")] == [3, 4, 5, 6]
    assert desk.rows("rejected_frames") == []


def test_an_unknown_type_without_a_sid_costs_only_itself_where_numbers_prove_the_rest() -> None:
    """A notice of the exchange, say: kept, and no market is asked for."""
    desk = subscribed()
    desk.raw(b'{"type":"maintenance_notice","msg":{"in_s":60}}', NOW + 3 * MS)
    desk.delta(3)
    assert len(desk.rows("rejected_frames")) == 1
    assert desk.rows("gaps") == []
    assert desk.commands(NOW + S) == []


def test_a_renamed_sending_time_is_none_and_the_rest_of_the_frame_counts() -> None:
    """Our clock stands in with the larger margins."""
    desk = subscribed()
    frame = body(3)
    frame["sent_ms"] = frame.pop("sending_ts_ms")
    desk.raw(json.dumps(frame).encode(), NOW + 30 * MS)
    (row,) = desk.rows("orderbook_deltas")
    assert (row.seq, row.sent_at) == (3, None)
    assert [r.margin for r in desk.rows("listen_ranges")] == [5 * S]


@pytest.mark.parametrize("lost", [1, 7, 400])
def test_a_gap_on_a_sid_with_5000_markets_loses_nothing_of_what_flows_meanwhile(lost: int) -> None:
    """Chunks of 500 a second while deltas go on: every delta is stored, every book asked for once, every market claimed."""
    names = tuple(f"KX{number:04}" for number in range(5000))
    desk = Desk(tickers=names)
    seq, second = 0, 0.0
    while not desk.session.is_complete:
        for command in desk.commands(NOW + int(second * S)):
            tickers = command["params"]["market_tickers"]
            assert len(tickers) <= 500
            if command["cmd"] == "subscribe":
                first = {"channel": "orderbook_delta", "sid": 1}
                receive(desk, "subscribed", second, sid=None, id=command["id"], msg=first)
            else:
                seq += 1
                receive(desk, "ok", second, seq=seq, id=command["id"])
            for ticker in tickers:
                seq += 1
                receive(desk, "orderbook_snapshot", second, seq=seq, msg={"market_ticker": ticker})
        second += 1
    before = len(desk.rows("orderbook_snapshots"))
    seq += lost
    told, asked, sent = desk.session.listening_from, [], 0
    began = second
    for turn in range(150):
        for _ in range(7):
            seq, sent = seq + 1, sent + 1
            msg = change(T0 + int(second * 1000)) | {"market_ticker": names[sent * 31 % 5000]}
            receive(desk, "orderbook_delta", second, seq=seq, msg=msg)
        if turn % 10 == 0:
            for command in desk.commands(NOW + int(second * S)):
                assert command["params"]["action"] == "get_snapshot"
                asked.append(command["params"]["market_tickers"])
                for ticker in asked[-1]:
                    seq += 1
                    receive(
                        desk, "orderbook_snapshot", second, seq=seq, msg={"market_ticker": ticker}
                    )
        second += 0.1
    assert [len(tickers) for tickers in asked] == [500] * 10
    assert sorted(ticker for tickers in asked for ticker in tickers) == sorted(names)
    assert len(desk.rows("orderbook_snapshots")) - before == 5000
    assert len(desk.rows("orderbook_deltas")) == sent == 1050
    (gap,) = desk.rows("gaps")
    assert gap.seq_to - gap.seq_from + 1 == lost
    assert desk.rows("rejected_frames") == []
    assert told is not None and desk.session.listening_from == NOW + int((began + 1) * S)
    desk.session.close("drained", NOW + int(second * S))
    found = claims(
        desk.rows("listen_ranges"), desk.rows("listen_opened"), desk.rows("listen_closed")
    )
    after = [claim for claim in found if claim.from_ts >= NOW + int((began + 1) * S)]
    assert {claim.ticker for claim in after} == set(names)


def test_wild_sending_times_do_not_follow_a_clock_that_was_set() -> None:
    """A true one is believed though our clock was set back by forty days; a wild one is not, though it would fit it."""
    desk = subscribed()
    late = NOW - 40 * 86_400 * S
    desk.session.pass_time(NOW + 3 * MS)
    desk.session.receive(json.dumps(body(3)).encode(), late)
    wild = body(4) | {"sending_ts_ms": late // 1000}
    desk.session.receive(json.dumps(wild).encode(), late)
    rows = desk.rows("orderbook_deltas")
    assert [(row.seq, row.sent_at, row.received_at) for row in rows] == [
        (3, (T0 + 3) * MS, late), (4, None, late),
    ]  # fmt: skip
    desk.session.close("drained", late)
    assert max(r.sent_to for r in desk.rows("listen_ranges")) == NOW + 3 * MS
    assert {g.reason for g in desk.rows("gaps")} == set()


def test_the_overflow_of_a_channel_without_numbers_ends_its_claim_at_its_last_data() -> None:
    """What the exchange threw away before it says so shows in no number: nothing up to the error may count as heard."""
    desk = Desk("ticker/0", ())
    desk.subscribe()
    for ms in (1000, 2000, 3000):
        frame = {"type": "ticker", "sid": 1, "sending_ts_ms": T0 + ms}
        frame |= {"msg": TICKER | {"ts_ms": T0 + ms - 5}}
        desk.raw(json.dumps(frame).encode(), NOW + ms * MS)
    over = {"type": "error", "sid": 1, "seq": 17, "sending_ts_ms": T0 + 23_000}
    over |= {"msg": {"code": 25, "msg": "Subscription buffer overflow"}}
    desk.raw(json.dumps(over).encode(), NOW + 23 * S)
    desk.session.close("disconnected", NOW + 24 * S)
    (closed,) = [row for row in desk.rows("listen_closed") if row.reason == "error 25"]
    assert closed.sent_at == NOW + 3 * S
    (claim,) = claims(
        desk.rows("listen_ranges"), desk.rows("listen_opened"), desk.rows("listen_closed")
    )
    assert claim.to_ts <= NOW + 3 * S
    assert [gap.from_ts for gap in desk.rows("gaps")] == [NOW + 3 * S]


def test_no_claim_begins_before_its_connection() -> None:
    """A first frame that says it was sent half a day ago: our own time stands in."""
    desk = Desk(tickers=("A",))
    desk.subscribe()
    desk.send("orderbook_snapshot", 1, at=T0 - 12 * 3_600_000, msg={"market_ticker": "A"})
    for number in range(2, 12):
        desk.delta(number)
    desk.send("orderbook_snapshot", 12, at=T0 + 12_000, msg={"market_ticker": "A"})
    desk.session.close("disconnected", NOW + 20 * S)
    (claim,) = claims(
        desk.rows("listen_ranges"), desk.rows("listen_opened"), desk.rows("listen_closed")
    )
    assert NOW <= claim.from_ts < claim.to_ts
