"""The whole exchange without I/O: what the live server serves on sockets, and what a world in virtual time plays with.

    simulation = Simulation(settings, market_journal, session_journal, now)
    simulation.advance(now)                    publish everything before now; False: ask again at once
    simulation.start(now)                      only where settings.held: list the markets, publish from now on
    simulation.refuse_connect(key_id, now)     None, or the HTTP Answer to an upgrade that is refused
    line = simulation.connect(key_id, remote, now)
    line.receive(text, now_ms); line.take(now_ms) -> actions; line.next_due() -> ms or None
    simulation.disconnect(line, now)           the client is gone (also after a Close or Reset; once more is no harm)
    simulation.inject(fault, now)              one fault at once; `faults=` takes a script, as settings.faults_file does
    end = simulation.end(now)                  publishing and faults are over; wait until end + quiet, then
    simulation.finish(final, now)              the last changes at `final`, the journal's last records

Times are microseconds since 1970, those of a line milliseconds. Signatures are checked by whoever calls: a key id is
believed. The same settings and the same calls give the same journals, byte for byte.
"""

import hashlib
import heapq
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path

from libs.marketdata.units import MILLISECOND
from services.simulator.answers import Answer
from services.simulator.chance import Chance
from services.simulator.exchange import Exchange
from services.simulator.faults.active import Active
from services.simulator.faults.chance_script import DEFAULT_KINDS, random_faults
from services.simulator.faults.connections import TOO_MANY_CONNECTIONS, refusal
from services.simulator.faults.injector import (
    MARKET_KINDS,
    Injector,
    StepClock,
    impossible,
    time_of,
)
from services.simulator.faults.menu import Fault
from services.simulator.faults.script import ScriptInvalid, read_script
from services.simulator.held import HeldStage
from services.simulator.journal import Sink
from services.simulator.limits import Limits
from services.simulator.line import Close, Line, Reset
from services.simulator.recording import read_recording
from services.simulator.replay import Replay
from services.simulator.rest_trouble import RestTrouble
from services.simulator.session import Session
from services.simulator.settings import SimulatorSettings
from services.simulator.stages import LiveStage, ReplayStage, Stage
from services.simulator.subscription import BOOKS, TICKERS, Subscription
from services.simulator.world import stable_id


