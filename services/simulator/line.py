"""One connection's way out of the exchange: which bytes, pings and closes go on its wire, and when. No I/O.

A client's frames go in through `receive`; `take` returns what the wire carries now. Whoever owns the wire (a socket, or a
world in virtual time) carries the actions out in order and asks again when there is something new or `next_due` has come.
Faults act here: without one, frames go from the session to the wire untouched.
"""

from dataclasses import dataclass
from typing import cast

from services.simulator.chance import Chance
from services.simulator.faults.active import Active
from services.simulator.faults.trouble import Trouble
from services.simulator.session import Session

_NEVER = 1 << 62


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
        opened_ms: when. ping_ms: time between two pings, milliseconds. chance: the line's own, for its faults.
        bytes_max: what faults may hold back.
    """

    def __init__(
        self,
        session: Session,
        key_id: str,
        zone: str,
        opened_ms: int,
        ping_ms: int,
        chance: Chance,
        bytes_max: int,
    ) -> None:
        self.session = session
        self.key_id = key_id
        self.zone = zone
        self.overflows = 0
        self.is_dead = False
        """Half open: nothing comes out, nothing is heard, not even that the client closes."""
        self.is_over = False
        """A close or a reset has been taken out; nothing comes after it."""
        self._ping_ms = ping_ms
        self._ping_at = opened_ms + ping_ms
        self._due = self._ping_at
        self._ending: Close | Reset | None = None
        self._is_plain = True
        self._trouble = Trouble(session.number, chance, opened_ms, bytes_max, self._note_hit)

    @property
    def number(self) -> int:
        """Number of the connection, from 1."""
        return self.session.number

    def receive(self, data: str | bytes, now_ms: int) -> None:
        """Take one text frame of the client; nobody hears it on a line that is dead or closed."""
        if not self.is_dead and not self.is_over and self._ending is None:
            self.session.receive(data, now_ms)

    def answers(self, now_ms: int) -> bool:
        """Say whether a ping of the client is answered now."""
        return not self.is_dead and not self.is_over and not self._trouble.silences(now_ms)

    def is_due(self, now_ms: int) -> bool:
        """Say whether `take` could return anything."""
        return bool(self.session.out) or now_ms >= self._due

    def take(self, now_ms: int) -> list[Action]:
        """Return what goes on the wire now, in order; it is taken out for good."""
        if not self._is_plain:
            return self._take_in_trouble(now_ms)
        out = cast("list[Action]", self.session.take_out())
        if now_ms >= self._due:
            out.append(self._ping(now_ms))
            self._due = self._ping_at
        return out

    def next_due(self) -> int | None:
        """Return when (milliseconds) `take` has something even if nothing new is said; None: never."""
        return self._due if self._due < _NEVER else None

    def overflow(self, now_ms: int) -> None:
        """The client does not read: what could not be sent is thrown away with its subscriptions (error 25)."""
        self.overflows += 1
        self.session.overflow(now_ms)

    def begin(self, active: Active) -> None:
        """Let a fault act on the frames to come."""
        self._trouble.begin(active)
        self._is_plain = False

    def end(self, active: Active, now_ms: int) -> None:
        """Let a fault on frames be over."""
        self._trouble.end(active, now_ms)
        self._reckon()

    def die(self) -> None:
        """Be half open until the client goes."""
        self.is_dead = True
        self._is_plain = False
        self._reckon()

    def finish(self, ending: Close | Reset) -> None:
        """End the connection from our side with the next `take`."""
        self._ending = self._ending or ending
        self._is_plain = False
        self._due = 0

    def _take_in_trouble(self, now_ms: int) -> list[Action]:
        if self.is_dead or self.is_over:
            self.session.take_out()
            return []
        if self._ending is not None:
            self.session.take_out()
            self.is_over = True
            self._due = _NEVER
            return [self._ending]
        session, trouble = self.session, self._trouble
        session.set_time(now_ms)
        frames = trouble.through(session.take_out(), session.channels, now_ms)
        if trouble.is_overflown:
            trouble.clear()
            self.overflows += 1
            for subscription in list(session.subscriptions.values()):
                session.fail(subscription, 25, "overflow")
            frames += trouble.through(session.take_out(), session.channels, now_ms)
        out = cast("list[Action]", frames)
        if now_ms >= self._ping_at:
            ping = self._ping(now_ms)
            if not trouble.silences(now_ms):
                out.append(ping)
        self._is_plain = trouble.is_idle
        self._reckon()
        return out

    def _ping(self, now_ms: int) -> Ping:
        self._ping_at = now_ms + self._ping_ms
        return Ping()

    def _reckon(self) -> None:
        """Reckon when there is something to do without new frames."""
        if self.is_dead or self.is_over:
            self._due = _NEVER
        elif self._ending is not None:
            self._due = 0
        else:
            held = self._trouble.next_due()
            self._due = self._ping_at if held is None else min(held, self._ping_at)

    def _note_hit(self, facts: dict[str, object]) -> None:
        self.session.note("fault", phase="hit", **facts)
