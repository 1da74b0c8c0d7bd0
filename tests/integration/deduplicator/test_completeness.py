"""The standing alarm: a fact that one zone claims to have heard and never delivered, and what is none."""

from collections.abc import Iterable, Sequence
from typing import Any

import pytest

from libs.marketdata.rows import (
    DeltaRow,
    ListenClosedRow,
    ListenOpenedRow,
    ListenRangeRow,
    TradeRow,
)
from libs.marketdata.tables import Family
from libs.marketdata.units import MINUTE, SECOND
from libs.store.batches import seal
from libs.store.completeness import write_completeness
from libs.store.errors import StoreUnavailable
from libs.store.pool import connect
from services.deduplicator import completeness
from tests.integration.deduplicator.conftest import Databases
from tests.integration.deduplicator.world import (
    CLOCK,
    Change,
    Running,
    Zone,
    event_kinds,
    hear,
    running,
    trade,
)

BOOKS, TRADES = "orderbook_delta", "trade"
LAST = 10_000
"""Seq of a stream's last frame: more than any row has."""


@pytest.fixture
def minute(monkeypatch: pytest.MonkeyPatch) -> int:
    """The first microsecond of a minute that is old enough, with two after it; the deduplicator looks all the time."""
    monkeypatch.setattr(completeness, "TURN_S", 0.05)
    return CLOCK.now() // MINUTE * MINUTE - 7 * MINUTE


def _truth(minute: int, minutes: int = 2) -> list[Change]:
    """A change a second of each of two markets."""
    return [
        (f"MARKET-{market}", minute + second * SECOND, 50_000, True, 100)
        for second in range(60 * minutes)
        for market in (0, 1)
    ]


class Claims:
    """What one connection says of one channel: opened before the minute, heard up to two minutes after the last."""

    def __init__(self, channel: str, rows: Sequence[DeltaRow | TradeRow], minute: int) -> None:
        self.sid, self.channel = (1 if channel == BOOKS else 2), channel
        self.connection = rows[0].connection
        self.start, self.end = minute - 10 * SECOND, minute + 4 * MINUTE
        self.tickers = ["MARKET-0", "MARKET-1"] if channel == BOOKS else [None]
        self.ranges: list[ListenRangeRow] = []
        self.opened: list[ListenOpenedRow] = []
        self.closed: list[ListenClosedRow] = []

    def whole(self) -> "Claims":
        """Everything was heard."""
        self._range(1, LAST, self.start, self.end)
        self._open(1, self.start, 1)
        return self

    def broken(self, seqs: tuple[int, int], moments: tuple[int, int]) -> "Claims":
        """Nothing between these seqs and moments was heard, and the streams began anew after it."""
        self._range(1, seqs[0], self.start, moments[0])
        self._range(seqs[1], LAST, moments[1], self.end)
        self._open(1, self.start, 1)
        self._open(seqs[1], moments[1], 2)
        return self

    def _range(self, first: int, last: int, sent_from: int, sent_to: int) -> None:
        assert self.connection is not None
        row = ListenRangeRow(
            sent_to, first, last, sent_from, sent_to, SECOND, self.sid, len(self.ranges), self.connection, self.channel
        )  # fmt: skip
        self.ranges.append(row)

    def _open(self, seq: int, moment: int, stream: int) -> None:
        assert self.connection is not None
        self.opened += [
            ListenOpenedRow(
                moment, seq, moment, SECOND, stream, self.sid, len(self.opened) + n, self.connection, self.channel,
                "slot", ticker,
            )
            for n, ticker in enumerate(self.tickers)
        ]  # fmt: skip


async def _write(zone: Zone, family: Family, table: str, rows: Sequence[DeltaRow | TradeRow], claims: Claims) -> None:  # fmt: skip
    tables = {table: rows, "listen_ranges": claims.ranges, "listen_opened": claims.opened}
    await zone.writers[family].write(seal(tables))


async def _judged(
    databases: Databases, deduplicator: Running, rows: int, zones: str = "abc"
) -> list[tuple[object, ...]]:  # fmt: skip
    """Return what is recorded once there are as many rows, and the deduplicator merged everything."""
    await deduplicator.drained(*zones)
    while True:
        found = await databases.conn.fetch(
            "SELECT minute, table_name, facts, by_all, unchecked FROM completeness ORDER BY table_name, minute"
        )
        if len(found) >= rows:
            return [tuple(row) for row in found]
        await deduplicator.drained(*zones)


def _heard_trades(minute: int, without: Iterable[int] = ()) -> list[TradeRow]:
    connection = hear(_truth(minute))[0].connection
    return [
        trade(n, minute + n * SECOND, connection=connection, sid=2, seq=n + 1)
        for n in range(60)
        if n not in without
    ]


