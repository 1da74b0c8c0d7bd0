"""What faults do to single frames, in virtual time: whom they hit, what the numbers show, what the journal says."""

import json
from typing import Any

import pytest

from libs.marketdata.units import MILLISECOND, SECOND
from services.simulator.line import Ping
from tests.unit.simulator.faulty import Faulty, has_gap

BOOKS = "orderbook_delta"


@pytest.fixture
def play() -> Faulty:
    return Faulty()


def test_without_a_fault_frames_go_untouched(play: Faulty) -> None:
    """What the session makes is what the wire carries, and the journal has no word of faults."""
    heard = play.books()
    play.wait(2)
    assert len(heard.raw) > 100
    assert not has_gap(heard.numbers(1))
    assert play.told("begin") == []


def test_dropped_frames_leave_a_gap_that_the_journal_explains(play: Faulty) -> None:
    """Numbers are taken; those missing are those of the journal, with market and channel; the other zone has them all."""
    heard, other = play.books(), play.books("key-b")
    play.fault(fault="drop", for_s=3, share=0.3, on={"zone": "a"})
    play.wait(4)
    hits = play.told("hit")
    numbers = heard.numbers(1)
    missing = sorted(set(range(1, numbers[-1] + 1)) - set(numbers))
    assert [hit["seq"] for hit in hits] == missing
    assert 0.2 < len(missing) / len(other.numbers(1)) < 0.4
    sent = {frame["seq"]: frame["msg"]["market_ticker"] for frame in other.frames if "seq" in frame}
    assert all(sent[hit["seq"]] == hit["ticker"] for hit in hits)
    assert {(hit["connection"], hit["sid"], hit["channel"]) for hit in hits} == {(1, 1, BOOKS)}
    (end,) = play.told("end")
    assert (end["hits"], end["connections"], end["early"]) == (
        len(missing),
        {"1": len(missing)},
        False,
    )
    assert not has_gap(other.numbers(1))


def test_a_dropped_ticker_leaves_no_trace_but_in_the_journal(play: Faulty) -> None:
    """Tickers have no numbers: only the journal knows what is missing."""
    heard, other = play.connect_as("key-a"), play.connect_as("key-b")
    for client in (heard, other):
        client.subscribe("ticker", "trade")
    play.fault(fault="drop", for_s=5, on={"zone": "a", "channel": "ticker"})
    play.wait(5)
    assert heard.of("ticker") == []
    assert heard.of("trade") == other.of("trade")
    hits = play.told("hit")
    assert len(hits) == len(other.of("ticker")) > 10
    assert all("seq" not in hit and hit["type"] == "ticker" for hit in hits)


def test_a_fault_without_duration_hits_the_next_frames_only(play: Faulty) -> None:
    """count_max frames, or one; then it is over by itself."""
    heard = play.books()
    first = heard.numbers(1)[-1] + 1
    play.fault(fault="duplicate", count_max=3)
    play.wait(1)
    numbers = heard.numbers(1)
    assert [n for n in range(first, first + 5) for _ in range(numbers.count(n))] == [
        first, first, first + 1, first + 1, first + 2, first + 2, first + 3, first + 4,
    ]  # fmt: skip
    (end,) = play.told("end")
    assert (end["hits"], end["early"]) == (3, False)
    play.fault(fault="drop")
    play.wait(1)
    assert len(play.told("hit")) == 4


def test_delayed_frames_come_late_and_in_order(play: Faulty) -> None:
    """Every frame waits delay_ms, sending_ts_ms stays that of its queuing; later ones do not overtake."""
    heard = play.books()
    play.wait(1)
    before = len(heard.raw)
    play.fault(fault="delay", delay_ms=400, for_s=2)
    begin = play.now
    play.until(lambda: len(heard.raw) > before)
    assert play.now - begin >= 400 * MILLISECOND
    first = heard.frames[before]
    assert begin // 1000 <= first["sending_ts_ms"] <= play.now // 1000 - 400
    play.wait(3)
    assert not has_gap(heard.numbers(1))
    assert play.told("hit") == []
    (end,) = play.told("end")
    assert end["hits"] > 50
    play.wait(1)
    assert heard.frames[-1]["sending_ts_ms"] > play.now // 1000 - 300


