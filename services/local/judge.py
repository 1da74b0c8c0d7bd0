"""Takes the verdict of a finished run: journals, production, archive. Reads everything, decides nothing itself."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path

from libs.archive.objects import ObjectStore
from libs.archive.parquet import read_rows
from libs.marketdata.listening import ORDERBOOK_CHANNEL, Span, holes
from libs.marketdata.rebuild import BookImpossible, Levels, apply, levels_of
from libs.marketdata.tables import GATHERER_TABLES
from libs.marketdata.units import MILLISECOND, SECOND
from libs.store.pool import Connection, connect, map_store_errors
from services.local.config_files import capture_filter
from services.local.run import LocalRun
from services.local.sessions import Sessions, read_session_journal
from services.local.stored import Snapshot, Stored, count_rows, read_claims, read_stored
from services.local.topology import PRODUCTION
from services.local.troubles import (
    Trouble,
    added_fields,
    read_troubles,
    spans_of,
    tickers_heard,
)
from services.local.truth import Market, Truth, read_market_journal
from services.local.verdict import (
    SLACK,
    ClaimIndex,
    Fact,
    Gap,
    Verdict,
    gaps_of,
    judge,
    loose,
    zone_verdict,
)

REST_AGE_MAX = 15 * SECOND
"""A REST book may be this old when it is answered (it comes through a CDN)."""
AT_CLOSE = SECOND
"""What the last frame of a market that closes need not prove: the margin. It is unsubscribed when it is closed."""
AFTER_SNAPSHOT = SECOND + MILLISECOND
"""From a stream's first snapshot to the beginning of its claim: the margin."""
NOTHING = ClaimIndex([])
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
    """Compare what was published with what production and archive hold.

    Args:
        victim: the zone that lost its power; its absence must show as its own gap.
        done: what else was done to zones that may have cost them rows they had heard.
    """
    journal = run.journal_dir
    truth = read_market_journal(_lines(journal / "market.jsonl")).only(capture_filter().may_want)
    lines = _lines(journal / "session.jsonl")
    sessions = read_session_journal(lines)
    troubles = [*done, *read_troubles(lines, run.key_id)]
    verdict = Verdict()
    async with connect(run.target(PRODUCTION)) as conn:
        stored = await read_stored(conn, added_fields(lines))
        claims = await read_claims(conn)
        together = dict(claims.get("", {}))
        by_key = {
            run.key_id(zone): claims.get(zone, {}).get(TICKERS, NOTHING) for zone in run.zones
        }
        together[TICKERS] = tickers_heard(by_key, troubles, TICKERS)
        _judge_facts(verdict, truth, stored, together)
        causes = await _gap_rows(conn)
        lives = _lives(truth, sessions)
        for zone in (*run.zones, ""):
            keys = [run.key_id(name) for name in ([zone] if zone else run.zones)]
            index = claims.get(zone, {}).get(ORDERBOOK_CHANNEL, NOTHING)
            gaps = gaps_of(index, lives)
            name = zone or PRODUCTION
            verdict.zones.append(zone_verdict(name, gaps, lives, causes.get(zone, "")))
            verdict.loose_gaps[name] = loose(gaps, _causes(sessions, keys, lives, troubles))
            if zone and zone == victim:
                _judge_absence(verdict, run, zone, gaps)
        _judge_snapshots(verdict, truth, sessions, stored.snapshots)
        heard = {
            ticker for _, channel, ticker in sessions.subscribed if channel == ORDERBOOK_CHANNEL
        }
        _judge_books(verdict, truth, stored, together.get(ORDERBOOK_CHANNEL, NOTHING), lives, heard)
        if with_archive:
            await _judge_archive(verdict, conn, run.archive)
    return verdict


def _lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines()


def _judge_facts(
    verdict: Verdict, truth: Truth, stored: Stored, claims: Mapping[str, ClaimIndex]
) -> None:
    verdict.tables += [
        judge("orderbook_deltas", truth.deltas(), stored.delta_facts(), claims.get(ORDERBOOK_CHANNEL, NOTHING)),
        judge("trades", truth.trades, stored.trades, claims.get("trade", NOTHING)),
        judge("tickers", truth.tickers, stored.tickers, claims.get(TICKERS, NOTHING)),
    ]  # fmt: skip
    for name, channel in (("market_lifecycle", LIFECYCLE_CHANNEL), ("its combos", COMBO_CHANNEL)):
        said, held = (
            [fact for fact in facts if (_message_type(fact) == COMBO_CHANNEL) == (channel == COMBO_CHANNEL)]
            for facts in (truth.lifecycle, stored.lifecycle)
        )  # fmt: skip
        verdict.tables.append(judge(name, said, held, claims.get(channel, NOTHING)))


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


def _judge_absence(verdict: Verdict, run: LocalRun, zone: str, gaps: Sequence[Gap]) -> None:
    """The zone's time without power must lie in gaps of its own."""
    low, high = run.outage(zone)
    if not any(gap.from_ts <= low and high <= gap.to_ts for gap in gaps):
        verdict.faults.append(f"the power cut of zone {zone} does not show as its gap")


def _judge_snapshots(
    verdict: Verdict, truth: Truth, sessions: Sessions, snapshots: Sequence[Snapshot]
) -> None:
    for snapshot in snapshots:
        book = snapshot.book
        if book is None:
            continue
        verdict.snapshots += 1
        if snapshot.source == "ws":
            key = (snapshot.ticker, snapshot.sid or 0, snapshot.seq or 0, snapshot.sent_at or 0)
            equal = (book.yes, book.no) in sessions.snapshots.get(key, ())
        else:
            equal = _was_a_book(
                truth.markets[snapshot.ticker], levels_of(book.yes, book.no), snapshot
            )
        verdict.snapshots_equal += equal


def _judge_books(
    verdict: Verdict, truth: Truth, stored: Stored, claims: ClaimIndex, lives: Mapping[str, Span], heard: AbstractSet[str | None],
) -> None:  # fmt: skip
    """Rebuild the last book of every market that was ever heard, from snapshots without a gap behind them."""
    taken = stored.taken()
    rebuilt: dict[str, Levels | None] = {}
    for ticker in truth.markets.keys() & heard:
        market = truth.markets[ticker]
        end = lives[ticker][1] - (AT_CLOSE if market.closed_at else 0) if ticker in lives else 0
        own = claims.of(ticker)
        usable = [
            snapshot
            for snapshot in taken.get(ticker, ())
            if (start := snapshot.observed_at + AFTER_SNAPSHOT) <= end
            and not holes(own, start, end)
        ]
        try:
            book = stored.book(ticker, usable)
        except BookImpossible as error:
            verdict.faults.append(f"the book of {ticker} cannot be rebuilt: {error}")
            continue
        if book is None and len(usable) < len(taken.get(ticker, ())):
            verdict.books_unproved += 1
        else:
            rebuilt[ticker] = book
    verdict.compare_books(rebuilt, {ticker: truth.markets[ticker].book() for ticker in rebuilt})


def _was_a_book(market: Market, levels: Levels, snapshot: Snapshot) -> bool:
    """True when the market's book stood so at some moment within the age a REST answer may have."""
    low = (snapshot.requested_at or snapshot.received_at) - REST_AGE_MAX
    before = [d for d in market.deltas if d.exchange_ts < low]
    book = apply(market.start, before)
    if book == levels:
        return True
    for delta in market.deltas[len(before) :]:
        if delta.exchange_ts > snapshot.received_at:
            return False
        book = apply(book, [delta])
        if book == levels:
            return True
    return False


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
