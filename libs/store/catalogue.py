"""The zone's catalogue: series, events and markets as they stand now, and the version of every slot's list.

One writer (the registry's lease) changes it, everybody reads it. Whoever keeps a slot's list of markets compares the
slot's version first: it is raised in the same transaction as any change of a market's (slot, wanted), so an unchanged
version means an unchanged list.
"""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, NamedTuple

from libs.store.borrowing import borrow
from libs.store.errors import StoreError
from libs.store.leases import Lease
from libs.store.pool import AnyConnection, Pool, PooledConnection, map_store_errors

MARKETS_CHANNEL = "kd_markets"
"""NOTIFY channel: some slot's version was raised."""
ACQUIRE_S_MAX: Final = 30.0
"""Seconds to wait for a connection of the pool."""


class LeaseNotHeld(StoreError):
    """The lease that fences this write is another process's now: nothing was written, and this process must end."""


class ObjectState(NamedTuple):
    """What the catalogue knows of a series or event without its body; `series_ticker` is empty for a series."""

    ticker: str
    series_ticker: str
    content_hash: int
    updated_at: int


class MarketState(NamedTuple):
    """What the catalogue knows of a market without its body; times in microseconds."""

    ticker: str
    event_ticker: str
    series_ticker: str
    status: str
    is_combo: bool
    wanted: bool
    slot: str | None
    open_at: int | None
    close_at: int | None
    created_at: int | None
    updated_at: int
    content_hash: int


@dataclass(frozen=True, slots=True)
class CatalogueWrite:
    """What one transaction changes.

    series, events, markets: (state, body) of what is new or has a new body. states: markets whose body stays.
    """

    series: tuple[tuple[ObjectState, str], ...] = ()
    events: tuple[tuple[ObjectState, str], ...] = ()
    markets: tuple[tuple[MarketState, str], ...] = ()
    states: tuple[MarketState, ...] = ()

    @property
    def is_empty(self) -> bool:
        """True when there is nothing to write."""
        return not (self.series or self.events or self.markets or self.states)


MARKET_COLUMNS = ", ".join(MarketState._fields)

_SERIES_STATES = """
select ticker, '' as series_ticker, content_hash, updated_at from series where ticker = any($1::text[])
"""
_EVENT_STATES = """
select ticker, series_ticker, content_hash, updated_at from events where ticker = any($1::text[])
"""
_UPSERT_SERIES = """
insert into series (ticker, content_hash, updated_at, body)
select * from unnest($1::text[], $2::bigint[], $3::bigint[], $4::text[])
on conflict (ticker) do update
set content_hash = excluded.content_hash, updated_at = excluded.updated_at, body = excluded.body
"""
_UPSERT_EVENTS = """
insert into events (ticker, series_ticker, content_hash, updated_at, body)
select * from unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::text[])
on conflict (ticker) do update
set series_ticker = excluded.series_ticker, content_hash = excluded.content_hash,
    updated_at = excluded.updated_at, body = excluded.body
"""
_MARKET_ARRAYS = """
    $1::text[], $2::text[], $3::text[], $4::text[], $5::boolean[], $6::boolean[], $7::text[], $8::bigint[],
    $9::bigint[], $10::bigint[], $11::bigint[], $12::bigint[]
"""
_MARKET_SET = """
    event_ticker = new.event_ticker, series_ticker = new.series_ticker, status = new.status,
    is_combo = new.is_combo, wanted = new.wanted, slot = new.slot, open_at = new.open_at,
    close_at = new.close_at, created_at = new.created_at, updated_at = new.updated_at,
    content_hash = new.content_hash
"""
_MOVED_FROM = """case
        when not new.wanted or new.slot is null or new.slot = markets.moved_from then null
        when new.slot = markets.slot then markets.moved_from
        when markets.wanted then coalesce(markets.moved_from, markets.slot)
    end"""
"""A market that is heard in another slot stays in that one's list, too, until it is heard in its new one: slot_moves.py."""
_MARKET_MOVES = f"""
    moved_from = {_MOVED_FROM},
    moved_at = case when new.slot = markets.slot then markets.moved_at
        else (extract(epoch from clock_timestamp()) * 1000000)::bigint end
"""
_MARKET_SET += "," + _MARKET_MOVES
_UPSERT_MARKETS = f"""
insert into markets ({MARKET_COLUMNS}, body)
select * from unnest({_MARKET_ARRAYS}, $13::text[])
on conflict (ticker) do update set {_MARKET_SET.replace("new.", "excluded.")}, body = excluded.body
"""
_UPDATE_MARKETS = f"""
update markets set {_MARKET_SET} from unnest({_MARKET_ARRAYS}) as new ({MARKET_COLUMNS})
where markets.ticker = new.ticker
"""
RAISE_SLOTS = """
insert into slot_versions (slot, version) select slot, 1 from unnest($1::text[]) as slot
on conflict (slot) do update set version = slot_versions.version + 1
"""
_SLOTS_OF = "select ticker, slot, wanted, moved_from from markets where ticker = any($1::text[])"


@asynccontextmanager
async def lend(pool: Pool) -> AsyncIterator[PooledConnection]:
    """Lend a connection of the pool, waiting at most 30 s for it; the driver's errors are mapped.

    Raises:
        StoreUnavailable: none to be had.
    """
    async with borrow(pool, ACQUIRE_S_MAX) as conn:
        yield conn


