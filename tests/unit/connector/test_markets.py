"""The markets of one connection: which commands follow from intent and answers."""

import json
from typing import Any

import pytest

from libs.exchange.commands import CommandIds
from libs.marketdata.units import SECOND
from services.connector.markets import SNAPSHOT_TRIES_MAX, SNAPSHOT_WAIT, Markets

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


def held(*tickers: str) -> Markets:
    """Markets that are subscribed, acknowledged and seen."""
    made = markets(*tickers, chunk=10)
    (command,) = made.next(0, None)
    assert made.answered(json.loads(command)["id"], 0) is not None
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


def test_refreshes_are_spread_over_seconds() -> None:
    """At most a chunk a second, each market once."""
    made = held("A", "B", "C")
    made._chunk = 2
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


@pytest.mark.parametrize("retry_at", [None, 5 * SECOND])
def test_a_failed_command_is_repeated_later_or_given_up(retry_at: int | None) -> None:
    """Given up, its markets are not asked for again, and completeness does not wait for them."""
    made = held("A")
    made.want(("A", "B"))
    made.next(0, SID)
    failed = made.failed(2, retry_at=retry_at)
    assert failed is not None
    assert failed.tickers == ("B",)
    assert made.next(SECOND, SID) == []
    later = sent(made.next(6 * SECOND, SID))
    assert later == ([] if retry_at is None else [("add_markets", ["B"])])
    assert made.is_complete is (retry_at is None)


def test_a_dead_subscription_begins_anew() -> None:
    """Intent stays, everything else is forgotten."""
    made = held("A")
    made.forget()
    assert (made.held, made.seen, made.is_complete) == (set(), set(), False)
    assert sent(made.next(0, None)) == [("subscribe", ["A"])]
