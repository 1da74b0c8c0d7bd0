"""The registry's loops: each repeats one `_once`."""

from typing import Final

from libs.runtime.repeat import repeat
from libs.runtime.service import EternalTasks, Runtime
from libs.store.notify import Listener
from services.registry.deaths import Deaths
from services.registry.exchange_state import ExchangeWatch
from services.registry.follow import LifecycleFollower
from services.registry.housekeeping import Housekeeper
from services.registry.keeper import Keeper
from services.registry.looking import Looker
from services.registry.moves import Mover
from services.registry.packing import Packer
from services.registry.settings import RegistrySettings
from services.registry.sync import Syncer

CLOCK_S: Final = 0.25
LOOK_S: Final = 0.25
SUMMARIZE_S: Final = 1.0
COUNT_S: Final = 10.0
MOVES_S: Final = 2.0
FOLLOW_S_MIN: Final = 0.05
"""Least time between two looks for lifecycle rows, seconds: wake-ups come with every commit of the zone."""


async def sync_catalogue(runtime: Runtime, syncer: Syncer, period_s: float) -> None:
    """List the exchange; the registry is ready once it has."""

    async def turn() -> None:
        await syncer.sync_once()
        runtime.health.set_ready(True)

    await repeat(runtime, "sync-catalogue", turn, period_s)


async def follow_lifecycle(
    runtime: Runtime, follower: LifecycleFollower, listener: Listener, poll_s: float
) -> None:
    """Apply lifecycle rows soon after they are committed."""

    async def wake(_: float) -> None:
        if await runtime.sleep(min(FOLLOW_S_MIN, poll_s)):
            await listener.wait(poll_s)

    await repeat(runtime, "follow-lifecycle", follower.follow_once, poll_s, wake=wake)


async def advance_clock(runtime: Runtime, keeper: Keeper) -> None:
    """Open and close markets on time."""

    async def turn() -> None:
        while await keeper.advance():
            pass

    await repeat(runtime, "advance-clock", turn, CLOCK_S)


async def count(runtime: Runtime, keeper: Keeper) -> None:
    """Keep the number of markets by status in the metrics, and right."""

    async def turn() -> None:
        await keeper.count()
        for status, markets in keeper.markets.as_dict().items():
            runtime.metrics.markets_known.labels(status).set(markets)

    await repeat(runtime, "count-markets", turn, COUNT_S)


def start_periodic(
    tasks: EternalTasks,
    runtime: Runtime,
    own: RegistrySettings,
    keeper: Keeper,
    looker: Looker,
    watch: ExchangeWatch,
    housekeeper: Housekeeper,
    deaths: Deaths,
    mover: Mover,
    packer: Packer,
) -> None:
    """Start the loops that are a period and a turn."""
    for name, work, period_s in (
        ("look-at-markets", looker.markets_once, LOOK_S),
        ("look-at-events", looker.events_once, LOOK_S),
        ("record-status", watch.status_once, own.status_s),
        ("record-schedule", watch.schedule_once, own.schedule_s),
        ("place-strays", keeper.place_strays, MOVES_S),
        ("end-moves", mover.end_once, MOVES_S),
        ("keep-house", housekeeper.round_once, own.housekeeping_s),
        ("tell-deaths", deaths.tell_once, own.housekeeping_s),
        ("summarize", housekeeper.summarize_once, SUMMARIZE_S),
        ("drop-partitions", housekeeper.drop_once, own.drop_s),
        ("pack-chunks", packer.pack_once, own.pack_s),
        ("trim-ledger", housekeeper.trim_once, own.housekeeping_s),
    ):
        tasks.start(name, repeat(runtime, name, work, period_s))
