"""What a zone's database says of its zone: slots, shards, plan, gaps, lag, bytes."""

from typing import Any, LiteralString

from libs.runtime.sections import SlotSettings
from libs.store.pool import AnyConnection
from libs.store.schema import read_level

LAG_OF_S = 60
"""Lag is that of the batches committed within so many seconds."""
LAG_BATCHES_MAX = 20_000
GAPS_SHOWN = 20
GAPS_OF_S = 7 * 86_400

_FIGURES: LiteralString = """
SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS now,
       (SELECT identity::text FROM gatherer_identity) AS identity,
       (SELECT count(*) FROM lanes WHERE closed_at IS NULL) AS open_lanes,
       (SELECT extract(epoch FROM clock_timestamp() - committed_at) FROM ingest_batches
         ORDER BY batch_id DESC LIMIT 1) AS last_batch_s,
       (SELECT count(*) FROM shards WHERE expires_at > clock_timestamp()) AS shards,
       (SELECT count(DISTINCT slot) FROM slot_assignments WHERE state = 'live') AS live_slots,
       (SELECT count(*) FROM markets WHERE wanted) AS wanted,
       (SELECT count(*) FROM markets) AS markets,
       (SELECT pg_database_size(current_database())) AS bytes
"""
_UPKEEP: LiteralString = """
SELECT (SELECT count(*) FROM trade_repairs WHERE state = 'open') AS repairs_open,
       (SELECT count(*) FROM trade_repairs WHERE state IN ('partial', 'failed')) AS repairs_unhealed,
       (SELECT coalesce(sum(trades_stored), 0)::bigint FROM trade_repairs) AS trades_healed,
       (SELECT count(*) FROM book_checks WHERE outcome = 'disagree') AS books_disagree,
       (SELECT max(checked_at)::text FROM book_checks WHERE outcome = 'disagree') AS books_disagreed_at
"""
"""What the poller remembers of the last seven days; of databases of level 2 and later."""
_SLOTS: LiteralString = """
SELECT a.slot, coalesce(bool_or(a.state = 'live' AND s.expires_at > clock_timestamp()), false) AS live,
       coalesce(count(*) > 1 OR bool_or(a.state = 'releasing') OR bool_or(s.draining), false) AS moving
  FROM slot_assignments a LEFT JOIN shards s USING (shard) GROUP BY a.slot
"""
"""A slot is live where a shard with a lease says so; moving while it has two rows, or its shard goes away."""
_MEMBERS: LiteralString = """
SELECT s.shard, s.instance::text AS instance, s.template_hash, s.capacity, s.load, s.draining, s.epoch,
       s.expires_at > clock_timestamp() AS alive,
       extract(epoch FROM clock_timestamp() - s.heartbeat_at)::float8 AS heartbeat_s,
       count(a.slot) FILTER (WHERE a.state = 'live') AS live, count(a.slot) AS slots
  FROM shards s LEFT JOIN slot_assignments a USING (shard) GROUP BY s.shard ORDER BY s.shard
"""
_PLANNER: LiteralString = """
SELECT holder, epoch, expires_at > clock_timestamp() AS held FROM planner
"""
_GAPS: LiteralString = """
SELECT channel, slot, ticker, reason, detail, rows_lost, received_at AS recorded_at,
       coalesce(from_ts, received_from) AS begins_at, coalesce(to_ts, received_to, received_at) AS ends_at
  FROM gaps WHERE received_at > (extract(epoch FROM clock_timestamp()) * 1000000)::bigint - $1 * 1000000::bigint
   AND reason <> 'not_subscribed'
 ORDER BY reason = 'exchange_paused', ends_at DESC LIMIT $2
"""
"""Every new market has one until its first snapshot: such are counted, and no trouble. The exchange's pauses, of which each
has a row or two for every channel, stand behind all others, or two of them would hide a trouble from a rollout."""
_GAP_COUNTS: LiteralString = """
SELECT reason, count(*) AS gaps FROM gaps
 WHERE received_at > (extract(epoch FROM clock_timestamp()) * 1000000)::bigint - $1 * 1000000::bigint
 GROUP BY reason ORDER BY reason
"""
_LAG: LiteralString = """
SELECT count(*) AS batches, percentile_disc(ARRAY[0.5, 0.9, 0.99, 1]) WITHIN GROUP (ORDER BY lag_ms) AS lags
  FROM (SELECT (extract(epoch FROM b.committed_at) * 1000 - t.time_from / 1000.0)::float8 AS lag_ms
          FROM (SELECT committed_at, table_names, times_from FROM ingest_batches
                 ORDER BY batch_id DESC LIMIT $2) AS b
         CROSS JOIN LATERAL unnest(b.table_names, b.times_from) AS t (name, time_from)
         WHERE t.name = 'orderbook_deltas' AND b.committed_at > clock_timestamp() - $1 * interval '1 second') AS lags
"""
"""Of each batch its oldest delta: an upper bound of every delta's lag. Other tables may tell of what is long past."""
_LEASES: LiteralString = """
SELECT name, holder::text AS holder, epoch, expires_at > clock_timestamp() AS held FROM leases ORDER BY name
"""


