"""The verdict of data-model.md section 7 over a run with faults, from journals and database.

- nothing extra, ever; nothing missing where the zone claims to have listened; tickers likewise, but for those that a fault
  took without a trace
- every gap lies within a few seconds of causes that concern its own connection, and none lasts to the end
- every snapshot is the book it was sent with; a book that is heard at the end is rebuilt to what it was
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from libs.marketdata.listening import ORDERBOOK_CHANNEL, Span, holes, union
from libs.marketdata.rebuild import BookImpossible
from libs.marketdata.units import SECOND
from services.local.sessions import Sessions, read_session_journal
from services.local.troubles import HARMLESS, LASTING, read_troubles, tickers_heard
from services.local.truth import Truth, canonical, read_market_journal
from services.local.verdict import Fact, Gap, gaps_of, judge
from tests.integration.connector.fault_run import SILENCE_S, Found, wanted
from tests.simulation.production import Production, merge

KEY = "key"
ZONE = "a"
BEFORE = 3_500_000
"""A gap may begin so long before its cause, microseconds: the last frame of a quiet sid is a probe and a tick old, and the
end margin takes a second more."""
AFTER = 6_500_000
"""... and end so long after it: an answer that is missed, the longest pause, books, the start margin."""
AFTER_SUBSCRIBED = 3_000_000
"""... and so long after a subscription: the book's way, and the start margin."""
COMBOS = "multivariate_market_lifecycle"
LIFECYCLES = ("market_lifecycle_v2", COMBOS)
WHOLE = ("trade", "ticker", *LIFECYCLES)


@dataclass(frozen=True, slots=True)
class Causes:
    """Spans in which a connection (0: every one) was in trouble, and which connections carried what.

    carried: (channel, ticker or None) -> connections.
    """

    spans: Mapping[int, list[Span]]
    carried: Mapping[tuple[str, str | None], set[int]]
    sessions: Sessions

    def allowed(self, channel: str, ticker: str, life: Span) -> list[Span]:
        """Where a gap of this market, or whole channel (""), may lie."""
        # A subscription of just before the epoch still claims nothing for its first second.
        since = life[0] - 2 * SECOND
        without = self.sessions.unsubscribed([KEY], channel, ticker, (since, life[1]))
        found = [(start - BEFORE, end + AFTER_SUBSCRIBED) for start, end in without]
        for line in (0, *self.carried.get((channel, ticker or None), ())):
            found += [(start - BEFORE, end + AFTER) for start, end in self.spans.get(line, ())]
        return union(found)


def take_verdict(found: Found) -> list[str]:
    """Hold what was committed against what was published; returns what does not hold."""
    truth = read_market_journal(found.market).only(wanted)
    sessions = read_session_journal(found.session)
    production = merge({ZONE: found})
    findings = list(_facts(found, truth, production))
    if max(fact.moment for fact in production.tickers) < sessions.end_ts - 3 * SECOND:
        findings.append("ticker: nothing stored of the end")
    gaps = dict(_gaps(found, truth, sessions, production))
    findings += [f"{channel} {gap}: {what}" for (channel, gap), what in gaps.items() if what]
    findings += _snapshots(production, sessions)
    findings += _books(
        truth, production, [gap for channel, gap in gaps if channel == ORDERBOOK_CHANNEL]
    )
    return findings


def _facts(found: Found, truth: Truth, production: Production) -> Iterator[str]:
    troubles = read_troubles(found.session, lambda _: KEY)
    heard = tickers_heard({KEY: production.index(ZONE, "ticker")}, troubles, "ticker")
    told: list[tuple[str, Iterable[Fact], Iterable[Fact]]] = [
        (ORDERBOOK_CHANNEL, truth.deltas(), production.delta_facts()),
        ("trade", truth.trades, production.trades),
        ("ticker", truth.tickers, production.tickers),
    ]
    seen = _observations(found)
    told += [(name, _of(truth.lifecycle, name), _of(seen, name)) for name in LIFECYCLES]
    for channel, published, stored in told:
        claims = heard if channel == "ticker" else production.index(ZONE, channel)
        table = judge(channel, published, stored, claims)
        if not table.holds:
            yield f"{channel}: {table.extra} extra, {table.unsound} unsound: {table.examples}"
        if not table.stored and channel != COMBOS:
            yield f"{channel}: nothing stored"


def _of(facts: Iterable[Fact], channel: str) -> list[Fact]:
    """Lifecycle facts of one channel: combos have their own."""
    types = ((fact, fact.identity) for fact in facts)
    return [
        fact
        for fact, identity in types
        if isinstance(identity, tuple) and (identity[0] == COMBOS) is (channel == COMBOS)
    ]


