"""The session's rules, one by one: frames in, rows and commands out."""

import json
from typing import Any
from uuid import UUID

import pytest

from libs.exchange.errors import SubscriptionRejected
from libs.flow.batch import Limits
from libs.marketdata.tables import Family
from services.connector.errors import CrossedBook, Unanswered
from services.connector.judge import SessionSettings
from services.connector.outlets import Outlets
from services.connector.session import Session

MS = 1_000
T0 = 1_795_000_000_000
NOW = T0 * MS
S = 1_000_000


class Desk:
    """A session with a hand that plays the exchange; frame n is sent n ms after T0 unless told otherwise."""

    def __init__(
        self, slot: str = "orderbook/0", tickers: tuple[str, ...] = ("A", "B"), **settings: Any
    ) -> None:
        self.outlets = Outlets(dict.fromkeys(Family, Limits(10**6, 1 << 30, 50_000)), 1 << 20)
        self.session = Session(
            slot, UUID(int=5), self.outlets, SessionSettings(**settings), NOW, NOW
        )
        self.session.want(tickers)

    def commands(self, now: int = NOW) -> list[dict[str, Any]]:
        self.session.pass_time(now)
        self.session.tick(now)
        return [json.loads(command) for command in self.session.take_commands()]

    def send(
        self,
        kind: str,
        seq: int | None = None,
        at: int | None = None,
        sid: int | None = 1,
        **more: Any,
    ) -> None:
        sent = T0 + (seq or 0) if at is None else at
        body = {"type": kind, "sid": sid, "seq": seq, "sending_ts_ms": sent} | more
        self.raw(
            json.dumps({k: v for k, v in body.items() if v is not None}).encode(),
            NOW + MS * (seq or 0),
        )

    def raw(self, data: bytes, now: int = NOW) -> None:
        self.session.pass_time(max(now, self.session.moment))
        self.session.receive(data, now)

    def release(self, until: int, now: int) -> bool:
        self.session.pass_time(now)
        return self.session.release(until, now)

    def subscribe(self) -> None:
        for command in self.commands():
            for sid, channel in enumerate(command["params"]["channels"], start=1):
                self.send(
                    "subscribed",
                    sid=None,
                    at=T0,
                    id=command["id"],
                    msg={"channel": channel, "sid": sid},
                )

    def snapshot(self, seq: int, ticker: str = "A", **sides: Any) -> None:
        self.send("orderbook_snapshot", seq, msg={"market_ticker": ticker} | sides)

    def delta(
        self, seq: int, ticker: str = "A", ts: int | None = None, price: str = "0.4000"
    ) -> None:
        msg = {
            "market_ticker": ticker, "price_dollars": price, "delta_fp": "1.00", "side": "yes",
            "ts_ms": T0 + seq if ts is None else ts,
        }  # fmt: skip
        self.send("orderbook_delta", seq, msg=msg)

    def rows(self, table: str) -> list[Any]:
        found: list[Any] = []
        for batcher in self.outlets.batchers.values():
            batch = batcher.cut(NOW)
            if batch is not None:
                for name, rows in batch.rows.items():
                    self.kept.setdefault(name, []).extend(rows)
        found += self.kept.get(table, [])
        return found

    kept: dict[str, list[Any]]

    def __getattr__(self, name: str) -> Any:
        if name == "kept":
            self.kept = {}
            return self.kept
        raise AttributeError(name)


@pytest.fixture
def desk() -> Desk:
    """A subscribed order-book session with first snapshots of A and B at seq 1 and 2."""
    made = Desk()
    made.subscribe()
    made.snapshot(1)
    made.snapshot(2, "B")
    return made


def test_intent_becomes_a_subscribe_and_chunks_of_add_markets() -> None:
    """One command in flight at a time; use_yes_price is said by name."""
    desk = Desk(tickers=("A", "B", "C"), chunk=2)
    (first,) = desk.commands()
    assert first["params"]["market_tickers"] == ["A", "B"]
    assert first["params"]["use_yes_price"] is False
    assert desk.commands() == []
    desk.send("subscribed", sid=None, id=first["id"], msg={"channel": "orderbook_delta", "sid": 1})
    (second,) = desk.commands()
    assert (second["params"]["action"], second["params"]["market_tickers"]) == (
        "add_markets",
        ["C"],
    )
    for seq, ticker in enumerate("AB", start=1):
        desk.snapshot(seq, ticker)
    complete = [desk.session.is_complete]
    desk.send("ok", 3, id=second["id"])
    desk.snapshot(4, "C")
    assert [*complete, desk.session.is_complete] == [False, True]
    assert desk.session.listening_from == (T0 + 4) * MS + S


