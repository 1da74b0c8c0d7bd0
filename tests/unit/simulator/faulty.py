"""An exchange in virtual time with two zones, for tests of what is made to go wrong there."""

import json
from typing import Any

from services.simulator.faults.entries import read_entry
from services.simulator.settings import KeySettings
from tests.contract.simulator.play import Heard, Play

ZONES = {"key-a": "a", "key-b": "b"}


class Faulty(Play):
    """Play with a key for each zone, and the session journal at hand."""

    def __init__(self, **changes: Any) -> None:
        keys = tuple(KeySettings(key, "", zone) for key, zone in ZONES.items())
        super().__init__(**({"keys": keys, "markets": 12} | changes))

    def connect_as(self, key: str) -> Heard:
        heard = Heard(self, self.simulation.connect(key, None, self.now))
        self.heard.append(heard)
        return heard

    def books(self, key: str = "key-a") -> Heard:
        """Connect and subscribe to every book."""
        heard = self.connect_as(key)
        heard.subscribe("orderbook_delta", market_tickers=self.tickers)
        return heard

    def fault(self, **entry: Any) -> None:
        """Inject one, written as a script writes it."""
        self.inject(read_entry(entry))

    def told(self, phase: str, kind: str = "fault") -> list[dict[str, Any]]:
        """Return lines of the session journal: of a phase of faults, or of another kind."""
        lines = [json.loads(line) for line in self.session.lines if f'"kind":"{kind}"' in line]
        return [line for line in lines if kind != "fault" or line["phase"] == phase]


def has_gap(numbers: list[int]) -> bool:
    return numbers != list(range(numbers[0], numbers[0] + len(numbers)))
