"""Recorded frames read from JSON lines: bare frames, or the wrapper {recv_at, ordinal, frame}.

Lines with a `command` are what the recorder asked (they tell the orientation of no prices); blank lines are the
newlines frames end with; both are skipped.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from libs.marketdata.units import PRICE_ONE, ValueDoesNotFit, parse_price, parse_rfc3339
from libs.runtime.errors import ConfigInvalid
from services.simulator.frames import format_price
from services.simulator.subscription import BOOKS, COMBO_LIFECYCLE, LIFECYCLE, TICKERS, TRADES

_CHANNEL_OF = {
    "orderbook_snapshot": BOOKS,
    "orderbook_delta": BOOKS,
    "ticker": TICKERS,
    "trade": TRADES,
    "market_lifecycle_v2": LIFECYCLE,
    "event_lifecycle": LIFECYCLE,
    "event_fee_update": LIFECYCLE,
    "multivariate_market_lifecycle": COMBO_LIFECYCLE,
}


class RecordingInvalid(ConfigInvalid):
    """A recording cannot be read; simulator.replay.file names a file that is no JSON lines of frames."""


@dataclass(frozen=True, slots=True)
class RecordedFrame:
    """One data (or error) frame as it was recorded; `at` in microseconds, only differences count."""

    at: int
    channel: str
    message_type: str
    ticker: str
    envelope: dict[str, Any]

    @property
    def body(self) -> dict[str, Any]:
        body = self.envelope.get("msg")
        return body if isinstance(body, dict) else {}


@dataclass(slots=True)
class Recording:
    """A recording in order.

    Attributes:
        use_yes_price: orientation of the recorded no prices. sids: the recorded sid of each channel.
    """

    use_yes_price: bool
    frames: list[RecordedFrame] = field(default_factory=list)
    sids: dict[str, int] = field(default_factory=dict)

    @property
    def begin(self) -> int:
        return self.frames[0].at if self.frames else 0


def read_recording(path: Path, use_yes_price: bool) -> Recording:
    """Read a file.

    Args:
        use_yes_price: orientation when no command line says it.

    Raises:
        RecordingInvalid: it cannot be read, or a line is no JSON object; the line is named.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise RecordingInvalid([f"simulator.replay.file: {path}: {error}"]) from error
    return parse_recording(lines, use_yes_price, str(path))


def parse_recording(lines: Iterable[str], use_yes_price: bool, name: str = "") -> Recording:
    """Parse lines; see read_recording."""
    recording = Recording(use_yes_price)
    at = 0
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            at = _take_line(recording, json.loads(line), at)
        except (ValueError, TypeError, AttributeError) as error:
            fault = f"simulator.replay.file: {name} line {number}: {error}"
            raise RecordingInvalid([fault]) from error
    return recording


def _take_line(recording: Recording, line: dict[str, Any], at: int) -> int:
    if "command" in line:
        params = line["command"].get("params") or {}
        if line["command"].get("cmd") == "subscribe":
            recording.use_yes_price = bool(params.get("use_yes_price", False))
        return at
    if "frame" in line:
        at = parse_rfc3339(line["recv_at"]) if "recv_at" in line else at
        frame = line["frame"]
        frame = json.loads(frame) if isinstance(frame, str) else frame
    else:
        frame = line
        # A bare frame has no time of receipt: the exchange's own time paces it.
        millis = (frame.get("msg") or {}).get("ts_ms") if isinstance(frame.get("msg"), dict) else 0
        at = max(at, (millis or 0) * 1000)
    _take_frame(recording, frame, at)
    return at


def _take_frame(recording: Recording, frame: dict[str, Any], at: int) -> None:
    message_type = frame.get("type", "")
    body = frame.get("msg")
    if message_type == "subscribed" and isinstance(body, dict):
        recording.sids[body["channel"]] = body["sid"]
        return
    channel: str | None = _CHANNEL_OF.get(message_type)
    if channel is None and message_type == "error" and "sid" in frame:
        by_sid = {sid: name for name, sid in recording.sids.items()}
        channel = by_sid.get(frame["sid"])
    if channel is None or not isinstance(body, dict):
        return
    ticker = str(body.get("market_ticker", body.get("event_ticker", "")))
    recording.frames.append(RecordedFrame(at, channel, message_type, ticker, frame))


def express(frame: RecordedFrame, recorded: bool, wanted: bool) -> dict[str, Any]:
    """Return the frame's body with no prices on the wanted scale (True: the yes scale)."""
    body = frame.body
    if recorded == wanted or frame.channel != BOOKS:
        return body
    if frame.message_type == "orderbook_delta" and body.get("side") == "no":
        return body | {"price_dollars": _flip(body["price_dollars"])}
    if frame.message_type == "orderbook_snapshot" and "no_dollars_fp" in body:
        flipped = [[_flip(price), size] for price, size in body["no_dollars_fp"]]
        return body | {"no_dollars_fp": flipped}
    return body


def _flip(price: str) -> str:
    """Return 1 - price; what is no price stays as it was, for the client to find out."""
    try:
        return format_price(PRICE_ONE - parse_price(price))
    except ValueDoesNotFit:
        return price
