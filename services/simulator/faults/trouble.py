"""What faults do to the frames of one connection: lost, doubled, maimed, late, out of order, or held in a stall. Pure.

Frames go in as the session made them and come out as the wire carries them. A frame that is late stands in a heap by the
millisecond it is due; whatever comes behind a late frame waits for it, so that only `reorder` changes the order.
"""

import heapq
import itertools
import json
from collections.abc import Callable

from services.simulator.chance import Chance
from services.simulator.faults.active import Active, OutFrame
from services.simulator.faults.menu import (
    Delay,
    Drip,
    Drop,
    Duplicate,
    NewField,
    RenameField,
    Reorder,
    Stall,
    Truncate,
)
from services.simulator.frames import encode

ASIDE_MS_MAX = 1_000
"""A frame that waits for others to overtake it goes after this time in any case."""
EVERYTHING = ""
FrameEffect = Drop | Duplicate | Delay | Reorder | Truncate | RenameField | NewField | Stall | Drip
DAMAGES = (Drop, Duplicate, Reorder, Truncate, RenameField, NewField)
"""What happens to a single frame and has a line of its own; of frames that are only late the end tells the number."""
Note = Callable[[dict[str, object]], None]


class _Held:
    """A frame that waits until `due` (milliseconds); `scope` is the channel that waits with it ("": all)."""

    __slots__ = ("data", "due", "number", "scope", "stalled_by")

    def __init__(self, due: int, number: int, data: bytes, scope: str, stalled_by: int) -> None:
        self.due = due
        self.number = number
        self.data = data
        self.scope = scope
        self.stalled_by = stalled_by

    def __lt__(self, other: "_Held") -> bool:
        return (self.due, self.number) < (other.due, other.number)


class _Passing:
    """What becomes of one frame: its copies, when they go, and how many frames overtake it."""

    __slots__ = ("copies", "due", "places", "scope", "stalled_by")

    def __init__(self, data: bytes, now_ms: int) -> None:
        self.copies = [data]
        self.due = now_ms
        self.places = 0
        self.scope: str | None = None
        self.stalled_by = 0

    def wait(self, due: int, scope: str) -> None:
        """Go no earlier than `due`; the widest scope that made it wait holds back what is behind."""
        self.due = max(self.due, due)
        self.scope = scope if self.scope in (None, scope) else EVERYTHING


class _Aside:
    """A frame that lets others overtake it."""

    __slots__ = ("channel", "passing", "places", "until")

    def __init__(self, passing: _Passing, channel: str, until: int) -> None:
        self.passing = passing
        self.channel = channel
        self.places = passing.places
        self.until = until


