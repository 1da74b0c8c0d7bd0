"""The verdict of a world: data-model.md section 7, from the journals and what was committed, for every zone and all.

- extra: stored and never published; always a fault of the client
- unsound: missing though somebody claims to have listened; asked of every zone alone too, as if it were the only one
- loose: a gap without a cause, or more than 10 s wider than it
- untold: a gap whose cause its zone did not write down
- silence: a stall of the ticker channel longer than the watchdog that is no gap
- missing: without any fault, not everything is there, or a gap of another cause than not_subscribed
- unmerged, invented, coverage, quarantined, disagreement, undrained: of what a deduplicator did; see deduplicated.py
- snapshot, book, order: a book that is not the one that was sent, or cannot be rebuilt; a delta in another's place
"""

import json
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from libs.marketdata.listening import ORDERBOOK_CHANNEL, Span, holes
from libs.marketdata.rebuild import BookImpossible
from libs.marketdata.rows import GapRow, Ladder
from libs.marketdata.units import SECOND
from services.local.sessions import Sessions, read_session_journal
from services.local.truth import Truth, read_market_journal
from services.local.verdict import ClaimIndex, Fact, Gap, TableVerdict, gaps_of, judge
from services.simulator.faults.menu import RenameField
from tests.simulation.causes import Causes, Hit, causes_of, faults_of, quiet_tickers
from tests.simulation.deduplicated import judge_merging
from tests.simulation.gatherer import SILENCE_S
from tests.simulation.plan import ZONES
from tests.simulation.production import SAME_FACT, Production, merge
from tests.simulation.script import steps_back, steps_far
from tests.simulation.world import Run, slot_of

LIFECYCLES = ("market_lifecycle_v2", "multivariate_market_lifecycle")
CHANNEL_SLOTS = {"ticker": "ticker/0", "trade": "trade/0"} | dict.fromkeys(
    LIFECYCLES, "lifecycle/0"
)
"""The slot of each channel that is heard as a whole."""


UNSEEN = frozenset({"drop", "stall", "reorder"})
"""Faults that take ticker frames, or their order, and leave no trace in numbers."""
TICKER_LAG = 2_500_000
"""A ticker speaks of a change up to a second and a half before it, and its frame is some time under way; microseconds."""
SILENCE_SLACK_S = 2.0
TOLD_WITHIN = 3 * SECOND
"""A row's span is that of frames, a gap's that of claims: margins lie between."""


@dataclass(slots=True)
class Outcome:
    """What a world came to. findings: (kind, what); none when everything holds."""

    tables: list[TableVerdict] = field(default_factory=list)
    findings: list[tuple[str, str]] = field(default_factory=list)
    gaps: int = 0

    def add(self, kind: str, what: object) -> None:
        self.findings.append((kind, str(what)))


@dataclass(frozen=True, slots=True)
class _Case:
    """Everything the checks look at."""

    run: Run
    truth: Truth
    sessions: Sessions
    production: Production
    causes: Causes


def take_verdict(run: Run) -> Outcome:
    """Hold what was committed against what was published."""
    truth = read_market_journal(line.encode() for line in run.venue.market.lines)
    sessions = read_session_journal(line.encode() for line in run.venue.session.lines)
    merging = run.deduplication
    whole = None if merging is None else merging.production
    production = merge({zone: g.database for zone, g in run.gatherers.items()}, whole)
    created = {ticker: market.created_at for ticker, market in truth.markets.items()}
    case = _Case(run, truth, sessions, production, causes_of(run, production, created))
    outcome = Outcome()
    if merging is not None:
        for kind, what in judge_merging(run, merging):
            outcome.add(kind, what)
    _judge_facts(case, outcome)
    if steps_far(run.plan.faults):
        # Beyond the margins nothing can be promised (data-model.md section 7), but that nothing is made up.
        outcome.findings = [finding for finding in outcome.findings if finding[0] == "extra"]
        return outcome
    _judge_snapshots(case, outcome)
    gaps = _judge_gaps(case, outcome)
    if not steps_back(run.plan.faults):
        # Where the clock went back, milliseconds come twice, and their deltas have no one order any more.
        _judge_order(case, outcome)
        _judge_books(case, outcome, gaps)
    _judge_silence(case, outcome)
    if run.plan.is_quiet:
        _judge_completeness(case, outcome)
    return outcome


# --- facts: nothing extra, nothing missing inside a claim ---