async def test_a_fact_lost_inside_a_claim_is_an_alarm_with_its_table_and_minute(
    databases: Databases, minute: int
) -> None:
    """Zone c lost one delta, zone b one trade, and said nothing: two alarms, told once each, taken back by the next."""
    for zone, writer in databases.zones.items():
        rows = hear(_truth(minute))
        claims = Claims(BOOKS, rows, minute).whole()
        rows = [row for row in rows if zone != "c" or row.seq != 50]
        await _write(writer, Family.DELTAS, "orderbook_deltas", rows, claims)
        trades = _heard_trades(minute, without=[30] if zone == "b" else [])
        claims = Claims(TRADES, trades, minute).whole()
        await _write(writer, Family.TRADES, "trades", trades, claims)
    async with running(databases.gatherers, databases.production) as deduplicator:
        judged = await _judged(databases, deduplicator, 3)
        share = deduplicator.runtime.metrics.completeness
        assert share.labels(table="orderbook_deltas")._value.get() == 1.0
        assert share.labels(table="trades")._value.get() == 59 / 60
    assert judged == [
        (minute, "orderbook_deltas", 120, 119, 0),
        (minute + MINUTE, "orderbook_deltas", 120, 120, 0),
        (minute, "trades", 60, 59, 0),
    ]
    events = await databases.conn.fetch(
        "SELECT kind, detail FROM operational_events WHERE kind IN ('incomplete', 'complete_again') ORDER BY at"
    )
    numbers = {
        row["zone"]: row["gatherer"]
        for row in await databases.conn.fetch("SELECT zone, gatherer FROM gatherers")
    }
    deltas, trades_lost, again = events
    assert deltas["kind"] == trades_lost["kind"] == "incomplete"
    assert deltas["detail"].startswith("orderbook_deltas 20")
    assert "119 of 120" in deltas["detail"]
    assert f"gatherer {numbers['c']} lacks 1; first MARKET-1 at" in deltas["detail"]
    assert trades_lost["detail"].startswith("trades 20")
    assert f"gatherer {numbers['b']} lacks 1" in trades_lost["detail"]
    assert (again["kind"], again["detail"][:16]) == ("complete_again", "orderbook_deltas")


async def test_a_hole_that_is_admitted_to_is_no_alarm(databases: Databases, minute: int) -> None:
    """Zone c lacks ten seconds and does not claim them: what all three claim, all three delivered."""
    for zone, writer in databases.zones.items():
        rows = hear(_truth(minute))
        claims = Claims(BOOKS, rows, minute)
        if zone == "c":
            hole = (minute + 20 * SECOND, minute + 30 * SECOND)
            claims = claims.broken((40, 61), hole)
            rows = [row for row in rows if not 40 < row.seq < 61]
        else:
            claims = claims.whole()
        await _write(writer, Family.DELTAS, "orderbook_deltas", rows, claims)
    async with running(databases.gatherers, databases.production) as deduplicator:
        judged = await _judged(databases, deduplicator, 2)
    assert judged == [
        (minute, "orderbook_deltas", 100, 100, 0),
        (minute + MINUTE, "orderbook_deltas", 120, 120, 0),
    ]
    assert "incomplete" not in await event_kinds(databases.conn)


async def test_a_zone_that_is_set_aside_is_not_waited_for(databases: Databases, minute: int) -> None:  # fmt: skip
    """Zone c is quarantined: what a and b both claim is judged between the two."""
    async with connect(databases.gatherers["c"]) as conn:
        identity = await conn.fetchval("SELECT identity FROM gatherer_identity")
    await databases.conn.execute(
        "INSERT INTO gatherers (identity, zone, status) VALUES ($1, 'c', 'quarantined')", identity
    )
    for zone in "ab":
        rows = hear(_truth(minute, minutes=1))
        claims = Claims(BOOKS, rows, minute).whole()
        rows = [row for row in rows if zone != "b" or row.seq not in {50, 51}]
        await _write(databases.zones[zone], Family.DELTAS, "orderbook_deltas", rows, claims)
    async with running(databases.gatherers, databases.production) as deduplicator:
        judged = await _judged(databases, deduplicator, 1, "ab")
    assert judged == [(minute, "orderbook_deltas", 120, 118, 0)]
    gatherers = await databases.conn.fetchval("SELECT gatherers FROM completeness")
    assert gatherers == await databases.conn.fetchval(
        "SELECT array_agg(gatherer ORDER BY gatherer) FROM gatherers WHERE zone <> 'c'"
    )


async def test_what_keeps_records_small_may_fail_and_a_judgement_that_was_not_written_told_nothing(
    databases: Databases, minute: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Folding fails always, the first writing once: the next minute, as incomplete as the first, is the alarm."""

    async def no_fold(*_: object) -> int:
        raise StoreUnavailable("it took too long")

    monkeypatch.setattr(completeness, "fold_increments", no_fold)
    tries = list[Any]()

    async def write_later(*args: Any) -> None:
        tries.append(args)
        if len(tries) == 1:
            raise StoreUnavailable("production went away")
        await write_completeness(*args)

    monkeypatch.setattr(completeness, "write_completeness", write_later)
    for zone in "ab":
        rows = hear(_truth(minute))
        claims = Claims(BOOKS, rows, minute).whole()
        rows = [row for row in rows if zone != "b" or row.seq not in {50, 170}]
        await _write(databases.zones[zone], Family.DELTAS, "orderbook_deltas", rows, claims)
    gatherers = {zone: databases.gatherers[zone] for zone in "ab"}
    async with running(gatherers, databases.production) as deduplicator:
        judged = await _judged(databases, deduplicator, 1, "ab")
    assert judged == [(minute + MINUTE, "orderbook_deltas", 120, 119, 0)]
    assert (await event_kinds(databases.conn)).count("incomplete") == 1
