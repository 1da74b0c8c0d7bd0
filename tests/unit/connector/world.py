"""A world in virtual time for the session's own code: an exchange that knows the truth, gatherers that lose things.

Nothing here counts occurrences for a session: the truth is only compared with what the sessions stored and claimed.
"""

import json
from collections import Counter
from dataclasses import dataclass, field
from random import Random
from typing import Any
from uuid import UUID

from libs.flow.batch import Limits
from libs.marketdata.binary import codec
from libs.marketdata.listening import Claim, claims
from libs.marketdata.tables import Family
from libs.store.batches import SealedBatch
from services.connector.buffer import Buffer
from services.connector.errors import NumbersReused, Silent, Unanswered
from services.connector.judge import SessionSettings
from services.connector.outlets import Outlets
from services.connector.session import Session

MS = 1_000
EPOCH = 1_700_000_000_000
"""Milliseconds; the worlds begin here."""
STEP = 50
LIMITS = dict.fromkeys(Family, Limits(10_000, 1 << 30, 50_000))


@dataclass(frozen=True)
class Delta:
    """A published change; ts in milliseconds."""

    ts: int
    ticker: str
    side: bool
    price: int
    size: int


def publish(rng: Random, tickers: list[str], duration: int, rate: float) -> list[Delta]:
    """Draw the truth: bursts of one millisecond, many identical changes, times that never go back."""
    published = []
    for now in range(0, duration, STEP):
        for ticker in tickers:
            if rng.random() < rate:
                ts = now + rng.randrange(STEP)
                for _ in range(rng.choice([1, 1, 2, 3, 5])):
                    published.append(
                        Delta(EPOCH + ts, ticker, rng.random() < 0.7, 100 * rng.randint(1, 2), 100)
                    )
    return sorted(published, key=lambda d: d.ts)


class FakeConnection:
    """The exchange's end of one websocket, with one order-book subscription."""

    def __init__(self, truth: list[Delta], lag: int, rng: Random) -> None:
        self.truth, self.lag, self.rng = truth, lag, rng
        self.cursor = 0
        self.seq = 0
        self.markets: set[str] = set()
        self.books: dict[str, Counter[tuple[bool, int]]] = {}
        self.commands: list[dict[str, Any]] = []
        self.subscribed = False

    def run(self, now: int) -> list[bytes]:
        """Send everything published by now - lag, with commands taken somewhere in between."""
        frames: list[bytes] = []
        due = []
        while self.cursor < len(self.truth) and self.truth[self.cursor].ts + self.lag <= now:
            due.append(self.truth[self.cursor])
            self.cursor += 1
        at = self.rng.randint(0, len(due))
        for number, delta in enumerate([*due, None]):
            if number == at:
                while self.commands:
                    frames += self.obey(self.commands.pop(0), now)
            if delta is None:
                break
            book = self.books.setdefault(delta.ticker, Counter())
            book[delta.side, delta.price] += delta.size
            if delta.ticker in self.markets:
                frames.append(self.delta(delta, now))
        return frames

    def envelope(self, kind: str, msg: object, now: int, **more: object) -> bytes:
        self.seq += 1
        body = {"type": kind, "sid": 1, "seq": self.seq, "sending_ts_ms": now, "msg": msg, **more}
        return json.dumps(body).encode()

    def delta(self, delta: Delta, now: int) -> bytes:
        msg = {
            "market_ticker": delta.ticker,
            "price_dollars": f"{delta.price / 100_000:.4f}",
            "delta_fp": f"{delta.size / 100:.2f}",
            "side": "yes" if delta.side else "no",
            "ts_ms": delta.ts,
        }
        return self.envelope("orderbook_delta", msg, now)

    def snapshot(self, ticker: str, now: int) -> bytes:
        msg: dict[str, object] = {"market_ticker": ticker}
        for side, name in ((True, "yes_dollars_fp"), (False, "no_dollars_fp")):
            levels = [
                [f"{price / 100_000:.4f}", f"{size / 100:.2f}"]
                for (s, price), size in sorted(self.books.get(ticker, Counter()).items())
                if s is side and size
            ]
            if levels:
                msg[name] = levels
        return self.envelope("orderbook_snapshot", msg, now)

    def obey(self, command: dict[str, Any], now: int) -> list[bytes]:
        params = command["params"]
        tickers = params.get("market_tickers", [])
        if command["cmd"] == "subscribe":
            self.subscribed = True
            self.markets |= set(tickers)
            msg = {"channel": "orderbook_delta", "sid": 1}
            answer = {"type": "subscribed", "id": command["id"], "sending_ts_ms": now, "msg": msg}
            return [json.dumps(answer).encode(), *(self.snapshot(t, now) for t in tickers)]
        if command["cmd"] == "unsubscribe":
            return [self.envelope("unsubscribed", None, now, id=command["id"])]
        if params["action"] == "get_snapshot":
            return [self.snapshot(t, now) for t in tickers if t in self.markets]
        ok = self.envelope("ok", {}, now, id=command["id"])
        if params["action"] == "add_markets":
            new = [t for t in tickers if t not in self.markets]
            self.markets |= set(tickers)
            return [ok, *(self.snapshot(t, now) for t in new)]
        self.markets -= set(tickers)
        return [ok]


