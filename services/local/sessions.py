"""The simulator's session journal: who was subscribed to what and when, and which book each snapshot was sent with."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from libs.marketdata.listening import Span, holes
from libs.marketdata.rows import Ladder

SnapshotKey = tuple[str, int, int, int]
"""ticker, sid, seq, sent_at (microseconds)"""


@dataclass(slots=True)
class _Subscription:
    channel: str
    since: dict[str | None, int] = field(default_factory=dict)


@dataclass(slots=True)
class Sessions:
    """What the journal says, by API key id (each zone has its own).

    subscribed: (key id, channel, ticker or None for the whole channel) -> spans, microseconds.
    snapshots: books by where they were sent; two connections can share a place.
    """

    subscribed: dict[tuple[str, str, str | None], list[Span]] = field(
        default_factory=lambda: defaultdict(list)
    )
    snapshots: dict[SnapshotKey, list[tuple[Ladder, Ladder]]] = field(
        default_factory=lambda: defaultdict(list)
    )
    epoch: int = 0
    end_ts: int = 0

    def asked_for(self, channel: str, until: int | None) -> set[str]:
        """Return the markets that anybody was subscribed to by name before a moment; None: at any time."""
        return {
            ticker
            for (_, name, ticker), spans in self.subscribed.items()
            if name == channel and ticker is not None
            if until is None or any(since < until for since, _ in spans)
        }

    def unsubscribed(
        self, keys: Iterable[str], channel: str, ticker: str, within: Span
    ) -> list[Span]:
        """Return when none of these keys was subscribed to the market: the cause of every gap."""
        spans = [
            span
            for key in keys
            for name in (ticker, None)
            for span in self.subscribed.get((key, channel, name), ())
        ]
        return holes(spans, *within)


def read_session_journal(lines: Iterable[bytes], span: Span | None = None) -> Sessions:
    """Read the session journal up to its end record; subscriptions still open then end with it.

    Args:
        span: what is judged of an exchange that goes on: it stands for beginning and end.
    """
    found = _Reader().read(lines, span[1] if span else 0)
    if span:
        found.epoch, found.end_ts = span
    return found


class _Reader:
    def __init__(self) -> None:
        self._found = Sessions()
        self._keys: dict[int, str] = {}
        self._open: dict[int, dict[int, _Subscription]] = {}
        self._readers: dict[str, Callable[[Mapping[str, Any]], None]] = {
            "opened": self._opened, "closed": self._closed, "subscribed": self._subscribed,
            "unsubscribed": self._unsubscribed, "overflow": self._unsubscribed,
            "channel_error": self._unsubscribed, "added": self._added,
            "removed": self._removed, "snapshot": self._snapshot, "end": self._end_of_day,
        }  # fmt: skip

    def read(self, lines: Iterable[bytes], last: int) -> Sessions:
        for line in lines:
            entry = msgspec.json.decode(line)
            last = max(last, entry.get("at", last))
            reader = self._readers.get(entry["kind"])
            if reader is not None:
                reader(entry)
        for number in list(self._open):
            self._close_all(number, last)
        return self._found

    def _opened(self, entry: Mapping[str, Any]) -> None:
        self._keys[entry["connection"]] = entry["key_id"]
        self._open[entry["connection"]] = {}

    def _subscribed(self, entry: Mapping[str, Any]) -> None:
        subscription = _Subscription(entry["channel"])
        if entry["everything"]:
            subscription.since[None] = entry["at"]
        self._open[entry["connection"]][entry["sid"]] = subscription

    def _added(self, entry: Mapping[str, Any]) -> None:
        subscription = self._open[entry["connection"]][entry["sid"]]
        for ticker in entry["tickers"]:
            subscription.since.setdefault(ticker, entry["at"])

    def _removed(self, entry: Mapping[str, Any]) -> None:
        subscription = self._open[entry["connection"]][entry["sid"]]
        for ticker in entry["tickers"]:
            self._end(entry["connection"], subscription, ticker, entry["at"])

    def _unsubscribed(self, entry: Mapping[str, Any]) -> None:
        subscription = self._open[entry["connection"]].pop(entry["sid"], None)
        if subscription is not None:
            for ticker in list(subscription.since):
                self._end(entry["connection"], subscription, ticker, entry["at"])

    def _closed(self, entry: Mapping[str, Any]) -> None:
        self._close_all(entry["connection"], entry["at"])

    def _snapshot(self, entry: Mapping[str, Any]) -> None:
        key = (entry["ticker"], entry["sid"], entry["seq"], entry["sent_at"])
        self._found.snapshots[key].append((_ladder(entry["yes"]), _ladder(entry["no"])))

    def _end_of_day(self, entry: Mapping[str, Any]) -> None:
        self._found.epoch, self._found.end_ts = entry["epoch"], entry["end_ts"]

    def _end(self, number: int, subscription: _Subscription, ticker: str | None, at: int) -> None:
        since = subscription.since.pop(ticker, None)
        if since is not None:
            key = (self._keys[number], subscription.channel, ticker)
            self._found.subscribed[key].append((since, at))

    def _close_all(self, number: int, at: int) -> None:
        for subscription in self._open.pop(number, {}).values():
            for ticker in list(subscription.since):
                self._end(number, subscription, ticker, at)


def _ladder(levels: Iterable[Iterable[int]]) -> Ladder:
    return tuple((price, size) for price, size in levels)
