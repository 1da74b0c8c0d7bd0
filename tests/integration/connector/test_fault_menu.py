"""Every kind of the fault menu, injected over HTTP while a real connector captures into a real database.

Faults that concern a connection are aimed at one slot each, so that many happen in one run, side by side; those that
concern the whole exchange happen one after the other. Each case asserts what this kind leaves; the verdict holds for all.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

import aiohttp
import pytest

from libs.marketdata.listening import ORDERBOOK_CHANNEL
from libs.store.pool import Target
from services.simulator.faults.menu import KINDS
from tests.integration.connector.fault_run import (
    MARKET,
    Check,
    FaultRun,
    Found,
    Shared,
    faulty_zone,
    wanted,
)
from tests.integration.connector.fault_verdict import take_verdict
from tests.integration.poller.test_poller import poller
from tests.integration.registry.world import running_zone as registry_zone


class Case(NamedTuple):
    """A kind of the menu, the slot it is aimed at ("": everyone), what is done, and what is asserted at the end."""

    kind: str
    slot: str
    carry_out: Callable[[FaultRun, str], Awaitable[Check]]


# --- frames: the connection stays ---


async def drop(run: FaultRun, slot: str) -> Check:
    """Lost frames: a gap row names each number, nothing is kept as rejected."""
    hit = await run.aim(slot, fault="drop", count_max=3)
    await run.until(lambda: _skips(run, hit.connection, 3))

    def check(found: Found) -> None:
        lost = {e["seq"] for e in found.hits(hit.number)}
        assert len(lost) == 3
        assert found.skipped(hit.connection) == lost
        assert found.rejected(hit.connection) == []

    return check


async def duplicate(run: FaultRun, slot: str) -> Check:
    """Frames that come twice: the second is kept with its bytes and counts nothing; no gap."""
    hit = await run.aim(slot, fault="duplicate", count_max=3)
    await run.until(lambda: _rejects(run, hit.connection, 3))

    def check(found: Found) -> None:
        twice = sorted(e["seq"] for e in found.hits(hit.number))
        rejected = found.rejected(hit.connection)
        assert sorted(r.seq for r in rejected if r.seq) == twice
        assert {r.reason for r in rejected} == {"repeated seq"}
        assert all(b'"seq":%d' % (r.seq or 0) in r.frame for r in rejected)
        assert found.skipped(hit.connection) == set()

    return check


async def delay(run: FaultRun, slot: str) -> Check:
    """Late frames, in order: they come late by their own sending time, and nothing else happens."""
    hit = await run.aim(slot, fault="delay", delay_ms=400, for_s=1.0)

    async def came() -> bool:
        where = "connection = $1 and received_at - sent_at >= 400000"
        return await run.count(where, hit.connection, table="orderbook_deltas") > 5

    await run.until(came)

    def check(found: Found) -> None:
        assert found.count(hit.number) > 5
        assert found.skipped(hit.connection) == set()
        assert found.rejected(hit.connection) == []

    return check


async def reorder(run: FaultRun, slot: str) -> Check:
    """A frame that others overtook: its number is a gap, and the frame is kept when it comes."""
    hit = await run.aim(slot, fault="reorder", places=2, count_max=1)
    await run.until(lambda: _rejects(run, hit.connection, 1))

    def check(found: Found) -> None:
        set_back = {e["seq"] for e in found.hits(hit.number)}
        assert found.skipped(hit.connection) == set_back
        assert {r.seq for r in found.rejected(hit.connection)} == set_back

    return check


async def truncate(run: FaultRun, slot: str) -> Check:
    """Cut frames are kept as they came; their numbers are gaps."""
    hit = await run.aim(slot, fault="truncate", count_max=2)
    await run.until(lambda: _skips(run, hit.connection, 2))

    def check(found: Found) -> None:
        cut = found.hits(hit.number)
        rejected = found.rejected(hit.connection)
        assert sorted(len(r.frame) for r in rejected) == sorted(e["bytes"] for e in cut)
        assert all(r.reason.startswith("not a JSON object") for r in rejected)
        assert found.skipped(hit.connection) == {e["seq"] for e in cut}

    return check


async def rename_field(run: FaultRun, slot: str) -> Check:
    """A renamed price: the frame is kept, the gap names its market alone, the sid's numbers go on."""
    entry = {"field": "price_dollars", "to": "price_v2", "count_max": 2}
    hit = await run.aim(slot, fault="rename_field", **entry)
    await run.until(lambda: _rejects(run, hit.connection, 2))

    def check(found: Found) -> None:
        renamed = {(e["seq"], e["ticker"]) for e in found.hits(hit.number)}
        rejected = found.rejected(hit.connection)
        assert {(r.seq, r.ticker) for r in rejected} == renamed
        assert all(b'"price_v2"' in r.frame and "price_dollars" in r.reason for r in rejected)
        gaps = found.gaps(hit.connection, "rejected")
        assert {g.ticker for g in gaps} == {ticker for _, ticker in renamed}
        assert found.skipped(hit.connection) == set()

    return check


