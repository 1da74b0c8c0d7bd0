"""The tables of facts, described once: columns in COPY order, partition column, family, identity.

Everything that stores or reads a fact derives from these descriptions: the NamedTuples of rows.py have the same
fields, migrations create the same columns, binary.py packs them, the deduplicator's keys and the Parquet schemas
come from them. Columns stand fixed-width first, then nullable and variable ones: that is what makes packing cheap.
"""

import enum
from dataclasses import dataclass

from libs.marketdata.units import DAY, HOUR


class Kind(enum.StrEnum):
    """Column kinds and their PostgreSQL types; the binary COPY form of each is deterministic."""

    INT2 = "smallint"
    INT4 = "integer"
    INT8 = "bigint"
    BOOL = "boolean"
    UUID = "uuid"
    TEXT = "text"
    BYTES = "bytea"
    LADDER = "bigint[]"
    """Order-book side: two-dimensional array of [price, size], ascending by price."""


class Family(enum.StrEnum):
    """Table families: a process writes each over a lane of its own."""

    DELTAS = "deltas"
    TRADES = "trades"
    TICKERS = "tickers"
    """Apart from trades, so that a flood of them never holds one. Before level 4 they shared the lane of trades."""
    REST = "rest"


@dataclass(frozen=True, slots=True)
class Column:
    name: str
    kind: Kind
    nullable: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """One table of facts.

    time_column: BIGINT microseconds by which it is partitioned. chunk: width of a gatherer's chunk, microseconds.
    identity: columns whose equality makes two rows one fact in production; empty: the observation key
    (gatherer, lane, batch_no, row_no), for which `row_no` is a column of the row.
    hashed: columns of content_hash, in this order. Changes only by migration.
    """

    name: str
    family: Family | None
    columns: tuple[Column, ...]
    time_column: str
    chunk: int
    identity: tuple[str, ...] = ()
    hashed: tuple[str, ...] = ()
    partitioned_in_production: bool = True

    @property
    def column_names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns)

    @property
    def by_batch(self) -> bool:
        """True when a row's identity in production is its place in a lane."""
        return not self.identity


def _columns(text: str) -> tuple[Column, ...]:
    """Read `name kind` pairs; a `?` after the kind makes the column nullable."""
    columns = []
    for entry in text.split(","):
        name, kind = entry.split()
        columns.append(Column(name, Kind[kind.rstrip("?").upper()], kind.endswith("?")))
    return tuple(columns)


ORDERBOOK_DELTAS = Table(
    name="orderbook_deltas",
    family=Family.DELTAS,
    columns=_columns(
        "exchange_ts int8, received_at int8, size_delta int8, seq int8, price int4, occurrence int4, sid int4,"
        " side bool, connection uuid, ticker text, sent_at int8?, pos int4?"
    ),
    time_column="exchange_ts",
    chunk=HOUR,
    identity=("ticker", "exchange_ts", "price", "side", "size_delta", "occurrence"),
)

TRADES = Table(
    name="trades",
    family=Family.TRADES,
    columns=_columns(
        "exchange_ts int8, received_at int8, size int8, yes_price int4, no_price int4, taker_side bool,"
        " trade_id text, ticker text, connection uuid?, sid int4?, seq int8?, sent_at int8?, is_block bool?"
    ),
    time_column="exchange_ts",
    chunk=DAY,
    identity=("trade_id",),
)

TICKERS = Table(
    name="tickers",
    family=Family.TICKERS,
    columns=_columns(
        "exchange_ts int8, received_at int8, content_hash int8, volume int8, open_interest int8, dollar_volume int8,"
        " dollar_open_interest int8, yes_bid_size int8, yes_ask_size int8, last_trade_size int8, seq int8,"
        " price int4, yes_bid int4, yes_ask int4, sid int4, connection uuid, ticker text, sent_at int8?"
    ),
    time_column="exchange_ts",
    chunk=HOUR,
    identity=("ticker", "exchange_ts", "content_hash"),
    hashed=(
        "price", "yes_bid", "yes_ask", "yes_bid_size", "yes_ask_size", "last_trade_size",
        "volume", "open_interest", "dollar_volume", "dollar_open_interest",
    ),
)  # fmt: skip

ORDERBOOK_SNAPSHOTS = Table(
    name="orderbook_snapshots",
    family=Family.REST,
    columns=_columns(
        "observed_at int8, received_at int8, content_hash int8, observed_is_sent bool, is_first bool, source text,"
        " ticker text, connection uuid?, sid int4?, seq int8?, sent_at int8?, requested_at int8?,"
        " cut_exchange_ts int8?, cut_pos int4?, yes ladder?, no ladder?"
    ),
    time_column="observed_at",
    chunk=DAY,
    identity=("ticker", "observed_at", "gatherer", "connection", "sid", "seq", "requested_at"),
    hashed=("yes", "no"),
)

SNAPSHOT_CUTS = Table(
    name="snapshot_cuts",
    family=Family.REST,
    columns=_columns(
        "exchange_ts int8, received_at int8, seq int8, deltas int4, sid int4, row_no int4, connection uuid, ticker text"
    ),
    time_column="received_at",
    chunk=DAY,
)

