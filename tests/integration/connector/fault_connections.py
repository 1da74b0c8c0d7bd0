"""Faults that end connections or subscriptions: what each leaves, and who hears the slot then."""

from collections.abc import Awaitable, Callable
from uuid import UUID

from tests.integration.connector.fault_run import Case, Check, FaultRun, Found, wanted


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
    numbers: list[int] = []
    new: list[str] = []
    connection = run.connection(slot)
    assert connection is not None

    async def is_settled() -> bool:
        return _is_split(run, slot) or await _is_seen(run, connection, new[-1])

    while not _is_split(run, slot):
        numbers.append((await run.aim(slot, fault="error", code=26)).number)
        new += await _list_new(run, slot, 1)
        # A probe may have been the command that was answered so; then the market is simply added.
        await run.until(is_settled)
    await run.until(lambda: _is_split(run, slot) and bool(run.slot(slot)["heard"]))
    split = {"cause": "too many markets", "outcome": "split"}
    assert run.metric("slot_splits_total", **split) == 1
    parts = [UUID(part) for part in run.slot(slot)["parts"]]
    assert connection in parts

    def check(found: Found) -> None:
        assert [e["code"] for number in numbers for e in found.hits(number)] == [26] * len(numbers)
        seen = {r.ticker for part in parts for r in found.snapshots(part)}
        assert seen >= set(new)
        assert all(found.gaps(part, "disconnected") == [] for part in parts)

    return check


def _is_split(run: FaultRun, slot: str) -> bool:
    return len(run.slot(slot)["parts"]) == 2


async def _is_seen(run: FaultRun, connection: UUID, ticker: str) -> bool:
    where = "connection = $1 and ticker = $2"
    return await run.count(where, connection, ticker, table="orderbook_snapshots") > 0


async def error_too_many_commands(run: FaultRun, slot: str) -> Check:
    """27: the command is sent again, later each time, and succeeds on the same connection."""
    hit = await run.aim(slot, fault="error", code=27, count_max=2)
    (new,) = await _list_new(run, slot, 1)

    await run.until(lambda: _is_seen(run, hit.connection, new))

    def check(found: Found) -> None:
        refused = [e["at"] for e in found.hits(hit.number)]
        added = next(e["at"] for e in found.journal if e["kind"] == "added" and new in e["tickers"])
        assert len(refused) == 2
        assert added - max(refused) >= 1_000_000
        assert found.gaps(hit.connection, "disconnected") == []

    return check


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
