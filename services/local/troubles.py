"""What went wrong on purpose, as the causes of gaps: faults of the simulated exchange, read from its session journal.

What leaves no hole (a repeated frame, a delay, a clock set forth) is no cause. What ends a subscription needs no line
here: the journal says itself who was subscribed when.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from libs.marketdata.listening import Span, holes
from libs.marketdata.units import MILLISECOND, SECOND
from services.local.verdict import ClaimIndex

LASTING = frozenset({"stall", "refuse", "auth_expiry", "maintenance", "drip"})
"""A cause for as long as they last, whether or not they hit a frame."""
HARMLESS = frozenset(
    {"duplicate", "new_field", "snapshot_storm", "create_markets", "rest", "delay"}
)
NEW_FIELD = "new_tomorrow"
"""Its name where a fault gives none."""
UNSEEN = frozenset({"drop", "stall", "reorder"})
"""What takes ticker frames, or their order, and leaves no trace: they have no numbers."""
WATCHDOG_S = 31.0
"""How long a dead connection may go unnoticed: the silence that ends it, and a second."""
MOMENT = MILLISECOND
"""A span needs a width to be one."""
DELAY_MS = 1_000
"""Answers that come later than this may be given up."""
TICKER_LAG = 2_500_000
"""A ticker speaks of a change up to a second and a half before it, and its frame is some time under way; microseconds."""


class Trouble(NamedTuple):
    """A span in which a zone may not have heard; key, channel "" = every one; times in microseconds."""

    kind: str
    key: str
    channel: str
    start: int
    end: int

    def concerns(self, key: str, channel: str) -> bool:
        return self.key in ("", key) and self.channel in ("", channel)


def read_troubles(lines: Iterable[bytes], key_of: Callable[[str], str]) -> list[Trouble]:
    """Read the faults of a session journal that may cost hearing; key_of: the API key id of a zone."""
    reader = _Reader(key_of)
    for line in lines:
        if line.startswith((b'{"kind":"fault"', b'{"kind":"opened"')):
            reader.take(msgspec.json.decode(line))
    return reader.found


class _Reader:
    def __init__(self, key_of: Callable[[str], str]) -> None:
        self.found: list[Trouble] = []
        self._key_of = key_of
        self._keys: dict[int, str] = {}
        self._begun: dict[int, Mapping[str, Any]] = {}

    def take(self, told: Mapping[str, Any]) -> None:
        if told["kind"] == "opened":
            self._keys[told["connection"]] = told["key_id"]
        elif told["phase"] == "begin":
            self._begun[told["number"]] = told
        elif told["phase"] == "hit":
            self._hit(told)
        elif told["phase"] == "end":
            self._end(told, self._begun[told["number"]])

    def _hit(self, told: Mapping[str, Any]) -> None:
        kind, at = told["fault"], told["at"]
        if kind in HARMLESS or kind in LASTING:
            return
        if kind == "clock_step":
            if told["by_ms"] < 0:
                self.found.append(Trouble(kind, "", "", at, at + MOMENT))
            return
        late = int(WATCHDOG_S * SECOND) if kind == "half_open" else MOMENT
        key = self._keys.get(told.get("connection", 0), "")
        self.found.append(Trouble(kind, key, told.get("channel") or "", at, at + late))

    def _end(self, told: Mapping[str, Any], begun: Mapping[str, Any]) -> None:
        kind, entry, start, end = told["fault"], begun["entry"], begun["at"], told["at"]
        late_ms = entry.get("delay_ms", DELAY_MS) if kind == "delay" else 0
        if kind == "drip":
            # What waits at the end is as late as it has grown.
            late_ms = int(entry.get("growth", 0.5) * (end - start) / 1_000)
        if kind in LASTING or late_ms >= DELAY_MS:
            on = entry.get("on", {})
            key = self._key_of(on["zone"]) if on.get("zone") else on.get("key", "")
            key = key or self._keys.get(on.get("connection", 0), "")
            self.found.append(
                Trouble(kind, key, on.get("channel", ""), start, end + 1_000 * late_ms)
            )


def added_fields(lines: Iterable[bytes]) -> frozenset[str]:
    """Read which fields the exchange put into its messages besides their own."""
    begun = (msgspec.json.decode(line) for line in lines if b'"fault":"new_field"' in line)
    return frozenset(
        told["entry"].get("field", NEW_FIELD) for told in begun if told.get("phase") == "begin"
    )


def spans_of(troubles: Iterable[Trouble], key: str, channel: str) -> list[Span]:
    """Return when a key's hearing of a channel was troubled."""
    return [(found.start, found.end) for found in troubles if found.concerns(key, channel)]


def tickers_heard(
    claims: Mapping[str, ClaimIndex], troubles: Sequence[Trouble], channel: str
) -> ClaimIndex:
    """Return what zones (by API key id) claim together of a channel without numbers, less what was taken unseen."""
    kept: list[tuple[None, int, int]] = []
    for key, index in claims.items():
        unseen = spans_of((t for t in troubles if t.kind in UNSEEN), key, channel)
        lost = [(start - TICKER_LAG, end + TICKER_LAG) for start, end in unseen]
        for start, end in index.of(""):
            kept += [(None, low, high) for low, high in holes(lost, start, end)]
    return ClaimIndex(kept)
