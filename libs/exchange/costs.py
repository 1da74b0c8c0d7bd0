"""What a request costs: the exchange names the endpoints that cost another number of tokens than the usual. Pure.

Paths of the list are patterns: a segment that begins with `:` (or stands in braces) is any one segment, one that begins
with `*` all that follow. Of several patterns that fit, the one with the longest literal beginning counts, so that
/markets/orderbooks is not taken for /markets/:ticker.
"""

from collections.abc import Iterable
from typing import Final

from libs.exchange.rest_wire import EndpointCost, EndpointCosts

USUAL: Final = 10.0
"""Tokens of a request while the exchange has not said otherwise."""
_ANY_ONE = (":", "{")


class Costs:
    """Costs of GET requests, in requests of the usual cost. usual: its tokens."""

    def __init__(self, said: EndpointCosts | None = None) -> None:
        self.usual = said.default_cost if said is not None and said.default_cost > 0 else USUAL
        self._named = _sorted(said.endpoint_costs or () if said is not None else ())
        self._known: dict[str, float] = {}

    def of(self, path: str, endpoint: str = "") -> float:
        """Return the cost of a path from the root; `endpoint`, where given, names all paths that cost the same."""
        key = endpoint or path
        cost = self._known.get(key)
        if cost is None:
            cost = self._known[key] = self._find(path) / self.usual
        return cost

    def _find(self, path: str) -> float:
        segments = path.strip("/").split("/")
        return next((cost for pattern, cost in self._named if _fits(pattern, segments)), self.usual)


def _sorted(named: Iterable[EndpointCost]) -> list[tuple[list[str], float]]:
    """Return the patterns of reads, the more literal first; a cost that is none is left out."""
    found = [
        (entry.path.strip("/").split("/"), entry.cost)
        for entry in named
        if entry.method.upper() == "GET" and entry.cost >= 0
    ]
    return sorted(found, key=lambda pair: [_is_open(segment) for segment in pair[0]])


def _is_open(segment: str) -> int:
    return 2 if segment.startswith("*") else int(segment.startswith(_ANY_ONE))


def _fits(pattern: list[str], segments: list[str]) -> bool:
    for place, part in enumerate(pattern):
        if part.startswith("*"):
            return place < len(segments)
        if place >= len(segments) or not (part.startswith(_ANY_ONE) or part == segments[place]):
            return False
    return len(pattern) == len(segments)
