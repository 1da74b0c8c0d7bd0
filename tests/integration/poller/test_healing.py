"""Healing the trade channel over a real database: what is read from the tape, what is stored, what is remembered."""

from itertools import pairwise
from uuid import uuid4

import pytest

from libs.exchange.errors import TransportError, Undecodable
from libs.marketdata.listening import Span, holes, union
from libs.marketdata.rows import gap
from libs.marketdata.tables import Family
from libs.marketdata.units import SECOND
from libs.store.pool import Target
from services.poller import tape as tape_room
from tests.integration.poller.heard import NOW, Bench, FakeTape, bench, heard, trade_row


def ago(seconds: float) -> int:
    """A moment before NOW."""
    return NOW - int(seconds * SECOND)


async def _hole(desk: Bench, start: float, end: float) -> None:
    """Claims up to `start` seconds ago and from `end` seconds ago on, of two connections."""
    await desk.write(Family.TRADES, heard(ago(5_000), ago(start)), heard(ago(end), ago(2)))


def every(seconds: float, start: float, end: float, name: str = "t") -> dict[str, int]:
    """Trades of the tape, one every so often."""
    count = int((start - end) / seconds)
    return {f"{name}{n}": ago(start) + int(n * seconds * SECOND) for n in range(count)}


def inside(trades: dict[str, int], start: float, end: float) -> set[str]:
    """The trades of a span [start, end) in seconds ago."""
    return {name for name, at in trades.items() if ago(start) <= at < ago(end)}


async def test_what_nobody_heard_is_stored_and_nothing_else(gatherer_db: Target) -> None:
    """Of the tape exactly the hole's trades that are not stored yet are added, recognisable as REST's; once."""
    async with bench(gatherer_db) as desk:
        await _hole(desk, 1_000, 400)
        trades = every(7.3, 4_000, 10)
        known = sorted(inside(trades, 1_000, 400))[::3]
        # The socket's time of a trade may differ from the tape's.
        rows = [trade_row(name, trades[name] + 3_000) for name in known]
        await desk.write(Family.TRADES, {"trades": rows})
        tape = FakeTape(trades)
        healer = desk.healer(tape)
        await healer.repair_once()
        assert sorted(await desk.stored()) == sorted(inside(trades, 1_000, 400))
        by_rest = await desk.pool.fetch("select * from trades where connection is null")
        assert {row["trade_id"] for row in by_rest} == inside(trades, 1_000, 400) - set(known)
        assert all(row["seq"] is None and row["sid"] is None for row in by_rest)
        (repair,) = await desk.repairs()
        assert (repair["from_ts"], repair["to_ts"], repair["state"]) == (
            ago(1_000),
            ago(400),
            "healed",
        )
        assert repair["trades_stored"] == healer.trades == len(by_rest)
        assert repair["trades_read"] == len(by_rest) + len(known)
        asked = len(tape.asked)
        await healer.repair_once()
        await desk.healer(tape).repair_once()
        assert len(tape.asked) == asked
        assert b"kalshi_data_trades_healed_total" in desk.metrics.exposition()[0]


async def test_healing_claims_nothing(gatherer_db: Target) -> None:
    """The gap stays a gap of listening: the zone's own view shows it before and after."""
    async with bench(gatherer_db) as desk:
        await _hole(desk, 1_000, 400)
        query = "select from_ts, to_ts from listening_gaps where channel = 'trade'"
        before = [tuple(row) for row in await desk.pool.fetch(query)]
        await desk.healer(FakeTape(every(10, 4_000, 10))).repair_once()
        assert before == [(ago(1_000), ago(400))]
        assert [tuple(row) for row in await desk.pool.fetch(query)] == before
        assert await desk.pool.fetchval("select count(*) from listen_opened") == 2