def _observations(found: Found) -> list[Fact]:
    """Return lifecycle rows as facts: one zone has one stream at a time, so no two of them are one fact."""
    return [
        Fact(r.ticker, r.observed_at, (r.message_type, r.event_type, canonical(json.loads(r.body))))
        for r in found.rows("market_lifecycle")
    ]


def _gaps(
    found: Found, truth: Truth, sessions: Sessions, production: Production
) -> Iterator[tuple[tuple[str, Gap], str]]:
    """Yield every gap by channel, with what is wrong with it."""
    causes = _causes(found, sessions)
    end = sessions.end_ts
    books = {t: (max(m.created_at, sessions.epoch), end) for t, m in truth.markets.items()}
    lives = [(ORDERBOOK_CHANNEL, books), *((name, {"": (sessions.epoch, end)}) for name in WHOLE)]
    for channel, spans in lives:
        for gap in gaps_of(production.index(ZONE, channel), spans):
            beyond = holes(
                causes.allowed(channel, gap.ticker, spans[gap.ticker]), gap.from_ts, gap.to_ts
            )
            at = ", ".join(f"{_s(sessions, low)}..{_s(sessions, high)}" for low, high in beyond)
            what = f"without a cause at {at}" if beyond else ""
            if gap.to_ts >= end:
                # The last ticker is an old one: what it proves ends long before it was sent.
                is_short = channel == "ticker" or _is_short(gap, end)
                since = _s(sessions, gap.from_ts)
                what = "" if is_short else f"not heard at the end, since {since}"
            yield (channel, gap), what


def _is_short(gap: Gap, end: int) -> bool:
    """True where an end margin (twice the age of a ticker), or the listing of a market, is all there is to the gap."""
    return end - gap.from_ts < 3 * SECOND


def _s(sessions: Sessions, moment: int) -> str:
    return f"{(moment - sessions.epoch) / SECOND:.3f} s"


def _causes(found: Found, sessions: Sessions) -> Causes:
    spans: dict[int, list[Span]] = defaultdict(list)
    carried: dict[tuple[str, str | None], set[int]] = defaultdict(set)
    channels: dict[tuple[int, int], str] = {}
    begun: dict[int, dict[str, Any]] = {}
    for line in found.journal:
        if line["kind"] == "subscribed":
            channels[line["connection"], line["sid"]] = line["channel"]
            carried[line["channel"], None].add(line["connection"])
        elif line["kind"] == "added":
            channel = channels[line["connection"], line["sid"]]
            for ticker in line["tickers"]:
                carried[channel, ticker].add(line["connection"])
        elif line["kind"] == "fault" and line["phase"] == "begin":
            begun[line["number"]] = line
        elif line["kind"] == "fault" and line["phase"] == "hit":
            late = SILENCE_S + 1 if line["fault"] == "half_open" else 0
            if line["fault"] not in HARMLESS | LASTING:
                span = (line["at"], line["at"] + int(late * SECOND))
                spans[line.get("connection", 0)].append(span)
        elif line["kind"] == "fault" and line["fault"] in LASTING:
            start = begun[line["number"]]
            whom = start["entry"].get("on", {}).get("connection", 0)
            spans[whom].append((start["at"], line["at"]))
    return Causes(spans, carried, sessions)


def _snapshots(production: Production, sessions: Sessions) -> Iterator[str]:
    for row in production.snapshots:
        place = (row.ticker, row.sid or 0, row.seq or 0, row.sent_at or 0)
        if row.source == "ws" and (row.yes, row.no) not in sessions.snapshots.get(place, ()):
            yield f"snapshot {place} is not the book that was sent"


def _books(truth: Truth, production: Production, gaps: list[Gap]) -> Iterator[str]:
    """Rebuild every market from what was seen after its last gap."""
    since = {gap.ticker: gap.from_ts for gap in sorted(gaps, key=lambda g: g.from_ts)}
    late = [r for r in production.snapshots if r.observed_at >= since.get(r.ticker, 0)]
    heard = replace(production, snapshots=late)
    compared = 0
    for ticker, market in truth.markets.items():
        try:
            book = heard.book(ticker)
        except BookImpossible as error:
            yield f"{ticker}: {error}"
            continue
        compared += book is not None
        if book not in (None, market.book()):
            yield f"{ticker} is rebuilt to another book"
    if not compared:
        yield "no book could be rebuilt"