async def new_field(run: FaultRun, slot: str) -> Check:
    """A field more is no news: rows as before, nothing rejected."""
    hit = await run.aim(slot, fault="new_field", for_s=1.2)
    moment = run.simulator.clock.now() + 1_200_000

    async def went_on() -> bool:
        return await run.count("received_at > $1", moment, table="tickers") > 0

    await run.until(went_on)

    def check(found: Found) -> None:
        assert found.count(hit.number) > 0
        assert found.rejected(hit.connection) == []

    return check


async def seq_gap(run: FaultRun, slot: str) -> Check:
    """Numbers skipped: exactly these are said to be missing."""
    hit = await run.aim(slot, fault="seq_gap", by=3)
    await run.until(lambda: _skips(run, hit.connection, 3))

    def check(found: Found) -> None:
        (skip,) = found.hits(hit.number)
        assert found.skipped(hit.connection) == set(range(skip["seq"], skip["seq_to"] + 1))

    return check


async def unknown_type(run: FaultRun, slot: str) -> Check:
    """Frames of a type nobody knows: kept with their bytes and numbers; capture goes on."""
    hit = await run.aim(slot, fault="unknown_type", name="orderbook_weather", count=2)
    await run.until(lambda: _rejects(run, hit.connection, 2))

    def check(found: Found) -> None:
        (sent,) = found.hits(hit.number)
        rejected = found.rejected(hit.connection)
        assert {r.seq for r in rejected} == {sent["seq"], sent["seq_to"]}
        assert all(r.reason == "unknown type 'orderbook_weather'" for r in rejected)
        assert all(b'"type":"orderbook_weather"' in r.frame for r in rejected)
        assert found.gaps(hit.connection, "rejected")
        assert found.skipped(hit.connection) == set()

    return check


async def snapshot_storm(run: FaultRun, slot: str) -> Check:
    """Books nobody asked for are stored, each with its number; no gap, and nothing ends."""
    hit = await run.aim(slot, fault="snapshot_storm", rounds=5)
    expected = 5 * len(await run.markets(slot))

    async def stored() -> bool:
        where = "connection = $1 and not is_first"
        return await run.count(where, hit.connection, table="orderbook_snapshots") >= expected

    await run.until(stored)

    def check(found: Found) -> None:
        (sent,) = found.hits(hit.number)
        storm = set(range(sent["seq"], sent["seq_to"] + 1))
        assert len(storm) == expected
        assert storm <= {r.seq for r in found.snapshots(hit.connection)}
        assert found.skipped(hit.connection) == set()

    return check


async def stall_and_go_on(run: FaultRun, slot: str) -> Check:
    """A short silence whose frames come afterwards costs nothing."""
    hit = await run.aim(slot, fault="stall", pings=True, for_s=1.0)

    async def came() -> bool:
        where = "connection = $1 and received_at - sent_at >= 700000"
        return await run.count(where, hit.connection, table="orderbook_deltas") > 0

    await run.until(came)

    def check(found: Found) -> None:
        assert found.count(hit.number) > 5
        assert found.skipped(hit.connection) == set()

    return check


# --- connections: they end, and others take their place ---


