"""A connector between a real simulated exchange and a real database."""

from collections import Counter
from pathlib import Path
from typing import Any

from libs.marketdata.listening import covers, union
from libs.marketdata.tables import GATHERER_TABLES, Family
from libs.store.pool import Target
from services.local.truth import TICKER_FIELDS, Truth, read_market_journal
from services.local.verdict import ClaimIndex, Fact, judge
from tests.integration.connector.world import Zone, running_zone

S = 1_000_000


TRADE_FIELDS = ("exchange_ts", "trade_id", "size", "yes_price", "no_price", "taker_side")


def journal(zone: Zone) -> Truth:
    """What the exchange's journal says was published."""
    zone.simulator.market_journal.flush()
    return read_market_journal(Path(zone.simulator.market_journal.path).read_bytes().splitlines())


def published(zone: Zone) -> Counter[tuple[Any, ...]]:
    """The journal's deltas, anonymous."""
    return Counter(
        (ticker, d.exchange_ts, d.price, d.side, d.size_delta)
        for ticker, market in journal(zone).markets.items()
        for d in market.deltas
    )


def fact(row: Any, names: tuple[str, ...]) -> Fact:
    return Fact(row.ticker, row.exchange_ts, tuple(getattr(row, name) for name in names))


async def check_channels(zone: Zone, since: int = 0, until: int = 0) -> None:
    """Trades and tickers likewise: nothing extra, nothing missing inside a claim, nor between since and until.

    Combos are not captured: their rows are published, counted as frames, and left out.
    """
    truth, claims = journal(zone), await zone.claims()
    wants = zone.settings.session().wants
    for table, channel, facts, names in (
        ("trades", "trade", truth.trades, TRADE_FIELDS),
        ("tickers", "ticker", truth.tickers, ("exchange_ts", *TICKER_FIELDS)),
    ):
        wanted = [f for f in facts if wants is None or wants(f.ticker)]
        stored = {fact(row, names) for row in await zone.rows(table)}
        spans = [(c.ticker, c.from_ts, c.to_ts) for c in claims if c.channel == channel]
        verdict = judge(table, wanted, stored, ClaimIndex(spans))
        assert verdict.holds, verdict.examples
        assert spans
        assert verdict.stored > 0
        assert [f for f in wanted if since <= f.moment < until and f not in stored] == []


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
    await check_channels(zone)


async def check_families(zone: Zone) -> None:
    """Every table stands on the lanes of its family alone: what a channel floods holds no other's rows."""
    found = await zone.conn.fetch(
        "select distinct family, unnest(table_names) as name from lanes join ingest_batches using (lane)"
    )
    on = {(r["family"], r["name"]) for r in found if GATHERER_TABLES[r["name"]].family}
    assert {family for family, _ in on} == {family.value for family in Family}
    assert on == {(str(GATHERER_TABLES[name].family), name) for _, name in on}


async def test_what_is_published_is_stored_and_claimed(gatherer_db: Target, tmp_path: Path) -> None:
    """Rows equal the market journal wherever the connector claims to have listened, and it claims almost all."""
    async with running_zone(gatherer_db, tmp_path) as zone:
        async with zone.connector() as runtime:
            await zone.until(
                lambda: zone.has_rows(orderbook_deltas=800, trades=30, tickers=30, listen_ranges=30)
            )
            await zone.stop_publishing()
            document = runtime.health.document()
            assert document["connections"] == 5
            assert document["subscriptions"] == {"wanted": 16, "acked": 16, "seen": 16}
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
        await check_channels(zone, started, ended)
        await check_families(zone)


async def test_slots_are_handed_over_without_a_gap(gatherer_db: Target, tmp_path: Path) -> None:
    """A second connector takes its share, the first one drains: claims of the union have no hole."""
    async with running_zone(gatherer_db, tmp_path) as zone:
        async with zone.connector(shard="connector-a-2"):
            async with zone.connector(shard="connector-a-1"):
                await zone.until(lambda: _moved(zone, 5))
            # The first has drained here: everything is the second's again.
            await zone.until(lambda: _moved(zone, 5))
            await zone.stop_publishing()
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