def test_a_single_late_frame_holds_back_its_channel_only(play: Faulty) -> None:
    """Order is kept within the channel that is late; the others go on."""
    heard = play.connect_as("key-a")
    heard.subscribe(BOOKS, market_tickers=play.tickers)
    heard.subscribe("trade")
    books, trades = len(heard.numbers(1)), len(heard.numbers(2))
    play.fault(fault="delay", delay_ms=1_500, on={"channel": BOOKS})
    play.wait(1.4)
    assert len(heard.numbers(1)) == books
    assert len(heard.numbers(2)) > trades
    play.wait(1)
    assert not has_gap(heard.numbers(1))
    assert len(heard.numbers(1)) > books + 100


def test_reordered_frames_come_some_places_later(play: Faulty) -> None:
    """A frame is overtaken by the next `places` of its channel, and nothing is lost."""
    heard = play.books()
    last = heard.numbers(1)[-1]
    play.fault(fault="reorder", places=3)
    play.wait(1)
    numbers = heard.numbers(1)[last:]
    assert numbers[:5] == [last + 2, last + 3, last + 4, last + 1, last + 5]
    assert sorted(numbers) == list(range(last + 1, last + 1 + len(numbers)))
    (hit,) = play.told("hit")
    assert hit["seq"] == last + 1


def test_a_reordered_frame_that_nobody_overtakes_comes_after_a_second() -> None:
    """On a silent channel it does not wait for ever."""
    play = Faulty(rate=0.0, news_every_s=0.0, pause_every_s=0.0)
    heard = play.books()
    count = len(heard.raw)
    play.fault(fault="reorder", places=1)
    heard.update("get_snapshot", market_tickers=play.tickers[:1])
    assert len(heard.raw) == count
    assert heard.line.next_due() == play.now // MILLISECOND + 1_000
    play.wait(1.1)
    assert len(heard.raw) == count + 1


def test_truncated_frames_are_no_json(play: Faulty) -> None:
    """Whole frames on the wire, cut off where chance says; the number is in the journal."""
    heard = play.books()
    before = len(heard.raw)
    play.fault(fault="truncate", count_max=20)
    play.wait(1)
    cut = heard.raw[before : before + 20]
    for text in cut:
        with pytest.raises(ValueError, match=r"."):
            json.loads(text)
    hits = play.told("hit")
    assert [hit["bytes"] for hit in hits] == [len(text) for text in cut]
    assert len({len(text) for text in cut}) > 5
    assert json.loads(heard.raw[before + 20])["seq"] == hits[-1]["seq"] + 1


def test_a_renamed_field_is_gone_and_the_rest_is_there(play: Faulty) -> None:
    """Of the message or of the envelope; frames without the field are not hit."""
    heard = play.books()
    before = len(heard.raw)
    play.fault(fault="rename_field", field="delta_fp", to="delta_v2", for_s=1.005)
    heard.update("get_snapshot", market_tickers=play.tickers[:1])
    play.wait(1)
    deltas = [frame for frame in heard.frames[before:] if frame["type"] == BOOKS]
    assert all("delta_fp" not in d["msg"] and "price_dollars" in d["msg"] for d in deltas)
    assert {hit["type"] for hit in play.told("hit")} == {BOOKS}
    play.fault(fault="rename_field", field="seq", to="sequence")
    play.wait(0.5)
    (maimed,) = [frame for frame in heard.frames if "sequence" in frame]
    assert "seq" not in maimed
    assert maimed["sequence"] == play.told("hit")[-1]["seq"]
    assert all(text.endswith(b"}\n") for text in heard.raw)


