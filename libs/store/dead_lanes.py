"""Whose lanes nobody will close any more, judged by the database's clock alone."""

from uuid import UUID

from libs.store.pool import AnyConnection, map_store_errors

_DEAD = """
select distinct l.instance
from lanes l
left join shards s on s.shard = l.process
left join leases e on e.name = l.process
where l.closed_at is null and l.instance <> $1
  and pg_postmaster_start_time() < clock_timestamp() - $2::float8 * interval '1 second'
  and case
        when s.shard is not null then
            (s.instance <> l.instance and l.opened_at < s.heartbeat_at)
            or s.expires_at < clock_timestamp() - $2::float8 * interval '1 second'
        when e.name is not null then
            (e.holder <> l.instance and l.opened_at < clock_timestamp() - $2::float8 * interval '1 second')
            or e.expires_at < clock_timestamp() - $2::float8 * interval '1 second'
        else l.opened_at < clock_timestamp() - interval '5 minutes'
      end
"""
"""Instances with open lanes whose process is gone by the database's clock: another instance took its name, or its
lease ended a whole lease ago while the server was up. A process that is wrongly taken for dead opens a new lane."""


async def dead_instances(conn: AnyConnection, survivor: UUID, lease_s: float) -> list[UUID]:
    """Return the instances whose lanes may be closed; never `survivor`, and nobody until the server is up a lease.

    Raises:
        StoreUnavailable: the database is away.
    """
    with map_store_errors():
        rows = await conn.fetch(_DEAD, survivor, lease_s)
    return [row["instance"] for row in rows]