class Simulation:
    """The exchange, who is connected to it, what is published, and what goes wrong on purpose.

    Args:
        market, session: the two journals. now: microseconds since 1970.
        faults: happen at their `at_s`, besides those of settings.faults_file and settings.faults_random.
        step_clock: moves the clock of clients by milliseconds; None: a clock_step of `ours` is refused.

    Raises:
        RecordingInvalid, ScriptInvalid: what is to be replayed or to go wrong cannot be.
    """

    def __init__(
        self,
        settings: SimulatorSettings,
        market: Sink,
        session: Sink,
        now: int,
        *,
        faults: Iterable[Fault] = (),
        step_clock: StepClock | None = None,
    ) -> None:
        self.settings = settings
        self.exchange = Exchange(settings.trades_kept)
        self.lines: dict[int, Line] = {}
        """Open connections by number."""
        self.end_ts: int | None = None
        self.final_ts: int | None = None
        self._market_journal = market
        self._session_journal = session
        self._limits = Limits.of(settings)
        self.zones = {key.key_id: key.zone for key in settings.keys}
        """Zone of each key id, "" where it has none."""
        self.rest_trouble = RestTrouble(settings.seed, self.zones, session.record)
        self._numbers = itertools.count(1)
        self.stage: Stage = HeldStage(self.exchange, now)
        script = self._script(faults, step_clock)
        self.faults = Injector(self, script, session, step_clock)
        if not settings.held:
            self._begin(now)

    def start(self, now: int) -> bool:
        """List the markets and publish from the next whole second on; False when that was done before."""
        if not isinstance(self.stage, HeldStage) or self.end_ts is not None:
            return False
        self._begin(now)
        return True

    def advance(self, now: int) -> bool:
        """Begin and end faults, publish what has happened before now; False when another round is due at once."""
        self.faults.advance(now)
        return True if self.end_ts is not None else self.stage.tick(now)

    def inject(self, fault: Fault, now: int) -> Active:
        """Let a fault begin now.

        Raises:
            FaultInvalid: this exchange cannot carry it out.
        """
        return self.faults.inject(fault, now)

    def refuse_connect(self, key_id: str, now: int) -> Answer | None:
        """Return the answer to an upgrade of this key that is not let in."""
        active = self.faults.refusing(key_id, self.zones.get(key_id, ""))
        if active is not None:
            answer = refusal(active)
            active.hits += 1
            self.faults.record(active, "hit", now, key_id=key_id, status=answer.status)
            return answer
        count = sum(line.key_id == key_id for line in self.lines.values())
        if count < self.settings.connections_max:
            return None
        answer = TOO_MANY_CONNECTIONS
        told = {"key_id": key_id, "status": answer.status, "connections": count}
        self._session_journal.record({"kind": "refused", "at": now, **told})
        return answer

    def connect(self, key_id: str, remote: str | None, now: int) -> Line:
        """Let a client in."""
        number, stage, settings = next(self._numbers), self.stage, self.settings
        record = self._session_journal.record
        session = Session(number, stage.feed, record, stage.sids, stage.stamps, self._limits)
        now_ms = now // MILLISECOND
        session.set_time(now_ms)
        connection_id = stable_id("connection", settings.seed, number)
        session.note("opened", id=connection_id, key_id=key_id, remote=remote)
        zone = self.zones.get(key_id, "")
        chance = _chance_of(settings.seed, number)
        ping_ms = int(settings.ping_s * 1000)
        line = Line(session, key_id, zone, now_ms, ping_ms, chance, settings.outbound_bytes_max)
        self.lines[number] = line
        self.exchange.sessions[number] = session
        self.faults.join(line)
        return line

    def close(self, line: Line, ending: Close | Reset, now: int) -> None:
        """End a connection from our side; the ending comes out of its next `take`."""
        line.finish(ending)
        self.disconnect(line, now)

    def disconnect(self, line: Line, now: int) -> None:
        """Forget a client that is gone; a second time does nothing."""
        if self.lines.pop(line.number, None) is None:
            return
        del self.exchange.sessions[line.number]
        line.session.close(now // MILLISECOND)
        line.session.note("closed", overflows=line.overflows)

    def end(self, now: int) -> int:
        """End faults and publishing; returns the whole millisecond before which everything was published."""
        self.faults.close(now)
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
        """Return the books as they stand, integers in our units; of an exchange too large, those that changed."""
        return list(self.exchange.books())

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
            "faults": len(self.faults.active),
            "connections": [_describe(line) for line in self.lines.values()],
        }

    def _begin(self, now: int) -> None:
        """Set the stage: its epoch is what the times of the script count from."""
        self.stage = self._make_stage(now)
        self.faults.arm(self.stage.epoch)

    def _make_stage(self, now: int) -> Stage:
        settings = self.settings.replay
        if not settings.file:
            return LiveStage(self.settings, self.exchange, self._market_journal, now)
        recording = read_recording(Path(settings.file), settings.use_yes_price)
        replay = Replay(recording, settings, self.exchange, now)
        return ReplayStage(replay, self._market_journal, now)

    def _script(self, given: Iterable[Fault], step_clock: StepClock | None) -> Iterator[Fault]:
        """Return every fault that happens by itself, in the order of their times.

        Raises:
            ScriptInvalid: this exchange cannot carry one out, or the file cannot be read.
        """
        settings = self.settings
        written = [
            *given,
            *(read_script(Path(settings.faults_file)) if settings.faults_file else ()),
        ]
        written.sort(key=time_of)
        has_market = not settings.replay.file
        wrong = [impossible(fault, has_market, step_clock, self.zones) for fault in written]
        if any(wrong):
            raise ScriptInvalid([f"simulator.faults_file: {line}" for line in wrong if line])
        if not settings.faults_random:
            return iter(written)
        zones = sorted(set(self.zones.values()) - {""})
        kinds = [
            kind for kind in DEFAULT_KINDS if not (settings.replay.file and kind in MARKET_KINDS)
        ]
        drawn = random_faults(settings.faults_random, zones, kinds, settings.faults_every_s)
        return heapq.merge(written, drawn, key=time_of)

    def _speak_everywhere(self, now: int) -> None:
        """Give every sid that the last changes did not reach a frame of its own, where it can have one."""
        for line in self.lines.values():
            session = line.session
            session.set_time(now // MILLISECOND)
            for subscription in session.subscriptions.values():
                if subscription not in session.written:
                    _speak(subscription)


def _chance_of(seed: int, connection: int) -> Chance:
    """Return the chance of a connection's faults: its own stream, whatever happens to the others."""
    digest = hashlib.blake2b(f"connection {seed} {connection}".encode(), digest_size=8).digest()
    return Chance(int.from_bytes(digest, "big"))


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
        "is_dead": line.is_dead,
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
