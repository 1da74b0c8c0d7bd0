"""A lost production back from its archive: rows with the numbers they had, and the records that let both go on.

An import holds the writer's lease, so that no deduplicator merges meanwhile. First it says who the gatherers' numbers
are, and that numbers of merges and the archiver's look begin above everything archived; then each window is one
transaction: its rows and its manifests, or neither. So it may be interrupted anywhere and begun again.
"""

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, Final
from uuid import UUID, uuid4

from libs.archive.keys import BIGINT_MAX, Window
from libs.archive.manifest import Gatherer, Manifest
from libs.marketdata.tables import GATHERER_TABLES, Table
from libs.store import merge_sql as sql
from libs.store.archive_records import insert_manifest, manifest_of
from libs.store.errors import StoreError
from libs.store.loading import load_rows
from libs.store.merge_records import record_events
from libs.store.merge_transaction import EventRow
from libs.store.partitions import act_as_owner
from libs.store.pool import Connection, map_store_errors

BEGAN: Final = "archive_import_began"
LEASE_TTL: Final = timedelta(seconds=60)
_RENEW: Final = "UPDATE writer_lease SET expires_at = clock_timestamp() + interval '60 s'"
"""Between two windows the lease must live as long as reading one object from the store takes."""

_IS_FRESH: Final = """
SELECT (SELECT merge_no FROM writer_lease) = 0 AND NOT EXISTS (SELECT FROM merges)
    OR EXISTS (SELECT FROM operational_events WHERE kind = $1)
"""
_GATHERERS: Final = "SELECT gatherer, identity::text, zone FROM gatherers"
_ADD_GATHERER: Final = """
INSERT INTO gatherers (gatherer, identity, zone, status, detail) OVERRIDING SYSTEM VALUE
VALUES ($1, $2, $3, $4, $5)
"""
_ADVANCE: Final = """
SELECT setval(pg_get_serial_sequence('gatherers', 'gatherer'), (SELECT max(gatherer) FROM gatherers))
"""
_LOOKED: Final = """
INSERT INTO archive_progress (table_name, merge_no) SELECT unnest($1::text[]), $2
    ON CONFLICT (table_name) DO UPDATE SET merge_no = greatest(archive_progress.merge_no, excluded.merge_no)
"""
_DROPPED: Final = """
INSERT INTO retention_marks (table_name, dropped_before) VALUES ($1, $2) ON CONFLICT (table_name)
    DO UPDATE SET dropped_before = greatest(retention_marks.dropped_before, excluded.dropped_before)
"""
_MARK: Final = "SELECT dropped_before FROM retention_marks WHERE table_name = $1"
_RECORDED: Final = """
SELECT * FROM archive_manifests WHERE table_name = $1 AND window_from = $2 AND window_to = $3 ORDER BY supplement
"""


class ImportRefused(StoreError):
    """Production is not what this archive may be loaded into; the text says where it is something else."""


