"""Partitions for what is about to be merged: after a long absence the rows are older than those made around now.

An hour is made when rows of it arrive, before they are inserted, in every table; a row far from its receipt makes none
and goes to the default partition. A partition that could not be made just now is made later, and the rows that waited
in the default one move into it.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from libs.marketdata.tables import GATHERER_TABLES
from libs.marketdata.units import DAY, HOUR
from libs.runtime.clock import Clock
from libs.store.errors import SchemaMismatch, StoreUnavailable
from libs.store.partitions import Horizon, ensure_partitions
from libs.store.pool import Target, connect
from libs.telemetry.logging import get_logger

log = get_logger(__name__)

HOURS_AT_ONCE = 48
"""Hours made before one transaction at most, so that making them never outlasts the lease by much."""
AGAIN_S = 5.0
"""Seconds until partitions that could not be made are tried again: what comes meanwhile waits in the default ones."""
HOURS_OWED_MAX = 10_000
"""Hours remembered that are still to be made: more than a year."""


class PartitionKeeper:
    """Knows which hours production has partitions for, and makes those that are missing."""

    def __init__(self, production: Target, clock: Clock) -> None:
        self._production = production
        self._clock = clock
        self._not_before = 0.0
        self._made: set[int] = set()
        self._owed: set[int] = set()

    async def make_for(self, hours: Iterable[int]) -> None:
        """Make the partitions of these hours (since the epoch), and of those still owed; never fails, but tells."""
        self._owed |= set(hours) - self._made
        if not self._owed or self._clock.monotonic() < self._not_before:
            return
        turn = sorted(self._owed)[:HOURS_AT_ONCE]
        try:
            async with connect(self._production, "kalshi-data deduplicator") as conn:
                for first, last in runs(turn):
                    span = Horizon(behind=0, ahead=(last - first) * HOUR)
                    made = (await ensure_partitions(conn, "production", first * HOUR, span)).made
                    self._made |= set(range(first, last + 1))
                    if made:
                        log.info("partitions_made", partitions=[p.name for p in made])
        except (StoreUnavailable, SchemaMismatch) as error:
            # Somebody holds the default partitions, a dump perhaps: each table is a second's wait, and the merge waits with it.
            self._not_before = self._clock.monotonic() + AGAIN_S
            log.warning("partitions_not_made", error=str(error))
        self._owed -= self._made
        if len(self._owed) > HOURS_OWED_MAX:
            log.warning("partitions_given_up", hours=len(self._owed))
            self._owed.clear()

    def forget(self) -> None:
        """Look again: partitions come and go behind our back."""
        self._made.clear()


def hours_of(rows: Mapping[str, Sequence[Any]]) -> set[int]:
    """Return the hours of the partition times of rows by table, without those more than a day off their receipt."""
    hours: set[int] = set()
    for name, found in rows.items():
        table = GATHERER_TABLES[name]
        if not table.partitioned_in_production:
            continue
        time = table.column_names.index(table.time_column)
        receipt = table.column_names.index("received_at")
        hours |= {row[time] // HOUR for row in found if -DAY <= row[time] - row[receipt] <= DAY}
    return hours


def runs(hours: Sequence[int]) -> list[tuple[int, int]]:
    """Join ascending hours into runs without a hole: (first, last)."""
    joined: list[tuple[int, int]] = []
    for hour in hours:
        if joined and hour == joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], hour)
        else:
            joined.append((hour, hour))
    return joined
