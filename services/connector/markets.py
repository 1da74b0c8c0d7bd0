"""The markets of one order-book connection: what is wanted, asked for, acknowledged and seen.

Intent is a set of tickers; commands follow from the difference between it and what was asked for, one command in flight
at a time and in chunks, so that an answer always belongs to the one command that waits. Snapshots are the only proof
that a market is there: a market is *seen* with its first.
"""

from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Literal

from libs.exchange import commands
from libs.marketdata.units import SECOND
from services.connector.requests import Requests

Kind = Literal["subscribe", "add", "delete"]
UNREADABLE_MAX = 3
"""After so many requests whose answer could not be read, and none that could, nobody waits for a market's book any more; it is
asked for again all the same, ever more rarely."""
REFUSED_WAIT = 60 * SECOND
"""How long after its refusal a market is asked for again, microseconds; alone, so that it costs no other market.

A market just listed may not be known everywhere yet; a minute is soon enough for it and rare enough for one that never is.
The same for a subscription that is full: the limit may be raised, or count something we do not see."""


@dataclass(frozen=True, slots=True)
class Pending:
    """A command that waits for its answer."""

    command_id: int
    kind: Kind
    tickers: tuple[str, ...]
    asked_at: int


class Markets:
    """Wanted, held (asked for), acked and seen markets, and the commands between them.

    Every `now` is a moment of the connection's clock that is never set, microseconds.

    Args of the constructor: the connection's command ids; most tickers in one command; the orientation asked for.

    Attributes:
        absent: asked for, and not there (now), or in no words that can be read. room: how many markets the exchange takes; None: as many as there are.
        over: wanted markets for which there is no room, as far as they were told of. requests: for books.
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
        self.over: set[str] = set()
        self.room: int | None = None
        self._room_until = 0
        self.pending: Pending | None = None
        self.requests = Requests(chunk)
        self._probed = ""
        self.probe_id = 0
        self.hold_until = 0

    @property
    def is_complete(self) -> bool:
        """True when every wanted market is acknowledged and seen, but for those that are not there or find no room."""
        return self.wanted <= (self.acked & self.seen) | self.absent | self._left_out

    @property
    def is_full(self) -> bool:
        """True while wanted markets find no room on a subscription that holds others and gives none of them back."""
        return bool(self._left_out)

    @property
    def _left_out(self) -> AbstractSet[str]:
        """The wanted markets for which there is no room beside others."""
        return self.over if self._is_crowded else frozenset()

    @property
    def _is_crowded(self) -> bool:
        """True when there is no room for another market, and none is to be given back."""
        return self.room is not None and len(self.held) >= self.room and self.held <= self.wanted

    def want(self, tickers: Iterable[str]) -> None:
        """Replace the intent."""
        self.wanted = frozenset(tickers)
        self.absent &= self.wanted
        self.over &= self.wanted
        self._later = {t: at for t, at in self._later.items() if t in self.wanted}

    def is_held(self, ticker: str) -> bool:
        """True when the exchange is to send this market: asked for, and not being given back."""
        pending = self.pending
        if pending is not None and ticker in pending.tickers:
            return pending.kind != "delete"
        return ticker in self.held

    def forget(self) -> None:
        """Begin anew after the sid died: nothing is held."""
        for known in (self.held, self.acked, self.seen, self.absent, self.over):
            known.clear()
        self.room = None
        self.requests.forget_all()
        self._later.clear()
        self.pending = None

    def refresh(self, tickers: Iterable[str]) -> None:
        """Ask for snapshots of these markets as soon as may be; those asked for already are not asked twice."""
        self.requests.want(tickers)

    def doubt(self, tickers: Iterable[str], now: int) -> None:
        """Ask for these books once more if they were asked for and do not come soon."""
        self.requests.doubt(tickers, now)

    def lost(self, tickers: Iterable[str], now: int) -> None:
        """Ask for these books after frames were lost; for those asked for already once more if they do not come soon."""
        listed = sorted(tickers)
        self.requests.doubt(listed, now)
        self.requests.want(listed)

    def unreadable(self, ticker: str, now: int) -> None:
        """Ask for this book after a frame of it that cannot be read; nobody waits for one of which nothing can be."""
        if self.requests.unreadable(ticker, now) >= UNREADABLE_MAX and ticker not in self.seen:
            self.absent.add(ticker)

    def see(self, ticker: str) -> None:
        """Note a snapshot."""
        self.seen.add(ticker)
        self.absent.discard(ticker)
        self.over.discard(ticker)
        self.requests.answered(ticker)

    # --- commands ---

    def next(self, now: int, sid: int | None, renewals: int = 0) -> list[bytes]:
        """Return the commands to send now; sid is the subscription's, None before it is acknowledged.

        Args:
            renewals: how many books may be renewed with them.
        """
        if now < self.hold_until:
            return []
        found = [] if self.pending else self._update(now, sid)
        return found if sid is None else found + self._snapshots(now, sid, renewals)

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
        """What to ask for next, as far as there is room; one that was refused comes after all others, and alone."""
        missing, most = self.wanted - self.held, min(self._size, self._chunk)
        if self.room is not None:
            if now >= self._room_until:
                self.room = None
            else:
                most = min(most, self.room - len(self.held))
        if most <= 0:
            return []
        fresh = sorted(missing - self._later.keys())[:most]
        return fresh or sorted(t for t in missing if self._later.get(t, now) <= now)[:1]

    def turned_away(self, now: int) -> list[str]:
        """Note the wanted markets that a subscription known to be full does not take; return those that were not before.

        None while a command waits or markets are to be given back: there may be room in a moment.
        """
        if self.pending is not None or now >= self._room_until or not self._is_crowded:
            return []
        new = sorted(self.wanted - self.held - self._later.keys() - self.over)
        self.over.update(new)
        return new

    @property
    def is_untried(self) -> bool:
        """True while some wanted market was neither asked for nor refused."""
        return bool(self.wanted - self.held - self._later.keys())

    def _snapshots(self, now: int, sid: int, renewals: int) -> list[bytes]:
        """Ask for the books that are to be refreshed, and once more for those that did not come."""
        for ticker in self.requests.given_up(now, self.held):
            if ticker not in self.seen:
                self.absent.add(ticker)
        due = self.requests.due(now, self.held, renewals)
        return [commands.get_snapshot(self._ids.next(), sid, due)] if due else []

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
            self.requests.forget(gone)
            return done
        self.held.update(done.tickers)
        self.acked.update(done.tickers)
        for ticker in done.tickers:
            self._later.pop(ticker, None)
        self.requests.expect((t for t in done.tickers if t not in self.seen), now)
        return done

    def failed(self, command_id: int | None, *, retry_at: int) -> Pending | None:
        """Take the failure of the command that waits: what is to follow is asked for from retry_at on."""
        failed = self.pending
        if failed is None or command_id != failed.command_id:
            return None
        self.pending = None
        if failed.kind == "add":
            self.held.difference_update(failed.tickers)
        self.hold_until = retry_at
        return failed

    def over_limit(
        self, command_id: int | None, now: int, *, retry_at: int
    ) -> tuple[Pending, list[str]] | None:
        """Take that the command that waits asked for more markets than there is room: half as many from retry_at on.

        When not even one finds room beside others, the rest waits until another is given back, or for REFUSED_WAIT.

        Returns:
            The command, and the markets that are left out and were not before; None when it is no command that waits.
        """
        failed = self.failed(command_id, retry_at=retry_at)
        if failed is None:
            return None
        if failed.kind == "delete":
            return failed, []
        if len(failed.tickers) > 1:
            self._size = len(failed.tickers) // 2
            return failed, []
        if self.held:
            self.room, self._room_until = len(self.held), now + REFUSED_WAIT
        new = sorted(self.wanted - self.held - self._later.keys() - self.over)
        self.over.update(new)
        return failed, new

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