@dataclass
class Stored:
    """What a database holds: committed batches in order."""

    batches: list[SealedBatch] = field(default_factory=list)

    def rows(self, table: str) -> list[Any]:
        found = []
        for batch in self.batches:
            for sealed in batch.tables:
                if sealed.name == table:
                    found += [codec(table).decode(payload)[0] for payload in sealed.payloads]
        return found


class Gatherer:
    """One connector process with one order-book slot and its database."""

    def __init__(self, world: "World", number: int, buffer_rows: int) -> None:
        self.world, self.rng, self.number = world, world.rng, number
        self.outlets = Outlets(LIMITS, 1 << 30)
        self.buffers = {f: Buffer(f, buffer_rows) for f in Family}
        self.stored = {family: Stored() for family in Family}
        self.session: Session | None = None
        self.connection: FakeConnection | None = None
        self.wanted = set(world.tickers)
        self.dial_at = world.rng.choice([0, 0, world.rng.randint(0, 3000)])
        self.connections = 0
        self.away = False
        self.set_by = 0

    def now(self) -> int:
        """Our wall clock: skewed against the exchange's, and set now and then by the fault `clock`, microseconds."""
        return (self.world.now + 137) * MS + self.set_by

    def moment(self) -> int:
        """Our clock that is never set."""
        return (self.world.now - EPOCH) * MS

    def dial(self) -> None:
        self.connections += 1
        lag = self.rng.choice([0, 20, 150, 390])
        self.connection = FakeConnection(self.world.truth, lag, self.rng)
        ident = UUID(int=self.number * 1000 + self.connections)
        settings = SessionSettings(
            probe=2_000_000, answer=5_000_000, chunk=self.rng.choice([1, 2, 100])
        )
        self.session = Session(
            "orderbook/0", ident, self.outlets, settings, self.now(), self.moment()
        )
        self.session.want(self.wanted)

    def hang_up(self, reason: str = "disconnected") -> None:
        if "signed" in self.world.faults:
            # The exchange lets nobody in whose clock is off.
            self.set_by = 0
        if self.session is not None:
            self.session.close(reason, self.now())
        self.session = self.connection = None
        self.dial_at = self.world.now + self.rng.randint(50, 2000)

    def step(self) -> None:
        session, faults, rng = self.session, self.world.faults, self.rng
        if session is None or self.connection is None:
            if self.world.now >= self.dial_at:
                self.dial()
            return
        if "clock" in faults and rng.random() < 0.02:
            self.set_by += rng.choice([-1, 1]) * rng.choice([20, 3_000, 4_000_000, 10**9]) * MS
        if "markets" in faults and rng.random() < 0.02:
            self.wanted ^= {rng.choice(self.world.tickers)}
            session.want(self.wanted)
        try:
            self.exchange_frames(session)
        except (NumbersReused, Silent, Unanswered):
            self.hang_up()

    def exchange_frames(self, session: Session) -> None:
        """One turn of a connection; what ends it from our side goes to the caller."""
        faults, rng = self.world.faults, self.rng
        assert self.connection is not None
        session.pass_time(self.moment())
        session.tick(self.now())
        self.connection.commands += [json.loads(c) for c in session.take_commands()]
        frames = self.connection.run(self.world.now)
        frames = self.spoil(frames) if self.world.is_active else frames
        cut = "cut" in faults and self.world.is_active and rng.random() < 0.008
        for frame in frames[: rng.randint(0, len(frames))] if cut else frames:
            session.receive(frame, self.now())
            if "tiny" in faults and rng.random() < 0.3:
                self.cut_batches()
        if cut:
            self.hang_up()

    def spoil(self, frames: list[bytes]) -> list[bytes]:
        faults, rng = self.world.faults, self.rng
        kept = (b'"subscribed"', b'"type": "ok"' if "answered" in faults else b'"subscribed"')
        if any(word in frame for frame in frames for word in kept):
            return frames
        if frames and "loss" in faults and rng.random() < 0.03:
            first = rng.randrange(len(frames))
            del frames[first : rng.randint(first + 1, len(frames))]
        if frames and "mangle" in faults and rng.random() < 0.05:
            at = rng.randrange(len(frames))
            frame = frames[at]
            frames[at] = rng.choice([
                frame[: len(frame) // 2],
                frame.replace(b'"price_dollars": "0.', b'"price_dollars": "9.'),
                frame.replace(b'"type": "orderbook', b'"type": "border'),
                frame.replace(b'"market_ticker"', b'"market_tinker"'),
            ])  # fmt: skip
        if "unsent" in faults:
            frames = [
                frame.replace(b'"sending_ts_ms"', b'"sent_ms"') if rng.random() < 0.3 else frame
                for frame in frames
            ]
        if frames and "double" in faults and rng.random() < 0.05:
            frames.insert(rng.randint(0, len(frames)), rng.choice(frames))
        return frames

    def cut_batches(self) -> None:
        for family, batcher in self.outlets.batchers.items():
            batch = batcher.cut(self.now())
            if batch is not None:
                for gap in self.buffers[family].put(batch, self.now()):
                    self.outlets.gap(gap, self.now())

    def write(self, force: bool = False) -> None:
        faults, rng = self.world.faults, self.rng
        if force or rng.random() < 0.5:
            self.cut_batches()
        if "away" in faults and self.world.is_active and rng.random() < 0.05:
            self.away = not self.away
        if self.away and not force:
            return
        for family, buffer in self.buffers.items():
            while (pending := buffer.peek()) is not None and (force or rng.random() < 0.8):
                self.stored[family].batches.append(pending.sealed)
                buffer.commit()
        if "restore" in faults and self.world.is_active and rng.random() < 0.01:
            self.go_back()

    def go_back(self) -> None:
        """The database is restored to an earlier state; the lanes are left."""
        for stored in self.stored.values():
            keep = len(stored.batches) - self.rng.randint(1, 20)
            del stored.batches[max(0, keep) :]
        self.cut_batches()
        for family, buffer in self.buffers.items():
            buffer.leave(self.outlets.batchers[family].sources, self.now())


class World:
    """Runs gatherers over one truth for `duration` milliseconds and 12 quiet seconds.

    A last fault may take the answer to a get_snapshot: it is asked for again after the answer time-out (5 s).
    """

    def __init__(
        self, seed: int, faults: str, gatherers: int = 2, buffer_rows: int = 100_000
    ) -> None:
        self.rng = Random(seed)
        self.faults = set(faults.split())
        self.tickers = ["A", "B", "C"][: self.rng.randint(1, 3)]
        self.duration = 12_000
        self.truth = publish(self.rng, self.tickers, self.duration, self.rng.choice([0.05, 0.3]))
        self.now = EPOCH
        self.gatherers = [Gatherer(self, n + 1, buffer_rows) for n in range(gatherers)]

    @property
    def is_active(self) -> bool:
        return self.now < EPOCH + self.duration

    def run(self) -> "World":
        while self.now < EPOCH + self.duration + 12_000:
            for gatherer in self.gatherers:
                gatherer.step()
                gatherer.write()
            self.now += STEP
        for gatherer in self.gatherers:
            gatherer.hang_up("drained")
            gatherer.cut_batches()
            gatherer.write(force=True)
            gatherer.write(force=True)
        return self

    def rows(self, family: Family, table: str) -> list[Any]:
        return [row for g in self.gatherers for row in g.stored[family].rows(table)]

    def claims(self) -> list[Claim]:
        return claims(
            self.rows(Family.DELTAS, "listen_ranges"),
            self.rows(Family.DELTAS, "listen_opened"),
            self.rows(Family.DELTAS, "listen_closed"),
        )

    def facts(self) -> set[tuple[Any, ...]]:
        """The truth, numbered."""
        seen: Counter[Delta] = Counter()
        found = set()
        for delta in self.truth:
            seen[delta] += 1
            found.add(
                (delta.ticker, delta.ts * MS, delta.price, delta.side, delta.size, seen[delta])
            )
        return found

    def stored(self) -> set[tuple[Any, ...]]:
        """The union of what was stored, by the identity of a delta."""
        return {
            (r.ticker, r.exchange_ts, r.price, r.side, r.size_delta, r.occurrence)
            for r in self.rows(Family.DELTAS, "orderbook_deltas")
        }
