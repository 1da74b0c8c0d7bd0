"""The alarm about rows in default partitions: a figure every look, a log line and an event row at each change."""

from libs.marketdata.tables import GATHERER_TABLES
from libs.store.merge_records import record_events
from libs.store.merge_transaction import EventRow
from libs.store.pool import Connection, map_store_errors
from libs.telemetry.logging import get_logger
from libs.telemetry.metrics import Metrics

log = get_logger(__name__)

FILLED, EMPTIED = "default_partition_filled", "default_partition_emptied"
_LAST = """
SELECT DISTINCT ON (name) split_part(detail, ':', 1) AS name, kind FROM operational_events
 WHERE kind = ANY($1) ORDER BY name, at DESC
"""


class DefaultAlarm:
    """Tells once when a table's default partition is no longer empty, and once when it is again.

    What was told last is read from production, so that a restart tells nothing twice.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._rows = metrics.default_partition_rows
        self._filled: set[str] | None = None

    async def note(self, conn: Connection, rows: dict[str, int]) -> None:
        """Note how many rows lie in default partitions, by table; tables without any are left out.

        Raises:
            StoreUnavailable: production is away.
        """
        for table in GATHERER_TABLES.values():
            if table.partitioned_in_production:
                self._rows.labels(table=table.name).set(rows.get(table.name, 0))
        with map_store_errors():
            if self._filled is None:
                told = await conn.fetch(_LAST, [FILLED, EMPTIED])
                self._filled = {row["name"] for row in told if row["kind"] == FILLED}
            filled = [name for name in rows if name not in self._filled]
            emptied = sorted(self._filled - rows.keys())
            events = [EventRow(FILLED, None, f"{name}: {rows[name]} rows") for name in filled]
            events += [EventRow(EMPTIED, None, f"{name}: 0 rows") for name in emptied]
            await record_events(conn, events)
        for name in filled:
            log.warning("rows_in_default_partition", table=name, rows=rows[name])
        for name in emptied:
            log.info("default_partition_empty", table=name)
        self._filled = set(rows)