class Trouble:
    """The faults that concern one connection's frames, and the frames they hold back.

    Args:
        chance: the connection's own. opened_ms: when it was opened. bytes_max: what may wait.
        note: takes a hit's fields for the journal.
    """

    def __init__(
        self, connection: int, chance: Chance, opened_ms: int, bytes_max: int, note: Note
    ) -> None:
        self.effects: list[Active] = []
        self.is_overflown = False
        """More waited than may: whoever owns the line ends its subscriptions."""
        self._connection = connection
        self._chance = chance
        self._opened_ms = opened_ms
        self._bytes_max = bytes_max
        self._note = note
        self._heap: list[_Held] = []
        self._bytes = 0
        self._numbers = itertools.count()
        self._aside: list[_Aside] = []
        self._floors: dict[str, int] = {}
        """Channel ("": all) -> when the last late frame goes: what is behind it goes no earlier."""

    @property
    def is_idle(self) -> bool:
        return not self.effects and not self._heap and not self._aside

    def silences(self, now_ms: int) -> bool:
        """Say whether not even pings go out now."""
        return any(
            isinstance(active.fault, Stall)
            and not active.fault.pings
            and not active.fault.on.channel
            and not active.is_over(now_ms)
            for active in self.effects
        )

    def begin(self, active: Active) -> None:
        """Let a fault act on the frames to come."""
        assert isinstance(active.fault, FrameEffect), active.fault.kind
        self.effects.append(active)

    def end(self, active: Active, now_ms: int) -> None:
        """Let a fault be over; what a stall holds comes now, unless its time has come anyway."""
        if active not in self.effects:
            return
        self.effects.remove(active)
        for held in self._heap:
            if held.stalled_by == active.number:
                held.due = min(held.due, now_ms)
        heapq.heapify(self._heap)
        self._floors.clear()
        for held in self._heap:
            self._floors[held.scope] = max(self._floors.get(held.scope, 0), held.due)

    def clear(self) -> None:
        """Throw away what is held back."""
        self._heap.clear()
        self._aside.clear()
        self._floors.clear()
        self._bytes = 0
        self.is_overflown = False

    def next_due(self) -> int | None:
        """Return when something held back may go, milliseconds."""
        dues = [aside.until for aside in self._aside]
        if self._heap:
            dues.append(self._heap[0].due)
        return min(dues, default=None)

    def through(self, frames: list[bytes], channels: dict[int, str], now_ms: int) -> list[bytes]:
        """Send frames through the faults; returns what the wire carries now.

        Args:
            channels: sid -> channel of the connection's subscriptions, past ones too.
        """
        for data in frames:
            self._send(OutFrame(data, channels), now_ms)
        for aside in [aside for aside in self._aside if aside.until <= now_ms]:
            self._aside.remove(aside)
            self._hold(aside.passing, aside.channel, now_ms)
        out: list[bytes] = []
        while self._heap and self._heap[0].due <= now_ms:
            held = heapq.heappop(self._heap)
            self._bytes -= len(held.data)
            out.append(held.data)
        self.is_overflown = self._bytes > self._bytes_max
        return out

    def _send(self, frame: OutFrame, now_ms: int) -> None:
        passing = _Passing(frame.data, now_ms)
        for active in self.effects:
            if passing.copies and self._is_hit(active, frame, now_ms):
                self._apply(active, frame, passing, now_ms)
        if not passing.copies:
            return
        if passing.places:
            self._aside.append(_Aside(passing, frame.channel, now_ms + ASIDE_MS_MAX))
            return
        self._hold(passing, frame.channel, now_ms)
        for aside in [aside for aside in self._aside if aside.channel == frame.channel]:
            aside.places -= 1
            if not aside.places:
                self._aside.remove(aside)
                self._hold(aside.passing, aside.channel, now_ms)

    def _is_hit(self, active: Active, frame: OutFrame, now_ms: int) -> bool:
        fault = active.fault
        if active.is_over(now_ms) or not fault.on.takes_channel(frame.channel):
            return False
        if isinstance(fault, RenameField) and _holder(frame, fault.field) is None:
            return False
        return fault.share >= 1 or self._chance.draw() < fault.share

    def _apply(self, active: Active, frame: OutFrame, passing: _Passing, now_ms: int) -> None:
        fault = active.fault
        facts: dict[str, object] = {}
        active.hit(self._connection)
        if isinstance(fault, Delay):
            passing.wait(now_ms + fault.delay_ms, fault.on.channel)
        elif isinstance(fault, Drip):
            since = max(active.begin // 1000, self._opened_ms)
            passing.wait(now_ms + int(fault.growth * (now_ms - since)), fault.on.channel)
        elif isinstance(fault, Stall) and not fault.lost:
            passing.wait(active.until_ms, fault.on.channel)
            passing.stalled_by = active.number
        elif isinstance(fault, Stall | Drop):
            passing.copies.clear()
        elif isinstance(fault, Duplicate):
            passing.copies *= 2
        elif isinstance(fault, Reorder):
            passing.places = max(passing.places, fault.places)
        elif isinstance(fault, Truncate):
            facts["bytes"] = self._truncate(passing)
        else:
            _change(fault, frame, passing)
        if isinstance(fault, DAMAGES) or (isinstance(fault, Stall) and fault.lost):
            self._note({"fault": fault.kind, "number": active.number, **frame.names, **facts})

    def _truncate(self, passing: _Passing) -> int:
        """Cut every copy so that no JSON is left; returns the length of the last."""
        left = 0
        for place, data in enumerate(passing.copies):
            cut = data[: 1 + self._chance.below(max(len(data) - 2, 1))]
            passing.copies[place] = cut.decode(errors="ignore").encode()
            left = len(passing.copies[place])
        return left

    def _hold(self, passing: _Passing, channel: str, now_ms: int) -> None:
        """Put a frame where it goes from, behind those that are late."""
        due = max(passing.due, now_ms)
        if self._floors:
            self._floors = {scope: floor for scope, floor in self._floors.items() if floor > now_ms}
            due = max(due, self._floors.get(EVERYTHING, 0), self._floors.get(channel, 0))
        scope = channel if passing.scope is None else passing.scope
        if due > now_ms:
            self._floors[scope] = max(due, self._floors.get(scope, 0))
        for data in passing.copies:
            held = _Held(due, next(self._numbers), data, scope, passing.stalled_by)
            heapq.heappush(self._heap, held)
            self._bytes += len(data)


def _holder(frame: OutFrame, field: str) -> str | None:
    """Return where a frame has a field: in "msg", in the envelope (""), or nowhere."""
    body = frame.fields.get("msg")
    if isinstance(body, dict) and field in body:
        return "msg"
    return "" if field in frame.fields else None


def _change(fault: object, frame: OutFrame, passing: _Passing) -> None:
    """Give a frame's fields another name, or one field more."""
    for place, data in enumerate(passing.copies):
        try:
            fields = json.loads(data)
        except ValueError:  # Cut off before: there is nothing left to rename.
            continue
        if isinstance(fault, RenameField):
            inside = _holder(frame, fault.field) == "msg"
            renamed = {
                (fault.to if name == fault.field else name): value
                for name, value in (fields["msg"] if inside else fields).items()
            }
            fields = fields | {"msg": renamed} if inside else renamed
        elif isinstance(fault, NewField):
            body = fields.get("msg")
            target = body if isinstance(body, dict) else fields
            target[fault.field] = fault.value
        passing.copies[place] = encode(fields) + b"\n"
