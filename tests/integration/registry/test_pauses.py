"""Maintenance of the simulated exchange is a known pause: rows, /health, metrics; across a restart of the registry too."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from libs.marketdata.rows import EXCHANGE_CHANNELS
from libs.runtime.service import Runtime
from libs.store.pool import Target
from services.simulator import hours
from tests.integration.registry.world import QUICK, Zone, running_zone

SECOND = 1_000_000


def said(runtime: Runtime) -> dict[str, Any]:
    """What /health says of the exchange."""
    found: dict[str, Any] = runtime.health.document()["exchange"]
    return found


async def pause_rows(zone: Zone) -> list[Any]:
    """Return the rows that name a pause, in the order they were written."""
    query = "select * from gaps where reason = 'exchange_paused' order by received_at, channel"
    return list(await zone.conn.fetch(query))


async def last_said_active(zone: Zone) -> int:
    """When the last answer was asked for by which nothing was paused, microseconds."""
    return int(
        await zone.value(
            "select max(requested_at) from exchange_status where exchange_active and trading_active"
        )
    )


async def first_said_active(zone: Zone, since: int) -> int:
    """When the first such answer after a moment was asked for, microseconds."""
    query = (
        "select min(requested_at) from exchange_status"
        " where exchange_active and trading_active and requested_at > $1"
    )
    return int(await zone.value(query, since))


async def test_maintenance_is_a_known_pause(gatherer_db: Target, tmp_path: Path) -> None:
    """A row on every channel at its beginning, one with both ends at its end; the connectors' own gaps stay theirs."""
    async with (
        running_zone(gatherer_db, tmp_path) as zone,
        zone.registry() as runtime,
        zone.connector(),
    ):
        assert (said(runtime)["exchange_active"], said(runtime)["paused"]) == (True, None)
        fault = zone.inject(fault="maintenance", for_s=600)
        begun = zone.simulator.clock.now()
        await zone.until(lambda: said(runtime)["paused"])
        paused = said(runtime)["paused"]
        assert paused["why"] == "exchange"
        assert paused["since"] == await last_said_active(zone) <= begun + SECOND
        assert abs(paused["until"] - begun - 600 * SECOND) < SECOND
        assert runtime.metrics.exchange_paused._value.get() == 1
        resumes_at = runtime.metrics.exchange_resumes_at_seconds._value.get()
        assert resumes_at == paused["until"] / SECOND
        disconnected = "select count(*) from gaps where reason = 'disconnected'"
        await zone.until(lambda: zone.value(disconnected))
        assert {row["channel"] for row in await pause_rows(zone)} == EXCHANGE_CHANNELS

        over = zone.simulator.clock.now()
        assert zone.simulator.simulation.faults.end(fault.number, over)
        await zone.until(lambda: said(runtime)["paused"] is None)
        rows = await pause_rows(zone)
        assert [row["to_ts"] for row in rows[:5]] == [None] * 5
        assert {row["channel"] for row in rows[5:]} == EXCHANGE_CHANNELS
        assert {row["from_ts"] for row in rows} == {paused["since"]}
        assert {row["to_ts"] for row in rows[5:]} == {await first_said_active(zone, over)}
        assert (said(runtime)["exchange_active"], len(rows)) == (True, 10)
        assert runtime.metrics.exchange_paused._value.get() == 0


async def test_a_pause_that_outlasts_the_registry_ends_once(
    gatherer_db: Target, tmp_path: Path
) -> None:
    """Begun under one registry, ended under the next: one beginning, one whole row, from the same moment."""
    async with running_zone(gatherer_db, tmp_path) as zone:
        async with zone.registry() as first:
            fault = zone.inject(fault="maintenance", for_s=600)
            await zone.until(lambda: said(first)["paused"])
            since = said(first)["paused"]["since"]
        async with zone.registry() as second:
            await zone.until(lambda: said(second)["exchange_active"] is False)
            assert said(second)["paused"]["since"] == since
        over = zone.simulator.clock.now()
        assert zone.simulator.simulation.faults.end(fault.number, over)
        async with zone.registry() as third:
            await zone.until(lambda: said(third)["exchange_active"])
            await zone.until(lambda: said(third)["paused"] is None)
        rows = await pause_rows(zone)
        assert [(row["from_ts"], row["to_ts"] is None) for row in rows] == [
            *[(since, True)] * 5,
            *[(since, False)] * 5,
        ]
        assert {row["to_ts"] for row in rows[5:]} == {await first_said_active(zone, over)}


async def test_the_schedule_says_when_the_next_maintenance_is(
    gatherer_db: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A planned window is in /health, then a pause from its own beginning, and the one after it is the next."""
    now = 0

    def windows(_now: int, weeks: int = 2) -> list[tuple[int, int]]:
        found = [(now + n * 100 * SECOND, now + (n * 100 + 10) * SECOND) for n in range(3)]
        return [(begin, end) for begin, end in found if end > _now][:weeks]

    monkeypatch.setattr(hours, "windows", windows)
    async with running_zone(gatherer_db, tmp_path) as zone:
        async with zone.registry(registry=replace(QUICK, schedule_s=0.3)) as runtime:
            now = zone.simulator.clock.now() + 2 * SECOND
            planned = {"from": now, "to": now + 10 * SECOND}
            assert said(runtime)["next_maintenance"] in (None, planned)
            await zone.until(lambda: (said(runtime)["paused"] or {}).get("why") == "trading")
            paused = said(runtime)["paused"]
            assert paused["until"] == now + 10 * SECOND
            assert min(now, await last_said_active(zone)) <= paused["since"] <= now
            assert said(runtime)["next_maintenance"]["from"] == now + 100 * SECOND
            at = runtime.metrics.exchange_maintenance_at_seconds._value.get()
            assert at == (now + 100 * SECOND) / SECOND
            await zone.until(lambda: said(runtime)["paused"] is None)
        ends = {row["to_ts"] for row in await pause_rows(zone) if row["to_ts"] is not None}
        assert ends == {await first_said_active(zone, now + 10 * SECOND)}
