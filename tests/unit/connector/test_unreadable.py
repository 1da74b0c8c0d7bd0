"""A market whose book never can be read: it costs itself a hole, and neither its slot's life nor a row every second."""

import json
from typing import Any

import pytest

from tests.unit.connector.test_session import MS, NOW, T0, Desk, S

HOUR = 3600


class Exchange:
    """Answers every command at once, and B's book in words of its own."""

    def __init__(self, book: dict[str, Any]) -> None:
        self.desk, self.book = Desk(tickers=("A", "B")), book
        self.seq = 0
        self.asked: list[int] = []

    def play(self, start_s: int, seconds: int) -> None:
        for second in range(start_s, start_s + seconds):
            for command in self.desk.commands(NOW + second * S):
                self._answer(command, second)

    def _answer(self, command: dict[str, Any], second: int) -> None:
        tickers = command["params"].get("market_tickers", [])
        if command["cmd"] == "subscribe":
            msg = {"channel": "orderbook_delta", "sid": 1}
            self._send(second, type="subscribed", id=command["id"], msg=msg)
        elif "B" in tickers:
            self.asked.append(second)
        for ticker in tickers:
            self.seq += 1
            book = self.book if ticker == "B" else {"yes_dollars_fp": [["0.4000", "1.00"]]}
            msg = {"market_ticker": ticker} | book
            self._send(second, type="orderbook_snapshot", sid=1, seq=self.seq, msg=msg)

    def _send(self, second: int, **body: Any) -> None:
        frame = body | {"sending_ts_ms": T0 + second * 1000 + 20}
        self.desk.raw(json.dumps(frame).encode(), NOW + (second * 1000 + 20) * MS)


@pytest.mark.parametrize(
    "levels",
    [[["0.400001", "1.00"]], [["0.4000", "1.001"]], [["0.4000", "1.00"], ["0.40000", "2.00"]]],
    ids=["finer price", "finer size", "a price twice"],
)
def test_the_slot_is_complete_without_it_and_it_is_asked_for_ever_more_rarely(
    levels: list[list[str]],
) -> None:
    """Its hole stays its own: bytes kept and a gap for every answer, and after an hour one every ten minutes."""
    exchange = Exchange({"yes_dollars_fp": levels})
    exchange.play(0, 30)
    session = exchange.desk.session
    assert session.is_complete
    assert session.markets.absent == {"B"}
    exchange.play(30, HOUR)
    pauses = [b - a for a, b in zip(exchange.asked, exchange.asked[1:], strict=False)]
    assert pauses == sorted(pauses)
    assert pauses[0] <= 5
    assert 590 <= pauses[-1] <= 620
    # Its first frame and each answer: bytes kept, and a gap, for every one.
    assert len(exchange.desk.rows("gaps")) == 1 + len(exchange.asked) <= 20
    assert {row.ticker for row in exchange.desk.rows("gaps")} == {"B"}


def test_once_it_can_be_read_it_is_captured_and_forgotten() -> None:
    """And the next unreadable frame begins anew: asked for at once."""
    exchange = Exchange({"yes_dollars_fp": [["0.400001", "1.00"]]})
    exchange.play(0, 100)
    exchange.book = {"yes_dollars_fp": [["0.4000", "1.00"]]}
    exchange.play(100, 600)
    session = exchange.desk.session
    assert session.markets.absent == set()
    assert session.markets.seen == {"A", "B"}
    before = len(exchange.asked)
    exchange.seq += 1
    exchange._send(
        700, type="orderbook_snapshot", sid=1, seq=exchange.seq, msg={"market_ticker": "B", "yes_dollars_fp": [["0.4", "1.001"]]}
    )  # fmt: skip
    exchange.play(701, 2)
    assert exchange.asked[before:] == [701]
