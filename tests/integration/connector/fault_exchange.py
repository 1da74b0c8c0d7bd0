"""Faults of the whole exchange, and of its REST interface: everybody is hit."""

import json
from itertools import pairwise
from uuid import UUID

from libs.marketdata.listening import ORDERBOOK_CHANNEL
from tests.integration.connector.fault_run import Case, Check, FaultRun, Found, wanted

CROWDED = 2_000


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


def _goes_back(times: list[tuple[int, int]]) -> bool:
    """True when exchange times, in the order of their numbers, ever fall."""
    moments = [moment for _, moment in sorted(times)]
    return any(late < early for early, late in pairwise(moments))


EXCHANGE = (
    Case("clock_step", "", clock_step),
    Case("refuse", "", refuse),
    Case("auth_expiry", "", auth_expiry),
    Case("maintenance", "", maintenance),
)


CROWD = (Case("rest", "", rest), Case("create_markets", "", create_markets))