def _judge_facts(case: _Case, outcome: Outcome) -> None:
    for zone, gatherer in case.run.gatherers.items():
        _judge_tables(case, outcome, zone, merge({zone: gatherer.database}))
    outcome.tables = _judge_tables(case, outcome, "", case.production)


def _judge_tables(case: _Case, outcome: Outcome, zone: str, held: Production) -> list[TableVerdict]:
    """Judge what one zone, or all of them, hold against what they claim."""
    truth = case.truth
    facts: dict[str, tuple[Iterable[Fact], Iterable[Fact]]] = {
        ORDERBOOK_CHANNEL: (truth.deltas(), held.delta_facts()),
        "trade": (truth.trades, _in_time(case, held.trades)),
        "ticker": (truth.tickers, held.tickers),
    }
    for name in LIFECYCLES:
        facts[name] = _of_channel(truth.lifecycle, name), _of_channel(held.lifecycle, name)
    tables = []
    for channel, (published, stored) in facts.items():
        index = _seen(case, zone) if channel == "ticker" else held.index(zone, channel)
        table = judge(channel, published, stored, index)
        if table.unsound and channel in _EXCUSES:
            excuse = _EXCUSES[channel]
            left = judge(channel, excuse(case, published), excuse(case, stored), index)
            table = replace(table, unsound=left.unsound)
        tables.append(table)
        if table.extra:
            outcome.add("extra", f"{zone or 'all'} {channel}: {table.extra}, {table.examples}")
        if table.unsound:
            outcome.add("unsound", f"{zone or 'all'} {channel}: {table.unsound}, {table.examples}")
    return tables


def _in_time(case: _Case, trades: Iterable[Fact]) -> list[Fact]:
    """Give trades whose ts_ms a fault took away their time again: `ts` tells whole seconds, their id tells which."""
    if not any(isinstance(f, RenameField) and f.field == "ts_ms" for f in case.run.plan.faults):
        return list(trades)
    published = {_but_time(fact): fact for fact in case.truth.trades}
    found = []
    for trade in trades:
        known = published.get(_but_time(trade))
        is_whole = known is not None and trade.moment == known.moment - known.moment % SECOND
        found.append(known if known is not None and is_whole else trade)
    return found


def _but_time(trade: Fact) -> Hashable:
    assert isinstance(trade.identity, tuple)
    return trade.identity[1:]


def _of_channel(facts: Iterable[Fact], channel: str) -> list[Fact]:
    """Lifecycle facts of one channel; events are told on the one of single markets."""
    is_combo = channel == LIFECYCLES[1]
    return [
        f
        for f in facts
        if (isinstance(f.identity, tuple) and f.identity[0] == LIFECYCLES[1]) is is_combo
    ]


def _seen(case: _Case, zone: str) -> ClaimIndex:
    """What a zone, or all of them, claim of tickers, less what faults took unseen: their frames carry no numbers."""
    kept: list[tuple[None, int, int]] = []
    for name in (zone,) if zone else ZONES:
        lost = [
            (hit.start - TICKER_LAG, hit.end + TICKER_LAG)
            for hit in faults_of(case.run)
            if hit.kind in UNSEEN and not _is_long(hit) and (name, "ticker/0") in hit.whom
        ]
        for start, end in case.production.index(name, "ticker").of(""):
            kept += [(None, low, high) for low, high in holes(lost, start, end)]
    return ClaimIndex(kept)


def _is_long(hit: Hit) -> bool:
    """A silence longer than the watchdog takes to be one."""
    return hit.is_lasting and hit.end - hit.start > int((SILENCE_S + SILENCE_SLACK_S) * SECOND)


def _judge_silence(case: _Case, outcome: Outcome) -> None:
    """Every silence of the ticker channel that was made and is longer than the watchdog is a gap."""
    for hit in faults_of(case.run):
        if hit.kind != "stall" or not _is_long(hit):
            continue
        for zone in {zone for zone, slot in hit.whom if slot == "ticker/0"}:
            spans = case.production.index(zone, "ticker").of("")
            if not holes(spans, hit.start, hit.end):
                outcome.add("silence", f"{zone}: {_at(case, hit.start)}..{_at(case, hit.end)}")


