"""An exchange in virtual time for slots: it takes commands, sends books, and behaves as badly as a test asks for.

Everything is answered at once unless `delay_s` says otherwise; nothing happens by itself but pings every ten seconds.
"""

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from libs.exchange.errors import ConnectionEnded, TransportError
from libs.exchange.frames import Frame
from libs.runtime.clock import Clock

PING_S = 10.0
EPOCH = 1_795_000_000_000_000
"""Wall time at the loop's beginning, microseconds."""


class SettableClock:
    """A wall clock that can be set, beside the loop's time, which cannot."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.skew = 0

    def now(self) -> int:
        return EPOCH + self.skew + round(self._loop.time() * 1_000_000)

    def monotonic(self) -> float:
        return self._loop.time()


class Wire:
    """The client's end of one websocket and what the exchange knows of it."""

    def __init__(self, venue: "Venue", clock: Clock) -> None:
        self.venue = venue
        self.clock = clock
        self.markets: set[str] = set()
        self.sids: dict[int, str] = {}
        self.seqs: dict[int, int] = {}
        self.commands: list[dict[str, Any]] = []
        self.closed = False
        self.pings = True
        self.buffered = 0
        self.ended: TransportError | None = None
        self.last_heard = clock.monotonic()
        self._frames: deque[Frame] = deque()
        self._arrived = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._loop.call_later(PING_S, self._ping)

    # --- the client's side ---

    async def receive_many(self, count_max: int) -> list[Frame]:
        while not self._frames:
            if self.ended is not None:
                raise self.ended
            self._arrived.clear()
            await self._arrived.wait()
        self.last_heard = self.clock.monotonic()
        return [self._frames.popleft() for _ in range(min(count_max, len(self._frames)))]

    async def send(self, data: bytes) -> None:
        if self.ended is not None:
            raise self.ended
        if self.venue.reads_nothing:
            await asyncio.Event().wait()
        command = json.loads(data)
        self.commands.append(command)
        self._loop.call_soon(self._obey, command)

    async def ping(self) -> None: ...

    async def close(self) -> None:
        self.closed = True
        self.end(None, "closed by us")

    # --- the exchange's side ---

    def end(self, code: int | None, reason: str = "") -> None:
        """Close it."""
        if self.ended is None:
            self.ended = ConnectionEnded(code, reason)
        self._arrived.set()

    def data(self, kind: str, sid: int | None, msg: object = None, **more: Any) -> None:
        """Send a frame that takes a number of its sid (tickers, and answers without a sid, take none)."""
        sent = EPOCH // 1000 + round((self._loop.time() - self.venue.age_s) * 1000)
        body: dict[str, Any] = {"type": kind, "sending_ts_ms": sent, "msg": msg} | more
        if sid is not None:
            body["sid"] = sid
            if kind != "ticker":
                self.seqs[sid] += 1
                body["seq"] = self.seqs[sid]
        self.raw(json.dumps({k: v for k, v in body.items() if v is not None}).encode())

    def raw(self, data: bytes) -> None:
        """Send bytes; a line that is closed sends nothing."""
        if self.ended is None:
            self._frames.append(Frame(data, self.clock.now()))
            self._arrived.set()

    def delta(self, ticker: str, sid: int = 1) -> None:
        """Send a change of a market's book."""
        msg = {
            "market_ticker": ticker, "price_dollars": "0.4000", "delta_fp": "1.00", "side": "yes",
            "ts_ms": EPOCH // 1000 + round((self._loop.time() - self.venue.age_s) * 1000),
        }  # fmt: skip
        self.data("orderbook_delta", sid, msg)

    def _ping(self) -> None:
        if self.ended is None and self.pings:
            self.last_heard = self.clock.monotonic()
            self._loop.call_later(PING_S, self._ping)

    def _obey(self, command: dict[str, Any]) -> None:
        if self.ended is not None or self.venue.refuse(self, command):
            return
        params, command_id = command["params"], command["id"]
        action = params.get("action", command["cmd"])
        if action == "subscribe":
            for channel in params["channels"]:
                sid = len(self.sids) + 1
                self.sids[sid], self.seqs[sid] = channel, 0
                self.data("subscribed", None, {"channel": channel, "sid": sid}, id=command_id)
        elif action == "unsubscribe":
            for sid in params["sids"]:
                self.data("unsubscribed", sid, id=command_id)
        elif action != "get_snapshot":
            self.data("ok", params["sids"][0], id=command_id)
        self._send_books(action, params)

    def _send_books(self, action: str, params: dict[str, Any]) -> None:
        """Send the books a command asks for; on a sid without books a refusal stands in."""
        tickers = params.get("market_tickers", [])
        if action == "delete_markets":
            self.markets -= set(tickers)
            return
        if action in ("subscribe", "add_markets"):
            self.markets |= set(tickers)
        elif action == "get_snapshot" and self.sids[params["sids"][0]] != "orderbook_delta":
            self.data("error", params["sids"][0], {"code": 13, "msg": "no"})
            return
        for ticker in tickers:
            if ticker in self.markets:
                self.data("orderbook_snapshot", 1, {"market_ticker": ticker})


class Venue:
    """Every connection there was, and how the exchange behaves now.

    Attributes:
        markets_max: markets of one connection; more are error 26. book_max: markets of one connection above which the first
            frame is too large: close 1009. age_s: how old frames are when they come. refused: code -> how many times the
            next commands are refused by it. reads_nothing: sends never end. close_code: of a dial's first command.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.wires: list[Wire] = []
        self.dialled_s: list[float] = []
        self.markets_max = 10**9
        self.book_max = 10**9
        self.age_s = 0.05
        self.refused: dict[int, int] = {}
        self.reads_nothing = False
        self.close_code: int | None = None
        self.on_dial: Callable[[Wire], None] = lambda wire: None

    @asynccontextmanager
    async def dial(self, *_: Any) -> AsyncIterator[Wire]:
        wire = Wire(self, self.clock)
        self.wires.append(wire)
        self.dialled_s.append(self.clock.monotonic())
        self.on_dial(wire)
        try:
            yield wire
        finally:
            await wire.close()

    @property
    def open(self) -> list[Wire]:
        return [wire for wire in self.wires if wire.ended is None]

    def refuse(self, wire: Wire, command: dict[str, Any]) -> bool:
        """Refuse a command, or end its connection, as this exchange does; False: it is obeyed."""
        params = command["params"]
        asked = set(params.get("market_tickers", ()))
        adds = params.get("action", command["cmd"]) in ("subscribe", "add_markets")
        if self.close_code is not None:
            wire.end(self.close_code, "as asked")
            return True
        for code, times in self.refused.items():
            if times:
                self.refused[code] -= 1
                wire.data("error", None, {"code": code, "msg": "later"}, id=command["id"])
                return True
        if adds and len(wire.markets | asked) > self.book_max:
            wire.end(1009, "message too big")
            return True
        if adds and len(wire.markets | asked) > self.markets_max:
            sid = 1 if 1 in wire.sids else None
            wire.data("error", sid, {"code": 26, "msg": "market limit"}, id=command["id"])
            return True
        return False
