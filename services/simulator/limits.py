"""What one connection may ask for (kalshi-api.md 3.1), and the count of what it asks a second."""

from dataclasses import dataclass

from services.simulator.settings import SimulatorSettings


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of a session.

    Args:
        subscription_markets: markets one subscription may name; 0: any number. session_markets: order books of a session.
        commands_per_s: commands a second.
    """

    subscription_markets: int = 0
    session_markets: int = 500_000
    commands_per_s: int = 10_000

    @classmethod
    def of(cls, settings: SimulatorSettings) -> "Limits":
        return cls(
            settings.subscription_markets_max,
            settings.session_markets_max,
            settings.commands_per_s_max,
        )


class CommandRate:
    """Counts commands by whole seconds: the documentation says how many a second, not how they are counted."""

    __slots__ = ("_count", "_most", "_second")

    def __init__(self, most: int) -> None:
        self._most = most
        self._second = 0
        self._count = 0

    def takes(self, now_ms: int) -> bool:
        """Count a command; False when it is one too many."""
        second = now_ms // 1000
        if second != self._second:
            self._second, self._count = second, 0
        self._count += 1
        return self._count <= self._most
