"""A fault that has begun: until when, how often it has hit, how often it still may."""

from typing import Any

import msgspec

from libs.marketdata.units import MILLISECOND
from services.simulator.faults.entries import write_entry
from services.simulator.faults.menu import Fault, FrameFault


class Active:
    """One fault that has begun; times in microseconds since 1970.

    Args:
        number: of the fault, from 1, in the order they began. until: None for what happens once.
    """

    __slots__ = ("begin", "fault", "hits", "left", "lines", "number", "until")

    def __init__(self, number: int, fault: Fault, begin: int, until: int | None) -> None:
        self.number = number
        self.fault = fault
        self.begin = begin
        self.until = until
        self.hits = 0
        self.left: int | None = None
        """How often it still may hit; None: no bound."""
        self.lines: dict[int, int] = {}
        """Hits by connection."""
        if isinstance(fault, FrameFault):
            self.left = fault.count_max or (None if until is not None else 1)

    @property
    def is_used_up(self) -> bool:
        return self.left == 0

    @property
    def until_ms(self) -> int:
        """The first whole millisecond at which it is over."""
        assert self.until is not None, "only asked of what lasts"
        return -(-self.until // MILLISECOND)

    def is_over(self, now_ms: int) -> bool:
        return self.left == 0 or (self.until is not None and now_ms >= self.until_ms)

    def hit(self, connection: int) -> None:
        """Count a hit."""
        self.hits += 1
        self.lines[connection] = self.lines.get(connection, 0) + 1
        if self.left is not None:
            self.left -= 1

    def describe(self) -> dict[str, Any]:
        """Return it as /control/faults and the journal show it."""
        return {
            "number": self.number,
            "entry": write_entry(self.fault),
            "begin": self.begin,
            "until": self.until,
            "hits": self.hits,
        }


class OutFrame:
    """A frame on its way out, looked at only because a fault is about: what the faults and the journal need of it."""

    __slots__ = ("channel", "data", "fields")

    def __init__(self, data: bytes, channels: dict[int, str]) -> None:
        self.data = data
        self.fields: dict[str, Any] = msgspec.json.decode(data)
        body = self.fields.get("msg")
        named = body.get("channel", "") if isinstance(body, dict) else ""
        self.channel: str = channels.get(self.fields.get("sid", 0), named)
        """"" for an answer that is about no subscription."""

    @property
    def names(self) -> dict[str, object]:
        """Sid, seq, channel and ticker as far as it has them."""
        body = self.fields.get("msg")
        ticker = body.get("market_ticker") if isinstance(body, dict) else None
        told = {
            "sid": self.fields.get("sid"), "seq": self.fields.get("seq"), "channel": self.channel or None,
            "type": self.fields.get("type"), "ticker": ticker,
        }  # fmt: skip
        return {name: value for name, value in told.items() if value is not None}
