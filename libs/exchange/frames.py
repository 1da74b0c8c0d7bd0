"""A frame: one websocket message as bytes with the moment it came; apart from the transport, so that pure rooms may name it."""

from typing import NamedTuple, Protocol


class Frame(NamedTuple):
    """One text message of the exchange, undecoded; received_at in microseconds, by our clock."""

    data: bytes
    received_at: int


class Clock(Protocol):
    """The two clocks the exchange's doors need; the one of libs/runtime is one."""

    def now(self) -> int:
        """Return wall time, microseconds since the Unix epoch."""
        ...

    def monotonic(self) -> float:
        """Return seconds that never go back."""
        ...