async def read_series(conn: AnyConnection, tickers: Sequence[str]) -> dict[str, ObjectState]:
    """Return those of these series that the catalogue knows."""
    with map_store_errors():
        rows = await conn.fetch(_SERIES_STATES, tickers)
    return {row["ticker"]: ObjectState(*row) for row in rows}


async def read_events(conn: AnyConnection, tickers: Sequence[str]) -> dict[str, ObjectState]:
    """Return those of these events that the catalogue knows."""
    with map_store_errors():
        rows = await conn.fetch(_EVENT_STATES, tickers)
    return {row["ticker"]: ObjectState(*row) for row in rows}


async def read_markets(conn: AnyConnection, tickers: Sequence[str]) -> dict[str, MarketState]:
    """Return those of these markets that the catalogue knows."""
    with map_store_errors():
        rows = await conn.fetch(
            f"select {MARKET_COLUMNS} from markets where ticker = any($1::text[])",
            tickers,
        )
    return {row["ticker"]: MarketState(*row) for row in rows}


async def read_categories(conn: AnyConnection) -> dict[str, str]:
    """Return the category of every known series that has one."""
    with map_store_errors():
        rows = await conn.fetch("select ticker, body::json ->> 'category' from series")
    return {row[0]: row[1] for row in rows if row[1]}


async def write_catalogue(
    conn: AnyConnection, write: CatalogueWrite, lease: Lease | None = None
) -> frozenset[str]:
    """Write in one transaction; return the slots whose version it raised (tell `kd_markets` about them).

    Args:
        conn: not inside a transaction.
        lease: fences the write; None only where nobody else writes.

    Raises:
        LeaseNotHeld: the lease is another's; nothing is written.
        StoreUnavailable: nothing is written, or it is unknown; writing the same again is harmless.
    """
    with map_store_errors():
        async with fenced(conn, lease):
            touched = [*(state for state, _ in write.markets), *write.states]
            before = await _slot_members(conn, [state.ticker for state in touched])
            await _upsert_objects(conn, write)
            if write.markets:
                bodies = [body for _, body in write.markets]
                columns = _columns_of([state for state, _ in write.markets])
                await conn.execute(_UPSERT_MARKETS, *columns, bodies)
            if write.states:
                await conn.execute(_UPDATE_MARKETS, *_columns_of(write.states))
            slots = _moved(before, touched)
            if slots:
                await conn.execute(RAISE_SLOTS, sorted(slots))
            return slots


@asynccontextmanager
async def fenced(conn: AnyConnection, lease: Lease | None) -> AsyncIterator[None]:
    """Open a transaction that holds the lease's row: who takes the lease over waits for it, and sees it whole."""
    async with conn.transaction(isolation="read_committed"):
        if lease is not None and not await lease.holds(conn):
            raise LeaseNotHeld(f"the lease {lease.name} is another process's; nothing was written")
        yield


class _Member(NamedTuple):
    slot: str | None
    wanted: bool
    moved_from: str | None


_NOBODY = _Member(None, False, None)


async def _slot_members(conn: AnyConnection, tickers: Sequence[str]) -> dict[str, _Member]:
    if not tickers:
        return {}
    return {row[0]: _Member(*row[1:]) for row in await conn.fetch(_SLOTS_OF, tickers)}


def _moved(before: Mapping[str, _Member], states: Iterable[MarketState]) -> frozenset[str]:
    """Name the slots whose list of wanted markets may differ now."""
    slots: set[str] = set()
    for state in states:
        was = before.get(state.ticker, _NOBODY)
        old, new = was.slot if was.wanted else None, state.slot if state.wanted else None
        if old != new:
            slots.update(slot for slot in (old, new, was.moved_from) if slot is not None)
    return frozenset(slots)


async def _upsert_objects(conn: AnyConnection, write: CatalogueWrite) -> None:
    if write.series:
        tickers, _, hashes, updated = zip(*(state for state, _ in write.series), strict=True)
        bodies = [body for _, body in write.series]
        await conn.execute(_UPSERT_SERIES, tickers, hashes, updated, bodies)
    if write.events:
        columns = zip(*(state for state, _ in write.events), strict=True)
        await conn.execute(_UPSERT_EVENTS, *columns, [body for _, body in write.events])


def _columns_of(states: Sequence[MarketState]) -> list[tuple[object, ...]]:
    return list(zip(*states, strict=True))


async def get_state(conn: AnyConnection, key: str) -> str | None:
    """Return a remembered value of the registry or poller (watermarks, cursors as JSON); None when never set."""
    with map_store_errors():
        value: str | None = await conn.fetchval(
            "select value from registry_state where key = $1", key
        )
    return value


async def set_state(conn: AnyConnection, key: str, value: str, lease: Lease | None = None) -> None:
    """Remember a value under a key, under the lease where one fences it.

    Raises:
        LeaseNotHeld: the lease is another's; nothing is written.
    """
    with map_store_errors():
        async with fenced(conn, lease):
            await conn.execute(
                "insert into registry_state (key, value) values ($1, $2)"
                " on conflict (key) do update set value = excluded.value",
                key,
                value,
            )