def test_openings_stand_with_first_snapshots_and_ranges_with_every_frame(desk: Desk) -> None:
    """The subscribed answer is frame 0."""
    opened = desk.rows("listen_opened")
    assert [(r.ticker, r.stream, r.seq, r.sent_at, r.margin) for r in opened] == [
        ("A", 1, 1, (T0 + 1) * MS, S),
        ("B", 2, 2, (T0 + 2) * MS, S),
    ]
    assert [(r.seq_from, r.seq_to, r.margin) for r in desk.rows("listen_ranges")] == [(0, 2, S)]


def test_deltas_are_numbered_within_their_millisecond(desk: Desk) -> None:
    """Occurrence counts equal changes; pos is unknown in the stream's first millisecond."""
    for seq, ts in ((3, 50), (4, 50), (5, 60), (6, 60)):
        desk.delta(seq, ts=T0 + ts)
    rows = desk.rows("orderbook_deltas")
    assert [(r.occurrence, r.pos) for r in rows] == [(1, None), (2, None), (1, 1), (2, 2)]
    assert rows[0]._replace(pos=None) == (
        (T0 + 50) * MS, NOW + 3 * MS, 100, 3, 40_000, 1, 1, True, UUID(int=5), "A", (T0 + 3) * MS, None,
    )  # fmt: skip
    cuts = desk.rows("snapshot_cuts")
    assert [(c.ticker, c.seq, c.exchange_ts, c.deltas) for c in cuts] == [
        ("A", 1, (T0 + 50) * MS, 2)
    ]


def test_a_later_snapshot_names_its_cut(desk: Desk) -> None:
    """The last delta before it: millisecond and place."""
    for seq, ts in ((3, 50), (4, 60), (5, 60)):
        desk.delta(seq, ts=T0 + ts)
    desk.snapshot(6)
    rows = {r.seq: r for r in desk.rows("orderbook_snapshots")}
    assert (rows[1].is_first, rows[1].cut_exchange_ts) == (True, None)
    assert (rows[6].is_first, rows[6].cut_exchange_ts, rows[6].cut_pos) == (
        False,
        (T0 + 60) * MS,
        2,
    )


def test_a_seq_gap_ends_all_streams_and_asks_for_snapshots(desk: Desk) -> None:
    """Closed and opened rows with ticker NULL, a gap row, and numbers that begin anew."""
    desk.delta(3, ts=T0 + 50)
    desk.delta(6, ts=T0 + 50)
    closed, opened = desk.rows("listen_closed"), desk.rows("listen_opened")
    assert [(r.ticker, r.seq, r.reason) for r in closed] == [(None, 3, "seq")]
    assert [(r.ticker, r.seq) for r in opened][2:] == [(None, 6)]
    assert [(r.seq_from, r.seq_to) for r in desk.rows("listen_ranges")] == [(0, 3), (6, 6)]
    (gap,) = desk.rows("gaps")
    assert (gap.reason, gap.seq_from, gap.seq_to, gap.from_ts) == ("seq", 4, 5, (T0 + 3) * MS)
    assert [r.occurrence for r in desk.rows("orderbook_deltas")] == [1, 1]
    (command,) = desk.commands()
    assert command["params"]["market_tickers"] == ["A", "B"]
    assert command["params"]["action"] == "get_snapshot"


def test_a_repeated_seq_is_kept_as_rejected_and_counts_nothing(desk: Desk) -> None:
    """Neither rows nor ranges change."""
    desk.delta(3)
    desk.delta(3)
    assert len(desk.rows("orderbook_deltas")) == 1
    (row,) = desk.rows("rejected_frames")
    assert (row.reason, row.seq, row.ticker) == ("repeated seq", 3, "A")
    assert [(r.seq_from, r.seq_to) for r in desk.rows("listen_ranges")] == [(0, 3)]


def test_a_value_that_does_not_fit_costs_one_market_its_stream(desk: Desk) -> None:
    """The number counts; the stream of that market ends; its snapshot is asked for."""
    desk.delta(3)
    desk.delta(4, price="0.1234567")
    desk.delta(5, "B")
    (row,) = desk.rows("rejected_frames")
    assert row.reason.startswith("price_dollars") and row.frame
    assert [(r.ticker, r.seq, r.reason) for r in desk.rows("listen_closed")] == [
        ("A", 3, "rejected")
    ]
    assert [(r.seq_from, r.seq_to) for r in desk.rows("listen_ranges")] == [(0, 5)]
    (gap,) = desk.rows("gaps")
    assert (gap.reason, gap.ticker) == ("rejected", "A")
    (command,) = desk.commands()
    assert command["params"]["market_tickers"] == ["A"]


