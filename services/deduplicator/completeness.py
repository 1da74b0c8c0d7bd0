"""The standing alarm: does every gatherer deliver what it claims to have heard?

For every minute that is old enough, and every table of facts that all gatherers deliver: the facts that each admitted
gatherer delivered, and those that one lacks although all of them claim the fact's very moment. Who delivered a fact is
known in memory; claims are asked for those facts only that somebody lacks, normally next to none, market by market.
So a hole that a gatherer admits to never counts, not even of a part of a minute, and the second figure is exact. The
first counts facts in a gatherer's margins too (delivered, not claimed): a few seconds a connection, which make the
share look better by as much.

Bounded: markets that lack most come first, TICKERS_MAX of them a minute, a question ends after ten seconds, and what
was not looked up is said. A minute that one admitted gatherer is not merged up to yet waits, until it leaves the memory
of facts: then it was away for ten minutes, which other alarms tell. A zone that is quarantined, was never admitted or is
not configured is not waited for and not counted.
"""

import asyncio
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Final

from libs.marketdata.listening import covers
from libs.marketdata.units import DAY, HOUR, MINUTE, SECOND
from libs.runtime.clock import Clock
from libs.store.completeness import (
    Claimed,
    CompletenessRow,
    read_admitted,
    read_claims,
    read_last,
    write_completeness,
)
from libs.store.coverage_folding import fold_increments
from libs.store.errors import StoreUnavailable
from libs.store.listen_runs import forget_runs, join_ranges
from libs.store.merge_transaction import EventRow
from libs.store.merger import ProductionWriter
from libs.store.pool import Connection, Target, connect
from libs.store.waiting import first_of
from libs.telemetry.logging import get_logger
from libs.telemetry.metrics import Metrics
from services.deduplicator.board import Board
from services.deduplicator.facts import Lacking
from services.deduplicator.merge import MergeRoom

log = get_logger(__name__)

CHANNELS: Final = {"orderbook_deltas": "orderbook_delta", "trades": "trade", "tickers": "ticker"}
ORDERBOOK: Final = "orderbook_delta"
LEAST: Final = 0.999
"""Share below which it is an alarm."""
JUDGED_AFTER_S: Final = 180.0
"""Seconds after its end at which a minute is judged: claims of quiet streams come with a probe every 10 s, batches from
a spool within a minute or two; the memory of facts reaches back ten."""
MERGED_PAST: Final = MINUTE
"""How far past a minute's end every gatherer must be merged before it is judged, microseconds."""
MINUTES_BACK: Final = 10
TICKERS_MAX: Final = 50
TURN_S: Final = 15.0
SAMPLE_S: Final = 0.25
"""Seconds between two looks at how far each zone is merged: between two pages, nothing waits."""
FOLDED_AFTER: Final = 20 * MINUTE
"""Age from which a minute's increments are summed in place, microseconds: twice what the memory of facts reaches back,
so that few still come."""
CONFIRM_S_MAX: Final = 10.0
"""Seconds to wait for the writer to know of its own commit, which takes a moment at most."""
CONFIRM_POLL_S: Final = 0.01