def test_a_new_field_is_added_to_the_message(play: Faulty) -> None:
    """The frame is otherwise the same."""
    heard, other = play.books(), play.books("key-b")
    before = len(heard.raw)
    play.fault(fault="new_field", field="Clock", value="7", count_max=2, on={"zone": "a"})
    play.wait(1)
    new = heard.frames[before : before + 2]
    assert [frame["msg"].pop("Clock") for frame in new] == ["7", "7"]
    assert new == other.frames[before : before + 2]


def test_numbers_are_skipped_and_nothing_is_lost(play: Faulty) -> None:
    """seq_gap: the stream goes on `by` numbers later; the other zone hears the same without a gap."""
    heard, other = play.books(), play.books("key-b")
    play.wait(0.5)
    last = heard.numbers(1)[-1]
    play.fault(fault="seq_gap", by=5, on={"zone": "a"})
    play.wait(0.5)
    assert heard.numbers(1)[last] == last + 6
    bodies = [[f["msg"] for f in client.of(BOOKS)] for client in (heard, other)]
    assert bodies[0] == bodies[1]
    (hit,) = play.told("hit")
    assert (hit["sid"], hit["seq"], hit["seq_to"], hit["channel"]) == (1, last + 1, last + 5, BOOKS)


def test_frames_of_an_unknown_type_take_numbers_where_there_are_any(play: Faulty) -> None:
    """One on each subscription, on ticker without a number; what follows is in order."""
    heard = play.connect_as("key-a")
    heard.subscribe("trade", "ticker")
    play.fault(fault="unknown_type", name="weather", count=2)
    play.wait(1)
    assert [(f["sid"], f.get("seq")) for f in heard.of("weather")] == [
        (1, 1), (1, 2), (2, None), (2, None),
    ]  # fmt: skip
    assert not has_gap(heard.numbers(1))
    assert len(heard.of("trade")) > 3


def test_a_snapshot_storm_resends_every_book(play: Faulty) -> None:
    """All markets of the subscription, in its stream, each noted as any snapshot is."""
    heard = play.books()
    play.fault(fault="snapshot_storm", rounds=2)
    snapshots = heard.of("orderbook_snapshot")
    assert [f["msg"]["market_ticker"] for f in snapshots] == [
        *sorted(play.tickers),
        *play.tickers * 2,
    ]
    assert not has_gap(heard.numbers(1))
    noted = play.told("", "snapshot")
    assert [(n["seq"], n["ticker"]) for n in noted] == [
        (f["seq"], f["msg"]["market_ticker"]) for f in snapshots
    ]