async def test_an_interrupted_repair_goes_on(
    gatherer_db: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The exchange fails in the middle and the process dies: the next reads only what is older than was reached."""
    monkeypatch.setattr(tape_room, "CHUNK", 300 * SECOND)
    async with bench(gatherer_db) as desk:
        await _hole(desk, 2_000, 200)
        trades = every(5, 4_000, 10)
        broken = FakeTape(trades, pages_left=12, error=TransportError("gone"))
        with pytest.raises(TransportError):
            await desk.healer(broken).repair_once()
        (repair,) = await desk.repairs()
        assert repair["state"] == "open"
        assert ago(1_000) < repair["reached_ts"] < ago(600)
        assert repair["trades_stored"] == len(await desk.stored()) > 90
        tape = FakeTape(trades)
        await desk.healer(tape).repair_once()
        assert max(b for _, b in tape.spans) == repair["reached_ts"]
        assert sorted(await desk.stored()) == sorted(inside(trades, 2_000, 200))
        (repair,) = await desk.repairs()
        assert (repair["state"], repair["trades_stored"]) == (
            "healed",
            len(inside(trades, 2_000, 200)),
        )


async def test_what_the_tape_does_not_reach_is_visible(gatherer_db: Target) -> None:
    """The part that the exchange still has is stored; the rest is remembered as not healed, with the reason."""
    async with bench(gatherer_db) as desk:
        await _hole(desk, 1_000, 400)
        trades = every(10, 700, 10)
        healer = desk.healer(FakeTape(trades))
        await healer.repair_once()
        assert sorted(await desk.stored()) == sorted(inside(trades, 700, 400))
        (repair,) = await desk.repairs()
        assert repair["state"] == "partial"
        assert f"oldest trade read is of {ago(700)}" in repair["detail"]
        said = healer.facts()
        assert [entry["from_ts"] for entry in said["unhealed"]] == [ago(1_000)]
        assert (said["remembered"], said["waiting"]) == ({"partial": 1}, 0)


async def test_what_a_mirror_heard_is_not_read(gatherer_db: Target) -> None:
    """A gap row of one connection while the other listened costs no request; its uncovered part alone is read."""
    async with bench(gatherer_db) as desk:
        await _hole(desk, 600, 590)
        await desk.gap(gap(ago(300), "trade", "disconnected", from_ts=ago(340), to_ts=ago(310)))
        await desk.gap(gap(ago(100), "trade", "seq", from_ts=ago(605), to_ts=ago(595)))
        await desk.gap(gap(ago(100), "orderbook_delta", "seq", from_ts=ago(605), to_ts=ago(300)))
        tape = FakeTape(every(1, 4_000, 10))
        healer = desk.healer(tape)
        await healer.repair_once()
        assert tape.spans == [(ago(600), ago(590))]
        states = sorted((row["cause"], row["state"]) for row in await desk.repairs())
        assert states == [("disconnected", "heard"), ("not_heard", "healed"), ("seq", "heard")]
        assert len(await desk.stored()) == 10


async def test_a_lost_frame_of_one_market_is_read_for_that_market(gatherer_db: Target) -> None:
    """A gap row with a ticker outside of all claims asks for that ticker's tape."""
    async with bench(gatherer_db) as desk:
        await desk.gap(
            gap(ago(60), "trade", "rejected", ticker="A", from_ts=ago(70), to_ts=ago(65))
        )
        tape = FakeTape(every(1, 4_000, 10))
        await desk.healer(tape).repair_once()
        assert tape.asked[0] == ("A", ago(72), ago(63))
        assert len(await desk.stored()) == 9


async def test_with_every_connector_gone_the_tape_is_followed(gatherer_db: Target) -> None:
    """A minute without a claim is read, then the next, and what is left when somebody listens again; nothing twice."""
    async with bench(gatherer_db) as desk:
        await desk.write(Family.TRADES, heard(ago(5_000), ago(90)))
        tape = FakeTape(every(1, 5_000, -500))
        healer = desk.healer(tape)
        await healer.repair_once()
        assert tape.spans == [(ago(90), ago(20))]
        desk.clock.advance(30)
        await healer.repair_once()
        desk.clock.advance(30)
        await healer.repair_once()
        assert tape.spans == [(ago(90), ago(20)), (ago(20), ago(-40))]
        await desk.write(Family.TRADES, heard(ago(-45), ago(-95)))
        desk.clock.advance(40)
        await healer.repair_once()
        assert tape.spans[2:] == [(ago(-40), ago(-45))]
        assert len(await desk.stored()) == len(set(await desk.stored())) == 135


async def test_an_answer_that_stays_unreadable_is_given_up_visibly(gatherer_db: Target) -> None:
    """Other repairs go on meanwhile; after five attempts the span is remembered as failed."""
    async with bench(gatherer_db) as desk:
        await _hole(desk, 1_000, 400)
        for _ in range(5):
            broken = FakeTape(pages_left=0, error=Undecodable("no trades in it"))
            await desk.healer(broken).repair_once()
        (repair,) = await desk.repairs()
        assert (repair["state"], repair["attempts"]) == ("failed", 5)
        assert "no trades in it" in repair["detail"]


async def test_a_span_that_is_not_answered_keeps_no_other_waiting(gatherer_db: Target) -> None:
    """It is told and stays open, the others are healed; of an exchange that answers nothing little is asked in a turn."""
    async with bench(gatherer_db) as desk:
        spans = [(5_000, 1_000), (900, 800), (700, 600), (500, 400), (300, 200), (100, 2)]
        await desk.write(Family.TRADES, *(heard(ago(start), ago(end)) for start, end in spans))
        trades, away = every(10, 4_000, 10), TransportError("no answer in time")
        tape = FakeTape(trades, error=away, silent=(ago(4_000), ago(2)))
        with pytest.raises(TransportError):
            await desk.healer(tape).repair_once()
        assert len(tape.spans) == 3
        tape.silent = (ago(1_000), ago(900))
        with pytest.raises(TransportError):
            await desk.healer(tape).repair_once()
        states = [repair["state"] for repair in await desk.repairs()]
        assert states == ["open", "healed", "healed", "healed", "healed"]
        tape.silent = None
        await desk.healer(tape).repair_once()
        assert {repair["state"] for repair in await desk.repairs()} == {"healed"}
        missed = set().union(
            *(inside(trades, end, start) for (_, end), (start, _) in pairwise(spans))
        )
        assert set(await desk.stored()) == missed


async def test_a_restored_database_is_believed(gatherer_db: Target) -> None:
    """A healer whose database went back to before the repair repairs again, and stores nothing twice."""
    async with bench(gatherer_db) as desk:
        await _hole(desk, 1_000, 400)
        trades = every(10, 4_000, 10)
        healer = desk.healer(FakeTape(trades))
        await healer.repair_once()
        await desk.pool.execute("delete from trade_repairs")
        await desk.pool.execute("delete from registry_state")
        await healer.repair_once()
        (repair,) = await desk.repairs()
        assert (repair["state"], repair["trades_stored"]) == ("healed", 0)
        assert sorted(await desk.stored()) == sorted(inside(trades, 1_000, 400))


async def test_the_follower_sees_the_gaps_of_the_view(gatherer_db: Target) -> None:
    """Over many connections, late ranges and two lanes at once: heard is what the view `listening` says."""
    async with bench(gatherer_db) as desk:
        connections = [uuid4() for _ in range(6)]
        for n, connection in enumerate(connections):
            whole = heard(ago(1_000 - 100 * n), ago(920 - 100 * n + 30 * (n % 2)), connection)
            (span,) = whole["listen_ranges"]
            cut = [
                span._replace(seq_to=4, sent_to=span.sent_from + 9 * SECOND),
                span._replace(seq_from=5),
            ]
            await desk.write(Family.TRADES, {**whole, "listen_ranges": cut[1:]})
            if n != 2:
                await desk.write(Family.TRADES, {"listen_ranges": cut[:1]})
        healer = desk.healer(FakeTape(every(10, 4_000, 10)))
        await healer.repair_once()
        rows = await desk.pool.fetch("select from_ts, to_ts from listening where channel = 'trade'")
        claimed: list[Span] = union((row[0], row[1]) for row in rows)
        assert healer._follower.heard() == claimed
        gaps = await desk.pool.fetch(
            "select from_ts, to_ts from listening_gaps where channel = 'trade'"
        )
        found = [(row["from_ts"], row["to_ts"]) for row in await desk.repairs()]
        assert sorted(tuple(row) for row in gaps) == holes(claimed, claimed[0][0], claimed[-1][1])
        assert set(map(tuple, gaps)) <= set(found)