def ends(why: str, **entry: object) -> Callable[[FaultRun, str], Awaitable[Check]]:
    """A fault that ends the slot's connection: the gap says why, and another connection hears the slot."""

    async def carry_out(run: FaultRun, slot: str) -> Check:
        hit = await run.aim(slot, **entry)
        await run.until(lambda: run.has_other(slot, hit.connection))

        def check(found: Found) -> None:
            gaps = found.gaps(hit.connection, "disconnected")
            others = [f"{slot}: {g.detail}" for g in gaps if why not in g.detail]
            assert others == []
            assert [bool(g.to_ts) for g in gaps] == [False, True], "its begin, then its end"
            ended = [r for r in found.rows("listen_closed") if r.connection == hit.connection]
            assert {r.reason for r in ended} >= {"disconnected"}

        return check

    return carry_out


async def stall_of_tickers(run: FaultRun, slot: str) -> Check:
    """Ticker frames have no numbers, so nothing shows what was lost: from the last frame on nothing is claimed."""
    connection, line = run.connection(slot), await run.line(slot)
    silent = ends("ticker answers no probe", fault="stall", lost=True, pings=True, for_s=12)
    check_end = await silent(run, slot)

    def check(found: Found) -> None:
        check_end(found)
        begin = next(
            e["at"]
            for e in found.journal
            if e.get("phase") == "begin" and e["entry"].get("on", {}).get("connection") == line
        )
        ranges = [r for r in found.rows("listen_ranges") if r.connection == connection]
        assert max(r.sent_to for r in ranges) <= begin

    return check


async def close_too_large(run: FaultRun, slot: str) -> Check:
    """1009: the slot is heard by two connections, each with its own markets; metric and /health say so."""
    hit = await run.aim(slot, fault="close", code=1009)
    markets = set(await run.markets(slot))
    await run.until(
        lambda: len(run.slot(slot)["parts"]) == 2 and run.has_other(slot, hit.connection)
    )
    split = {"cause": "frame too large", "outcome": "split"}
    assert run.metric("slot_splits_total", **split) == 1
    parts = [UUID(part) for part in run.slot(slot)["parts"]]

    def check(found: Found) -> None:
        heard = [
            {r.ticker for r in found.rows("orderbook_deltas") if r.connection == part}
            for part in parts
        ]
        assert all(heard)
        assert heard[0] & heard[1] == set()
        assert heard[0] | heard[1] == markets
        assert any("1009" in g.detail for g in found.gaps(hit.connection, "disconnected"))

    return check


def subscribes_again(code: int) -> Callable[[FaultRun, str], Awaitable[Check]]:
    """An error that ends a subscription: it is begun anew on the same connection."""

    async def carry_out(run: FaultRun, slot: str) -> Check:
        where, connection = "connection = $1 and sid > $2", run.connection(slot)
        sid = await run.conn.fetchval(
            "select max(sid) from listen_ranges where connection = $1", connection
        )
        hit = await run.aim(slot, fault="error", code=code)

        async def is_heard() -> bool:
            return await run.count(where, connection, sid, table="listen_ranges") > 0

        await run.until(is_heard)
        assert run.connection(slot) == hit.connection

        def check(found: Found) -> None:
            (ended,) = found.hits(hit.number)
            assert ended["code"] == code
            closed = [r for r in found.rows("listen_closed") if r.connection == hit.connection]
            assert ended["sid"] in {r.sid for r in closed}

        return check

    return carry_out


async def error_too_many_markets(run: FaultRun, slot: str) -> Check:
    """26 for one market more: another connection takes half of them, and hearing is not interrupted."""
    hit = await run.aim(slot, fault="error", code=26)
    (new,) = await _list_new(run, slot, 1)
    await run.until(lambda: len(run.slot(slot)["parts"]) == 2 and run.slot(slot)["heard"])
    split = {"cause": "too many markets", "outcome": "split"}
    assert run.metric("slot_splits_total", **split) == 1
    parts = [UUID(part) for part in run.slot(slot)["parts"]]
    assert hit.connection in parts

    def check(found: Found) -> None:
        assert [e["code"] for e in found.hits(hit.number)] == [26]
        seen = {r.ticker for part in parts for r in found.snapshots(part)}
        assert new in seen
        assert all(found.gaps(part, "disconnected") == [] for part in parts)

    return check


