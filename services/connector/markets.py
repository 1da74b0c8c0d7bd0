"""The markets of one order-book connection: what is wanted, asked for, acknowledged and seen.

Intent is a set of tickers; commands follow from the difference between it and what was asked for, one command in flight
at a time and in chunks, so that an answer always belongs to the one command that waits. Snapshots are the only proof
that a market is there: a market is *seen* with its first.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from libs.exchange import commands
from libs.marketdata.units import SECOND

Kind = Literal["subscribe", "add", "delete"]
SNAPSHOT_WAIT = 10 * SECOND
"""How long an answer to a request for a snapshot may take, microseconds."""
SNAPSHOT_TRIES_MAX = 3
"""After so many requests without an answer a market counts as absent: it was closed meanwhile, or never existed."""

REFUSED_WAIT = 60 * SECOND
"""How long after its refusal a market is asked for again, microseconds; alone, so that it costs no other market.

A market just listed may not be known everywhere yet; a minute is soon enough for it and rare enough for one that never is."""


@dataclass(frozen=True, slots=True)
class Pending:
    """A command that waits for its answer."""

    command_id: int
    kind: Kind
    tickers: tuple[str, ...]
    asked_at: int


@dataclass(slots=True)
class _Asked:
    """A market whose snapshot is waited for."""

    at: int
    tries: int


class Markets:
    """Wanted, held (asked for), acked and seen markets, and the commands between them.

    Args of the constructor: the connection's command ids; most tickers in one command; the orientation asked for.
    """

    def __init__(self, ids: commands.CommandIds, chunk: int, *, use_yes_price: bool) -> None:
        self._ids = ids
        self._chunk = chunk
        self._size = chunk
        self._later: dict[str, int] = {}
        self._use_yes_price = use_yes_price
        self.wanted: frozenset[str] = frozenset()
        self.held: set[str] = set()
        self.acked: set[str] = set()
        self.seen: set[str] = set()
        self.absent: set[str] = set()
        self.refused: set[str] = set()
        self.pending: Pending | None = None
        self._asked: dict[str, _Asked] = {}
        self._refresh: dict[str, None] = {}
        self._probed = ""
        self.probe_id = 0
        self.hold_until = 0

    @property
    def is_complete(self) -> bool:
        """True when every wanted market is acknowledged and seen, but for those that are not there."""
        return self.wanted <= (self.acked & self.seen) | self.absent | self.refused

    def want(self, tickers: Iterable[str]) -> None:
        """Replace the intent."""
        self.wanted = frozenset(tickers)
        self.absent &= self.wanted
        self.refused &= self.wanted
        self._later = {t: at for t, at in self._later.items() if t in self.wanted}

    def is_held(self, ticker: str) -> bool:
        """True when the exchange is to send this market: asked for, and not being given back."""
        pending = self.pending
        if pending is not None and ticker in pending.tickers:
            return pending.kind != "delete"
        return ticker in self.held

    def forget(self) -> None:
        """Begin anew after the sid died: nothing is held."""
        for known in (self.held, self.acked, self.seen, self.absent, self.refused):
            known.clear()
        self._asked.clear()
        self._refresh.clear()
        self._later.clear()
        self.pending = None

    def refresh(self, tickers: Iterable[str]) -> None:
        """Ask for snapshots of these markets as soon as may be; those asked for already are not asked twice."""
        for ticker in tickers:
            if ticker not in self._asked:
                self._refresh[ticker] = None

    def see(self, ticker: str) -> None:
        """Note a snapshot."""
        self.seen.add(ticker)
        self.absent.discard(ticker)
        self._asked.pop(ticker, None)

    # --- commands ---

    def next(self, now: int, sid: int | None) -> list[bytes]:
        """Return the commands to send now; sid is the subscription's, None before it is acknowledged."""
        if now < self.hold_until:
            return []
        found = [] if self.pending else self._update(now, sid)
        return found if sid is None else found + self._snapshots(now, sid)

    def _update(self, now: int, sid: int | None) -> list[bytes]:
        kind: Kind
        if sid is None:
            kind, tickers = "subscribe", self._missing(now)
        elif gone := sorted(self.held - self.wanted)[: self._chunk]:
            kind, tickers = "delete", gone
        else:
            kind, tickers = "add", self._missing(now)
        if not tickers:
            return []
        command_id = self._ids.next()
        self.pending = Pending(command_id, kind, tuple(tickers), now)
        if sid is None:
            return [
                commands.subscribe(
                    command_id, [commands.ORDERBOOK], tickers, use_yes_price=self._use_yes_price
                )
            ]
        if kind == "delete":
            return [commands.delete_markets(command_id, sid, tickers)]
        self.held.update(tickers)
        return [commands.add_markets(command_id, sid, tickers)]

    def _missing(self, now: int) -> list[str]:
        """What to ask for next; one that was refused comes after all others, and alone."""
        missing = self.wanted - self.held - self.refused
        fresh = sorted(missing - self._later.keys())[: min(self._size, self._chunk)]
        return fresh or sorted(t for t in missing if self._later[t] <= now)[:1]

    @property
    def is_untried(self) -> bool:
        """True while some wanted market was neither asked for nor refused."""
        return bool(self.wanted - self.held - self.refused - self._later.keys())

    def _snapshots(self, now: int, sid: int) -> list[bytes]:
        """Ask for the books that are to be refreshed, and once more for those that did not come."""
        for ticker in [t for t, a in self._asked.items() if now - a.at >= SNAPSHOT_WAIT]:
            asked = self._asked[ticker]
            if ticker not in self.held or asked.tries >= SNAPSHOT_TRIES_MAX:
                del self._asked[ticker]
                if ticker not in self.seen:
                    self.absent.add(ticker)
            else:
                self._refresh[ticker] = None
        due = [t for t in self._refresh if t in self.held][: self._chunk]
        if not due or sum(a.at > now - SECOND for a in self._asked.values()) >= self._chunk:
            return []
        for ticker in due:
            del self._refresh[ticker]
            before = self._asked.get(ticker)
            self._asked[ticker] = _Asked(now, before.tries + 1 if before else 1)
        return [commands.get_snapshot(self._ids.next(), sid, due)]

    def probe(self, sid: int) -> bytes | None:
        """Ask for one market's book, so that the sid sends a frame; None when there is no market to ask for.

        Each time another market, for one that was settled meanwhile may have no book any more. `probe_id` is the command's.
        """
        there = self.seen & self.held
        if not there:
            return None
        first = min(there)
        self._probed = min((t for t in there if t > self._probed), default=first)
        self.probe_id = self._ids.next()
        return commands.get_snapshot(self.probe_id, sid, [self._probed])

    # --- answers ---

    def answered(self, command_id: int | None, now: int) -> Pending | None:
        """Take the success of a command; return it when it is the one that waits."""
        done = self.pending
        if done is None or command_id != done.command_id:
            return None
        self.pending = None
        self._size = min(self._chunk, 2 * self._size)
        if done.kind == "delete":
            gone: Sequence[str] = done.tickers
            for known in (self.held, self.acked, self.seen, self.absent):
                known.difference_update(gone)
            for ticker in gone:
                self._asked.pop(ticker, None)
                self._refresh.pop(ticker, None)
            return done
        self.held.update(done.tickers)
        self.acked.update(done.tickers)
        for ticker in done.tickers:
            self._later.pop(ticker, None)
        for ticker in done.tickers:
            if ticker not in self.seen:
                self._asked.setdefault(ticker, _Asked(now, 0))
        return done

    def failed(self, command_id: int | None, *, retry_at: int | None) -> Pending | None:
        """Take the failure of the command that waits: once more from retry_at on, or (None) refused for good."""
        failed = self.pending
        if failed is None or command_id != failed.command_id:
            return None
        self.pending = None
        if failed.kind == "add":
            self.held.difference_update(failed.tickers)
        if retry_at is None:
            self.refused.update(failed.tickers)
        else:
            self.hold_until = retry_at
        return failed

    def decline(
        self, command_id: int | None, named: str | None, now: int, retry_at: int
    ) -> tuple[Pending, list[str]] | None:
        """Take the refusal of the command that waits: by one of its markets, or by it does not say which.

        The one that is named, or stands alone, is absent until REFUSED_WAIT later; the others are asked for again at
        retry_at, half as many at a time while the exchange does not say which it means.

        Returns:
            The command, and the markets that are absent and were not before; None when it is no command that waits.
        """
        declined = self.failed(command_id, retry_at=retry_at)
        if declined is None:
            return None
        tickers = declined.tickers
        if declined.kind == "delete":
            return declined, []
        if named not in tickers:
            if len(tickers) > 1:
                self._size = len(tickers) // 2
                return declined, []
            (named,) = tickers
        assert named is not None
        new = [] if named in self._later else [named]
        self._later[named] = now + REFUSED_WAIT
        self.absent.add(named)
        return declined, new