MARKET_LIFECYCLE = Table(
    name="market_lifecycle",
    family=Family.REST,
    columns=_columns(
        "observed_at int8, received_at int8, content_hash int8, seq int8, sid int4, observed_is_sent bool,"
        " connection uuid, message_type text, event_type text, ticker text, body text, sent_at int8?,"
        " open_at int8?, close_at int8?, determined_at int8?, settled_at int8?, settlement_value int4?, result text?"
    ),
    time_column="observed_at",
    chunk=DAY,
    identity=("ticker", "observed_at", "gatherer", "connection", "sid", "seq", "event_type"),
    hashed=("message_type", "event_type", "ticker", "body"),
)

MARKET_VERSIONS = Table(
    name="market_versions",
    family=Family.REST,
    columns=_columns(
        "updated_at int8, received_at int8, content_hash int8, level text, ticker text, body text"
    ),
    time_column="received_at",
    chunk=DAY,
    identity=("ticker", "content_hash", "updated_at"),
    hashed=("level", "ticker", "body"),
    partitioned_in_production=False,
)

EXCHANGE_STATUS = Table(
    name="exchange_status",
    family=Family.REST,
    columns=_columns(
        "received_at int8, requested_at int8, row_no int4, source text, body text, exchange_active bool?,"
        " trading_active bool?"
    ),
    time_column="received_at",
    chunk=DAY,
)

REJECTED_FRAMES = Table(
    name="rejected_frames",
    family=Family.REST,
    columns=_columns(
        "received_at int8, row_no int4, is_truncated bool, reason text, frame bytes, connection uuid?, sid int4?,"
        " seq int8?, sent_at int8?, ticker text?"
    ),
    time_column="received_at",
    chunk=DAY,
)

LISTEN_RANGES = Table(
    name="listen_ranges",
    family=None,
    columns=_columns(
        "received_at int8, seq_from int8, seq_to int8, sent_from int8, sent_to int8, margin int8, sid int4,"
        " row_no int4, connection uuid, channel text"
    ),
    time_column="received_at",
    chunk=DAY,
)

LISTEN_OPENED = Table(
    name="listen_opened",
    family=None,
    columns=_columns(
        "received_at int8, seq int8, sent_at int8, margin int8, stream int4, sid int4, row_no int4, connection uuid,"
        " channel text, slot text, ticker text?"
    ),
    time_column="received_at",
    chunk=DAY,
)

LISTEN_CLOSED = Table(
    name="listen_closed",
    family=None,
    columns=_columns(
        "received_at int8, seq int8, sent_at int8, stream int4, sid int4, row_no int4, connection uuid, channel text,"
        " reason text, ticker text?"
    ),
    time_column="received_at",
    chunk=DAY,
)

GAPS = Table(
    name="gaps",
    family=Family.REST,
    columns=_columns(
        "received_at int8, row_no int4, channel text, slot text, reason text, detail text, ticker text?, from_ts int8?,"
        " to_ts int8?, received_from int8?, received_to int8?, seq_from int8?, seq_to int8?, rows_lost int8?,"
        " connection uuid?, sid int4?"
    ),
    time_column="received_at",
    chunk=DAY,
)

GATHERER_TABLES: dict[str, Table] = {
    table.name: table
    for table in (
        ORDERBOOK_DELTAS, TRADES, TICKERS, ORDERBOOK_SNAPSHOTS, SNAPSHOT_CUTS, MARKET_LIFECYCLE, MARKET_VERSIONS,
        EXCHANGE_STATUS, REJECTED_FRAMES, LISTEN_RANGES, LISTEN_OPENED, LISTEN_CLOSED, GAPS,
    )
}  # fmt: skip
"""Every table of facts by name. listen_* have no family: they go with the batch whose rows they speak of."""

MERGED_COLUMNS = _columns("gatherer int2, merge_no int8")
"""What every row of production carries besides: whose copy was merged first, in which transaction."""
BATCH_COLUMNS = _columns("lane uuid, batch_no int8")
"""Where a row without another identity stood in its gatherer's ledger."""


def production_columns(table: Table) -> tuple[Column, ...]:
    """Return the columns of the table as production has them, in their order."""
    return table.columns + (BATCH_COLUMNS if table.by_batch else ()) + MERGED_COLUMNS


def production_key(table: Table) -> tuple[str, ...]:
    """Return the columns of production's unique key: the identity, with the partition column where it is missing."""
    key = table.identity or ("gatherer", "lane", "batch_no", "row_no")
    if table.partitioned_in_production and table.time_column not in key:
        key = (*key, table.time_column)
    return key


GAP_REASONS = (
    "not_subscribed", "disconnected", "seq", "silent", "spool_full", "process_died", "database_went_back",
    "storage_full", "rejected", "dropped_at_gatherer", "exchange_paused",
)  # fmt: skip
"""The closed list of causes a gap row may name."""
