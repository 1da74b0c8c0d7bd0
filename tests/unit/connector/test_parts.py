"""Slots in virtual time against an exchange that misbehaves: split, late, silent, full, and clocks that are set."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from random import Random
from typing import Any, cast

import pytest

from libs.exchange.errors import AuthRejected, RateLimited, TransportError
from libs.exchange.transport import TransportSettings
from libs.flow.batch import Limits
from libs.marketdata.listening import claims, union
from libs.marketdata.tables import Family
from libs.telemetry.metrics import Metrics
from services.connector.judge import SessionSettings
from services.connector.outlets import Outlets
from services.connector.slot import PARTS_MAX, Slot
from services.connector.wiring import Budget, Wiring
from tests.simulation.loop import run_virtually
from tests.unit.connector.venue import EPOCH, SettableClock, Venue

NAMES = [f"KX{number:04}" for number in range(64)]
S = 1_000_000


class Stage:
    """A slot, its exchange and what it wrote."""

    def __init__(self, name: str = "orderbook/0", chunk: int = 500) -> None:
        self.clock = SettableClock()
        self.venue = Venue(self.clock)
        self.outlets = Outlets(dict.fromkeys(Family, Limits(10**6, 1 << 30, 50_000)), 1 << 20)
        self.metrics = Metrics("a")
        self.wiring = Wiring(
            url="", signer=lambda: None, clock=self.clock, metrics=self.metrics, outlets=self.outlets, pipelines={},
            session=SessionSettings(chunk=chunk), transport=TransportSettings(), backoff_s_min=1.0,
            backoff_s_max=300.0, silence_s_max=30.0, dial=cast(Any, self.venue.dial),
            jitter=lambda _: 0.0,
        )  # fmt: skip
        self.slot = Slot(name, self.wiring)
        self.kept: dict[str, list[Any]] = {}

    @asynccontextmanager
    async def running(self, tickers: list[str]) -> AsyncIterator["Stage"]:
        """The slot's task, until the block ends; then it is closed and has said goodbye."""
        self.slot.want(tickers)
        async with asyncio.TaskGroup() as group:
            group.create_task(self.slot.run())
            yield self
            self.slot.close("drained")

    async def until(self, holds: Callable[[], bool], seconds: float = 120.0) -> float:
        """Wait until it holds; returns how long that took, in seconds."""
        started = self.clock.monotonic()
        while not holds():
            assert self.clock.monotonic() - started < seconds, "it never came to that"
            await asyncio.sleep(0.05)
        return self.clock.monotonic() - started

    def rows(self, table: str) -> list[Any]:
        for batcher in self.outlets.batchers.values():
            batch = batcher.cut(self.clock.now())
            for name, rows in batch.rows.items() if batch is not None else ():
                self.kept.setdefault(name, []).extend(rows)
        return self.kept.get(table, [])

    def counted(self, name: str, **labels: str) -> float:
        return (
            self.metrics.registry.get_sample_value(f"kalshi_data_{name}", {"zone": "a"} | labels)
            or 0.0
        )

    def heard(self) -> list[int]:
        """How many markets each open connection holds."""
        return sorted(len(wire.markets) for wire in self.venue.open)


