"""Every kind of the fault menu, injected over HTTP while a real connector captures into a real database.

Faults that concern a connection are aimed at one slot each, so that many happen in one run, side by side; those that
concern the whole exchange happen one after the other. Each case asserts what this kind leaves; the verdict holds for all.
"""

import asyncio
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest

from libs.marketdata.listening import ORDERBOOK_CHANNEL
from libs.store.pool import Target
from services.simulator.faults.menu import KINDS
from tests.integration.connector.fault_connections import CONNECTIONS
from tests.integration.connector.fault_exchange import CROWD, EXCHANGE
from tests.integration.connector.fault_frames import FRAMES
from tests.integration.connector.fault_run import (
    MARKET,
    Case,
    Check,
    FaultRun,
    Found,
    Shared,
    faulty_zone,
)
from tests.integration.connector.fault_verdict import ZONE, take_verdict
from tests.integration.poller.test_poller import poller
from tests.integration.registry.world import running_zone as registry_zone
from tests.simulation.production import merge

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
            await run.heard_for(1.5)
            checks = await asyncio.gather(*(case.begin(run) for case in cases))
            await run.heard_for(1.5)
            reconnects = run.metric_sum("ws_reconnects_total")
            await run.stop_exchange()
        found = await run.find()
    assert (reconnects == 0) == (name == "frames")
    _judge(found, cases, checks)
    if name == "frames":
        _judge_the_verdict(found)


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
                checks.append(await case.begin(run))
            await run.heard_for(1.5)
            await run.stop_exchange()
        found = await run.find()
    _judge(found, EXCHANGE, checks)


def _judge(found: Found, cases: tuple[Case, ...], checks: list[Check]) -> None:
    assert take_verdict(found) == []
    for check in checks:
        check(found)
    assert found.kinds >= {case.kind for case in cases}


def _judge_the_verdict(found: Found) -> None:
    """It sees a delta that is missing or made up, a snapshot that is another book, and gaps whose causes are unknown."""
    deltas = found.rows("orderbook_deltas")
    claims = merge({ZONE: found}).index(ZONE, ORDERBOOK_CHANNEL)
    # What lies in a gap may be missing.
    heard = sorted((r.exchange_ts, r) for r in deltas if claims.heard(r.ticker, r.exchange_ts))
    moment, lost = heard[len(heard) // 2]
    others = [r for r in deltas if (r.exchange_ts, r.ticker) != (moment, lost.ticker)]
    wrong = lost._replace(size_delta=lost.size_delta + 1)
    book = found.rows("orderbook_snapshots")[0]
    told = {
        "unsound": replace(found, tables=found.tables | {"orderbook_deltas": others}),
        "extra": replace(found, tables=found.tables | {"orderbook_deltas": [*deltas, wrong]}),
        "is not the book": replace(
            found, tables=found.tables | {"orderbook_snapshots": [book._replace(yes=((1, 1),))]}
        ),
        "without a cause": replace(
            found, session=[line for line in found.session if b'"phase":"hit"' not in line]
        ),
    }
    for what, doctored in told.items():
        assert any(what in finding for finding in take_verdict(doctored)), what


async def test_a_crowd_of_markets_while_rest_fails(gatherer_db: Target, tmp_path: Path) -> None:
    """Registry, connector and poller together: every market of the crowd is captured, though REST fails half the time."""
    async with (
        registry_zone(gatherer_db, tmp_path, **MARKET, rate=300.0, quiet_ms=1500) as zone,
        aiohttp.ClientSession() as http,
    ):
        async with zone.registry(), poller(zone), zone.connector() as runtime:
            run = FaultRun(zone.simulator, Shared(zone.conn), runtime, http)
            await run.heard_for(0.5)
            checks = [await case.begin(run) for case in CROWD]
            await run.heard_for(1.5)
            await run.stop_exchange()
        found = await run.find()
    _judge(found, CROWD, checks)
    assert {r.source for r in found.rows("orderbook_snapshots")} == {"rest", "ws"}
