"""What was said on one websocket: our commands, the exchange's frames, and what follows from them. Pure and bounded."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec

from libs.exchange import wire
from libs.exchange.errors import Undecodable
from libs.exchange.frames import Frame
from libs.exchange.values import TIME_MAX, TIME_MIN
from libs.marketdata.units import MILLISECOND
from services.doctor.judge_clock import Stamp
from services.doctor.known_fields import unknown_fields

KEPT_MAX = 2_000
"""Stamps kept; the first are as good as any."""
NAMES_MAX = 40
"""Different unknown fields, and different unreadable frames, kept by name."""
NAME_CHARS_MAX = 120
ANSWERS_MAX = 20
CONTROL = frozenset({"subscribed", "unsubscribed", "ok", "error"})


class Command(NamedTuple):
    """A command we sent: subscribe, add_markets, get_snapshot, list_subscriptions; subject is a channel or market."""

    action: str
    subject: str
    sent_at: int


@dataclass(slots=True)
class Stream:
    """One subscription as its frames show it; times in microseconds."""

    channel: str = ""
    subscribed_at: int | None = None
    first_at: int | None = None
    frames: int = 0
    numbered: int = 0
    stamped: int = 0
    last_seq: int = 0
    breaks: list[str] = field(default_factory=list)

    def count(self, envelope: wire.Envelope, received_at: int) -> None:
        """Take one frame of this sid; its place in the sequence counts, whatever it is."""
        if envelope.seq is not None:
            if envelope.seq != self.last_seq + 1 and len(self.breaks) < NAMES_MAX:
                self.breaks.append(f"{envelope.seq} after {self.last_seq}")
            self.last_seq = envelope.seq
        if envelope.type in CONTROL:
            return
        self.frames += 1
        self.numbered += envelope.seq is not None
        self.stamped += envelope.sending_ts_ms is not None
        self.first_at = received_at if self.first_at is None else self.first_at


class Transcript:
    """One connection's conversation."""

    def __init__(self) -> None:
        self.commands: dict[int, Command] = {}
        self.answers: dict[int, list[dict[str, Any]]] = {}
        self.streams: dict[int, Stream] = {}
        self.stamps: list[Stamp] = []
        self.snapshots: list[wire.OrderbookSnapshot] = []
        self.unknown: Counter[str] = Counter()
        self.unreadable: Counter[str] = Counter()
        self.frames = 0
        self.ended = ""

    def say(self, command_id: int, action: str, subject: str, now: int) -> None:
        """Note a command, just before it is sent."""
        self.commands[command_id] = Command(action, subject, now)

    def hear(self, frame: Frame) -> None:
        """Note a frame."""
        self.frames += 1
        envelope, message = wire.decode_envelope(frame.data), _read(frame.data)
        if envelope is None or message is None:
            self._note(self.unreadable, "not a JSON object")
            return
        for name in unknown_fields(message):
            self._note(self.unknown, name)
        self._decode(frame.data)
        self._answer(message, envelope, frame.received_at)
        if envelope.sid is not None:
            stream = self.streams.setdefault(envelope.sid, Stream())
            stream.count(envelope, frame.received_at)

    def stream_of(self, channel: str) -> tuple[int, Stream] | None:
        """Return sid and stream of a channel, None before it is subscribed."""
        for sid, stream in self.streams.items():
            if stream.channel == channel:
                return sid, stream
        return None

    def command(self, action: str, subject: str = "") -> tuple[int, Command] | None:
        """Return the first such command; any subject when none is named."""
        for command_id, command in self.commands.items():
            if command.action == action and subject in ("", command.subject):
                return command_id, command
        return None

    def is_answered(self) -> bool:
        """Tell whether every command has an answer."""
        return self.answers.keys() >= self.commands.keys()

    def _decode(self, data: bytes) -> None:
        try:
            message = wire.decode_message(data)
        except Undecodable as error:
            self._note(self.unreadable, error.reason)
            return
        if isinstance(message, wire.OrderbookSnapshot) and len(self.snapshots) < ANSWERS_MAX:
            self.snapshots.append(message)

    def _answer(self, message: dict[str, Any], envelope: wire.Envelope, received_at: int) -> None:
        command_id = message.get("id")
        command = self.commands.get(command_id) if isinstance(command_id, int) else None
        if command is not None:
            assert isinstance(command_id, int)
            said = self.answers.setdefault(command_id, [])
            if len(said) < ANSWERS_MAX:
                said.append(message)
            body = message.get("msg")
            if envelope.type == "subscribed" and isinstance(body, dict):
                self._subscribed(body, received_at)
        sent_at = (envelope.sending_ts_ms or 0) * MILLISECOND
        if TIME_MIN <= sent_at < TIME_MAX and len(self.stamps) < KEPT_MAX:
            self.stamps.append(Stamp(sent_at, received_at, command.sent_at if command else None))

    def _subscribed(self, body: dict[str, Any], received_at: int) -> None:
        sid, channel = body.get("sid"), body.get("channel")
        if isinstance(sid, int) and isinstance(channel, str):
            stream = self.streams.setdefault(sid, Stream())
            stream.channel, stream.subscribed_at = channel, received_at

    def _note(self, counter: "Counter[str]", name: str) -> None:
        name = name[:NAME_CHARS_MAX]
        if name in counter or len(counter) < NAMES_MAX:
            counter[name] += 1


def _read(data: bytes) -> dict[str, Any] | None:
    try:
        return msgspec.json.decode(data, type=dict[str, Any])
    except wire.UNREADABLE:
        return None
