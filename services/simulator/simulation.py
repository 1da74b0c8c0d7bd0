"""The whole exchange without I/O: what the live server serves on sockets, and what a world in virtual time plays with.

    simulation = Simulation(settings, market_journal, session_journal, now)
    simulation.advance(now)                    publish everything before now; False: ask again at once
    simulation.refuse_connect(key_id, now)     None, or the HTTP answer to an upgrade that is refused
    line = simulation.connect(key_id, remote, now)
    line.receive(text, now_ms); line.take(now_ms) -> actions; line.next_due() -> ms or None
    simulation.disconnect(line, now)           the client is gone
    end = simulation.end(now)                  publishing is over; wait until end + quiet, then
    simulation.finish(final, now)              the last changes at `final`, the journal's last records

Times are microseconds since 1970, those of a line milliseconds. Signatures are checked by whoever calls: a key id is
believed. The same settings and the same calls give the same journals, byte for byte.
"""

import itertools
from dataclasses import dataclass
from pathlib import Path

from libs.marketdata.units import MILLISECOND
from services.simulator.exchange import Exchange
from services.simulator.journal import Sink
from services.simulator.line import Line
from services.simulator.recording import read_recording
from services.simulator.replay import Replay
from services.simulator.rest_trouble import RestTrouble
from services.simulator.session import Session
from services.simulator.settings import SimulatorSettings
from services.simulator.stages import LiveStage, ReplayStage, Stage
from services.simulator.subscription import BOOKS, TICKERS, Subscription
from services.simulator.world import stable_id


@dataclass(frozen=True, slots=True)
class Refused:
    """An HTTP answer instead of a websocket."""

    status: int
    body: bytes
    content_type: str


class Simulation:
    """The exchange, who is connected to it, and what is published.

    Args:
        market, session: the two journals. now: microseconds since 1970.

    Raises:
        RecordingInvalid: the recording to be replayed cannot be read.
    """

    def __init__(self, settings: SimulatorSettings, market: Sink, session: Sink, now: int) -> None:
        self.settings = settings
        self.exchange = Exchange(settings.trades_kept)
        self.lines: dict[int, Line] = {}
        """Open connections by number."""
        self.end_ts: int | None = None
        self.final_ts: int | None = None
        self._session_journal = session
        self._zones = {key.key_id: key.zone for key in settings.keys}
        self.rest_trouble = RestTrouble(settings.seed, self._zones, session.record)
        self._numbers = itertools.count(1)
        self.stage: Stage = self._make_stage(market, now)

    def advance(self, now: int) -> bool:
        """Publish what has happened before now; False when another round is due at once."""
        return True if self.end_ts is not None else self.stage.tick(now)

    def refuse_connect(self, _key_id: str, _now: int) -> Refused | None:
        """Return the answer to an upgrade of this key that is not let in."""
        return None

    def connect(self, key_id: str, remote: str | None, now: int) -> Line:
        """Let a client in."""
        number = next(self._numbers)
        session = Session(
            number,
            self.stage.feed,
            self._session_journal.record,
            self.stage.sids,
            self.stage.stamps,
        )
        now_ms = now // MILLISECOND
        session.set_time(now_ms)
        connection_id = stable_id("connection", self.settings.seed, number)
        session.note("opened", id=connection_id, key_id=key_id, remote=remote)
        zone = self._zones.get(key_id, "")
        line = Line(session, key_id, zone, now_ms, int(self.settings.ping_s * 1000))
        self.lines[number] = line
        self.exchange.sessions[number] = session
        return line

    def disconnect(self, line: Line, now: int) -> None:
        """Forget a client that is gone; a second time does nothing."""
        if self.lines.pop(line.number, None) is None:
            return
        del self.exchange.sessions[line.number]
        line.session.close(now // MILLISECOND)
        line.session.note("closed", overflows=line.overflows)

    def end(self, now: int) -> int:
        """End publishing; returns the whole millisecond before which everything was published."""
        self.end_ts = self.stage.end(now)
        return self.end_ts

    def finish(self, final: int, now: int) -> dict[str, object]:
        """Make the last changes, let every sid say something once more, and write the journal's last records.

        Returns:
            The `end` record.
        """
        self.final_ts = final
        self.stage.finish(final, now)
        self._speak_everywhere(now)
        record: dict[str, object] = {
            "kind": "end",
            "at": now,
            "mode": self.stage.mode,
            "seed": self.settings.seed,
            "epoch": self.stage.epoch,
            "end_ts": self.end_ts,
            "final_ts": final,
            "published": dict(self.exchange.counts),
            "lag_us_max": self.stage.lag_max,
        }
        self._session_journal.record(record)
        for book in self.books():
            self._session_journal.record({"kind": "final_book", **book})
        return record

    def books(self) -> list[dict[str, object]]:
        """Return every market's book as it stands, integers in our units."""
        return [listing.book_record() for listing in self.exchange.listings.values()]

    def state(self, now: int) -> dict[str, object]:
        """Return what /control/state shows; times in microseconds since 1970."""
        return {
            "mode": self.stage.mode,
            "seed": self.settings.seed,
            "epoch": self.stage.epoch,
            "now": now,
            "model_time": (self.end_ts or now) - self.stage.epoch,
            "end_ts": self.end_ts,
            "final_ts": self.final_ts,
            "lag_us_max": self.stage.lag_max,
            "markets": len(self.exchange.listings),
            "published": dict(self.exchange.counts),
            "connections": [_describe(line) for line in self.lines.values()],
        }

    def _make_stage(self, market: Sink, now: int) -> Stage:
        settings = self.settings.replay
        if not settings.file:
            return LiveStage(self.settings, self.exchange, market, now)
        recording = read_recording(Path(settings.file), settings.use_yes_price)
        return ReplayStage(Replay(recording, settings, self.exchange, now), market, now)

    def _speak_everywhere(self, now: int) -> None:
        """Give every sid that the last changes did not reach a frame of its own, where it can have one."""
        for line in self.lines.values():
            session = line.session
            session.set_time(now // MILLISECOND)
            for subscription in session.subscriptions.values():
                if subscription not in session.written:
                    _speak(subscription)


def _speak(subscription: Subscription) -> None:
    ticker = next(iter(subscription.tickers or ()), None)
    if ticker is None:
        return
    if subscription.channel == BOOKS:
        subscription.session.send_snapshot(subscription, ticker)
    elif subscription.channel == TICKERS:
        subscription.session.feed.send_last_ticker(subscription, ticker)


def _describe(line: Line) -> dict[str, object]:
    return {
        "connection": line.number,
        "key_id": line.key_id,
        "zone": line.zone,
        "overflows": line.overflows,
        "subscriptions": [
            {
                "sid": subscription.sid,
                "channel": subscription.channel,
                "seq": subscription.seq,
                "markets": None if subscription.tickers is None else len(subscription.tickers),
            }
            for subscription in line.session.subscriptions.values()
        ],
    }
