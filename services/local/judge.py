"""Takes a verdict: journals, production, archive. Reads everything, decides nothing itself.

Of a run that has ended everything is judged. Of one that goes on, what was published in a span that is over: the facts
of the span, and snapshots, books and gaps as they were at its end.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from libs.archive.objects import ObjectStore
from libs.archive.parquet import read_rows
from libs.marketdata.listening import ORDERBOOK_CHANNEL, Span, holes
from libs.marketdata.tables import GATHERER_TABLES
from libs.marketdata.units import SECOND
from libs.store.pool import Connection, connect, map_store_errors
from services.local.books import judge_books, judge_snapshots
from services.local.case import Case, lines_of
from services.local.config_files import capture_filter
from services.local.run import LocalRun
from services.local.sessions import Sessions, read_session_journal
from services.local.stored import Stored, count_rows, read_claims, read_stored
from services.local.topology import PRODUCTION
from services.local.troubles import (
    Trouble,
    added_fields,
    read_troubles,
    spans_of,
    tickers_heard,
)
from services.local.truth import Truth, read_market_journal
from services.local.verdict import (
    SLACK,
    ClaimIndex,
    Fact,
    Gap,
    TableVerdict,
    Verdict,
    gaps_of,
    judge,
    loose,
    unplanned,
    until,
    zone_verdict,
)

NOTHING = ClaimIndex([])
ANSWERED = 5 * SECOND
"""A subscription this old has its first snapshot."""
TICKERS = "ticker"
LIFECYCLE_CHANNEL = "market_lifecycle_v2"
COMBO_CHANNEL = "multivariate_market_lifecycle"


async def judge_run(
    run: LocalRun,
    victim: str | None,
    done: Sequence[Trouble] = (),
    *,
    with_archive: bool = True,
) -> Verdict:
    """Compare what was published with what production and archive hold, once the run has ended.

    Args:
        victim: the zone that lost its power; its absence must show as its own gap.
        done: what else was done to zones that may have cost them rows they had heard.
    """
    journal = run.journal_dir
    case = Case(
        market=journal / "market.jsonl",
        session=journal / "session.jsonl",
        production=run.target(PRODUCTION),
        keys={zone: run.key_id(zone) for zone in run.zones},
        wants=capture_filter().may_want,
        done=done,
        absences={victim: run.outage(victim)} if victim else {},
        archive=run.archive if with_archive else None,
    )
    return await judge_case(case)


async def judge_case(case: Case) -> Verdict:
    """Compare what was published with what is stored."""
    span = case.span
    truth = read_market_journal(lines_of(case.market), span).only(case.wants)
    sessions = read_session_journal(lines_of(case.session), span)
    troubles = [*case.done, *read_troubles(lines_of(case.session), case.key_id)]
    verdict = Verdict()
    async with connect(case.production) as conn:
        added = added_fields(lines_of(case.session))
        stored = await read_stored(conn, added, span, case.epoch)
        claims = await read_claims(conn)
        together = dict(claims.get("", {}))
        by_key = {
            key: claims.get(zone, {}).get(TICKERS, NOTHING) for zone, key in case.keys.items()
        }
        together[TICKERS] = tickers_heard(by_key, troubles, TICKERS)
        _judge_facts(verdict, truth, stored, together, span)
        causes = await _gap_rows(conn)
        lives = _lives(truth, sessions)
        for zone in (*case.keys, ""):
            keys = [case.keys[zone]] if zone else list(case.keys.values())
            index = claims.get(zone, {}).get(ORDERBOOK_CHANNEL, NOTHING)
            gaps = gaps_of(index, lives)
            name = zone or PRODUCTION
            verdict.zones.append(zone_verdict(name, gaps, lives, causes.get(zone, "")))
            verdict.loose_gaps[name] = loose(gaps, _causes(sessions, keys, lives, troubles))
            verdict.unplanned_gaps[name] = unplanned(gaps, truth.lives(), index)
            if zone in case.absences:
                _judge_absence(verdict, zone, case.absences[zone], gaps)
        judge_snapshots(verdict, truth, sessions, stored.snapshots)
        heard = sessions.asked_for(ORDERBOOK_CHANNEL, span[1] - ANSWERED if span else None)
        judge_books(verdict, truth, stored, together.get(ORDERBOOK_CHANNEL, NOTHING), lives, heard)
        if case.archive is not None:
            await _judge_archive(verdict, conn, case.archive)
    return verdict


def _judge_facts(
    verdict: Verdict, truth: Truth, stored: Stored, claims: Mapping[str, ClaimIndex], span: Span | None
) -> None:  # fmt: skip
    verdict.tables += [
        judge("orderbook_deltas", truth.deltas(span), stored.delta_facts(span), claims.get(ORDERBOOK_CHANNEL, NOTHING)),
        judge("trades", truth.trades, stored.trades, claims.get("trade", NOTHING)),
        judge("tickers", truth.tickers, stored.tickers, claims.get(TICKERS, NOTHING)),
    ]  # fmt: skip
    for name, channel in (("market_lifecycle", LIFECYCLE_CHANNEL), ("its combos", COMBO_CHANNEL)):
        said, held = (
            [fact for fact in facts if (_message_type(fact) == COMBO_CHANNEL) == (channel == COMBO_CHANNEL)]
            for facts in (truth.lifecycle, stored.lifecycle)
        )  # fmt: skip
        verdict.tables.append(
            _judge_lifecycle(name, said, held, claims.get(channel, NOTHING), span)
        )


def _judge_lifecycle(
    name: str, said: Sequence[Fact], held: Sequence[Fact], claims: ClaimIndex, span: Span | None
) -> TableVerdict:
    """Judge all from the run's beginning; a message seen shortly after the span's end may be one sent before it."""
    end = span[1] if span else None
    found = judge(name, until(said, end), held, claims)
    extra = judge(name, said, until(held, end), claims)
    examples = (*(e for e in extra.examples if e.startswith("extra")), *(e for e in found.examples if not e.startswith("extra")))  # fmt: skip
    return replace(found, stored=extra.stored, extra=extra.extra, examples=examples)


def _message_type(fact: Fact) -> str:
    """Return the type of a lifecycle fact's message; combos have a channel, and so claims, of their own."""
    assert isinstance(fact.identity, tuple)
    return str(fact.identity[0])


