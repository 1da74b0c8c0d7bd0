"""Subscriptions that end by themselves, and connections that end before everything was heard again, in virtual time."""

import asyncio
import itertools
from typing import Any

import pytest

from tests.unit.connector.test_parts import NAMES, S, Stage, staged
from tests.unit.connector.venue import EPOCH


def end_each_subscription(stage: Stage, kind: str, **more: Any) -> list[float]:
    """Let the exchange end every subscription 50 ms after it began; returns when it was asked for each."""
    asked: list[float] = []

    def obey(wire: Any, command: dict[str, Any]) -> None:
        if wire.ended is None and command["cmd"] == "subscribe":
            asked.append(stage.clock.monotonic())
            (channel,) = command["params"]["channels"]
            sid = len(wire.sids) + 1
            wire.sids[sid], wire.seqs[sid] = channel, 0
            wire.data("subscribed", None, {"channel": channel, "sid": sid}, id=command["id"])
            asyncio.get_running_loop().call_later(0.05, lambda: wire.data(kind, sid, **more))

    def begin(wire: Any) -> None:
        wire._obey = lambda command: obey(wire, command)

    stage.venue.on_dial = begin
    return asked


@pytest.mark.parametrize(("name", "tickers"), [("orderbook/0", NAMES), ("trade/0", [])])
@pytest.mark.parametrize(
    ("kind", "more"),
    [("error", {"msg": {"code": 25, "msg": "overflow"}}), ("unsubscribed", {})],
)
@staged
async def test_a_subscription_that_always_ends_is_asked_for_after_longer_and_longer_pauses(
    kind: str, more: dict[str, Any], name: str, tickers: list[str]
) -> None:
    """Once more on its connection, then on new ones: two commands each, and never one right after the other for ever."""
    stage = Stage(name)
    asked = end_each_subscription(stage, kind, **more)
    async with stage.running(tickers):
        await asyncio.sleep(3600)
        assert len(asked) == 2 * len(stage.venue.wires)
        assert 20 <= len(asked) <= 70
        assert "ended again" in stage.slot.error
        pauses = [round(b - a) for a, b in itertools.pairwise(asked[::2])]
        assert pauses == sorted(pauses)
        assert pauses[-1] > 100


@staged
async def test_a_subscription_that_ends_unasked_is_begun_again() -> None:
    """Its markets are asked for anew on the same connection; the gap has one cause, a beginning and an end."""
    stage = Stage()
    async with stage.running(NAMES):
        await stage.until(lambda: stage.slot.is_complete)
        (wire,) = stage.venue.wires
        await asyncio.sleep(100)
        wire.markets.clear()
        wire.data("unsubscribed", 1)
        await stage.until(lambda: len(wire.sids) == 2, 5)
        for ticker in NAMES:
            wire.data("orderbook_snapshot", 2, {"market_ticker": ticker})
        await stage.until(lambda: stage.slot.listening_from is not None, 5)
        await asyncio.sleep(2)
        assert stage.heard() == [64]
        begun, ended = stage.rows("gaps")
        for row in (begun, ended):
            assert (row.reason, row.ticker) == ("disconnected", None)
            assert row.detail == "unsubscribed unasked"
            assert row.from_ts == pytest.approx(EPOCH + 100 * S, abs=2 * S)
        assert (begun.to_ts, ended.to_ts) == (None, stage.slot.listening_from)


@staged
async def test_a_gap_over_several_connections_is_written_whole() -> None:
    """The second connection ends before it heard everything: the end that follows belongs to the first one's beginning."""
    stage = Stage()
    async with stage.running(NAMES):
        await stage.until(lambda: stage.slot.is_complete)
        await asyncio.sleep(100)

        def be_mute(wire: Any) -> None:
            if len(stage.venue.wires) == 2:
                wire._send_books = lambda *_: None
                asyncio.get_running_loop().call_later(5, lambda: wire.end(1001))

        stage.venue.on_dial = be_mute
        stage.venue.wires[0].end(None, "reset")
        await asyncio.sleep(20)
        assert stage.slot.is_complete
        assert len(stage.venue.wires) == 3
        first, second, end = stage.rows("gaps")
        assert first.from_ts < second.from_ts
        assert (first.to_ts, second.to_ts) == (None, None)
        assert (end.from_ts, end.to_ts) == (first.from_ts, stage.slot.listening_from)
