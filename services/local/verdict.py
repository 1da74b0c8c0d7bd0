"""The verdict: what production holds, held against what the simulated exchange published (data-model.md section 7).

Pure. Missing: published and not stored. Extra: stored and never published; always a fault. Sound: every missing fact
lies where nobody claims to have listened. Tight: every gap has a cause in the journals and is at most 10 s wider.
"""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from libs.marketdata.listening import Span, covers, holes, union
from libs.marketdata.rebuild import Levels, differing
from libs.marketdata.units import SECOND

SLACK = 10 * SECOND
"""A gap may be this much wider than its cause, microseconds."""
NEW = 60 * SECOND
"""A new market is heard this soon after it is listed."""


class Fact(NamedTuple):
    """Anything published or stored: whose it is, when (to look for claims), and what makes it equal to another.

    Facts are equal by ticker and identity; `moment` is no part of it, since a lifecycle message has no time of its own.
    """

    ticker: str
    moment: int
    identity: Hashable


Key = tuple[str, Hashable]


@dataclass(frozen=True, slots=True)
class TableVerdict:
    """One table: counts of facts, and examples of what is wrong."""

    table: str
    truth: int
    stored: int
    missing: int
    extra: int
    unsound: int
    examples: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        return self.extra == 0 and self.unsound == 0


class ClaimIndex:
    """Claims of one channel: spans by ticker, and those of the whole channel under None."""

    def __init__(self, claims: Iterable[tuple[str | None, int, int]]) -> None:
        spans: dict[str | None, list[Span]] = {}
        for ticker, start, end in claims:
            spans.setdefault(ticker, []).append((start, end))
        self._spans = {ticker: union(found) for ticker, found in spans.items()}

    def of(self, ticker: str) -> list[Span]:
        """Return the joined spans in which this market was heard."""
        return union([*self._spans.get(ticker, ()), *self._spans.get(None, ())])

    def heard(self, ticker: str, moment: int) -> bool:
        return any(covers(self._spans.get(key, []), moment) for key in (ticker, None))


def judge(
    table: str, truth: Iterable[Fact], stored: Iterable[Fact], claims: ClaimIndex
) -> TableVerdict:
    """Compare as multisets: facts of equal identity are anonymous, only their number counts."""
    wanted, held = _moments(truth), _moments(stored)
    counts = [sum(map(len, moments.values())) for moments in (wanted, held)]
    missing = {key: _left_over(moments, held.get(key, [])) for key, moments in wanted.items()}
    extra = {
        key: len(moments) - len(wanted.get(key, ()))
        for key, moments in held.items()
        if len(moments) > len(wanted.get(key, ()))
    }
    unsound = [
        (key, moment)
        for key, moments in missing.items()
        for moment in moments
        if claims.heard(key[0], moment)
    ]
    examples = [f"extra {key}" for key in sorted(extra, key=repr)[:3]]
    examples += [f"missing where somebody listened {case}" for case in unsound[:3]]
    return TableVerdict(
        table, counts[0], counts[1], sum(map(len, missing.values())), sum(extra.values()),
        len(unsound), tuple(examples),
    )  # fmt: skip


def until(facts: Iterable[Fact], end: int | None) -> list[Fact]:
    """Return the facts before a moment; None: all."""
    return [fact for fact in facts if end is None or fact.moment < end]


def _moments(facts: Iterable[Fact]) -> dict[Key, list[int]]:
    found: dict[Key, list[int]] = {}
    for fact in facts:
        found.setdefault((fact.ticker, fact.identity), []).append(fact.moment)
    return found


def _left_over(published: Sequence[int], stored: Sequence[int]) -> list[int]:
    """Return the published moments that no stored one stands for; each stands for the nearest that is left."""
    left = list(published)
    for moment in stored:
        if left:
            left.remove(min(left, key=lambda other: abs(other - moment)))
    return left


class Gap(NamedTuple):
    """A span of exchange time in which this ticker (of this gatherer, or of all) was not heard."""

    ticker: str
    from_ts: int
    to_ts: int


def gaps_of(claims: ClaimIndex, lives: Mapping[str, Span]) -> list[Gap]:
    """Return what each market's life [from, to) has uncovered."""
    return [
        Gap(ticker, low, high)
        for ticker, (start, end) in sorted(lives.items())
        for low, high in holes(claims.of(ticker), start, end)
    ]


