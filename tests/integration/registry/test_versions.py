"""A version row for every change of a field: told by the exchange, heard by a connector, looked up, written. And soon."""

import json
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from libs.store.pool import Target
from services.simulator import lifecycle, rest_objects
from services.simulator.changes import Lifecycle
from services.simulator.instruments import STRUCTURES, Instrument
from services.simulator.rest_listings import RestListings
from tests.integration.registry.world import QUICK, Zone, running_zone

SECOND = 1_000_000
ONLY_MESSAGES = replace(QUICK, incremental_s=600.0, cache_s=600.0)
"""Nothing but messages leads to a look, and no look is sure before the exchange's cache is over."""
SOON = 60.0
"""Seconds in which a change must be a row, on a busy machine; what should not bring it about comes in minutes."""
VERSIONS = (
    "select body from market_versions where level = $1 and ticker = $2 order by received_at desc"
)


def fresh_zone(target: Target, directory: Path) -> AbstractAsyncContextManager[Zone]:
    """A zone whose exchange answers without a cache: what a test asks twice is the present both times."""
    return running_zone(target, directory, rest_stale_s_max=0.0, rest_unknown_s_max=0.0)


async def newest(zone: Zone, level: str, ticker: str) -> dict[str, Any]:
    """Return the newest version of an object."""
    body: dict[str, Any] = json.loads(await zone.value(VERSIONS, level, ticker))
    return body


async def test_what_messages_change_is_a_version_within_seconds(
    gatherer_db: Target, tmp_path: Path
) -> None:
    """Price structure, metadata, close date, an event's fees, the outcome: each one row more, with the new value."""
    async with (
        fresh_zone(gatherer_db, tmp_path) as zone,
        zone.registry(registry=ONLY_MESSAGES),
        zone.connector(),
    ):
        instrument = _some_market(zone)
        event, ticker = instrument.event, instrument.ticker
        other = next(s for s in STRUCTURES.values() if s is not event.series.structure)
        later = zone.simulator.exchange.listings[ticker].close_at + 3600 * SECOND
        told: list[tuple[str, str, Callable[[int], Lifecycle], str, object]] = [
            ("market", ticker, lambda at: lifecycle.structure_updated(instrument, at, other),
             "price_level_structure", other.name),
            ("market", ticker, lambda at: lifecycle.metadata_updated(instrument, at, "a title"), "yes_sub_title", "a title"),
            ("market", ticker, lambda at: lifecycle.close_date_updated(instrument, at, later),
             "close_time", rest_objects.rfc3339(later)),
            ("event", event.ticker, lambda at: lifecycle.event_fee_updated(event, at, ("flat", 0.5)),
             "fee_multiplier_override", 0.5),
            ("event", event.ticker, lambda at: lifecycle.event_fee_updated(event, at, None),
             "fee_multiplier_override", None),
            ("market", ticker, lambda at: lifecycle.determined(instrument, at, "yes"), "result", "yes"),
        ]  # fmt: skip
        count = "select count(*) from market_versions where level = $1 and ticker = $2"
        for level, name, message, key, value in told:
            before = await zone.value(count, level, name)

            async def is_written(
                level: str = level, name: str = name, key: str = key, value: object = value
            ) -> bool:
                return bool((await newest(zone, level, name)).get(key) == value)

            zone.publish(message(zone.simulator.clock.now()))
            await zone.until(is_written, SOON)
            assert await zone.value(count, level, name) == before + 1


async def test_what_nobody_tells_is_found_by_the_next_listing(
    gatherer_db: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No message speaks of a series: the listing of what changed brings its new title."""
    changed_at: dict[str, int] = {}

    def date_series(self: RestListings) -> None:
        self._series_since.update(dict.fromkeys(self.exchange.series, 0) | changed_at)

    monkeypatch.setattr(RestListings, "_date_series", date_series)
    async with fresh_zone(gatherer_db, tmp_path) as zone, zone.registry() as runtime:
        exchange = zone.simulator.exchange
        ticker = min(exchange.series)
        assert (await newest(zone, "series", ticker))["title"] == exchange.series[ticker].title
        exchange.series[ticker] = replace(exchange.series[ticker], title="another title")
        changed_at[ticker] = zone.simulator.clock.now()

        async def is_written() -> bool:
            return bool((await newest(zone, "series", ticker))["title"] == "another title")

        await zone.until(is_written, SOON)
        assert runtime.health.document()["listing"]["full"] == 1


async def test_an_old_answer_does_not_undo_a_message(gatherer_db: Target, tmp_path: Path) -> None:
    """REST answers from a cache that still holds the market as it was: the message stands, and the last look is sure."""
    async with (
        fresh_zone(gatherer_db, tmp_path) as zone,
        zone.registry(registry=replace(ONLY_MESSAGES, cache_s=12.0)) as runtime,
        zone.connector(),
    ):
        instrument = _some_market(zone)
        listing = zone.simulator.exchange.listings.changing(instrument)
        zone.publish(lifecycle.paused(instrument, zone.simulator.clock.now(), True))
        # The cache: REST goes on saying what was before the message.
        updated_at, listing.updated_at, listing.is_deactivated = listing.updated_at, 0, False
        status = "select status from markets where ticker = $1"

        async def is_inactive() -> bool:
            return bool(await zone.value(status, instrument.ticker) == "inactive")

        await zone.until(is_inactive, SOON)
        looked = runtime.health.document()["looks"]["looked"]
        await zone.until(lambda: runtime.health.document()["looks"]["looked"] > looked, SOON)
        assert await is_inactive()
        listing.updated_at, listing.is_deactivated = updated_at, True
        before = runtime.health.document()["catalogue"]["versions"]
        await zone.until(lambda: runtime.health.document()["catalogue"]["versions"] > before, SOON)
        assert (await newest(zone, "market", instrument.ticker))["status"] == "inactive"
        assert await is_inactive()


def _some_market(zone: Zone) -> Instrument:
    """Return an open market that is no combo."""
    listings = zone.simulator.exchange.listings
    return next(item.instrument for item in listings.values() if not item.instrument.is_combo)