def _in_good_time(case: _Case, tickers: Iterable[Fact]) -> list[Fact]:
    """Leave out tickers that were published later than any margin: of a new market, as its first order comes.

    What comes later than the margin is excused by data-model.md section 7.
    """
    lines = (line for line in case.run.venue.market.lines if line.startswith('{"kind":"ticker"'))
    told = map(json.loads, lines)
    late = {(t["ticker"], t["exchange_ts"]) for t in told if t["at"] - t["exchange_ts"] > SECOND}
    return [fact for fact in tickers if (fact.ticker, fact.moment) not in late]


def _without_twins(_case: _Case, facts: Iterable[Fact]) -> list[Fact]:
    """Leave out what equals a fact less than 10 s before: where no one stream heard both, they cannot be told apart.

    That is the rule of section 3 (equal observations of different streams join), not a fault of whoever heard them.
    """
    last: dict[tuple[str, Hashable], int] = {}
    kept = []
    for fact in sorted(facts, key=lambda f: f.moment):
        key = (fact.ticker, fact.identity)
        if key not in last or fact.moment - last[key] >= SAME_FACT:
            kept.append(fact)
        last[key] = fact.moment
    return kept


_EXCUSES = {"ticker": _in_good_time, **dict.fromkeys(LIFECYCLES, _without_twins)}
"""What is left of a channel's facts when those are taken out that nobody can be blamed for missing."""


# --- books ---


def _judge_snapshots(case: _Case, outcome: Outcome) -> None:
    sent = case.sessions.snapshots
    of_place: dict[tuple[str, int, int], list[tuple[Ladder, Ladder]]] = defaultdict(list)
    for (ticker, sid, seq, _), books in sent.items():
        of_place[ticker, sid, seq] += books
    for row in case.production.snapshots:
        place = (row.ticker, row.sid or 0, row.seq or 0)
        # Without its sending time it may be any that was sent at this place of some connection.
        books = of_place[place] if row.sent_at is None else sent.get((*place, row.sent_at), [])
        if (row.yes, row.no) not in books:
            outcome.add("snapshot", f"{place} at {row.sent_at} is not the book that was sent")


def _judge_books(case: _Case, outcome: Outcome, gaps: Mapping[str, list[Gap]]) -> None:
    """A market that somebody heard all its life is rebuilt to its last book."""
    broken = {gap.ticker for gap in gaps[""]}
    for ticker, market in case.truth.markets.items():
        if ticker in broken or not any(r.ticker == ticker for r in case.production.snapshots):
            continue
        try:
            book = case.production.book(ticker)
        except BookImpossible as error:
            outcome.add("book", f"{ticker}: {error}")
            continue
        if book is not None and book != market.book():
            outcome.add("book", f"{ticker} is rebuilt to another book")


def _judge_order(case: _Case, outcome: Outcome) -> None:
    """A delta that says its place in its millisecond stands there in the truth."""
    places: dict[tuple[str, int], list[tuple[bool, int, int]]] = defaultdict(list)
    for ticker, market in case.truth.markets.items():
        for d in market.deltas:
            places[ticker, d.exchange_ts].append((d.side, d.price, d.size_delta))
    for row in case.production.deltas:
        there = places.get((row.ticker, row.exchange_ts), [])
        if row.pos is not None and there[row.pos - 1 : row.pos] != [
            (row.side, row.price, row.size_delta)
        ]:
            outcome.add("order", f"{row.ticker} {row.exchange_ts}: place {row.pos} of {len(there)}")


# --- gaps ---


def _judge_gaps(case: _Case, outcome: Outcome) -> dict[str, list[Gap]]:
    """Every zone's gaps have their causes; those of all together, which lie in each zone's, then have them too.

    Returns:
        Gaps of order books by zone, "" = of all together.
    """
    lives = _lives(case)
    whole = (case.sessions.epoch, case.sessions.end_ts)
    found: dict[str, list[Gap]] = {}
    for zone in (*ZONES, ""):
        found[zone] = gaps_of(case.production.index(zone, ORDERBOOK_CHANNEL), lives)
        if not zone:
            continue
        heard = [(ORDERBOOK_CHANNEL, slot_of(gap.ticker), gap) for gap in found[zone]]
        for channel, slot in CHANNEL_SLOTS.items():
            gaps = gaps_of(case.production.index(zone, channel), {"": whole})
            heard += [(channel, slot, gap) for gap in gaps]
        for channel, slot, gap in heard:
            _judge_gap(case, outcome, zone, channel, slot, gap)
        _judge_told(case, outcome, zone, heard)
    outcome.gaps = sum(map(len, found.values()))
    return found