def loose(gaps: Iterable[Gap], causes: Callable[[str], Sequence[Span]]) -> list[Gap]:
    """Return the gaps that no cause explains: touching none, or more than SLACK wider than those they touch."""
    return [gap for gap in gaps if not _explained(gap, union(causes(gap.ticker)))]


def unplanned(
    gaps: Iterable[Gap],
    markets: Mapping[str, tuple[int | None, int | None]],
    claims: ClaimIndex,
) -> list[Gap]:
    """Return the gaps but two that belong to a market's life: before a new one is first heard, and at its close.

    A market that closes is unsubscribed then: a quiet sid's last frame need not prove the last seconds. A new one that is
    not heard within a minute is no matter of course any more.

    Args:
        markets: when each was listed (None: it was there from the beginning) and when it closed (None: it has not),
            microseconds.
    """

    def is_new(gap: Gap, listed_at: int | None) -> bool:
        if listed_at is None or gap.to_ts - listed_at > NEW:
            return False
        heard = claims.of(gap.ticker)
        return not heard or gap.to_ts <= heard[0][0]

    return [
        gap
        for gap in gaps
        for listed_at, closed_at in (markets[gap.ticker],)
        if not is_new(gap, listed_at)
        if not (gap.to_ts == closed_at and gap.to_ts - gap.from_ts <= SLACK)
    ]


def _explained(gap: Gap, causes: Sequence[Span]) -> bool:
    low, high = gap.from_ts - SLACK, gap.to_ts + SLACK
    touching = [(start, end) for start, end in causes if start <= high and end >= low]
    beyond = sum(end - start for start, end in holes(touching, gap.from_ts, gap.to_ts))
    return bool(touching) and beyond <= SLACK * len(touching)


@dataclass(frozen=True, slots=True)
class ZoneVerdict:
    """One gatherer (or all together): share of the markets' lives it listened to, its gaps, longest in microseconds."""

    name: str
    share: float
    gaps: int
    longest: int
    causes: str


def zone_verdict(
    name: str, gaps: Sequence[Gap], lives: Mapping[str, Span], causes: str
) -> ZoneVerdict:
    """Sum up one gatherer's gaps over the lives of all markets."""
    widths = [gap.to_ts - gap.from_ts for gap in gaps]
    whole = sum(end - start for start, end in lives.values())
    share = 1 - sum(widths) / whole if whole else 1.0
    return ZoneVerdict(name, share, len(gaps), max(widths, default=0), causes)


@dataclass(slots=True)
class Verdict:
    """Everything the demo decides on; `holds` only if all of it does."""

    tables: list[TableVerdict] = field(default_factory=list)
    zones: list[ZoneVerdict] = field(default_factory=list)
    loose_gaps: dict[str, list[Gap]] = field(default_factory=dict)
    unplanned_gaps: dict[str, list[Gap]] = field(default_factory=dict)
    """Gaps but those of new and of closing markets, by zone: not wrong by themselves, but to be none where nothing broke."""
    snapshots: int = 0
    snapshots_equal: int = 0
    books_compared: int = 0
    books_unproved: int = 0
    """Books with a gap behind their last snapshot: nobody can rebuild them."""
    books_differing: list[str] = field(default_factory=list)
    archive: dict[str, tuple[int, int]] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def compare_books(
        self, rebuilt: Mapping[str, Levels | None], published: Mapping[str, Levels]
    ) -> None:
        self.books_compared = len(published)
        self.books_differing = differing(rebuilt, published)

    def reasons(self) -> list[str]:
        """Return one line for each thing that does not hold; empty means it all does."""
        found = list(self.faults)
        found += [
            f"{table.table}: {table.extra} extra, {table.unsound} unsound; {table.examples}"
            for table in self.tables
            if not table.holds
        ]
        for who, gaps in self.loose_gaps.items():
            if gaps:
                found.append(f"{who}: {len(gaps)} gaps without a cause or too wide, e.g. {gaps[0]}")
        if self.snapshots != self.snapshots_equal:
            found.append(
                f"{self.snapshots - self.snapshots_equal} snapshots are not the book they were sent with"
            )
        if self.books_differing:
            found.append(f"books differ: {', '.join(self.books_differing[:5])}")
        for name, (stored, archived) in self.archive.items():
            if stored != archived:
                found.append(f"{name}: {stored} rows in production, {archived} in Parquet")
        return found

    @property
    def holds(self) -> bool:
        return not self.reasons()