@pytest.mark.parametrize("pings", [True, False])
def test_a_stall_is_silence_and_then_everything_at_once(pings: bool) -> None:
    """Nothing comes for the time, pings only if they go on; then all of it, with its old sending times."""
    play = Faulty(ping_s=1.0)
    heard = play.books()
    count, quiet_from = len(heard.raw), play.now // MILLISECOND
    play.fault(fault="stall", for_s=5, pings=pings)
    play.wait(4.9)
    assert len(heard.raw) == count
    assert len(heard.others) == (4 if pings else 0)
    assert heard.line.answers(play.now // MILLISECOND) == pings
    play.wait(0.1)
    held = heard.frames[count:]
    assert len(held) > 300
    assert held[0]["sending_ts_ms"] < quiet_from + 200
    assert not has_gap(heard.numbers(1))
    play.wait(2)
    assert len(heard.others) > (5 if pings else 0)
    assert play.told("hit") == []


def test_a_stall_that_loses_shows_a_gap_afterwards(play: Faulty) -> None:
    """Frames of the time are thrown away, one line for each; the numbers go on behind them."""
    heard = play.books()
    last = heard.numbers(1)[-1]
    play.fault(fault="stall", for_s=2, lost=True)
    play.wait(3)
    after = heard.numbers(1)[last]
    hits = play.told("hit")
    assert [hit["seq"] for hit in hits] == list(range(last + 1, after))
    assert len(hits) > 50


def test_a_stall_of_one_channel_leaves_the_others_and_the_pings() -> None:
    """Only what is named is silent."""
    play = Faulty(ping_s=1.0)
    heard = play.connect_as("key-a")
    heard.subscribe("trade", "ticker")
    play.fault(fault="stall", for_s=4, on={"channel": "trade"})
    play.wait(3.5)
    assert heard.of("trade") == []
    assert len(heard.of("ticker")) > 5
    assert len([action for _, action in heard.others if isinstance(action, Ping)]) == 3


def test_a_stall_that_is_ended_early_lets_go_at_once(play: Faulty) -> None:
    """What waited comes with the end, and what follows does not wait for the planned one."""
    heard = play.books()
    count = len(heard.raw)
    play.fault(fault="stall", for_s=600)
    play.wait(1)
    assert play.simulation.faults.end(1, play.now)
    play.take()
    assert len(heard.raw) > count + 20
    play.wait(0.5)
    assert heard.frames[-1]["sending_ts_ms"] > play.now // 1000 - 100
    assert not has_gap(heard.numbers(1))
    (end,) = play.told("end")
    assert end["early"]


def test_a_drip_grows_older_every_second(play: Faulty) -> None:
    """The age of what arrives grows by `growth` a second, in order, and heals after the end."""
    heard = play.books()
    play.wait(1)
    play.fault(fault="drip", growth=0.5, for_s=6)
    ages = []
    for _ in range(8):
        before = len(heard.raw)
        play.until(lambda before=before: len(heard.raw) > before)  # type: ignore[misc]
        ages.append(play.now // 1000 - heard.frames[-1]["sending_ts_ms"])
        play.wait(1)
    assert ages == sorted(ages)
    assert ages[5] > 1_200
    assert not has_gap(heard.numbers(1))
    play.wait(5)
    assert play.now // 1000 - heard.frames[-1]["sending_ts_ms"] < 200


def test_faults_hit_connections_that_come_while_they_last(play: Faulty) -> None:
    """Who reconnects in the middle of a stall is stalled too; a drip begins anew for him."""
    play.fault(fault="stall", for_s=3, on={"zone": "a"})
    play.wait(1)
    heard, other = play.books(), play.books("key-b")
    play.wait(1)
    assert (len(heard.raw), len(other.raw) > 50) == (0, True)
    play.fault(fault="drip", growth=0.9, for_s=60)
    play.wait(10)
    late = play.books("key-b")
    play.wait(1)
    age = play.now // 1000 - late.frames[-1]["sending_ts_ms"]
    assert age < 1_000


def test_what_waits_is_bounded() -> None:
    """More than outbound_bytes_max held back ends the subscriptions with error 25, as a full buffer does."""
    play = Faulty(outbound_bytes_max=30_000)
    heard = play.books()
    play.fault(fault="stall", for_s=60)
    play.wait(5)
    assert heard.line.overflows == 1
    assert heard.line.session.subscriptions == {}
    play.simulation.faults.end_all(play.now)
    play.take()
    assert [(f["sid"], f["msg"]["code"]) for f in heard.of("error")] == [(1, 25)]
    assert len(play.told("", "overflow")) == 1


def test_several_faults_act_together(play: Faulty) -> None:
    """A frame can be doubled, maimed and late; a lost one is nothing else any more."""
    heard = play.books()
    before = len(heard.raw)
    for entry in (
        {"fault": "new_field", "field": "x", "count_max": 1},
        {"fault": "duplicate", "count_max": 1},
        {"fault": "delay", "delay_ms": 300, "count_max": 1},
    ):
        play.fault(**entry)
    begin = play.now
    play.until(lambda: len(heard.raw) > before)
    assert play.now - begin >= 300 * MILLISECOND
    pair: list[dict[str, Any]] = heard.frames[before : before + 2]
    assert pair[0] == pair[1]
    assert pair[0]["msg"]["x"] == "1"
    play.fault(fault="drop")
    play.fault(fault="duplicate")
    play.wait(0.5)
    told = [hit for hit in play.told("hit") if hit["number"] >= 4]
    assert [hit["fault"] for hit in told] == ["drop", "duplicate"]
    assert told[1]["seq"] == told[0]["seq"] + 1
    assert play.now - begin < 60 * SECOND