def test_time_that_goes_back_begins_a_new_stream(desk: Desk) -> None:
    """It is counted."""
    desk.delta(3, ts=T0 + 50)
    desk.delta(4, ts=T0 + 49)
    assert [(r.ticker, r.seq) for r in desk.rows("listen_closed")] == [("A", 3)]
    assert [(r.ticker, r.stream, r.seq) for r in desk.rows("listen_opened")][2:] == [("A", 3, 4)]
    assert desk.session.noted["regression"] == 1


def test_an_undecodable_frame_without_sid_shows_by_the_next_jump(desk: Desk) -> None:
    """An order-book sid needs no more than its seq."""
    desk.raw(b"{ not json")
    desk.delta(4)
    assert [r.reason.split(":")[0] for r in desk.rows("rejected_frames")] == ["not a JSON object"]
    assert [g.reason for g in desk.rows("gaps")] == ["seq"]


def test_a_crossed_first_snapshot_is_fatal() -> None:
    """The orientation was read wrongly: nothing may be stored."""
    desk = Desk(tickers=("A",))
    desk.subscribe()
    with pytest.raises(CrossedBook, match="use_yes_price"):
        desk.snapshot(1, yes_dollars_fp=[["0.6000", "1.00"]], no_dollars_fp=[["0.6000", "1.00"]])
    assert desk.rows("orderbook_snapshots") == []


@pytest.mark.parametrize("code", [10, 17, 25])
def test_a_terminal_error_ends_the_sid_and_subscribes_again(desk: Desk, code: int) -> None:
    """Its number counts; everything is asked for anew."""
    desk.send("error", 3, msg={"code": code, "msg": "gone"})
    assert [(r.ticker, r.seq) for r in desk.rows("listen_closed")] == [(None, 3)]
    (command,) = desk.commands()
    assert command["cmd"] == "subscribe"
    assert not desk.session.is_complete


def test_a_deleted_market_proves_nothing_from_the_command_on(desk: Desk) -> None:
    """Its deltas are stored until they stop; its closing comes with the next frames."""
    desk.delta(3)
    assert desk.rows("listen_closed") == []
    desk.session.want(["B"])
    (command,) = desk.commands()
    assert command["params"]["action"] == "delete_markets"
    assert desk.rows("listen_closed") == []
    desk.delta(4)
    assert [(r.ticker, r.seq, r.reason) for r in desk.rows("listen_closed")] == [
        ("A", 3, "deleted")
    ]
    desk.send("ok", 5, id=command["id"])
    desk.delta(6)
    assert len(desk.rows("orderbook_deltas")) == 3
    assert [r.ticker for r in desk.rows("listen_opened")] == ["A", "B"]


def test_refusals_are_counted_and_then_fatal() -> None:
    """Three times is a configuration fault or a changed exchange."""
    desk = Desk()
    with pytest.raises(SubscriptionRejected, match="error 11"):
        for turn in range(3):
            (command,) = desk.commands(NOW + turn * 2 * S)
            desk.raw(
                json.dumps(
                    {"type": "error", "id": command["id"], "msg": {"code": 11, "msg": "no"}}
                ).encode(),
                NOW + turn * 2 * S,
            )


def test_an_answer_that_does_not_come_ends_the_connection() -> None:
    """After the time-out."""
    desk = Desk()
    desk.commands()
    desk.commands(NOW + 30 * S)
    with pytest.raises(Unanswered):
        desk.commands(NOW + 31 * S)


def test_a_silent_order_book_sid_is_probed(desk: Desk) -> None:
    """One market's snapshot takes a number."""
    assert desk.commands(NOW + 9 * S) == []
    (command,) = desk.commands(NOW + 11 * S)
    assert command["params"] == {"action": "get_snapshot", "sids": [1], "market_tickers": ["A"]}
    assert desk.commands(NOW + 12 * S) == []


