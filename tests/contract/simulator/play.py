"""The simulated exchange played in virtual time: the very objects the server runs, without a socket and without waiting."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from libs.marketdata.units import MILLISECOND, SECOND
from services.simulator.faults.menu import Fault
from services.simulator.journal import MemoryJournal
from services.simulator.line import Action, Line
from services.simulator.settings import SimulatorSettings
from services.simulator.simulation import Simulation

NOW = 1_795_000_000 * SECOND
TICK = 10 * MILLISECOND
LIVELY: dict[str, Any] = {
    "markets": 36, "rate": 800.0, "new_market_every_s": 1.0, "closing_share": 0.3, "close_after_s_min": 2.0,
    "close_after_s_max": 6.0, "pause_every_s": 1.0, "combo_share": 0.2, "news_every_s": 0.25,
}  # fmt: skip
"""A world in which everything happens within seconds."""


@dataclass
class Heard:
    """One connection, and everything that came out of it."""

    play: "Play"
    line: Line
    raw: list[bytes] = field(default_factory=list)
    others: list[tuple[int, Action]] = field(default_factory=list)
    """(time in milliseconds, ping or ending)"""

    @property
    def frames(self) -> list[dict[str, Any]]:
        return [json.loads(text) for text in self.raw]

    def of(self, *types: str) -> list[dict[str, Any]]:
        return [frame for frame in self.frames if frame["type"] in types]

    def numbers(self, sid: int) -> list[int]:
        """Return the numbers of every frame of a sid, in the order they came."""
        return [frame["seq"] for frame in self.frames if frame.get("sid") == sid]

    def send(self, **command: Any) -> list[dict[str, Any]]:
        """Send a command; returns what came at once."""
        self.line.receive(json.dumps(command), self.play.now // MILLISECOND)
        before = len(self.raw)
        self.take()
        return self.frames[before:]

    def subscribe(self, *channels: str, **params: Any) -> list[dict[str, Any]]:
        return self.send(id=1, cmd="subscribe", params={"channels": list(channels), **params})

    def update(self, action: str, sid: int = 1, **params: Any) -> list[dict[str, Any]]:
        params |= {"sid": sid, "action": action}
        return self.send(id=2, cmd="update_subscription", params=params)

    def take(self) -> None:
        now_ms = self.play.now // MILLISECOND
        for action in self.line.take(now_ms):
            if isinstance(action, bytes):
                self.raw.append(action)
            else:
                self.others.append((now_ms, action))


class Play:
    """An exchange at its epoch, with its clock in our hands. Settings as of LIVELY, but for the changes."""

    def __init__(self, **changes: Any) -> None:
        self.market, self.session = MemoryJournal(), MemoryJournal()
        settings = SimulatorSettings(**(LIVELY | changes))
        self.simulation = Simulation(settings, self.market, self.session, NOW)
        self.now = self.simulation.stage.epoch
        self.heard: list[Heard] = []

    @property
    def tickers(self) -> list[str]:
        return list(self.simulation.exchange.listings)

    def connect(self) -> Heard:
        heard = Heard(self, self.simulation.connect("key", None, self.now))
        self.heard.append(heard)
        return heard

    def inject(self, fault: Fault) -> None:
        self.simulation.inject(fault, self.now)
        self.take()

    def take(self) -> None:
        for heard in self.heard:
            heard.take()

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.until(lambda: False, seconds, is_wanted=False)

    def until(
        self, holds: Callable[[], bool], seconds: float = 30.0, is_wanted: bool = True
    ) -> None:
        """Let time pass until something holds."""
        end = self.now + int(seconds * SECOND)
        while not holds():
            if self.now >= end:
                assert not is_wanted, "it did not come to pass"
                return
            self.now += TICK
            while not self.simulation.advance(self.now):
                self.take()
            self.take()

    def journal(self, kind: str) -> list[dict[str, Any]]:
        """Return the market journal's lines of a kind."""
        lines = (json.loads(line) for line in self.market.lines)
        return [line for line in lines if line["kind"] == kind]
