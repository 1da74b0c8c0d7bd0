"""What a finished run left behind, beyond the verdict: how long, where and why the zone did not hear."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from libs.marketdata.listening import ORDERBOOK_CHANNEL, Span, holes
from libs.marketdata.units import SECOND
from libs.store.pool import connect
from services.local.config_files import capture_filter
from services.local.sessions import read_session_journal
from services.local.stored import Stored, read_claims, read_stored
from services.local.topology import PRODUCTION
from services.local.truth import Truth, read_market_journal
from services.local.verdict import ClaimIndex, Fact, Verdict
from tests.soak.ground import ZONE, Ground

AT_CLOSE = 7 * SECOND
"""What the last frame of a market that closes need not prove: a quiet sid is asked every five seconds (probe_s of
config/gatherer.local.yaml), the margin, and how long its unsubscribing takes. The verdict judges these gaps by their causes."""


UNHEARD_MAX = 60 * SECOND
"""A market may be open this long before it is heard, whatever happens meanwhile."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One figure of a scenario, its bound in words, and whether it holds."""

    what: str
    value: str
    bound: str
    holds: bool


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything scenarios judge by; times in microseconds."""

    verdict: Verdict
    truth: Truth
    stored: Stored
    books: ClaimIndex
    end: int

    def gaps(self, span: Span) -> list[tuple[str, int, int]]:
        """Return (ticker, from, to) of every span in which a market was not heard, but before it was first heard.

        A market that closes is unsubscribed then, which is no gap: its last frame proves all but the end margin.
        """
        found = []
        for ticker, market in self.truth.markets.items():
            heard = self.books.of(ticker)
            closed_at = market.closed_at - AT_CLOSE if market.closed_at else self.end
            end = min(span[1], closed_at, self.end)
            begun = max(span[0], heard[0][0]) if heard else end
            found += [(ticker, low, high) for low, high in holes(heard, begun, end)]
        return found

    def unheard(self, span: Span) -> list[str]:
        """Return the markets that were open for UNHEARD_MAX and more of a span and were never heard."""
        found = []
        for ticker, market in self.truth.markets.items():
            begun = max(span[0], market.created_at)
            life = min(span[1], market.closed_at or self.end) - begun
            if life > UNHEARD_MAX and not self.books.of(ticker):
                found.append(ticker)
        return found

    def missing(self, span: Span) -> list[Fact]:
        """Return the deltas and trades published in a span, of markets then heard before, that are not stored."""
        deltas = [fact for fact in self.truth.deltas() if self._was_heard(fact)]
        return [
            *_missing(deltas, self.stored.delta_facts(), span),
            *_missing(self.truth.trades, self.stored.trades, span),
        ]

    def _was_heard(self, fact: Fact) -> bool:
        heard = self.books.of(fact.ticker)
        return bool(heard) and fact.moment >= heard[0][0]


def _missing(published: Iterable[Fact], held: Iterable[Fact], span: Span) -> list[Fact]:
    left: dict[object, int] = {}
    for fact in held:
        left[fact.ticker, fact.identity] = left.get((fact.ticker, fact.identity), 0) + 1
    found = []
    for fact in published:
        key = (fact.ticker, fact.identity)
        left[key] = left.get(key, 0) - 1
        if left[key] < 0 and span[0] <= fact.moment < span[1]:
            found.append(fact)
    return found


async def gather_evidence(ground: Ground, verdict: Verdict) -> Evidence:
    """Read journals and production of a finished run."""
    journal = ground.run.journal_dir
    truth = read_market_journal((journal / "market.jsonl").read_bytes().splitlines())
    sessions = read_session_journal((journal / "session.jsonl").read_bytes().splitlines())
    async with connect(ground.run.target(PRODUCTION)) as conn:
        stored = await read_stored(conn)
        claims = (await read_claims(conn)).get(ZONE, {})
    nothing = ClaimIndex([])
    return Evidence(
        verdict,
        truth.only(capture_filter().may_want),
        stored,
        claims.get(ORDERBOOK_CHANNEL, nothing),
        sessions.end_ts,
    )


def longest_s(gaps: Sequence[tuple[str, int, int]]) -> float:
    """Return the width of the widest gap, seconds."""
    return max((high - low for _, low, high in gaps), default=0) / SECOND


def heard_enough(evidence: Evidence, span: Span, most_s: float) -> list[Measured]:
    """Say how long markets were not heard, at most `most_s`: a cause explains a gap, but not that nobody mended it."""
    longest, unheard = longest_s(evidence.gaps(span)), evidence.unheard(span)
    return [
        Measured("longest gap of a market", f"{longest:.1f} s", f"< {most_s:.0f} s", longest < most_s),
        Measured("markets never heard", f"{unheard[:3] or 0}", "0", not unheard),
    ]  # fmt: skip
