"""What all slots of a process share: the exchange's address, clock and chance, the way to the database, and budgets."""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from uuid import UUID, uuid4

from libs.exchange.signing import Signer
from libs.exchange.transport import Connection, TransportSettings, open_connection
from libs.marketdata.tables import Family
from libs.runtime.clock import Clock
from libs.telemetry.metrics import Metrics
from services.connector.judge import SessionSettings
from services.connector.lateness import Turns
from services.connector.outlets import Outlets
from services.connector.pipeline import Pipeline

LATE_APART_S = 5.0
"""Seconds between two connections given up for being late: long enough for the first to be heard again."""
EXTRA_CONNECTIONS_MAX = 4
"""Connections a process may open beyond one per slot; what it is unless the configuration says otherwise."""

DIALS_MAX = 16
"""Dials of a process under way at once. A zone dials all of its connections together at its start and after a storm; on a
busy machine all of them would run out of their time together, again and again, while the first few would be through."""

Dial = Callable[
    [str, Signer | None, Clock, TransportSettings], AbstractAsyncContextManager[Connection]
]
"""Opens a websocket; a simulation in virtual time gives its own."""

_chance = random.random


def _any_jitter(_: str) -> float:
    return _chance()


class Budget:
    """A number of things that may be had at once, over all slots of a process."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0

    def take(self) -> bool:
        """Take one; False when none is left."""
        is_left = self.used < self.limit
        self.used += is_left
        return is_left

    def give_back(self, count: int) -> None:
        """Give some back."""
        self.used -= count


@dataclass(slots=True)
class Wiring:
    """What all slots of a process share. Durations in seconds."""

    url: str
    signer: Callable[[], Signer | None]
    clock: Clock
    metrics: Metrics
    outlets: Outlets
    pipelines: Mapping[Family, Pipeline]
    session: SessionSettings
    transport: TransportSettings
    backoff_s_min: float
    backoff_s_max: float
    silence_s_max: float
    limited_s_max: float | None = None
    """Longest pause after a refusal for too much, or books in another orientation; None: backoff_s_max, as after others."""
    stable_s: float = 60.0
    """How long a connection must have lasted for the next failure to be the first again."""
    late_s_max: float = 10.0
    """How much later than at its best a connection's frames may come."""
    late_for_s: float = 5.0
    """For how long they must be late for the connection to be given up."""
    dial: Dial = open_connection
    jitter: Callable[[str], float] = _any_jitter
    """Jitter of the pauses, in [0, 1), told whose; a simulation that is to repeat itself gives its own, as of names."""
    new_id: Callable[[], UUID] = uuid4
    """The random part of a connection's name."""
    dials: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(DIALS_MAX))
    """Dials under way at once, over all slots of the process."""
    extra: Budget = field(default_factory=lambda: Budget(EXTRA_CONNECTIONS_MAX))
    """Connections beyond one per slot, for slots that had to be split."""
    turns: Turns = field(default_factory=lambda: Turns(LATE_APART_S))
    """Who may give a late connection up."""
    was_connected: bool = False
    """A connection was open once: a refused key now is the exchange's trouble, not the configuration's."""
    noted: Counter[str] = field(default_factory=Counter)

    def moment(self) -> int:
        """The clock that is never set, in microseconds."""
        return int(self.clock.monotonic() * 1_000_000)
