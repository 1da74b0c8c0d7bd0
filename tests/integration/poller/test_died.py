"""A zone whose only connector dies and comes back: the tape fills what nobody heard, and nothing else changes."""

from dataclasses import replace
from pathlib import Path

from libs.marketdata.units import floor_ms
from libs.runtime.service import Runtime
from libs.store.pool import Target
from tests.integration.connector.world import running_zone
from tests.integration.poller.test_books import AT_ONCE, poller

HEARD = "select from_ts, to_ts from listening where channel = 'trade'"
GAPS = "select from_ts, to_ts from listening_gaps where channel = 'trade'"


async def test_trades_of_a_dead_time_are_healed(gatherer_db: Target, tmp_path: Path) -> None:
    """Between the first claim and the last every trade of the tape is stored; those of the hole came by REST alone."""
    quick = {"repair_s": 0.2, "repair_delay_s": 0.3, "check_sample": 0}
    async with running_zone(gatherer_db, tmp_path, rest_stale_s_max=0, rate=600.0) as zone:
        tape = zone.simulator.exchange.tape

        async def is_heard() -> bool:
            return bool(await zone.conn.fetch(HEARD))

        async def is_over() -> bool:
            return bool(await zone.conn.fetch(GAPS))

        def is_done(runtime: Runtime) -> bool:
            remembered = runtime.health.document()["repair"]["remembered"]
            return bool(remembered) and "open" not in remembered

        async with zone.connector(**AT_ONCE):
            await zone.until(is_heard)
        unheard = len(tape)
        await zone.until(lambda: len(tape) >= unheard + 20)
        zone.settings = replace(
            zone.settings, connector=replace(zone.settings.connector, shard="connector-a-2")
        )
        async with zone.connector(**AT_ONCE):
            await zone.until(is_over)
            async with poller(zone, **quick) as runtime:
                await zone.until(lambda: runtime.health.document()["repair"]["trades"] >= 20)
                await zone.until(lambda: is_done(runtime))
        claims = [c for c in await zone.claims() if c.channel == "trade"]
        first, last = min(c.from_ts for c in claims), max(c.to_ts for c in claims)
        stored = {row.trade_id: row for row in await zone.rows("trades")}
        due = {
            trade.trade_id: floor_ms(trade.at)
            for _, trade in tape
            if not trade.instrument.ticker.startswith("KXMVE")
        }
        due = {name: at for name, at in due.items() if first <= at < last}
        missing = {n: (at - first, last - at) for n, at in due.items() if n not in stored}
        assert missing == {}
        ((start, end),) = [tuple(row) for row in await zone.conn.fetch(GAPS)]
        inside = {name for name, at in due.items() if start <= at < end}
        by_rest = {name for name, row in stored.items() if row.connection is None}
        assert len(inside) >= 20
        assert by_rest <= inside
        assert len(by_rest) >= 18
        repairs = await zone.conn.fetch("select * from trade_repairs where state <> 'heard'")
        assert sum(row["trades_stored"] for row in repairs) == len(by_rest)
        assert {row["state"] for row in repairs} <= {"healed", "partial"}
