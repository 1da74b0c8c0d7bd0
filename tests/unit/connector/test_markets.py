"""The markets of one connection: which commands follow from intent and answers."""

import json
from typing import Any

from libs.exchange.commands import CommandIds
from libs.marketdata.units import SECOND
from services.connector.markets import REFUSED_WAIT, Markets
from services.connector.requests import DOUBTED_WAIT, SNAPSHOT_TRIES_MAX, SNAPSHOT_WAIT

SID = 3


def markets(*wanted: str, chunk: int = 2) -> Markets:
    made = Markets(CommandIds(), chunk, use_yes_price=False)
    made.want(wanted)
    return made


def sent(commands: list[bytes]) -> list[tuple[str, list[str]]]:
    """What is asked for: the action and its markets."""
    found = []
    for command in map(json.loads, commands):
        params: dict[str, Any] = command["params"]
        found.append((params.get("action", command["cmd"]), params["market_tickers"]))
    return found


def held(*tickers: str, chunk: int = 10) -> Markets:
    """Markets that are subscribed, acknowledged and seen."""
    made = markets(*tickers, chunk=chunk)
    sid = None
    while commands := made.next(0, sid):
        assert made.answered(json.loads(commands[0])["id"], 0) is not None
        sid = SID
    for ticker in tickers:
        made.see(ticker)
    return made


def test_one_command_waits_at_a_time() -> None:
    """So that an answer always belongs to it."""
    made = markets("A", "B", "C")
    assert sent(made.next(0, None)) == [("subscribe", ["A", "B"])]
    assert made.next(0, None) == []
    assert made.answered(99, 0) is None
    assert made.answered(1, 0) is not None
    assert sent(made.next(0, SID)) == [("add_markets", ["C"])]
    assert not made.is_complete


def test_complete_is_acknowledged_and_seen() -> None:
    """Either alone is not enough."""
    made = markets("A")
    made.next(0, None)
    made.see("A")
    assert not made.is_complete
    made.answered(1, 0)
    assert made.is_complete


def test_what_is_not_wanted_any_more_is_given_back_first() -> None:
    """Before anything new is added; given back, nothing of it is known."""
    made = held("A", "B")
    made.want(("B", "C"))
    assert made.is_held("A")
    assert sent(made.next(0, SID)) == [("delete_markets", ["A"])]
    assert not made.is_held("A")
    done = made.answered(2, 0)
    assert done is not None
    assert (done.kind, made.held, made.seen) == ("delete", {"B"}, {"B"})
    assert sent(made.next(0, SID)) == [("add_markets", ["C"])]


def test_a_book_that_does_not_come_is_asked_for_and_then_counts_as_absent() -> None:
    """After some tries; a slot is not kept incomplete by a market that is closed."""
    made = markets("A")
    made.next(0, None)
    made.answered(1, 0)
    asked = []
    for turn in range(1, SNAPSHOT_TRIES_MAX + 3):
        asked += sent(made.next(turn * SNAPSHOT_WAIT, SID))
    assert asked == [("get_snapshot", ["A"])] * SNAPSHOT_TRIES_MAX
    assert made.absent == {"A"}
    assert made.is_complete
    made.see("A")
    assert (made.absent, made.is_complete) == (set(), True)


def test_a_book_that_may_have_been_lost_is_asked_for_soon_and_at_no_cost() -> None:
    """A gap may have taken the answers on their way: they are not waited for to the end, and count as no refusal."""
    made = markets("A")
    made.next(0, None)
    made.answered(1, 0)
    for turn in range(1, 2 * SNAPSHOT_TRIES_MAX):
        made.lost(made.acked, turn * 4 * SECOND)
        assert made.next(turn * 4 * SECOND + DOUBTED_WAIT - 1, SID) == []
        asked = sent(made.next(turn * 4 * SECOND + DOUBTED_WAIT, SID))
        assert asked == [("get_snapshot", ["A"])]
    assert made.absent == set()
    made.see("A")
    made.lost(made.acked, 60 * SECOND)
    assert sent(made.next(60 * SECOND, SID)) == [("get_snapshot", ["A"])]