def _lives(truth: Truth, sessions: Sessions) -> dict[str, Span]:
    """When each market could have been heard: from its listing (or the exchange's start) to its close (or the end)."""
    lives = {
        ticker: (max(market.created_at, sessions.epoch), min(market.closed_at or sessions.end_ts, sessions.end_ts))
        for ticker, market in truth.markets.items()
    }  # fmt: skip
    return {ticker: span for ticker, span in lives.items() if span[0] < span[1]}


def _causes(
    sessions: Sessions,
    keys: Sequence[str],
    lives: Mapping[str, Span],
    troubles: Sequence[Trouble],
) -> Callable[[str], Sequence[Span]]:
    """Return ticker -> spans in which every key was troubled, or by the exchange's own journal not subscribed to it."""

    def of(ticker: str) -> Sequence[Span]:
        start, end = lives[ticker][0] - SLACK, lives[ticker][1] + SLACK
        if not troubles:
            return sessions.unsubscribed(keys, ORDERBOOK_CHANNEL, ticker, (start, end))
        # Gaps of all lie in the gaps of each, which may be wider than their causes.
        wider = SLACK if len(keys) > 1 else 0
        untroubled = [
            well
            for key in keys
            for well in holes(
                [
                    (low - wider, high + wider)
                    for low, high in (
                        *sessions.unsubscribed([key], ORDERBOOK_CHANNEL, ticker, (start, end)),
                        *spans_of(troubles, key, ORDERBOOK_CHANNEL),
                    )
                ],
                start,
                end,
            )
        ]
        return holes(untroubled, start, end)

    return of


def _judge_absence(verdict: Verdict, zone: str, absence: Span, gaps: Sequence[Gap]) -> None:
    """The time in which a zone was away must lie in gaps of its own."""
    low, high = absence
    if not any(gap.from_ts <= low and high <= gap.to_ts for gap in gaps):
        verdict.faults.append(f"the absence of zone {zone} does not show as its gap")


async def _gap_rows(conn: Connection) -> dict[str, str]:
    """Return the causes that each zone itself wrote down, counted: "disconnected 2, process_died 4"."""
    with map_store_errors():
        rows = await conn.fetch(
            "SELECT z.zone, g.reason, count(*) AS n FROM gaps g JOIN gatherers z ON z.gatherer = g.gatherer"
            " GROUP BY 1, 2 ORDER BY 1, 2"
        )
    found: dict[str, str] = {}
    for row in rows:
        said = f"{row['reason']} {row['n']}"
        found[row["zone"]] = f"{found[row['zone']]}, {said}" if row["zone"] in found else said
    return found


async def _judge_archive(verdict: Verdict, conn: Connection, root: Path) -> None:
    """Read every object back: bytes as the manifest says, rows as production has them."""
    counts = await count_rows(conn, list(GATHERER_TABLES))
    with map_store_errors():
        manifests = await conn.fetch(
            "SELECT table_name, object, sha256, rows FROM archive_manifests"
        )
    store = ObjectStore(str(root))
    archived = dict.fromkeys(counts, 0)
    for manifest in manifests:
        if store.sha256(manifest["object"]) != manifest["sha256"]:
            verdict.faults.append(f"{manifest['object']} is not what its manifest says")
            continue
        archived[manifest["table_name"]] += await asyncio.to_thread(
            read_rows, store.get(manifest["object"])
        )
    verdict.archive = {name: (counts[name], archived[name]) for name in counts}