def staged(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Run a test in virtual time; it makes its own Stage."""

    def run(*args: Any, **kwargs: Any) -> None:
        run_virtually(lambda: cast(Any, test(*args, **kwargs)))

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    run.__wrapped__ = test  # type: ignore[attr-defined]
    return run


# --- split ---


@staged
async def test_a_frame_too_large_splits_the_slot_until_every_part_fits() -> None:
    """64 markets, frames for 20 at most: four connections with each its share; all is heard, and alarmed."""
    stage = Stage()
    stage.venue.book_max = 20
    async with stage.running(NAMES):
        await stage.until(lambda: stage.slot.is_complete)
        held = [wire.markets for wire in stage.venue.open]
        assert len(held) == 4
        assert sorted(ticker for markets in held for ticker in markets) == NAMES
        assert all(len(markets) == 16 for markets in held)
        assert stage.wiring.extra.used == 3
        assert stage.counted("slot_splits_total", cause="frame too large", outcome="split") == 3
        assert stage.counted("ws_reconnects_total", reason="ConnectionEnded") == 3
        assert {row.slot for row in stage.rows("listen_opened")} == {"orderbook/0"}
        assert {row.ticker for row in stage.rows("listen_opened")} == set(NAMES)
        start = stage.slot.listening_from
        assert start == max(s.listening_from or 0 for s in stage.slot.sessions)
    assert stage.wiring.extra.used == 0
    assert stage.heard() == []


@staged
async def test_a_split_of_a_slot_that_was_heard_is_a_gap_with_its_cause() -> None:
    """The gap names the close, both halves hear on; each end of it is written when its half is heard."""
    stage = Stage()
    async with stage.running(NAMES):
        await stage.until(lambda: stage.slot.is_complete)
        await asyncio.sleep(100)
        stage.venue.wires[0].end(1009, "message too big")
        await stage.until(lambda: len(stage.venue.wires) == 3 and stage.slot.is_complete, 10)
        assert stage.heard() == [32, 32]
        gaps = [(g.reason, g.slot, g.to_ts is None) for g in stage.rows("gaps")]
        assert (
            gaps
            == [("disconnected", "orderbook/0", True)]
            + [("disconnected", "orderbook/0", False)] * 2
        )
        assert all(g.detail == "ConnectionEnded: 1009 message too big" for g in stage.rows("gaps"))


@staged
async def test_a_new_market_goes_to_one_part_and_a_gone_one_leaves_it() -> None:
    """The slot's list is shared out anew at every change; no market is asked for twice."""
    stage = Stage()
    stage.venue.book_max = 40
    async with stage.running(NAMES):
        await stage.until(lambda: stage.slot.is_complete)
        stage.slot.want([*NAMES[2:], "NEW-1", "NEW-2", "NEW-3"])
        await asyncio.sleep(3)
        held = [ticker for wire in stage.venue.open for ticker in wire.markets]
        assert sorted(held) == sorted([*NAMES[2:], "NEW-1", "NEW-2", "NEW-3"])


@pytest.mark.parametrize(
    ("name", "tickers", "extra", "splits"),
    [("trade/0", [], 4, 0), ("orderbook/0", ["A"], 4, 0), ("orderbook/0", NAMES, 2, 2)],
)
@staged
async def test_what_cannot_be_split_backs_off_and_alarms(
    name: str, tickers: list[str], extra: int, splits: int
) -> None:
    """A whole channel, a single market, or no connection left: longer and longer pauses, up to five minutes."""
    stage = Stage(name)
    stage.venue.close_code = 1009
    stage.wiring.extra = Budget(extra)
    async with stage.running(tickers):
        await asyncio.sleep(3600)
        assert len(stage.slot.parts) == 1 + splits
        assert stage.wiring.extra.used == splits
        cause = "frame too large"
        assert stage.counted("slot_splits_total", cause=cause, outcome="split") == splits
        dials = len(stage.venue.dialled_s)
        refused = stage.counted("slot_splits_total", cause=cause, outcome="refused")
        assert refused == dials - splits
        assert dials <= (splits + 1) * 32
        assert "1009" in stage.slot.error


@pytest.mark.parametrize(
    ("refusal", "longest_s"),
    [
        (TransportError("nobody there"), 30.0),
        (RateLimited("too many", None), 300.0),
        (AuthRejected("no"), 30.0),
    ],
)
@staged
async def test_after_an_outage_a_connection_is_back_soon_unless_it_was_refused_for_too_much(
    refusal: Exception, longest_s: float
) -> None:
    """The pause grows to half a minute; after refusals for too much to five. A failure of the network then is short again."""
    stage, dialled_s = Stage(), list[float]()

    @asynccontextmanager
    async def refuse(*_: Any) -> AsyncIterator[None]:
        dialled_s.append(stage.clock.monotonic())
        if len(dialled_s) < 20:
            raise refusal
        if stage.slot.tickers:
            raise TransportError("broken off")
        yield None

    stage.wiring.backoff_s_max, stage.wiring.limited_s_max = 30.0, 300.0
    stage.wiring.jitter, stage.wiring.was_connected = lambda _: 1 - 2**-53, True
    stage.wiring.dial = cast(Any, refuse)
    stage.slot = Slot("orderbook/0", stage.wiring)
    async with stage.running(NAMES):
        await asyncio.sleep(6_000)
    pauses = [after - before for before, after in itertools.pairwise(dialled_s)]
    assert pauses[:5] == pytest.approx([2.0, 4.0, 8.0, 16.0, min(32.0, longest_s)])
    assert pauses[17] == pytest.approx(longest_s)
    assert pauses[19] == pytest.approx(30.0)


@staged
async def test_a_slot_has_at_most_eight_parts() -> None:
    """Whatever is left to split; each asks again only with its next failure."""
    stage = Stage()
    stage.venue.close_code = 1009
    stage.wiring.extra = Budget(1000)
    async with stage.running(NAMES):
        await asyncio.sleep(600)
        assert len(stage.slot.parts) == PARTS_MAX
        assert stage.wiring.extra.used == PARTS_MAX - 1
        shared = [len(part.tickers) for part in stage.slot.parts]
        assert sum(shared) == len(NAMES)


@staged
async def test_a_split_slot_is_released_and_closed_as_one() -> None:
    """The successor's start must be passed by every part; the goodbye is said on each connection."""
    stage = Stage()
    stage.venue.book_max = 40
    async with stage.running(NAMES):
        await stage.until(lambda: stage.slot.is_complete)
        one, other = stage.venue.open
        until = stage.clock.now() + 15 * S
        await asyncio.sleep(16.5)
        one.delta(min(one.markets))
        await asyncio.sleep(0.1)
        asked = len(one.commands), len(other.commands)
        assert not stage.slot.release(until)
        await asyncio.sleep(0.1)
        assert (len(one.commands), len(other.commands)) == (asked[0], asked[1] + 1)
        assert stage.slot.release(until)
    for wire in (one, other):
        assert wire.commands[-1]["cmd"] == "unsubscribe"
    reasons = [row.reason for row in stage.rows("listen_closed")]
    assert reasons == ["drained", "drained"]


# --- full subscriptions ---


@staged
async def test_markets_above_the_limit_go_to_another_connection_without_a_break() -> None:
    """Error 26: the first connection hears on, the second takes half, and then nothing is heard twice or left out."""
    stage = Stage(chunk=16)
    stage.venue.markets_max = 40
    async with stage.running(NAMES):
        await stage.until(lambda: stage.heard() == [32, 32] and stage.slot.is_complete)
        assert len(stage.venue.wires) == 2
        held = sorted(ticker for wire in stage.venue.open for ticker in wire.markets)
        assert held == NAMES
        assert stage.counted("slot_splits_total", cause="too many markets", outcome="split") == 1
        first = stage.venue.wires[0]
        assert [w.ended for w in stage.venue.wires] == [None, None]
        deleted = [t for c in first.commands for t in c["params"]["market_tickers"]
                   if c["params"].get("action") == "delete_markets"]  # fmt: skip
        seen = stage.venue.wires[1].commands[0]["params"]["market_tickers"]
        assert set(deleted) & set(seen)
        left_out = [g for g in stage.rows("gaps") if g.reason == "not_subscribed" and g.from_ts]
        assert left_out
        await asyncio.sleep(200)
        assert stage.heard() == [32, 32]
        handed_on = set(deleted) & set(seen)
    rows = [stage.rows(f"listen_{name}") for name in ("ranges", "opened", "closed")]
    told = claims(rows[0], rows[1], rows[2])
    for ticker in handed_on:
        assert len(union((c.from_ts, c.to_ts) for c in told if c.ticker == ticker)) == 1


@staged
async def test_a_slot_is_live_when_no_market_waits_for_room() -> None:
    """Who takes a slot over is believed: with two connections half done the old owner must not be told to go."""
    stage = Stage(chunk=16)
    stage.venue.markets_max = 40
    async with stage.running(NAMES):
        heard: set[str] = set()

        def is_live() -> bool:
            nonlocal heard
            sessions = stage.slot.sessions
            heard = set().union(*(s.markets.seen & s.markets.held for s in sessions))
            return stage.slot.is_complete and stage.slot.listening_from is not None

        await stage.until(is_live)
        assert heard == set(NAMES)
        assert stage.heard() == [32, 32]


@staged
async def test_a_slot_without_room_for_a_single_market_is_not_heard() -> None:
    """Error 26 to every subscribe: asked for after longer and longer pauses, written down once, and not called live."""
    stage = Stage(chunk=16)
    stage.venue.markets_max = 0
    async with stage.running(NAMES):
        for _ in range(200):
            await asyncio.sleep(1)
            assert not stage.slot.is_complete
        (wire,) = stage.venue.wires
        # 16, 8, 4, 2 markets, then one, and again after 1, 2, 4, 8, 16, 32, 60, 60 s.
        assert [len(c["params"]["market_tickers"]) for c in wire.commands] == [16, 8, 4, 2] + [
            1
        ] * 9
        (gap,) = stage.rows("gaps")
        assert (gap.reason, gap.detail) == ("not_subscribed", "64 markets: market limit")
        stage.venue.markets_max = 64
        await stage.until(lambda: stage.slot.is_complete)
        assert stage.heard() == [64]


@staged
async def test_one_refusal_for_want_of_room_costs_seconds_where_nothing_is_held() -> None:
    """A slot with its first market: the exchange refuses it in passing."""
    stage = Stage()
    stage.venue.refused = {26: 1}
    async with stage.running(NAMES[:1]):
        assert await stage.until(lambda: stage.slot.is_complete) < 3


@staged
async def test_what_an_heir_cannot_take_either_is_heard_on_until_its_own_heir_does() -> None:
    """The second connection is closed by 1009 and split before it hears anything; for half a minute none can be opened."""
    stage = Stage(chunk=16)
    stage.venue.markets_max = 40
    until_s = 0.0

    def misbehave(wire: Any) -> None:
        nonlocal until_s
        if len(stage.venue.wires) == 2:
            wire.end(1009, "message too big")
            until_s = stage.clock.monotonic() + 30
        elif stage.clock.monotonic() < until_s:
            wire.end(None, "reset")

    stage.venue.on_dial = misbehave
    async with stage.running(NAMES):
        await stage.until(lambda: stage.heard() == [40])
        heard: list[set[str]] = []
        for _ in range(800):
            heard.append(set().union(*(wire.markets for wire in stage.venue.open)))
            await asyncio.sleep(0.05)
        assert all(before <= after for before, after in itertools.pairwise(heard))
        assert stage.heard() == [16, 16, 32]
        assert heard[-1] == set(NAMES)


@staged
async def test_markets_above_the_limit_are_written_down_when_no_connection_is_left() -> None:
    """The others go on; they are asked for again every minute, and come in as soon as there is room."""
    stage = Stage(chunk=16)
    stage.venue.markets_max = 40
    stage.wiring.extra = Budget(0)
    async with stage.running(NAMES):
        await stage.until(lambda: stage.slot.is_complete)
        assert stage.heard() == [40]
        (gap,) = [g for g in stage.rows("gaps") if g.reason == "not_subscribed"]
        assert gap.detail.startswith("24 markets: market limit")
        await asyncio.sleep(300)
        assert (
            len([g for g in stage.rows("gaps") if g.reason == "not_subscribed" and g.from_ts]) == 1
        )
        assert stage.counted("slot_splits_total", cause="too many markets", outcome="refused") in (
            5,
            6,
        )
        stage.venue.markets_max = 1000
        await stage.until(lambda: stage.heard() == [64])
        assert len(stage.venue.wires) == 1


@pytest.mark.parametrize(("name", "tickers"), [("orderbook/0", NAMES), ("trade/0", [])])
@staged
async def test_too_many_commands_are_sent_again_after_longer_and_longer_pauses(
    name: str, tickers: list[str]
) -> None:
    """Error 27, six times: 1, 2, 4, 8, 16, 32 s; the connection stays."""
    stage = Stage(name)
    stage.venue.refused = {27: 6}
    async with stage.running(tickers):
        took = await stage.until(lambda: stage.slot.is_complete)
        assert 63 <= took <= 75
        assert len(stage.venue.wires) == 1
        assert len(stage.venue.wires[0].commands) == 7


# --- late ---


@staged
async def test_a_drip_ends_the_connection_and_the_next_one_is_on_time() -> None:
    """Frames and pings come, ever later: found when 10 s late for 5 s, counted under its own name, written as a gap."""
    stage = Stage()

    async def drip() -> None:
        for second in range(60):
            if stage.venue.wires[0].ended is not None:
                break
            stage.venue.age_s = 0.05 + second
            stage.venue.wires[0].delta(NAMES[0])
            await asyncio.sleep(1)
        stage.venue.age_s = 0.05

    async with stage.running(NAMES):
        await stage.until(lambda: stage.slot.is_complete)
        for _ in range(30):
            stage.venue.wires[0].delta(NAMES[0])
            await asyncio.sleep(1)
        began = stage.clock.monotonic()
        await drip()
        assert 15 <= stage.clock.monotonic() - began <= 18
        await stage.until(lambda: stage.slot.is_complete, 5)
        assert stage.counted("ws_reconnects_total", reason="Late") == 1
        assert stage.rows("gaps")[0].reason == "disconnected"
        assert "later than they did on this connection" in stage.rows("gaps")[0].detail
        await asyncio.sleep(600)
        assert len(stage.venue.wires) == 2


@staged
async def test_a_lateness_that_no_connection_cures_costs_fewer_and_fewer() -> None:
    """Every connection drips from its first frame on, without end: twice the patience each time, no loop."""
    stage = Stage()
    opened: dict[int, float] = {}

    async with stage.running(NAMES):
        for _ in range(3600):
            for wire in stage.venue.open:
                began = opened.setdefault(id(wire), stage.clock.monotonic())
                stage.venue.age_s = stage.clock.monotonic() - began
                if wire.markets:
                    wire.delta(min(wire.markets))
            await asyncio.sleep(1)
        apart = [
            b - a for a, b in zip(stage.venue.dialled_s, stage.venue.dialled_s[1:], strict=False)
        ]
        assert apart == sorted(apart)
        assert apart[0] < 30
        assert apart[-1] > 300
        assert len(apart) < 30


@staged
async def test_connections_that_are_late_together_are_opened_anew_one_by_one() -> None:
    """Twenty slots, one cause: five seconds apart, so that most still hear while one tries."""
    stage = Stage("orderbook/0")
    slots = [Slot(f"orderbook/{n}", stage.wiring) for n in range(20)]
    async with asyncio.TaskGroup() as group:
        for slot in slots:
            slot.want([f"{slot.name}-A"])
            group.create_task(slot.run())
        for second in range(60):
            stage.venue.age_s = max(0.0, second - 20)
            for wire in stage.venue.open:
                if wire.markets:
                    wire.delta(min(wire.markets))
            await asyncio.sleep(1)
        again = stage.venue.dialled_s[20:]
        assert 3 <= len(again) <= 6
        for slot in slots:
            slot.close("drained")


@staged
async def test_frames_that_waited_for_us_make_no_connection_late() -> None:
    """A process that is behind would only be further behind after a reconnection."""
    stage = Stage()
    async with stage.running(NAMES):
        await stage.until(lambda: stage.slot.is_complete)
        wire = stage.venue.wires[0]
        for second in range(100):
            stage.venue.age_s = float(second)
            wire.buffered = 5000
            wire.delta(NAMES[0])
            await asyncio.sleep(1)
        assert len(stage.venue.wires) == 1


# --- clocks that are set ---

STEPS = [-3600.0, -30.0, -2.0, 2.0, 30.0, 3600.0, -40 * 86400.0, 40 * 86400.0]


@pytest.mark.parametrize("name", ["orderbook/0", "trade/0", "ticker/0"])
@pytest.mark.parametrize("step_s", STEPS)
@staged
async def test_setting_our_clock_neither_stalls_nor_breaks_a_connection(
    step_s: float, name: str
) -> None:
    """Probes go on at their pace, nothing is given up, no gap is written, and claims stay in the exchange's time."""
    stage = Stage(name)
    async with stage.running(NAMES if name == "orderbook/0" else []):
        await stage.until(lambda: stage.slot.is_complete)
        wire = stage.venue.wires[0]
        before = 0
        for second in range(0, 335, 5):
            if second == 35:
                before, stage.clock.skew = len(wire.commands), int(step_s * S)
            if name == "ticker/0":
                wire.data("ticker", 1, TICKER | {"ts_ms": EPOCH // 1000 + 1000 * second})
            await asyncio.sleep(5)
        assert len(stage.venue.wires) == 1
        assert stage.rows("gaps") == []
        if name != "ticker/0":
            assert 25 <= len(wire.commands) - before <= 31
    ended = EPOCH + int(stage.clock.monotonic() * S)
    found = claims(
        stage.rows("listen_ranges"), stage.rows("listen_opened"), stage.rows("listen_closed")
    )
    assert found
    for claim in found:
        assert EPOCH <= claim.from_ts <= EPOCH + 5 * S
        assert ended - 25 * S <= claim.to_ts <= ended


TICKER = {
    "market_ticker": "A", "price_dollars": "0.5000", "yes_bid_dollars": "0.4900", "yes_ask_dollars": "0.5100",
    "volume_fp": "1.00", "open_interest_fp": "1.00", "dollar_volume": 1, "dollar_open_interest": 1,
    "yes_bid_size_fp": "1.00", "yes_ask_size_fp": "1.00", "last_trade_size_fp": "1.00",
}  # fmt: skip


@pytest.mark.parametrize("step_s", [-3600.0, 3600.0])
@staged
async def test_a_dead_socket_is_found_in_time_though_our_clock_was_set(step_s: float) -> None:
    """Silence is counted by the clock that is never set, and so is the pause before the next dial."""
    stage = Stage()
    async with stage.running(NAMES):
        await stage.until(lambda: stage.slot.is_complete)
        stage.venue.wires[0].pings = False
        stage.venue.reads_nothing = True
        stage.clock.skew = int(step_s * S)
        took = await stage.until(lambda: stage.venue.wires[0].closed, 60)
        assert 19 <= took <= 45
        stage.venue.reads_nothing = False
        assert await stage.until(lambda: stage.slot.is_complete, 10) <= 5


@staged
async def test_frames_are_taken_while_a_command_finds_no_room_in_the_socket() -> None:
    """The reader waits for nothing; who takes no command for ten seconds is left."""
    stage = Stage()
    async with stage.running(NAMES):
        await stage.until(lambda: stage.slot.is_complete)
        wire = stage.venue.wires[0]
        stage.venue.reads_nothing = True
        stage.slot.want([*NAMES, "NEW"])
        for _ in range(90):
            wire.delta(NAMES[0])
            await asyncio.sleep(0.1)
        assert len(stage.rows("orderbook_deltas")) == 90
        stage.venue.reads_nothing = False
        await stage.until(lambda: len(stage.venue.wires) == 2 and stage.slot.is_complete, 10)
        assert stage.counted("ws_reconnects_total", reason="Silent") == 1
        (gap, _) = [g for g in stage.rows("gaps") if g.reason == "disconnected"]
        assert gap.detail == "Silent: the exchange took no command for 10 s"


@pytest.mark.parametrize("step_s", [-3600.0, -3.0, 3.0, 3600.0])
@staged
async def test_frames_without_a_sending_time_are_placed_by_the_clock_of_the_opening(
    step_s: float,
) -> None:
    """A clock that is set later moves no claim; margins are five seconds."""
    stage = Stage()

    def strip(wire: Any) -> None:
        send = wire.raw
        wire.raw = lambda data: send(json.dumps({
            k: v for k, v in json.loads(data).items() if k != "sending_ts_ms"
        }).encode())  # fmt: skip

    stage.venue.on_dial = strip
    async with stage.running(NAMES[:2]):
        await stage.until(lambda: stage.slot.is_complete)
        await asyncio.sleep(30)
        stage.clock.skew = int(step_s * S)
        await asyncio.sleep(60)
    ended = EPOCH + int(stage.clock.monotonic() * S)
    found = claims(
        stage.rows("listen_ranges"), stage.rows("listen_opened"), stage.rows("listen_closed")
    )
    assert {claim.ticker for claim in found} == set(NAMES[:2])
    for claim in found:
        assert EPOCH + 5 * S <= claim.from_ts <= EPOCH + 8 * S
        assert ended - 20 * S <= claim.to_ts <= ended - 5 * S


# --- reconnecting ---


@staged
async def test_pauses_double_from_one_second_and_begin_anew_after_a_stable_minute() -> None:
    """Chance is handed in: with none of it the pauses are the shortest of each bound."""
    stage = Stage()
    stage.venue.close_code = 1001
    async with stage.running(NAMES):
        await asyncio.sleep(3000)
        dials = stage.venue.dialled_s
        pauses = [round(b - a) for a, b in itertools.pairwise(dials)]
        assert pauses[:10] == [1, 2, 4, 8, 16, 32, 64, 128, 150, 150]
        stage.venue.close_code = None
        await stage.until(lambda: stage.slot.is_complete, 200)
        await asyncio.sleep(61)
        stage.venue.open[0].end(1001)
        assert await stage.until(lambda: stage.slot.is_complete, 10) < 2.5


@staged
async def test_intent_survives_the_connection() -> None:
    """What is wanted when the next connection opens is asked for, whatever the last one had."""
    stage = Stage()
    async with stage.running(NAMES):
        await stage.until(lambda: stage.slot.is_complete)
        stage.venue.wires[0].end(None, "reset")
        await asyncio.sleep(0.2)
        stage.slot.want(NAMES[:3])
        await stage.until(lambda: stage.slot.is_complete)
        assert stage.heard() == [3]
        assert stage.venue.wires[1].commands[0]["params"]["market_tickers"] == NAMES[:3]


@staged
async def test_slots_of_a_process_spread_their_pauses_by_chance() -> None:
    """A hundred that lose their connections at once come back spread over the bound, by a generator handed in."""
    stage = Stage()
    chance = Random(5)
    wiring = replace(stage.wiring, jitter=lambda _: chance.random())
    slots = [Slot(f"trade/{number}", wiring) for number in range(100)]
    async with asyncio.TaskGroup() as group:
        for slot in slots:
            group.create_task(slot.run())
        await asyncio.sleep(100)
        for wire in stage.venue.open:
            wire.end(1001)
        at = stage.clock.monotonic()
        await asyncio.sleep(5)
        again = sorted(second - at for second in stage.venue.dialled_s[100:])
        assert len(again) == 100
        assert 1.0 <= again[0] < 1.1
        assert 1.9 < again[-1] <= 2.1
        assert all(b - a < 0.15 for a, b in itertools.pairwise(again))
        for slot in slots:
            slot.close("drained")
