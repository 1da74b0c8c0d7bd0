"""What the lanes of a process that died leave untold: the sids that it did not live to close, as gaps `process_died`.

Told by whoever finds out first: the next process of that name, which closes the lanes, or the registry, which looks at
lanes that were closed a while ago. Both ask the rows themselves, so that whatever came between, a hole has its cause,
and nobody who asks again tells it twice.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, LiteralString, NamedTuple
from uuid import UUID

from libs.flow.placement import CHANNELS, kind_of
from libs.marketdata.rows import GapRow, gap
from libs.store.pool import AnyConnection, map_store_errors

LOOKBACK_S: Final = 86_400.0
"""Seconds after its end that a lane is still looked at: a registry that was away for long leaves older ones alone."""
SETTLE_S: Final = 60.0
"""Seconds before a lane is looked at: by then a successor's own rows, or a living writer's next lane, are there."""
INSTANCES_MAX: Final = 20
"""Looked at in one turn; the next goes on."""
LANES_MAX: Final = 40
"""Newest lanes of one instance that are looked into; it has four, and four more each time it was taken for dead."""
_LAST_BATCHES: Final = 200
"""Batches of a lane that are looked at: every sid that still received has a range among them."""

_ENDED: LiteralString = """
select l.process, l.instance, array_agg(l.lane order by l.closed_at desc, l.lane) as lanes,
    (extract(epoch from max(l.closed_at)) * 1000000)::bigint as ended_at
from lanes l left join unnest($1::uuid[]) as looked (lane) on looked.lane = l.lane
where l.closed_at > clock_timestamp() - $2::float8 * interval '1 second'
  and not exists (select from leases e where e.name = l.process)
group by l.process, l.instance
having bool_or(looked.lane is null)
   and max(l.closed_at) < clock_timestamp() - $3::float8 * interval '1 second'
   and not exists (select from lanes o where o.instance = l.instance and o.closed_at is null)
order by ended_at desc limit $4
"""
"""Processes with a lease by name (the registry, the poller) hear nothing. The newest first, so that what was looked at
and forgotten again keeps nobody waiting."""

_RECENT: LiteralString = """
select t.name, b.batch_id, t.time_from, t.time_to
from unnest($1::uuid[]) as l (lane)
cross join lateral (
    select i.batch_id, i.table_names, i.times_from, i.times_to from ingest_batches i
    where i.lane = l.lane order by i.batch_no desc limit $2
) b
cross join lateral unnest(b.table_names, b.times_from, b.times_to) as t (name, time_from, time_to)
where t.name in ('listen_ranges', 'listen_opened', 'orderbook_deltas')
"""
_UNTOLD: LiteralString = """
with heard as (
    select r.connection, r.sid, r.channel, max(r.seq_to) as seq, max(r.sent_to) as sent_at,
        max(r.received_at) as received_at
    from listen_ranges r
    where r.batch_id = any($1::bigint[]) and r.received_at between $2 and $3
    group by r.connection, r.sid, r.channel
)
select h.* from heard h
where not exists (
    select from listen_closed c
    where c.connection = h.connection and c.sid = h.sid and c.ticker is null and c.batch_id >= $4
      and c.reason not in ('seq', 'rejected', 'silent'))
  and not exists (
    select from gaps g
    where g.reason = 'process_died' and g.connection = h.connection and g.sid = h.sid and g.batch_id >= $4
      and (g.seq_from is null or g.seq_from >= h.seq))
order by h.connection, h.sid
"""
"""A row that names an earlier frame was written of a process that lived on."""
_SLOTS: LiteralString = """
select connection, sid, min(slot) as slot from (
    select o.connection, o.sid, o.slot from listen_opened o
    where o.batch_id = any($1::bigint[]) and o.received_at between $2 and $3
    union
    select d.connection, d.sid, m.slot from orderbook_deltas d join markets m using (ticker)
    where d.batch_id = any($4::bigint[]) and d.exchange_ts between $5 and $6 and m.slot is not null
) known
group by connection, sid having count(distinct slot) = 1
"""
_OWN: LiteralString = "select slot from slot_assignments where shard = $1"


@dataclass(frozen=True, slots=True)
class Ended:
    """A start of a process all of whose lanes are closed: those that were lately, newest first. ended_at: microseconds."""

    process: str
    instance: UUID
    lanes: tuple[UUID, ...]
    ended_at: int


class _Span(NamedTuple):
    """The batches that hold rows of a table, and the times of these rows: what keeps a query to their chunks."""

    batches: list[int]
    time_from: int
    time_to: int


async def ended_lately(
    conn: AnyConnection,
    looked: Collection[UUID],
    *,
    lookback_s: float = LOOKBACK_S,
    settle_s: float = SETTLE_S,
) -> list[Ended]:
    """Return the processes that ended and have a lane that is not among those looked at; a bounded number of them.

    Raises:
        StoreUnavailable: the database is away.
    """
    with map_store_errors():
        rows = await conn.fetch(_ENDED, list(looked), lookback_s, settle_s, INSTANCES_MAX)
    return [Ended(r["process"], r["instance"], tuple(r["lanes"]), r["ended_at"]) for r in rows]


async def untold_deaths(
    conn: AnyConnection, process: str, lanes: Sequence[UUID], now: int, received_to: int
) -> list[GapRow]:
    """Return a `process_died` gap for every sid last heard on these lanes that was neither closed nor told of.

    A gap names its slot where the last batches, or the rows that bear the process's name, leave no doubt.

    Args:
        now, received_to: when the rows are written, and when the lanes were closed, microseconds.

    Raises:
        StoreUnavailable: the database is away; call again.
    """
    with map_store_errors():
        spans = _spans(await conn.fetch(_RECENT, lanes[:LANES_MAX], _LAST_BATCHES))
        heard = spans["listen_ranges"]
        if not heard.batches:
            return []
        rows = await conn.fetch(_UNTOLD, *heard, min(heard.batches))
        if not rows:
            return []
        known = await conn.fetch(_SLOTS, *spans["listen_opened"], *spans["orderbook_deltas"])
        own = [row["slot"] for row in await conn.fetch(_OWN, process)]
    slots = {(row["connection"], row["sid"]): row["slot"] for row in known}
    return [
        gap(
            now,
            row["channel"],
            "process_died",
            slot=slots.get((row["connection"], row["sid"])) or _only_slot(row["channel"], own),
            detail=process,
            from_ts=row["sent_at"],
            received_from=row["received_at"],
            received_to=received_to,
            seq_from=row["seq"],
            connection=row["connection"],
            sid=row["sid"],
        )
        for row in rows
    ]


def _spans(rows: Iterable[Any]) -> Mapping[str, _Span]:
    spans = {
        name: _Span([], 2**63 - 1, 0)
        for name in ("listen_ranges", "listen_opened", "orderbook_deltas")
    }
    for row in rows:
        held = spans[row["name"]]
        held.batches.append(row["batch_id"])
        spans[row["name"]] = held._replace(
            time_from=min(held.time_from, row["time_from"]),
            time_to=max(held.time_to, row["time_to"]),
        )
    return spans


def _only_slot(channel: str, slots: Iterable[str]) -> str:
    """Return the one slot among these that carries a channel; nothing when that is not certain."""
    found = [slot for slot in slots if channel in CHANNELS.get(kind_of(slot), ())]
    return found[0] if len(found) == 1 else ""
