"""One connection's way out of the exchange: which bytes, pings and closes go on its wire, and when. No I/O.

A client's frames go in through `receive`; `take` returns what the wire carries now. Whoever owns the wire (a socket, or a
world in virtual time) carries the actions out in order and asks again when there is something new or `next_due` has come.
"""

from dataclasses import dataclass
from typing import cast

from services.simulator.session import Session


@dataclass(frozen=True, slots=True)
class Ping:
    """A ping frame, as the exchange sends one every ten seconds."""

    payload: bytes = b"heartbeat"


@dataclass(frozen=True, slots=True)
class Close:
    """A close frame; nothing comes after it."""

    code: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Reset:
    """The connection breaks without a close frame (the client sees 1006)."""


Action = bytes | Ping | Close | Reset
"""What happens on the wire; bytes are the payload of one text frame."""


class Line:
    """The exchange's end of one connection.

    Args:
        session: what the exchange knows of the client. key_id, zone: who signed in, and the label of that key.
        opened_ms: when. ping_ms: time between two pings, milliseconds.
    """

    def __init__(
        self, session: Session, key_id: str, zone: str, opened_ms: int, ping_ms: int
    ) -> None:
        self.session = session
        self.key_id = key_id
        self.zone = zone
        self.overflows = 0
        self._ping_ms = ping_ms
        self._ping_at = opened_ms + ping_ms

    @property
    def number(self) -> int:
        """Number of the connection, from 1."""
        return self.session.number

    def receive(self, data: str | bytes, now_ms: int) -> None:
        """Take one text frame of the client."""
        self.session.receive(data, now_ms)

    def is_due(self, now_ms: int) -> bool:
        """Say whether `take` would return anything."""
        return bool(self.session.out) or now_ms >= self._ping_at

    def take(self, now_ms: int) -> list[Action]:
        """Return what goes on the wire now, in order; it is taken out for good."""
        out = cast("list[Action]", self.session.take_out())
        if now_ms >= self._ping_at:
            out.append(Ping())
            self._ping_at = now_ms + self._ping_ms
        return out

    def next_due(self) -> int | None:
        """Return when (milliseconds) `take` has something even if nothing new is said; None: never."""
        return self._ping_at

    def overflow(self, now_ms: int) -> None:
        """The client does not read: what could not be sent is thrown away with its subscriptions (error 25)."""
        self.overflows += 1
        self.session.overflow(now_ms)