def test_a_quiet_market_gets_its_cut_when_time_has_passed(desk: Desk) -> None:
    """A frame of any market a margin later proves that the millisecond is over."""
    desk.delta(3, ts=T0 + 3)
    desk.commands()
    assert desk.rows("snapshot_cuts") == []
    desk.send("orderbook_snapshot", 4, at=T0 + 2_000, msg={"market_ticker": "B"})
    desk.commands()
    assert [(c.ticker, c.deltas) for c in desk.rows("snapshot_cuts")] == [("A", 1)]


def test_without_sent_at_our_clock_stands_in_with_five_seconds() -> None:
    """On both ends."""
    desk = Desk(tickers=("A",))
    (command,) = desk.commands()
    answer = {
        "type": "subscribed",
        "id": command["id"],
        "msg": {"channel": "orderbook_delta", "sid": 1},
    }
    desk.raw(json.dumps(answer).encode())
    body = {"type": "orderbook_snapshot", "sid": 1, "seq": 1, "msg": {"market_ticker": "A"}}
    desk.raw(json.dumps(body).encode(), NOW + 7)
    assert [(r.sent_at, r.margin) for r in desk.rows("listen_opened")] == [(NOW + 7, 5 * S)]
    assert [r.margin for r in desk.rows("listen_ranges")] == [5 * S]
    assert desk.session.listening_from == NOW + 7 + 5 * S


TICKER = {
    "market_ticker": "A", "price_dollars": "0.5000", "yes_bid_dollars": "0.4900", "yes_ask_dollars": "0.5100",
    "volume_fp": "1.00", "open_interest_fp": "1.00", "dollar_volume": 1, "dollar_open_interest": 1,
    "yes_bid_size_fp": "1.00", "yes_ask_size_fp": "1.00", "last_trade_size_fp": "1.00", "ts_ms": T0,
}  # fmt: skip


def test_tickers_are_counted_by_our_own_number() -> None:
    """The exchange sends no seq; the channel is one stream from its subscribed answer on."""
    desk = Desk("ticker/0")
    desk.subscribe()
    for _ in range(3):
        desk.send("ticker", at=T0 + 10, msg=TICKER)
    assert [r.seq for r in desk.rows("tickers")] == [1, 2, 3]
    assert [(r.ticker, r.seq, r.channel) for r in desk.rows("listen_opened")] == [
        (None, 0, "ticker")
    ]
    assert [(r.seq_from, r.seq_to) for r in desk.rows("listen_ranges")] == [(0, 3)]
    assert desk.session.is_complete


def test_an_unreadable_frame_interrupts_a_channel_without_seq() -> None:
    """It may have been a ticker, and nothing else would show it."""
    desk = Desk("ticker/0")
    desk.subscribe()
    desk.send("ticker", msg=TICKER)
    desk.raw(b"garbage")
    desk.send("ticker", msg=TICKER)
    assert [(r.ticker, r.stream, r.seq, r.reason) for r in desk.rows("listen_closed")] == [
        (None, 1, 1, "rejected")
    ]
    assert [(r.stream, r.seq) for r in desk.rows("listen_opened")] == [(1, 0), (2, 2)]


def test_a_silent_channel_without_seq_is_interrupted() -> None:
    """Longer than the watchdog is a gap with its cause."""
    desk = Desk("ticker/0")
    desk.subscribe()
    desk.send("ticker", msg=TICKER)
    body = {"type": "ticker", "sid": 1, "sending_ts_ms": T0 + 40_000, "msg": TICKER}
    desk.raw(json.dumps(body).encode(), NOW + 40 * S)
    assert [g.reason for g in desk.rows("gaps")] == ["silent"]
    assert [(r.stream, r.seq) for r in desk.rows("listen_opened")] == [(1, 0), (2, 2)]


def test_the_capture_filter_leaves_rows_out_and_still_counts_frames() -> None:
    """What is excluded is not a gap."""
    desk = Desk("ticker/0", wants=lambda ticker: ticker != "A")
    desk.subscribe()
    desk.send("ticker", msg=TICKER)
    desk.send("ticker", msg=TICKER | {"market_ticker": "C"})
    assert [r.ticker for r in desk.rows("tickers")] == ["C"]
    assert [(r.seq_from, r.seq_to) for r in desk.rows("listen_ranges")] == [(0, 2)]


