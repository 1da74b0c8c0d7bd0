"""Books that were asked for or are to be: in chunks, each market once at a time, and again when its book does not come."""

from collections.abc import Container, Iterable
from dataclasses import dataclass
from itertools import islice

from libs.marketdata.units import SECOND

SNAPSHOT_WAIT = 10 * SECOND
"""How long an answer to a request for a snapshot may take, microseconds."""
DOUBTED_WAIT = 2 * SECOND
"""The same once frames were lost that may have been the answer, microseconds: what is still under way comes in less."""
UNREADABLE_WAIT_MAX = 600 * SECOND
"""Longest time between two requests for a book whose answers cannot be read, microseconds; each is twice the one before."""
SNAPSHOT_TRIES_MAX = 3
"""After so many requests without an answer a market counts as absent: it was closed meanwhile, or never existed."""


@dataclass(slots=True)
class _Asked:
    """A market whose snapshot is waited for, until when; is_doubted: the answer may have been lost, or cannot be read."""

    at: int
    tries: int
    until: int
    is_doubted: bool = False
    is_unreadable: bool = False


class Requests:
    """The requests for books of one connection; every `now` is a moment of its clock that is never set, microseconds.

    Args of the constructor: most markets in a request, and in a second.
    """

    def __init__(self, chunk: int) -> None:
        self._chunk = chunk
        self._asked: dict[str, _Asked] = {}
        self._wanted: dict[str, None] = {}
        self._renewed: dict[str, None] = {}
        self._unreadable: dict[str, int] = {}

    def want(self, tickers: Iterable[str]) -> None:
        """Ask for these books as soon as may be; those asked for already are not asked twice."""
        for ticker in tickers:
            self._renewed.pop(ticker, None)
            if ticker not in self._asked:
                self._wanted[ticker] = None

    def renew(self, tickers: Iterable[str]) -> None:
        """Ask for these books too, when nothing is in a hurry and as fast as due() is allowed to."""
        for ticker in tickers:
            if ticker not in self._asked and ticker not in self._wanted:
                self._renewed[ticker] = None

    @property
    def renewals(self) -> int:
        """Books that wait to be renewed."""
        return len(self._renewed)

    def expect(self, tickers: Iterable[str], now: int) -> None:
        """Note that these books come by themselves; they are asked for if they do not."""
        for ticker in tickers:
            self._asked.setdefault(ticker, _Asked(now, 0, now + SNAPSHOT_WAIT))

    def doubt(self, tickers: Iterable[str], now: int) -> None:
        """Note that the answers for these may have been lost: what does not come soon is asked for again."""
        for ticker in tickers:
            asked = self._asked.get(ticker)
            if asked is not None and asked.until > now + DOUBTED_WAIT:
                asked.until, asked.is_doubted = now + DOUBTED_WAIT, True

    def unreadable(self, ticker: str, now: int) -> int:
        """Note a frame of this book that cannot be read, the answer perhaps; return of how many requests in a row."""
        asked = self._asked.get(ticker)
        if asked is None:
            self.want([ticker])
        elif not asked.is_unreadable:
            count = self._unreadable[ticker] = self._unreadable.get(ticker, 0) + 1
            asked.is_doubted = asked.is_unreadable = True
            asked.until = now + min(DOUBTED_WAIT << min(count - 1, 30), UNREADABLE_WAIT_MAX)
        return self._unreadable.get(ticker, 0)

    def answered(self, ticker: str) -> None:
        """Note that a book came."""
        self._asked.pop(ticker, None)
        self._unreadable.pop(ticker, None)

    def forget(self, tickers: Iterable[str]) -> None:
        """Ask for these books no more."""
        for ticker in tickers:
            self._asked.pop(ticker, None)
            self._wanted.pop(ticker, None)
            self._renewed.pop(ticker, None)
            self._unreadable.pop(ticker, None)

    def forget_all(self) -> None:
        """Ask for nothing more."""
        self._asked.clear()
        self._wanted.clear()
        self._renewed.clear()
        self._unreadable.clear()

    def given_up(self, now: int, held: Container[str]) -> list[str]:
        """Return the markets that were asked for often enough; those that may be asked once more are asked again.

        An answer that may have been lost says nothing of the market: such a request does not count.
        """
        found = []
        for ticker, asked in [(t, a) for t, a in self._asked.items() if now >= a.until]:
            is_enough = asked.tries >= SNAPSHOT_TRIES_MAX and not asked.is_doubted
            if ticker not in held or is_enough:
                del self._asked[ticker]
                found.append(ticker)
            else:
                self._wanted[ticker] = None
        return found

    def due(self, now: int, held: Container[str], renewals: int = 0) -> list[str]:
        """Return the markets to ask for now, and note that they are.

        Args:
            renewals: how many of the books that are in no hurry may be among them.
        """
        if not (self._wanted or renewals) or self._is_busy(now):
            return []
        due = [ticker for ticker in self._wanted if ticker in held][: self._chunk]
        if renewals:
            slow = list(islice(self._renewed, min(renewals, self._chunk - len(due))))
            due += [ticker for ticker in slow if ticker in held]
            for ticker in slow:
                del self._renewed[ticker]
        for ticker in due:
            self._wanted.pop(ticker, None)
            before = self._asked.get(ticker)
            tries = before.tries + (not before.is_doubted) if before else 1
            self._asked[ticker] = _Asked(now, tries, now + SNAPSHOT_WAIT)
        return due

    def _is_busy(self, now: int) -> bool:
        return sum(a.at > now - SECOND for a in self._asked.values()) >= self._chunk
