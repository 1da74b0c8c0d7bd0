"""How long a second deduplicator waits for a dead one, in virtual time."""

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import pytest

from libs.store.errors import SchemaMismatch, StoreUnavailable
from libs.store.merge_transaction import Standing
from libs.store.merger import ProductionWriter
from libs.telemetry.metrics import Metrics
from services.deduplicator.board import Board
from services.deduplicator.settings import DeduplicatorSettings
from services.deduplicator.tasks import Merging
from tests.simulation.loop import VirtualClock, run_virtually

WITHIN_S = 15.0
SETTINGS = DeduplicatorSettings()


class Lease:
    """Production's lease as a writer's successor meets it: taken until a moment of the loop's time."""

    def __init__(self, until: float, refusals: Sequence[Exception] = ()) -> None:
        self._until = until
        self._refusals = list(refusals)

    async def take_over(self, _merge_no_floor: int) -> Standing | None:
        """Stand in for ProductionWriter.take_over."""
        if self._refusals:
            raise self._refusals.pop(0)
        is_free = asyncio.get_running_loop().time() >= self._until
        return Standing(2, 7, {}) if is_free else None


async def successor(writer: Any) -> tuple[bool, Merging]:
    """Wait for production as a deduplicator that has just come."""
    board = Board(["a"], pages_ahead=1)
    merging = Merging(board, cast("ProductionWriter", writer), SETTINGS, VirtualClock(0), Metrics())
    taken = await merging.begin_anew(asyncio.Event())
    assert board.ready.is_set() == taken
    return taken, merging


@pytest.mark.parametrize("waited_s", [0.0, 0.5, 7.0, 100.0, 3601.3])
def test_a_dead_writer_s_place_is_taken_within_fifteen_seconds(waited_s: float) -> None:
    """However long the second has waited when the first dies just after it renewed its lease."""

    async def main() -> float:
        expires = waited_s + SETTINGS.lease_s
        taken, _ = await successor(Lease(expires))
        assert taken
        return asyncio.get_running_loop().time() - waited_s

    took = run_virtually(main)
    assert SETTINGS.lease_s <= took < WITHIN_S - 2


def test_production_away_or_being_restored_is_waited_for() -> None:
    """A server that is away and a database that is not there for the moment are both asked again."""

    async def main() -> None:
        refusals = [StoreUnavailable("gone"), SchemaMismatch("no database"), StoreUnavailable("x")]
        taken, merging = await successor(Lease(0.0, refusals))
        assert taken
        assert merging.waiting_for == ""

    run_virtually(main)
