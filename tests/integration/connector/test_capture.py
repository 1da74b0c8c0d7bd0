"""A connector between a real simulated exchange and a real database."""

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

from libs.marketdata.listening import covers, union
from libs.store.pool import Target
from services.local.truth import read_market_journal
from tests.integration.connector.world import Zone, running_zone

S = 1_000_000


def published(zone: Zone) -> Counter[tuple[Any, ...]]:
    """What the exchange's journal says was published, as anonymous deltas."""
    zone.simulator.market_journal.flush()
    lines = Path(zone.simulator.market_journal.path).read_bytes().splitlines()
    truth = read_market_journal(lines)
    return Counter(
        (ticker, d.exchange_ts, d.price, d.side, d.size_delta)
        for ticker, market in truth.markets.items()
        for d in market.deltas
    )


async def check(zone: Zone) -> None:
    """Nothing extra; nothing missing inside a claim; claims of every market."""
    truth = published(zone)
    rows = await zone.rows("orderbook_deltas")
    stored: Counter[tuple[Any, ...]] = Counter()
    for r in rows:
        key = (r.ticker, r.exchange_ts, r.price, r.side, r.size_delta)
        stored[key] = max(stored[key], r.occurrence)
    assert not stored - truth
    spans: dict[str | None, list[tuple[int, int]]] = {}
    for claim in await zone.claims():
        if claim.channel == "orderbook_delta":
            spans.setdefault(claim.ticker, []).append((claim.from_ts, claim.to_ts))
    joined = {ticker: union(found) for ticker, found in spans.items()}
    missing = truth - stored
    assert not [key for key in missing if covers(joined.get(key[0], []), key[1])]
    wanted = {r[0] for r in await zone.conn.fetch("select ticker from markets")}
    assert set(joined) == wanted
    assert sum(stored.values()) > 100


async def test_what_is_published_is_stored_and_claimed(gatherer_db: Target, tmp_path: Path) -> None:
    """Rows equal the market journal wherever the connector claims to have listened, and it claims almost all."""
    async with running_zone(gatherer_db, tmp_path) as zone:
        async with zone.connector() as runtime:
            await asyncio.sleep(3)
            await zone.simulator.stop_publishing()
            document = runtime.health.document()
            assert document["connections"] == 5
            assert document["subscriptions"] == {"wanted": 16, "acked": 16}
            started = max(r.sent_at for r in await zone.rows("listen_opened")) + S
        await check(zone)
        wanted = {r[0] for r in await zone.conn.fetch("select ticker from markets")}
        # After the end every sid gets one more frame, which proves what came before it and not itself.
        ended: Any = zone.simulator.state()["end_ts"]
        late = [k for k in published(zone) if started <= k[1] < ended and k[0] in wanted]
        spans = [c for c in await zone.claims() if c.channel == "orderbook_delta"]
        heard = {
            t: union((c.from_ts, c.to_ts) for c in spans if c.ticker == t)
            for t in {c.ticker for c in spans}
        }
        assert [k for k in late if not covers(heard[k[0]], k[1])] == []
        assert {r[0] for r in await zone.conn.fetch("select state from slot_assignments")} == {
            "live"
        }
        assert await zone.conn.fetchval("select count(*) from lanes where closed_at is null") == 0
        assert {g.reason for g in await zone.rows("gaps")} == set()
        assert await zone.rows("trades")
        assert await zone.rows("tickers")


async def test_slots_are_handed_over_without_a_gap(gatherer_db: Target, tmp_path: Path) -> None:
    """A second connector takes its share, the first one drains: claims of the union have no hole."""
    async with running_zone(gatherer_db, tmp_path) as zone:
        async with zone.connector(shard="connector-a-2"):
            async with zone.connector(shard="connector-a-1"):
                await zone.until(lambda: _moved(zone, 5))
            # The first has drained here: everything is the second's again.
            await zone.until(lambda: _moved(zone, 5))
            await zone.simulator.stop_publishing()
        await check(zone)
        for ticker in {r[0] for r in await zone.conn.fetch("select ticker from markets")}:
            mine = [c for c in await zone.claims() if c.ticker == ticker]
            assert len({c.connection for c in mine}) >= 1
            assert len(union((c.from_ts, c.to_ts) for c in mine)) == 1
        reasons = {r.reason for r in await zone.rows("listen_closed")}
        assert "handed over" in reasons or "unsubscribed" in reasons
        assert {g.reason for g in await zone.rows("gaps")} <= {"not_subscribed"}


async def _moved(zone: Zone, slots: int) -> bool:
    """True when every slot has exactly one row, and it is live."""
    rows = await zone.conn.fetch("select state from slot_assignments")
    return [r["state"] for r in rows] == ["live"] * slots