def test_a_lifecycle_slot_holds_both_channels() -> None:
    """It is complete when both are subscribed."""
    desk = Desk("lifecycle/0")
    (command,) = desk.commands()
    assert command["params"]["channels"] == ["market_lifecycle_v2", "multivariate_market_lifecycle"]
    complete = []
    for sid, channel in enumerate(command["params"]["channels"], start=1):
        complete.append(desk.session.is_complete)
        desk.send("subscribed", sid=None, id=command["id"], msg={"channel": channel, "sid": sid})
    assert [*complete, desk.session.is_complete] == [False, False, True]
    msg = {"market_ticker": "A", "event_type": "activated"}
    desk.send("market_lifecycle_v2", 1, msg=msg)
    assert [(r.event_type, r.seq) for r in desk.rows("market_lifecycle")] == [("activated", 1)]


def test_a_planned_end_closes_every_sid_with_its_reason(desk: Desk) -> None:
    """The unsubscribed answer counts; what is left is closed where it stands."""
    desk.session.unsubscribe("handed over")
    assert [json.loads(c)["params"] for c in desk.session.take_commands()] == [{"sids": [1]}]
    desk.send("unsubscribed", 3)
    desk.session.close("drained", NOW)
    assert [(r.seq, r.reason) for r in desk.rows("listen_closed")] == [(3, "handed over")]


def test_the_hand_over_rule_compares_what_every_sid_heard(desk: Desk) -> None:
    """sent_at of the last frame minus the margin; a silent sid is asked, once a second."""
    heard = (T0 + 2) * MS - S
    assert desk.release(heard, NOW + 10 * S)
    assert desk.session.take_commands() == []
    assert not desk.release(heard + 1, NOW + 10 * S)
    assert not desk.release(heard + 1, NOW + 10 * S + 1)
    (command,) = desk.session.take_commands()
    assert json.loads(command)["params"]["action"] == "get_snapshot"
    desk.send("orderbook_snapshot", 3, at=T0 + 10_000, msg={"market_ticker": "A"})
    assert desk.release(heard + 1, NOW + 11 * S)
    assert desk.rows("gaps") == []


def _released_at(desk: Desk, until: int, seconds: range) -> int | None:
    """The second at which a hand-over that asks once a second says yes."""
    return next((n for n in seconds if desk.release(until, NOW + n * S)), None)


def test_a_mute_channel_does_not_keep_two_owners_for_ever() -> None:
    """No answer to any probe for a minute: it is closed, the cause is written, the claim ends at its last frame."""
    desk = Desk("trade/0", ())
    desk.subscribe()
    until = (T0 + 5_000) * MS
    assert _released_at(desk, until, range(2, 200)) == 62
    (gap,) = desk.rows("gaps")
    assert (gap.channel, gap.reason, gap.slot) == ("trade", "silent", "trade/0")
    assert (gap.from_ts, gap.to_ts, gap.received_to) == (T0 * MS, until, NOW + 62 * S)
    desk.session.close("handed over", NOW + 62 * S)
    assert {(r.seq, r.sent_at) for r in desk.rows("listen_closed")} == {(0, T0 * MS)}
    assert {r.sent_to for r in desk.rows("listen_ranges")} == {T0 * MS}


def test_an_answer_begins_the_minute_anew() -> None:
    """It took a number, though it was sent before the successor's start: the exchange does answer."""
    desk = Desk("trade/0", ())
    desk.subscribe()
    until = (T0 + 500_000) * MS
    assert _released_at(desk, until, range(2, 50)) is None
    body = {"type": "error", "id": 7, "sid": 1, "seq": 1, "sending_ts_ms": T0 + 50_000}
    desk.raw(json.dumps(body | {"msg": {"code": 14, "msg": "no"}}).encode(), NOW + 50 * S)
    assert _released_at(desk, until, range(51, 200)) == 111


def test_probes_of_an_earlier_hand_over_do_not_count() -> None:
    """It was taken back; the channel may have been quiet since, and is given its minute again."""
    desk = Desk("trade/0", ())
    desk.subscribe()
    until = (T0 + 5_000) * MS
    assert _released_at(desk, until, range(2, 30)) is None
    assert _released_at(desk, until, range(1000, 1200)) == 1060


def test_an_order_book_is_waited_for_as_long_as_it_claims(desk: Desk) -> None:
    """It answers while one of its markets is there, or its connection ends; without any it holds nobody up."""
    until = (T0 + 5_000) * MS
    assert _released_at(desk, until, range(2, 25)) is None
    desk.session.want(())
    (command,) = (
        c for c in desk.commands(NOW + 25 * S) if c["params"]["action"] == "delete_markets"
    )
    desk.send("ok", 3, id=command["id"])
    assert desk.release(until, NOW + 26 * S)
    assert desk.rows("gaps") == []