async def zone_figures(
    conn: AnyConnection, slots: SlotSettings | None, storage_bytes_max: int
) -> dict[str, Any]:
    """Read them all. Times are microseconds since the epoch by the database's clock; raises the driver's errors.

    slots: of the zone's configuration, None when it is not known here.
    """
    row = await conn.fetchrow(_FIGURES)
    found = dict(row) if row else {}
    level = await read_level(conn)
    found["level"] = None if level is None else level[0]
    if level is not None and level[0] >= 2:
        row = await conn.fetchrow(_UPKEEP)
        found |= dict(row) if row else {}
    found["slots"] = await _slots(conn, slots)
    found["members"] = [dict(row) for row in await conn.fetch(_MEMBERS)]
    planner = await conn.fetchrow(_PLANNER)
    found["planner"] = None if planner is None else dict(planner)
    found["leases"] = [dict(row) for row in await conn.fetch(_LEASES)]
    found["gaps"] = await _gaps(conn)
    found["lag_ms"] = await _lag(conn)
    found["storage"] = {
        "bytes": found["bytes"],
        "bytes_max": storage_bytes_max or None,
        "share": found["bytes"] / storage_bytes_max if storage_bytes_max else None,
    }
    return found


async def _slots(conn: AnyConnection, slots: SlotSettings | None) -> dict[str, int | None]:
    """Count the zone's slots; without its configuration, those that have a row."""
    rows = await conn.fetch(_SLOTS)
    wanted = {row["slot"] for row in rows} if slots is None else slot_names(slots)
    assigned = [row for row in rows if row["slot"] in wanted]
    return {
        "total": None if slots is None else len(wanted),
        "live": sum(row["live"] for row in assigned),
        "moving": sum(row["moving"] for row in rows),
        "unassigned": None if slots is None else len(wanted) - len(assigned),
    }


def slot_names(slots: SlotSettings) -> set[str]:
    """Every slot of a zone, `kind/number`."""
    counts = {
        "orderbook": slots.orderbook,
        "ticker": slots.ticker,
        "trade": slots.trade,
        "lifecycle": slots.lifecycle,
    }
    return {f"{kind}/{number}" for kind, count in counts.items() for number in range(count)}


async def _gaps(conn: AnyConnection) -> dict[str, Any]:
    """The newest gaps of troubles by when they ended, as far as that is known (then those of pauses); how many of each cause."""
    newest = [dict(row) for row in await conn.fetch(_GAPS, GAPS_OF_S, GAPS_SHOWN)]
    return {
        "newest_at": newest[0]["ends_at"] if newest else None,
        "newest": newest,
        "of_s": GAPS_OF_S,
        "causes": {row["reason"]: row["gaps"] for row in await conn.fetch(_GAP_COUNTS, GAPS_OF_S)},
    }


async def _lag(conn: AnyConnection) -> dict[str, Any]:
    """Quantiles of the time from the exchange's stamp to the commit, milliseconds; None without deltas."""
    row = await conn.fetchrow(_LAG, LAG_OF_S, LAG_BATCHES_MAX)
    assert row is not None
    p50, p90, p99, most = row["lags"] or (None, None, None, None)
    return {
        "p50": p50,
        "p90": p90,
        "p99": p99,
        "max": most,
        "batches": row["batches"],
        "of_s": LAG_OF_S,
    }