def test_refreshes_are_spread_over_seconds() -> None:
    """At most a chunk a second, each market once."""
    made = held("A", "B", "C", chunk=2)
    made.refresh(["A", "B", "C", "A"])
    assert sent(made.next(0, SID)) == [("get_snapshot", ["A", "B"])]
    assert made.next(SECOND // 2, SID) == []
    assert sent(made.next(SECOND + 1, SID)) == [("get_snapshot", ["C"])]


def test_a_probe_asks_for_one_market_that_is_there() -> None:
    """Without one there is nothing to ask for."""
    made = held("B", "A")
    probe = made.probe(SID)
    assert probe is not None
    assert sent([probe]) == [("get_snapshot", ["A"])]
    assert markets("A").probe(SID) is None


def test_a_failed_command_is_repeated_later() -> None:
    """Its markets are not held meanwhile, and completeness waits for them."""
    made = held("A")
    made.want(("A", "B"))
    made.next(0, SID)
    failed = made.failed(2, retry_at=5 * SECOND)
    assert failed is not None
    assert (failed.tickers, made.held) == (("B",), {"A"})
    assert made.next(5 * SECOND - 1, SID) == []
    assert sent(made.next(5 * SECOND, SID)) == [("add_markets", ["B"])]
    assert not made.is_complete


def fill(made: Markets, room: int, now: int, sid: int | None = SID) -> tuple[list[str], int]:
    """Play an exchange with room for so many markets; returns what was told to be left out, and how many commands came."""
    told: list[str] = []
    for turn in range(100):
        at = now + turn * SECOND
        commands = [c for c in made.next(at, sid) if b"get_snapshot" not in c]
        if not commands:
            return told, turn
        (command,) = map(json.loads, commands)
        tickers = command["params"]["market_tickers"]
        kind = command["params"].get("action", command["cmd"])
        if kind != "delete_markets" and len(made.held - set(tickers)) + len(tickers) > room:
            found = made.over_limit(command["id"], at, retry_at=at + SECOND)
            assert found is not None
            told += found[1]
            continue
        made.answered(command["id"], at)
        sid = SID
        if kind != "delete_markets":
            for ticker in tickers:
                made.see(ticker)
    raise AssertionError("no end")


NAMES = [f"M{number:03}" for number in range(300)]


def test_a_full_subscription_is_filled_to_its_limit_and_the_rest_is_told_once() -> None:
    """The exchange does not say its limit: it is found by halves, and everything below it is heard."""
    made = markets(*NAMES, chunk=64)
    told, turns = fill(made, 256, 0, None)
    assert (len(made.held), made.room) == (256, 256)
    assert sorted(made.held | set(told)) == NAMES
    assert turns < 20
    assert made.is_complete
    assert made.is_full


def test_a_full_subscription_takes_the_next_market_when_one_is_given_back() -> None:
    """Nothing is asked for before; then as many as have gone; each is told of once only."""
    made = markets(*NAMES, chunk=64)
    fill(made, 256, 0, None)
    assert made.next(30 * SECOND, SID) == []
    made.want(NAMES[10:])
    told, _ = fill(made, 256, 31 * SECOND)
    assert told == []
    assert len(made.held) == 256
    assert made.held <= set(NAMES[10:])
    assert len(made.over) == 34


def test_a_full_subscription_is_tried_again_after_a_minute() -> None:
    """The limit may have been raised; while it was not, nobody is told again."""
    made = markets(*NAMES, chunk=64)
    told, _ = fill(made, 256, 0, None)
    later = 30 * SECOND + REFUSED_WAIT
    assert fill(made, 256, later)[0] == []
    fill(made, 1000, 2 * later)
    assert made.held == set(NAMES)
    assert not made.is_full
    assert not made.over & set(told)


def test_a_dead_subscription_begins_anew() -> None:
    """Intent stays, everything else is forgotten."""
    made = held("A")
    made.forget()
    assert (made.held, made.seen, made.is_complete) == (set(), set(), False)
    assert sent(made.next(0, None)) == [("subscribe", ["A"])]


def test_a_new_market_that_finds_no_room_is_told_of_once() -> None:
    """A subscription once full is not asked in vain, but what it does not take is known, and calls for another."""
    made = held("A", "B")
    made.want(("A", "B", "C"))
    assert sent(made.next(0, SID)) == [("add_markets", ["C"])]
    assert made.over_limit(2, 0, retry_at=0) is not None
    made.want(("A", "B"))
    assert (made.room, made.is_full, made.turned_away(SECOND)) == (2, False, [])
    made.want(("A", "B", "D"))
    assert made.next(SECOND, SID) == []
    assert made.turned_away(SECOND) == ["D"]
    assert made.is_full
    assert made.turned_away(2 * SECOND) == []
    made.want(("A", "D"))
    assert not made.is_full
