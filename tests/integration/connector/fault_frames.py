"""Faults on frames: what each leaves on a connection that stays. Names follow the menu's kinds."""

from uuid import UUID

from tests.integration.connector.fault_run import Case, Check, FaultRun, Found


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
    hit = await run.aim(slot, fault="delay", delay_ms=400, for_s=1.5)

    async def came() -> bool:
        where = "connection = $1 and received_at - sent_at >= 400000"
        return await run.count(where, hit.connection, table="orderbook_deltas") > 0

    await run.until(came)

    def check(found: Found) -> None:
        assert found.count(hit.number) > 0
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
    hit = await run.aim(slot, fault="stall", pings=True, for_s=1.8)

    async def came() -> bool:
        where = "connection = $1 and received_at - sent_at >= 500000"
        return await run.count(where, hit.connection, table="orderbook_deltas") > 0

    await run.until(came)

    def check(found: Found) -> None:
        assert found.count(hit.number) > 0
        assert found.skipped(hit.connection) == set()

    return check


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
