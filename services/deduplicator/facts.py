"""Which facts are already in production, and which gatherers delivered them.

Memory of the last minutes of exchange time, so that the second and third copy of a fact cost a look-up instead of a
round trip. It is only an optimisation: an identity enters when its transaction is confirmed committed, identities are
exact values, and what is not remembered is decided by production's key.

A fact's gatherers are a bit mask. For coverage a fact counts once under the set of gatherers that delivered it; when
another one delivers it, it leaves one set and joins the next: an increment of -1 and one of +1.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from operator import attrgetter, itemgetter
from typing import Any, NamedTuple

from libs.marketdata.tables import GATHERER_TABLES, Table
from libs.marketdata.units import DAY, MINUTE
from libs.store.merge_transaction import (
    TRADE_CONTENT,
    ConflictRow,
    Content,
    Identity,
    trade_conflict,
)
from libs.store.partition_plan import BIGINT_MIN

LATE = 1
"""Flag in bit 0 of a mask, gatherers have the bits above: production had the fact when its first remembered copy came, so coverage counts its copies as late."""

FAR_MAX = DAY
"""A row whose exchange_ts is further than this from received_at (microseconds) is suspect: stored, and told."""

TIMES = ("exchange_ts", "received_at")
"""The first two columns of every table here, so that rows are read by place."""


class Increment(NamedTuple):
    """`facts` more facts of `minute` (microseconds of its start) under the gatherers of `mask`."""

    minute: int
    mask: int
    is_late: bool
    facts: int


class Lacking(NamedTuple):
    """A fact that not every gatherer delivered; exchange_ts in microseconds, mask: who did."""

    ticker: str
    exchange_ts: int
    mask: int


class Facts:
    """Identities of one table whose key holds exchange_ts at index 1 (deltas, tickers).

    Args of the constructor:
        table: its description.
        horizon: how far behind the newest fact identities are remembered, microseconds of exchange time.
        identities_max: how many are remembered at most; the oldest minutes go first.
    """

    def __init__(self, table: Table, *, horizon: int, identities_max: int) -> None:
        assert table.column_names[:2] == TIMES
        self.table = table
        self._horizon = horizon
        self._identities_max = identities_max
        self._identity: Callable[[Any], Identity] = _identity_of(table)
        self._masks: dict[Identity, int] = {}
        self._by_minute: dict[int, list[Identity]] = {}
        self._touched: dict[Identity, int] = {}
        self._newest = 0
        self.far = 0
        """Fresh rows of the open transaction whose exchange_ts is more than a day off received_at."""

    def __len__(self) -> int:
        return len(self._masks)

    def admit(self, rows: Sequence[Any], payloads: Sequence[bytes], bit: int) -> list[bytes]:
        """Note that one gatherer delivered these rows; return the payloads production may not have yet."""
        identity, known, touched = self._identity, self._masks.get, self._touched
        fresh = []
        for row, payload in zip(rows, payloads, strict=True):
            key = identity(row)
            mask = touched.get(key)
            if mask is None:
                mask = known(key)
                if mask is None:
                    touched[key] = bit
                    fresh.append(payload)
                    if not -FAR_MAX <= row[0] - row[1] <= FAR_MAX:
                        self.far += 1
                    continue
            if not mask & bit:
                touched[key] = mask | bit
        return fresh

    def increments(self, present: Collection[Identity]) -> Iterator[Increment]:
        """Yield what this transaction changes in coverage; `present` are staged identities production had."""
        moves: Counter[tuple[int, int, int]] = Counter()
        late: Counter[tuple[int, int]] = Counter()
        known, moment = self._masks.get, self._moment
        for key, mask in self._touched.items():
            minute = moment(key) // MINUTE
            before = known(key, 0)
            if before & LATE or (not before and key in present):
                late.update((minute, bit) for bit in bits(mask & ~before & ~LATE))
            else:
                moves[minute, before, mask] += 1
        yield from _increments(moves, late)

    def confirm(self, present: Collection[Identity], minute_max: int) -> None:
        """Remember what the committed transaction touched; forget what lies behind the horizon.

        Args:
            present: staged identities production had before; their copies count as late.
            minute_max: no fact of a later minute moves the horizon (a wrong clock must not empty the memory).
        """
        masks = self._masks
        for key, mask in self._touched.items():
            if key not in masks:
                minute = self._moment(key) // MINUTE
                if minute > self._newest and minute <= minute_max:
                    self._newest = minute
                self._by_minute.setdefault(minute, []).append(key)
            masks[key] = mask
        for key in present:
            if key in masks:
                masks[key] |= LATE
        self._touched, self.far = {}, 0
        self._expire()

    def delivered(self, minute: int, mask: int) -> tuple[int, list[Lacking]]:
        """Return how many committed facts of a minute all gatherers of the mask delivered, and those some of them lacks.

        A fact that production had before its first remembered copy is in neither: who else delivered it is not known.

        Args:
            minute: its first microsecond.
        """
        masks, lacking, by_all = self._masks, list[Lacking](), 0
        for key in self._by_minute.get(minute // MINUTE, ()):
            found = masks[key]
            if found & mask == mask:
                by_all += 1
            elif not found & LATE:
                lacking.append(Lacking(self._ticker(key), self._moment(key), found))
        return by_all, lacking

    def abandon(self) -> None:
        """Forget what the open transaction touched: nothing of it was committed."""
        self._touched, self.far = {}, 0

    def forget(self) -> None:
        """Forget everything: production may hold another history."""
        self._touched, self._masks, self._by_minute = {}, {}, {}
        self._newest = self.far = 0

    def _moment(self, key: Identity) -> int:
        return key[1]  # type: ignore[no-any-return]

    def _ticker(self, key: Identity) -> str:
        return key[0]  # type: ignore[no-any-return]

    def _drop(self, key: Identity) -> None:
        del self._masks[key]

    def _expire(self) -> None:
        oldest = self._newest - self._horizon // MINUTE
        for minute in sorted(self._by_minute):
            if minute >= oldest and len(self._masks) <= self._identities_max:
                return
            for key in self._by_minute.pop(minute):
                self._drop(key)


class TradeFacts(Facts):
    """Trades by trade_id alone; copies by REST and by socket may differ in time, never in content.

    A copy is judged against what production keeps, which only its answer to the transaction says.
    """

    def __init__(self, table: Table, *, horizon: int, identities_max: int) -> None:
        super().__init__(table, horizon=horizon, identities_max=identities_max)
        self._first: dict[Identity, tuple[int, tuple[Any, ...]]] = {}
        self._content = attrgetter(*TRADE_CONTENT)
        self._copies: list[tuple[Identity, Content]] = []

    def admit(self, rows: Sequence[Any], payloads: Sequence[bytes], bit: int) -> list[bytes]:
        """As Facts.admit; copies are noted, to be judged when production has answered."""
        for row in rows:
            key, content = row.trade_id, self._content(row)
            first = self._first.get(key)
            if first is None:
                self._first[key] = (row.exchange_ts, content)
            elif key not in self._masks or first[1] != content:
                self._copies.append((key, content))
        return super().admit(rows, payloads, bit)

    def conflicts(self, kept: Mapping[Identity, Content]) -> list[ConflictRow]:
        """Return this transaction's copies that say something else than production keeps.

        Args:
            kept: content of the staged trades that production had before; the staged copies are judged there.
        """
        found = []
        for key, content in self._copies:
            known = kept.get(key, self._first[key][1])
            if content != known:
                found.append(trade_conflict(key, known, content))
        return found

    def keep(self, kept: Mapping[Identity, Content]) -> None:
        """Remember what production keeps in place of the staged copies it refused."""
        for key, content in kept.items():
            if key in self._first:
                self._first[key] = (self._first[key][0], content)

    def confirm(self, present: Collection[Identity], minute_max: int) -> None:
        """As Facts.confirm."""
        super().confirm(present, minute_max)
        self._copies = []

    def abandon(self) -> None:
        """As Facts.abandon."""
        for key in self._touched:
            if key not in self._masks:
                self._first.pop(key, None)
        super().abandon()
        self._copies = []

    def forget(self) -> None:
        """As Facts.forget."""
        super().forget()
        self._first, self._copies = {}, []

    def _moment(self, key: Identity) -> int:
        return self._first[key][0]

    def _ticker(self, key: Identity) -> str:
        return self._first[key][1][0]  # type: ignore[no-any-return]

    def _drop(self, key: Identity) -> None:
        super()._drop(key)
        self._first.pop(key, None)


def bits(mask: int) -> Iterator[int]:
    """Yield each set bit of a mask, as a mask."""
    while mask:
        low = mask & -mask
        yield low
        mask ^= low


def _increments(
    moves: Mapping[tuple[int, int, int], int], late: Mapping[tuple[int, int], int]
) -> Iterator[Increment]:
    sums: Counter[tuple[int, int]] = Counter()
    for (minute, before, after), facts in moves.items():
        sums[minute, after] += facts
        if before:
            sums[minute, before] -= facts
    for (minute, mask), facts in sums.items():
        if facts:
            yield Increment(_start_of(minute), mask, False, facts)
    for (minute, bit), facts in late.items():
        yield Increment(_start_of(minute), bit, True, facts)


def _start_of(minute: int) -> int:
    """Return a minute's first microsecond; the first minute of all is cut off where bigint begins."""
    return max(minute * MINUTE, BIGINT_MIN)


def _identity_of(table: Table) -> Callable[[Any], Identity]:
    names = table.column_names
    return itemgetter(*(names.index(name) for name in table.identity))


def make_facts(*, horizon: int, identities_max: int) -> dict[str, Facts]:
    """Return the memory of every table whose identity is content alone."""

    def make(name: str, kind: type[Facts]) -> Facts:
        return kind(GATHERER_TABLES[name], horizon=horizon, identities_max=identities_max)

    return {
        "orderbook_deltas": make("orderbook_deltas", Facts),
        "tickers": make("tickers", Facts),
        "trades": make("trades", TradeFacts),
    }