def _judge_gap(case: _Case, outcome: Outcome, zone: str, channel: str, slot: str, gap: Gap) -> None:
    market = case.truth.markets.get(gap.ticker)
    is_first = market is not None and market.created_at == gap.from_ts
    if is_first and case.causes.awaits_room(zone, slot, gap.to_ts):
        return
    margin = case.production.margins.get((zone, channel), 0)
    # Nobody asks a ticker channel for a frame before its silence is over.
    unasked = int(SILENCE_S * SECOND) if channel == "ticker" else 0
    allowed = case.causes.allowed(zone, slot, gap.ticker, margin + unasked)
    beyond = holes(allowed, gap.from_ts, gap.to_ts)
    if beyond:
        said = ", ".join(f"{_at(case, low)}..{_at(case, high)}" for low, high in beyond)
        outcome.add(
            "loose",
            f"{zone} {slot} {channel} {gap.ticker} {_at(case, gap.from_ts)}..{_at(case, gap.to_ts)} s, without a cause: {said}",
        )


def _judge_told(
    case: _Case, outcome: Outcome, zone: str, gaps: Iterable[tuple[str, str, Gap]]
) -> None:
    """Every gap between two claims has a row that names its cause.

    But for those of a dead process, which its successor writes, and for streams that an exchange's clock ended by going
    back: of these there is a metric, and no reason in the closed list.
    """
    rows = case.production.gaps[zone]
    ended = {(row.connection, row.from_ts, row.reason) for row in rows if row.to_ts is not None}
    rows = [r for r in rows if r.to_ts or (r.connection, r.from_ts, r.reason) not in ended]
    if case.run.gatherers[zone].deaths or steps_back(case.run.plan.faults):
        return
    blows = {t.kind for t in case.run.troubles if t.zone == zone}
    if "lanes_closed" in blows and blows & {"database_back", "database_wiped"}:
        # Who has just left a lane that was closed cannot know that a restore took what he had written there.
        return
    unwanted = {t.ticker for t in case.run.troubles if t.kind == "unwanted" and t.zone == zone}
    for channel, slot, gap in gaps:
        claims = case.production.index(zone, channel).of(gap.ticker)
        is_between = claims and claims[0][0] < gap.from_ts and gap.to_ts < claims[-1][1]
        if is_between and gap.ticker not in unwanted and not _is_told(rows, channel, slot, gap):
            span = f"{_at(case, gap.from_ts)}..{_at(case, gap.to_ts)}"
            outcome.add("untold", f"{zone} {slot} {channel} {gap.ticker} {span} s")


def _is_told(rows: Iterable[GapRow], channel: str, slot: str, gap: Gap) -> bool:
    for row in rows:
        # The two lifecycle channels share connections and lanes, and one row tells of both.
        is_its = channel == row.channel or {channel, row.channel} == set(LIFECYCLES)
        is_whole = row.ticker in (None, gap.ticker) and row.slot in ("", slot)
        begins = row.from_ts is None or row.from_ts - TOLD_WITHIN <= gap.to_ts
        ends = row.to_ts is None or row.to_ts + TOLD_WITHIN >= gap.from_ts
        if is_its and is_whole and begins and ends:
            return True
    return False


def _at(case: _Case, moment: int) -> str:
    """A moment in seconds of the exchange's own time."""
    return f"{(moment - case.sessions.epoch) / SECOND:.3f}"


def _lives(case: _Case) -> dict[str, Span]:
    """When each market could have been heard: from its listing (or the start) to its close (or the end)."""
    start, end = case.sessions.epoch, case.sessions.end_ts
    lives = {
        ticker: (max(market.created_at, start), min(market.closed_at or end, end))
        for ticker, market in case.truth.markets.items()
    }
    return {ticker: span for ticker, span in lives.items() if span[0] < span[1]}


def _judge_completeness(case: _Case, outcome: Outcome) -> None:
    """Without any fault everything is there, and the only gaps are those before a market's first snapshot."""
    for table in outcome.tables:
        if table.missing:
            outcome.add("missing", f"{table.table}: {table.missing} of {table.truth}")
    is_quiet = len(quiet_tickers(case.run)) > 1
    for zone, rows in case.production.gaps.items():
        for row in rows:
            if row.reason != "not_subscribed" and not (row.reason == "silent" and is_quiet):
                outcome.add("missing", f"{zone} {row.slot}: {row.reason} {row.detail}")