async def error_too_many_commands(run: FaultRun, slot: str) -> Check:
    """27: the command is sent again, later each time, and succeeds on the same connection."""
    hit = await run.aim(slot, fault="error", code=27, count_max=2)
    (new,) = await _list_new(run, slot, 1)

    async def is_seen() -> bool:
        where = "connection = $1 and ticker = $2"
        return await run.count(where, hit.connection, new, table="orderbook_snapshots") > 0

    await run.until(is_seen)

    def check(found: Found) -> None:
        refused = [e["at"] for e in found.hits(hit.number)]
        added = next(e["at"] for e in found.journal if e["kind"] == "added" and new in e["tickers"])
        pauses = [refused[1] - refused[0], added - refused[1]]
        assert pauses[0] >= 1_000_000
        assert pauses[1] >= 2_000_000
        assert found.gaps(hit.connection, "disconnected") == []

    return check


# --- the exchange: everybody is hit ---


async def clock_step(run: FaultRun, _: str) -> Check:
    """Exchange time goes back: exactly the streams that saw it begin anew, on the same connections."""
    status, told = await run.post({"fault": "clock_step", "by_ms": -100, "whose": "ours"})
    assert status == 400
    assert "not the simulator's to move" in told["error"]
    number = await run.inject(fault="clock_step", by_ms=-500)
    await run.until(lambda: run.metric("stream_time_regressions_total") >= 1)
    await run.heard_for(0.5)
    # And forth again: what exchange times lag behind sending widens every later margin.
    await run.inject(fault="clock_step", by_ms=500)

    def check(found: Found) -> None:
        assert [e["by_ms"] for e in found.hits(number)] == [-500]
        deltas: dict[tuple[UUID, str], list[tuple[int, int]]] = {}
        for row in found.rows("orderbook_deltas"):
            deltas.setdefault((row.connection, row.ticker), []).append((row.seq, row.exchange_ts))
        went_back = {key for key, times in deltas.items() if _goes_back(times)}
        restarted = {
            (r.connection, r.ticker)
            for r in found.rows("listen_closed")
            if r.channel == ORDERBOOK_CHANNEL and r.reason == "time went back"
        }
        assert restarted == went_back
        assert went_back

    return check


async def refuse(run: FaultRun, _: str) -> Check:
    """502 with a page instead of a websocket: tried again until it opens; the pages cost nothing else."""
    before = run.connection("trade/0")
    assert before is not None
    number = await run.inject(fault="refuse", status=502, body="html", for_s=2.5)
    await run.inject(fault="close", code=1001)
    await run.until(lambda: "502" in run.slot("trade/0")["error"])
    await run.until(lambda: run.has_other("trade/0", before))

    def check(found: Found) -> None:
        assert {e["status"] for e in found.hits(number)} == {502}
        assert len(found.hits(number)) > 5, "every slot tried, some more than once"

    return check


async def auth_expiry(run: FaultRun, _: str) -> Check:
    """A key that is refused for a while, after it was good: said, tried again, back; the process lives."""
    before = run.connection("trade/0")
    assert before is not None
    number = await run.inject(fault="auth_expiry", for_s=2.0)
    await run.until(lambda: "AuthRejected" in run.slot("trade/0")["error"])
    await run.until(lambda: run.has_other("trade/0", before))

    def check(found: Found) -> None:
        assert {e["status"] for e in found.hits(number) if "status" in e} == {401}
        gaps = found.gaps(before, "disconnected")
        assert any("1008" in g.detail for g in gaps)

    return check


async def maintenance(run: FaultRun, _: str) -> Check:
    """A pause of the exchange: closed 1001, refused 503, told by the status endpoint; then everything is back."""
    before = run.connection("trade/0")
    assert before is not None
    number = await run.inject(fault="maintenance", for_s=2.0)
    async with run.http.get(f"{run.simulator.rest_url}/exchange/status") as answer:
        told = await answer.json()
    assert told["trading_active"] is False
    await run.until(lambda: "503" in run.slot("trade/0")["error"])
    await run.until(lambda: run.has_other("trade/0", before))

    def check(found: Found) -> None:
        assert {e["status"] for e in found.hits(number) if "status" in e} == {503}
        assert any("1001" in g.detail for g in found.gaps(before, "disconnected"))

    return check