class Restoring:
    """One import on one connection of a user who may become kd_owner."""

    def __init__(self, conn: Connection) -> None:
        self._conn = conn
        self._holder: UUID | None = None

    async def begin(self, known: Sequence[Gatherer], merge_no: int, detail: str) -> None:
        """Take the writer's lease and restore what rows and numbers mean.

        Args:
            known: whom the numbers of gatherers in the archive mean.
            merge_no: the largest of the archive.
            detail: for the event row.

        Raises:
            ImportRefused: production has merged on its own, another writer is at work, or a number means another
                gatherer. StoreUnavailable: production is away. StoreRefused: this user may not.
        """
        with map_store_errors():
            async with self._conn.transaction():
                await act_as_owner(self._conn)
                await self._conn.execute(sql.FIRST_LEASE)
                if not await self._conn.fetchval(_IS_FRESH, BEGAN):
                    raise ImportRefused(
                        "this production has merged on its own, under numbers that the archive uses too; an archive is"
                        " imported into a new production, before its deduplicator first runs"
                    )
                holder = uuid4()
                taken = await self._conn.fetchrow(
                    sql.TAKE_LEASE, holder, LEASE_TTL, merge_no, self._holder
                )
                if taken is None:
                    raise ImportRefused("a deduplicator holds this production; stop it first")
                await self._admit(known)
                await self._conn.execute(_LOOKED, list(GATHERER_TABLES), merge_no)
                await record_events(self._conn, [EventRow(BEGAN, None, detail)])
            self._holder = holder

    async def end(self, detail: str) -> None:
        """Give the lease up and say that it is done."""
        async with self._fenced(sql.RELEASE_LEASE) as conn:
            await record_events(conn, [EventRow("archive_imported", None, detail)])

    async def load(
        self,
        table: Table,
        manifests: Sequence[Manifest],
        rows_of: Iterable[list[tuple[Any, ...]]],
    ) -> int | None:
        """Load one window and record its objects: one transaction; return its rows, None when it was there already.

        Args:
            manifests: of all the window's supplements.
            rows_of: their rows, group by group.

        Raises:
            ImportRefused: production has other rows there.
        """
        window = Window(manifests[0].window_from, manifests[0].window_to)
        async with self._fenced() as conn:
            if await self._is_there(table, window, manifests, has_rows=True):
                return None
            found = await self._count(table, window)
            if found:
                raise ImportRefused(
                    f"{table.name} has {found} rows in the window {window.start}..{window.end} that no manifest of"
                    " production accounts for; an import fills empty windows only"
                )
            loaded = 0
            for rows in rows_of:
                loaded += await load_rows(conn, table, rows)
            wanted = sum(manifest.rows for manifest in manifests)
            if loaded != wanted:
                raise ImportRefused(
                    f"{table.name} took {loaded} of {wanted} rows of the window {window.start}..{window.end}:"
                    " the others have keys that are there already"
                )
            for manifest in manifests:
                await insert_manifest(conn, manifest)
            return loaded

    async def record_dropped(
        self, table: Table, manifests: Sequence[Manifest], dropped_before: int
    ) -> None:
        """Record a window as archived and dropped: its rows stay in the archive until late ones re-open it."""
        window = Window(manifests[0].window_from, manifests[0].window_to)
        async with self._fenced() as conn:
            if await self._is_there(table, window, manifests, has_rows=False):
                return
            for manifest in manifests:
                await insert_manifest(conn, manifest)
            await conn.execute(_DROPPED, table.name, dropped_before)

    @asynccontextmanager
    async def _fenced(self, at_end: str = _RENEW) -> AsyncIterator[Connection]:
        """Open a transaction that holds the lease's row, and prolongs the lease or gives it up when it ends."""
        with map_store_errors():
            async with self._conn.transaction():
                await act_as_owner(self._conn)
                await self._conn.execute("SET LOCAL statement_timeout = 0")
                lease = await self._conn.fetchrow(sql.LOCK_LEASE)
                if lease is None or lease["holder"] != self._holder:
                    raise ImportRefused(
                        "a deduplicator took production over; stop it, and import again"
                    )
                yield self._conn
                await self._conn.execute(at_end)

    async def _admit(self, known: Sequence[Gatherer]) -> None:
        """Give the archive's gatherers their numbers; of a zone's the newest counts, whichever shows up takes its place."""
        rows = await self._conn.fetch(_GATHERERS)
        by_number = {row["gatherer"]: row["identity"] for row in rows}
        by_identity = {row["identity"]: row["gatherer"] for row in rows}
        known = sorted(known, key=lambda one: one.gatherer)
        newest = {one.zone: one.gatherer for one in known}
        for one in known:
            if by_number.get(one.gatherer) == one.identity:
                continue
            if one.gatherer in by_number or one.identity in by_identity:
                raise ImportRefused(
                    f"gatherer {one.gatherer} of the archive is {one.identity} (zone {one.zone}); in production that"
                    f" number is {by_number.get(one.gatherer, 'free')} and that identity has number"
                    f" {by_identity.get(one.identity, 'none')}: import into a production that has admitted nobody"
                )
            is_newest = newest[one.zone] == one.gatherer
            status, detail = (
                ("ok", None) if is_newest else ("replaced", f"by gatherer {newest[one.zone]}")
            )
            await self._conn.execute(_ADD_GATHERER, one.gatherer, UUID(one.identity), one.zone, status, detail)  # fmt: skip
        await self._conn.execute(_ADVANCE)

    async def _is_there(
        self, table: Table, window: Window, manifests: Sequence[Manifest], *, has_rows: bool
    ) -> bool:
        """True when an earlier run recorded this very window."""
        rows = await self._conn.fetch(_RECORDED, table.name, window.start, window.end)
        if not rows:
            return False
        found = [(one.object, one.sha256) for one in (manifest_of(dict(row)) for row in rows)]
        if found[: len(manifests)] != [(one.object, one.sha256) for one in manifests]:
            raise ImportRefused(f"{table.name} has recorded other objects of the window {window.start}: {found}")  # fmt: skip
        if has_rows:
            await self._insist_on_rows(table, window, manifests)
        return True

    async def _insist_on_rows(
        self, table: Table, window: Window, manifests: Sequence[Manifest]
    ) -> None:
        """What was recorded must be there whole, or dropped by retention since."""
        merge_to, wanted = manifests[-1].merge_to, sum(manifest.rows for manifest in manifests)
        found = await self._count(table, window, merge_to)
        mark = await self._conn.fetchval(_MARK, table.name)
        if found != wanted and (mark is None or window.end > mark):
            raise ImportRefused(
                f"{table.name} has {found} of {wanted} recorded rows of the window {window.start}..{window.end}"
            )

    async def _count(self, table: Table, window: Window, merge_to: int = BIGINT_MAX) -> int:
        query = (
            f"SELECT count(*) FROM {table.name} WHERE {table.time_column} BETWEEN $1 AND $2"
            " AND merge_no <= $3"
        )
        return int(await self._conn.fetchval(query, window.start, window.last, merge_to))
