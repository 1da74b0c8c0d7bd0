"""What every message carries around its `msg`, read whatever `msg` holds: so a message that does not fit still has its number."""

import re
from typing import Annotated, Any, NamedTuple

import msgspec

SID_MAX = 2**31 - 1
SEQ_MAX = 2**62
"""Largest number believed: the one after it, and sums with it, still fit the database's 64 bits."""

Sid = Annotated[int, msgspec.Meta(ge=0, le=SID_MAX)]
Seq = Annotated[int, msgspec.Meta(ge=0, le=SEQ_MAX)]


class Envelope(NamedTuple):
    """What every message carries around its `msg`; a field that is absent or of another type is None."""

    type: str | None
    sid: int | None
    seq: int | None
    sending_ts_ms: int | None


class _LooseEnvelope(msgspec.Struct):
    type: Any = None
    sid: Any = None
    seq: Any = None
    sending_ts_ms: Any = None


class _LooseTicker(msgspec.Struct):
    market_ticker: Any = None
    event_ticker: Any = None


class _LooseMessage(msgspec.Struct):
    msg: _LooseTicker | None = None


_envelope = msgspec.json.Decoder(_LooseEnvelope)
_named = msgspec.json.Decoder(_LooseMessage)
_NAME = re.compile(rb'"(?:market|event)_ticker"\s*:\s*"([^"\\\x00-\x1f]{1,200})"')
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def decode_envelope(data: bytes) -> Envelope | None:
    """Read type, sid, seq and sending_ts_ms whatever `msg` holds; None when the frame is not a JSON object."""
    try:
        loose = _envelope.decode(data)
    except UNREADABLE:
        return None
    return Envelope(
        loose.type if isinstance(loose.type, str) else None,
        _integer(loose.sid, SID_MAX),
        _integer(loose.seq, SEQ_MAX),
        _integer(loose.sending_ts_ms, SEQ_MAX // 1000),
    )


def ticker_of(data: bytes) -> str | None:
    """Return the market (or event) a frame speaks of, as well as it can be told; also of a frame cut short."""
    try:
        body = _named.decode(data).msg
    except UNREADABLE:
        found = _NAME.search(data)
        return found.group(1).decode(errors="replace") if found else None
    for name in (body.market_ticker, body.event_ticker) if body else ():
        if isinstance(name, str) and name and "\x00" not in name:
            return name
    return None


def _integer(value: object, largest: int) -> int | None:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= largest:
        return value
    return None