class Completeness:
    """Judges one minute after the other; beside it keeps small what it reads: claims joined, increments folded."""

    def __init__(
        self,
        board: Board,
        room: MergeRoom,
        writer: ProductionWriter,
        production: Target,
        clock: Clock,
        metrics: Metrics,
        judged_after_s: float = JUDGED_AFTER_S,
    ) -> None:
        self._board = board
        self._room = room
        self._writer = writer
        self._production = production
        self._clock = clock
        self._metrics = metrics
        self._judged_after = round(judged_after_s * SECOND)
        self._judged = 0
        self._folded = 0
        self._merged: dict[str, int] = {}
        self._is_below: dict[str, bool] | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Judge until stop."""
        while not stop.is_set():
            await first_of(self._board.ready, stop)
            try:
                async with connect(self._production, "kalshi-data deduplicator") as conn:
                    await self.join_claims(conn, stop)
                    await self.judge_due(conn, stop)
                    # Last: increments that cannot be folded just now are no reason not to judge.
                    await self.keep_small(conn, stop)
            except StoreUnavailable as error:
                log.warning("completeness_not_judged", error=str(error))
            for _ in range(max(round(TURN_S / SAMPLE_S), 1)):
                self._note_merged()
                await first_of(stop, timeout_s=min(SAMPLE_S, TURN_S))

    async def join_claims(self, conn: Connection, stop: asyncio.Event) -> None:
        """Join claims, by which minutes are judged. Raises StoreUnavailable."""
        while not stop.is_set() and await join_ranges(conn):
            pass

    async def keep_small(self, conn: Connection, stop: asyncio.Event) -> None:
        """Fold old increments, forget what ended long ago. Raises StoreUnavailable."""
        end = self._clock.now() // MINUTE * MINUTE - FOLDED_AFTER
        if end > self._folded:
            while not stop.is_set() and await fold_increments(conn, end - DAY, end):
                pass
            if end // HOUR > self._folded // HOUR:
                await forget_runs(conn)
            self._folded = end

    async def judge_due(self, conn: Connection, stop: asyncio.Event) -> None:
        """Judge every minute that has become old enough. Raises StoreUnavailable."""
        zones = await self._admitted(conn)
        is_beginning = any(feed.status == "waiting" for feed in self._board.feeds.values())
        if len(zones) < 2 or is_beginning:
            return
        last = (self._clock.now() - self._judged_after) // MINUTE - 1
        for minute in range(max(self._judged + 1, last - MINUTES_BACK), last + 1):
            if stop.is_set() or not self._is_merged(zones, minute * MINUTE + MINUTE + MERGED_PAST):
                return
            # Given up when it fails: a question that took too long would take as long again.
            self._judged = minute
            await self._judge(conn, minute * MINUTE, sorted(zones.values()))

    async def _admitted(self, conn: Connection) -> dict[str, int]:
        admitted = await read_admitted(conn)
        return {zone: number for zone, number in admitted.items() if zone in self._board.feeds}

    async def _judge(self, conn: Connection, minute: int, gatherers: Sequence[int]) -> None:
        """Judge one minute (its first microsecond) and record it. Raises StoreUnavailable."""
        rows: list[CompletenessRow] = []
        events: list[EventRow] = []
        if self._is_below is None:
            self._is_below = {
                name: _is_below(*last) for name, last in (await read_last(conn)).items()
            }
        for table_name in CHANNELS:
            row, silent = await self._judge_table(conn, table_name, minute, gatherers)
            if row.facts:
                rows.append(row)
                events += self._tell(row, silent)
        if rows:
            try:
                await write_completeness(conn, rows, events)
            except StoreUnavailable:
                self._is_below = None  # nothing was told: what was is read again
                raise

    def _is_merged(self, zones: Iterable[str], moment: int) -> bool:
        return all(self._merged.get(zone, 0) >= moment for zone in zones)

    def _note_merged(self) -> None:
        """Note up to when each zone is merged, whenever nothing that was seen of it is still to be merged."""
        for zone, feed in self._board.feeds.items():
            if not feed.batches_behind and not feed.waiting:
                known = self._merged.get(zone, 0)
                self._merged[zone] = max(known, feed.drained_at or 0, feed.merged_at or 0)

    async def _judge_table(
        self, conn: Connection, table_name: str, minute: int, gatherers: Sequence[int]
    ) -> tuple[CompletenessRow, list[Lacking]]:
        channel = CHANNELS[table_name]
        by_all, lacking = self._room.delivered(table_name, minute, gatherers)
        asked = _worst(lacking, channel)
        silent: list[Lacking] = []
        unchecked = 0
        if asked:
            spans = dict.fromkeys(asked, (minute, minute + MINUTE))
            claimed = await read_claims(conn, channel, spans)
            await self._confirmed(claimed.merge_no)
            # Claims come in the batches of their facts: what came in the meantime must count for both.
            by_all, lacking = self._room.delivered(table_name, minute, gatherers)
            checked = [fact for fact in lacking if _asked_as(fact, channel) in asked]
            silent = [fact for fact in checked if _claimed(fact, channel, claimed, gatherers)]
            unchecked = len(lacking) - len(checked)
        facts = by_all + len(silent)
        row = CompletenessRow(minute, table_name, tuple(gatherers), facts, by_all, unchecked)
        return row, silent

    async def _confirmed(self, merge_no: int) -> None:
        """Wait until the merge room knows of this transaction."""
        for _ in range(round(CONFIRM_S_MAX / CONFIRM_POLL_S)):
            if self._writer.merge_no >= merge_no:
                return
            await asyncio.sleep(CONFIRM_POLL_S)
        raise StoreUnavailable(f"merge {merge_no} is not confirmed")

    def _tell(self, row: CompletenessRow, silent: Sequence[Lacking]) -> Iterable[EventRow]:
        """Set the metric; yield an event when a table's state changes, once."""
        assert self._is_below is not None
        self._metrics.completeness.labels(table=row.table_name).set(row.by_all / row.facts)
        is_below = _is_below(row.facts, row.by_all)
        was_below = self._is_below.get(row.table_name, False)
        self._is_below[row.table_name] = is_below
        if is_below == was_below:
            return
        at = datetime.fromtimestamp(row.minute // SECOND, UTC).strftime("%Y-%m-%dT%H:%MZ")
        detail = f"{row.table_name} {at}: {row.by_all} of {row.facts} facts by all that claim them"
        if is_below:
            lackers = Counter(g for fact in silent for g in self._room.lackers(fact, row.gatherers))
            lack = ", ".join(
                f"gatherer {gatherer} lacks {n}" for gatherer, n in lackers.most_common()
            )
            detail += f"; {lack}; first {silent[0].ticker} at {silent[0].exchange_ts}"
            log.warning("incomplete", detail=detail)
        else:
            log.info("complete_again", detail=detail)
        yield EventRow("incomplete" if is_below else "complete_again", None, detail)


def _is_below(facts: int, by_all: int) -> bool:
    return by_all < LEAST * facts


def _asked_as(fact: Lacking, channel: str) -> str | None:
    """Order books are claimed market by market, the other channels as a whole."""
    return fact.ticker if channel == ORDERBOOK else None


def _worst(lacking: Iterable[Lacking], channel: str) -> set[str | None]:
    """Return what to ask for: the markets with the most facts that somebody lacks."""
    counts = Counter(_asked_as(fact, channel) for fact in lacking)
    return {ticker for ticker, _ in counts.most_common(TICKERS_MAX)}


def _claimed(fact: Lacking, channel: str, claimed: Claimed, gatherers: Sequence[int]) -> bool:
    """True when every gatherer claims the moment of a fact."""
    ticker = _asked_as(fact, channel)
    return all(
        covers(claimed.spans.get((ticker, gatherer), ()), fact.exchange_ts)
        for gatherer in gatherers
    )
