"""Re-admit a quarantined gatherer: an operator's decision that what is unsound in it is lost.

Reading goes on from the cursors; of a lane whose next number is missing, from the smallest number there is. What was
claimed up to there stands, what is stepped over becomes a gap row. The transaction is numbered like any other, so the
writer that runs meets a changed history and reads its cursors again.
"""

import re
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from libs.marketdata.binary import codec
from libs.marketdata.rows import family_gaps
from libs.store import merge_sql as sql
from libs.store.acknowledgements import readmission_cursors
from libs.store.errors import StoreError
from libs.store.merge_records import record_events
from libs.store.merge_rows import RowInserter
from libs.store.merge_transaction import EventRow, Segment
from libs.store.pages import read_identity
from libs.store.pool import Connection, Target, connect, map_store_errors

_UNSOUND: Final = re.compile(r"lane=(\S+) batch_no=(\d+) (\w+)")
_FAMILIES: Final = "SELECT lane, family FROM lanes WHERE lane = ANY($1::uuid[])"
_NOW: Final = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint"


class NotQuarantined(StoreError):
    """This gatherer is not quarantined; there is nothing to re-admit."""


@dataclass(frozen=True, slots=True)
class Readmission:
    """What was decided: the gatherer's number, and lane -> (last number merged, last number given up)."""

    gatherer: int
    stepped_over: dict[UUID, tuple[int, int]]


async def readmit(gatherer: Target, production: Target, *, skip_unsound: bool) -> Readmission:
    """Step over what is missing, set the status to 'ok', record event and gaps.

    Args:
        gatherer: the database that is quarantined.
        production: where it is.
        skip_unsound: also give up the batch whose count or hash was wrong; without it that batch is read again, which
            is right after its rows were repaired.

    Raises:
        NotQuarantined: nothing to do.
        StoreUnavailable: one of both is away.
    """
    async with (
        connect(gatherer) as source,
        connect(production) as conn,
    ):
        identity = await read_identity(source)
        with map_store_errors():
            async with conn.transaction():
                _, _, merge_no = await conn.fetchrow(sql.LOCK_LEASE) or (0, None, 0)
                found = await conn.fetchrow(sql.FIND_GATHERER, identity.identity)
                if found is None or found["status"] != "quarantined":
                    raise NotQuarantined(f"zone {identity.zone} is not quarantined")
                number, detail = found["gatherer"], found["detail"] or ""
                stepped = await _steps(conn, source, number, detail if skip_unsound else "")
                if stepped:
                    await _step_over(conn, source, number, stepped, merge_no + 1)
                await conn.execute(sql.READMIT, number)
                event = EventRow("gatherer_readmitted", number, _describe(detail, stepped))
                await record_events(conn, [event])
    return Readmission(number, stepped)


async def _steps(
    conn: Connection, source: Connection, number: int, unsound: str
) -> dict[UUID, tuple[int, int]]:
    records = await conn.fetch(sql.READ_CURSORS + " WHERE gatherer = $1", number)
    cursors = {lane: batch_no for _, lane, batch_no in records}
    targets = await readmission_cursors(source, cursors)
    match = _UNSOUND.match(unsound)
    if match is not None and match.group(3) != "hole":
        lane = UUID(match.group(1))
        targets[lane] = max(targets.get(lane, 0), int(match.group(2)))
    return {lane: (cursors.get(lane, 0), target) for lane, target in targets.items()}


async def _step_over(
    conn: Connection,
    source: Connection,
    number: int,
    stepped: dict[UUID, tuple[int, int]],
    merge_no: int,
) -> None:
    families = {r["lane"]: r["family"] for r in await source.fetch(_FAMILIES, list(stepped))}
    now = await conn.fetchval(_NOW)
    lanes = list(stepped)
    segments = [
        Segment(number, lane, merged + 1, _gaps(lane, merged, given_up, families[lane], now))
        for lane, (merged, given_up) in stepped.items()
    ]
    done = await RowInserter(conn).insert({"gaps": segments}, merge_no)
    await conn.execute(
        sql.WRITE_CURSORS,
        [number] * len(lanes),
        lanes,
        [stepped[lane][1] for lane in lanes],
        [families[lane] for lane in lanes],
    )
    await conn.execute(sql.WRITE_MERGE, merge_no, len(lanes), done.rows_inserted)
    await conn.execute("UPDATE writer_lease SET merge_no = $1", merge_no)


def _gaps(lane: UUID, merged: int, given_up: int, family: str, now: int) -> list[bytes]:
    """Pack the gap rows of batches that are given up."""
    detail = f"lane {lane} batches {merged + 1} to {given_up} given up by an operator"
    rows = family_gaps(now, family, "dropped_at_gatherer", detail=detail)
    return [codec("gaps").encode(row) for row in rows]


def _describe(detail: str, stepped: dict[UUID, tuple[int, int]]) -> str:
    steps = "; ".join(
        f"{lane}: {low + 1} to {high} given up" for lane, (low, high) in stepped.items()
    )
    return f"was: {detail}; {steps or 'nothing given up'}"