FRAMES = (
    Case("drop", "orderbook/0", drop),
    Case("duplicate", "orderbook/1", duplicate),
    Case("delay", "orderbook/2", delay),
    Case("truncate", "orderbook/3", truncate),
    Case("rename_field", "orderbook/4", rename_field),
    Case("seq_gap", "orderbook/5", seq_gap),
    Case("unknown_type", "orderbook/6", unknown_type),
    Case("snapshot_storm", "orderbook/7", snapshot_storm),
    Case("stall", "orderbook/8", stall_and_go_on),
    Case("reorder", "trade/0", reorder),
    Case("new_field", "ticker/0", new_field),
)
CONNECTIONS = (
    Case("close", "orderbook/0", ends("1000", fault="close", code=1000)),
    Case("close", "lifecycle/0", ends("1001", fault="close", code=1001)),
    Case("close", "orderbook/1", ends("1008", fault="close", code=1008)),
    Case("close", "orderbook/2", ends("1011", fault="close", code=1011)),
    Case("close", "orderbook/3", close_too_large),
    Case("reset", "trade/0", ends("ConnectionEnded", fault="reset")),
    Case("half_open", "orderbook/4", ends("Silent: neither a frame nor a ping", fault="half_open")),
    Case("stall", "orderbook/5", ends("Silent: neither a frame nor a ping", fault="stall", lost=True, for_s=8)),
    Case("stall", "orderbook/6", ends("answers no probe", fault="stall", lost=True, pings=True, for_s=12)),
    Case("stall", "ticker/0", stall_of_tickers),
    Case("drip", "orderbook/7", ends("Late: frames come", fault="drip", growth=1.5, for_s=8)),
    Case("error", "orderbook/8", subscribes_again(10)),
    Case("error", "orderbook/9", subscribes_again(25)),
    Case("error", "orderbook/10", error_too_many_markets),
    Case("error", "orderbook/11", error_too_many_commands),
)  # fmt: skip
EXCHANGE = (
    Case("clock_step", "", clock_step),
    Case("refuse", "", refuse),
    Case("auth_expiry", "", auth_expiry),
    Case("maintenance", "", maintenance),
)


async def rest(run: FaultRun, _: str) -> Check:
    """Half of the REST requests fail while markets are listed: registry and poller repeat themselves and live."""
    number = await run.inject(fault="rest", status=503, share=0.5, for_s=4)

    def check(found: Found) -> None:
        assert found.kinds >= {"rest"}
        failed = [e for e in found.journal if e.get("fault") == "rest" and e["phase"] == "hit"]
        assert len(failed) > 3
        assert {e["status"] for e in failed} == {503}
        assert number

    return check


async def create_markets(run: FaultRun, _: str) -> Check:
    """2,000 markets in one moment are found by the registry, placed, subscribed, and their books stored."""
    number = await run.inject(fault="create_markets", count=CROWDED)
    counts = run.runtime.health.document

    def are_seen() -> bool:
        told = counts()["subscriptions"]
        return bool(told["wanted"] == told["acked"] == told["seen"] > CROWDED)

    await run.until(are_seen)

    def check(found: Found) -> None:
        assert [e["count"] for e in found.hits(number)] == [CROWDED]
        created = {e["ticker"] for e in map(json.loads, found.market) if e["kind"] == "created"}
        created = set(filter(wanted, created))
        books = {r.ticker for r in found.rows("orderbook_snapshots") if r.source == "ws"}
        assert len(created) > CROWDED
        assert books >= created

    return check


CROWDED = 2_000
CROWD = (Case("rest", "", rest), Case("create_markets", "", create_markets))
SIDE_BY_SIDE = {"frames": FRAMES, "connections": CONNECTIONS}
CASES = (*FRAMES, *CONNECTIONS, *EXCHANGE, *CROWD)


def test_every_kind_of_the_menu_has_a_case() -> None:
    """A kind that is added to the menu needs a case here."""
    assert {case.kind for case in CASES} == set(KINDS)


