"""Pages of three gatherers for the real writer, without gatherer databases: made by sessions over frames with cuts.

Many cases share one production: each has its own hour, connections and lanes.
"""

from collections import defaultdict
from collections.abc import Sequence
from random import Random
from typing import Any
from uuid import UUID, uuid5

from libs.marketdata.rows import ROW_TYPES
from libs.marketdata.tables import GATHERER_TABLES
from libs.marketdata.units import HOUR
from libs.store.merger import ProductionWriter
from libs.store.pool import Connection
from services.deduplicator.board import Board, Delivery
from services.deduplicator.merge import Arrival
from tests.simulation.heard import Heard
from tests.simulation.merged import pages_of
from tests.simulation.published import EPOCH

ZONES = ("a", "b", "c")
IDENTITIES = {zone: uuid5(UUID(int=0), zone) for zone in ZONES}
TABLES = ("orderbook_deltas", "listen_ranges", "listen_opened", "listen_closed")


def epoch_of(case: int) -> int:
    """Return the hour of a case, microseconds."""
    return EPOCH + case * HOUR


def gatherers_of(case: int) -> list[int]:
    """Return the numbers its connections are made of."""
    return [3 * case + place for place in (1, 2, 3)]


class Stored:
    """What production holds of a case."""

    def __init__(self, rows: dict[str, list[Any]]) -> None:
        self._rows = rows

    def rows(self, table: str) -> list[Any]:
        """Every row of a table."""
        return self._rows[table]


async def stored(conn: Connection, case: int) -> Stored:
    """Read what production holds of a case: its hour of deltas, the proofs of its connections."""
    first = epoch_of(case) - HOUR // 2
    connections = [UUID(int=1000 * g + no) for g in gatherers_of(case) for no in range(1, 30)]
    rows: dict[str, list[Any]] = {}
    for name in TABLES:
        columns = ", ".join(GATHERER_TABLES[name].column_names)
        if name == "orderbook_deltas":
            where = "exchange_ts BETWEEN $1 AND $2"
            values: list[Any] = [first, first + HOUR - 1]
        else:
            where, values = "connection = ANY($1)", [connections]
        found = await conn.fetch(f"SELECT {columns} FROM {name} WHERE {where}", *values)
        rows[name] = [ROW_TYPES[name]._make(tuple(row)) for row in found]  # type: ignore[attr-defined]
    return Stored(rows)


class Feeder:
    """A zone's reader as the board knows one: pages after production's cursors, one at a time, no database behind it."""

    def __init__(self, zone: str, board: Board, writer: ProductionWriter) -> None:
        self.feed = board.feeds[zone]
        self._board, self._writer = board, writer
        self._batches: dict[UUID, list[Any]] = defaultdict(list)
        self._readings: dict[UUID, Any] = {}
        self._position: dict[UUID, int] = {}
        self._standing = (-1, -1)

    def take(self, heard: Heard, case: int, place: int) -> None:
        """Have what a gatherer committed to hand over."""
        for page in pages_of(place, heard.batches, Random(case), case):
            for lane, reading in page.readings.items():
                self._batches[lane] += page.batches
                self._readings[lane] = reading

    async def offer(self) -> bool:
        """Hand over what follows; False when nothing does."""
        if self._standing != (self._board.generation, self.feed.session):
            await self.stand()
        return await self.hand_over()

    async def stand(self) -> None:
        """Start from production's cursors."""
        self._standing = (self._board.generation, self._board.drop(self.feed))
        admission = await self._writer.admit(IDENTITIES[self.feed.zone], self.feed.zone)
        self.feed.gatherer, self._position = admission.gatherer, dict(admission.cursors)

    async def hand_over(self) -> bool:
        """Hand over three batches of each lane in one page; False when there are none."""
        batches, readings = [], {}
        for lane, found in self._batches.items():
            read = self._position.get(lane, 0)
            if following := found[read : read + 3]:
                batches += following
                number = self._position[lane] = read + len(following)
                readings[lane] = self._readings[lane]._replace(batch_no=number)
        if not readings:
            return False
        assert self.feed.gatherer is not None
        rows = sum(len(rows) for batch in batches for rows in batch.rows.values())
        await self._board.hand_over(
            Delivery(self.feed, *self._standing, self.feed.gatherer, batches, readings, rows)
        )
        return True


def shuffled(heard: Sequence[Heard], case: int, numbers: Sequence[int]) -> list[Arrival]:
    """Return all pages of a case in any order, a fifth of them twice."""
    chance = Random(f"pages {case}")
    pages = [
        page._replace(gatherer=number)
        for place, (one, number) in enumerate(zip(heard, numbers, strict=True), 1)
        for page in pages_of(place, one.batches, chance, case)
    ]
    pages += [page for page in pages if chance.random() < 0.2]
    chance.shuffle(pages)
    return pages