@pytest.mark.parametrize("name", SIDE_BY_SIDE)
async def test_faults_of_frames_and_connections(
    name: str, gatherer_db: Target, tmp_path: Path
) -> None:
    """Every slot has its own trouble at the same time; each leaves what its kind leaves, and the verdict holds."""
    cases = SIDE_BY_SIDE[name]
    orderbooks = sum(case.slot.startswith("orderbook/") for case in cases)
    async with (
        faulty_zone(gatherer_db, tmp_path, orderbooks, markets=4 * orderbooks, rate=400.0) as zone,
        aiohttp.ClientSession() as http,
    ):
        async with zone.connector() as runtime:
            run = FaultRun(zone.simulator, Shared(zone.conn), runtime, http)
            await run.heard_for(0.5)
            checks = await asyncio.gather(*(case.carry_out(run, case.slot) for case in cases))
            await run.heard_for(1.5)
            reconnects = run.metric_sum("ws_reconnects_total")
            await run.stop_exchange()
        found = await run.find()
    assert (reconnects == 0) == (name == "frames")
    _judge(found, cases, checks)


async def test_faults_of_the_whole_exchange(gatherer_db: Target, tmp_path: Path) -> None:
    """Everybody is hit, one fault after the other; the process goes on and hears everything again each time."""
    async with (
        faulty_zone(gatherer_db, tmp_path, 2) as zone,
        aiohttp.ClientSession() as http,
    ):
        async with zone.connector() as runtime:
            run = FaultRun(zone.simulator, Shared(zone.conn), runtime, http)
            checks = []
            for case in EXCHANGE:
                await run.heard_for(0.5)
                checks.append(await case.carry_out(run, case.slot))
            await run.heard_for(1.5)
            await run.stop_exchange()
        found = await run.find()
    _judge(found, EXCHANGE, checks)


def _judge(found: Found, cases: tuple[Case, ...], checks: list[Check]) -> None:
    assert take_verdict(found) == []
    for check in checks:
        check(found)
    assert found.kinds >= {case.kind for case in cases}


async def test_a_crowd_of_markets_while_rest_fails(gatherer_db: Target, tmp_path: Path) -> None:
    """Registry, connector and poller together: every market of the crowd is captured, though REST fails half the time."""
    async with (
        registry_zone(gatherer_db, tmp_path, **MARKET, rate=300.0, quiet_ms=1500) as zone,
        aiohttp.ClientSession() as http,
    ):
        async with zone.registry(), poller(zone), zone.connector() as runtime:
            run = FaultRun(zone.simulator, Shared(zone.conn), runtime, http)
            await run.heard_for(0.5)
            checks = [await case.carry_out(run, case.slot) for case in CROWD]
            await run.heard_for(1.5)
            await run.stop_exchange()
        found = await run.find()
    _judge(found, CROWD, checks)
    assert {r.source for r in found.rows("orderbook_snapshots")} == {"rest", "ws"}


async def _list_new(run: FaultRun, slot: str, count: int) -> list[str]:
    """Let markets be listed and put them on one slot, as the registry does."""
    listings = run.simulator.exchange.listings
    async with run.listing:
        known = set(listings)
        await run.inject(fault="create_markets", count=count)
        await run.until(lambda: sum(map(wanted, listings.keys() - known)) >= count)
        new = sorted(filter(wanted, listings.keys() - known))
    await run.place(new, slot)
    return new


async def _skips(run: FaultRun, connection: UUID, numbers: int) -> bool:
    """True when gap rows name so many missing numbers of a connection."""
    missing = await run.conn.fetchval(
        "select sum(seq_to - seq_from + 1) from gaps where connection = $1 and reason = 'seq'",
        connection,
    )
    return int(missing or 0) >= numbers


async def _rejects(run: FaultRun, connection: UUID, frames: int) -> bool:
    """True when so many frames of a connection were kept as rejected."""
    return await run.count("connection = $1", connection, table="rejected_frames") >= frames


def _goes_back(times: list[tuple[int, int]]) -> bool:
    """True when exchange times, in the order of their numbers, ever fall."""
    moments = [moment for _, moment in sorted(times)]
    return any(late < early for early, late in pairwise(moments))
