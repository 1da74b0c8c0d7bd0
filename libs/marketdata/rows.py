"""Rows: one immutable fact each, fields in the column order of tables.py, so that a row is what is packed and copied."""

from typing import Final, NamedTuple
from uuid import UUID

from libs.marketdata.tables import GAP_REASONS, Family

Ladder = tuple[tuple[int, int], ...]
"""One side of a book: (price, size) ascending by price."""


class DeltaRow(NamedTuple):
    """One change of one order-book level; `size_delta` is signed, `pos` NULL in a stream's first millisecond."""

    exchange_ts: int
    received_at: int
    size_delta: int
    seq: int
    price: int
    occurrence: int
    sid: int
    side: bool
    connection: UUID
    ticker: str
    sent_at: int | None
    pos: int | None


class TradeRow(NamedTuple):
    """One trade; connection, sid and seq are NULL for a copy that came by REST."""

    exchange_ts: int
    received_at: int
    size: int
    yes_price: int
    no_price: int
    taker_side: bool
    trade_id: str
    ticker: str
    connection: UUID | None
    sid: int | None
    seq: int | None
    sent_at: int | None
    is_block: bool | None


class TickerRow(NamedTuple):
    """One conflated ticker; `seq` is our own running number on the sid (the exchange sends none)."""

    exchange_ts: int
    received_at: int
    content_hash: int
    volume: int
    open_interest: int
    dollar_volume: int
    dollar_open_interest: int
    yes_bid_size: int
    yes_ask_size: int
    last_trade_size: int
    seq: int
    price: int
    yes_bid: int
    yes_ask: int
    sid: int
    connection: UUID
    ticker: str
    sent_at: int | None


class SnapshotRow(NamedTuple):
    """One observed book, both bid ladders; `cut_*` name the last delta before it in its stream. Ladders are NULL when equal to the last stored REST book."""

    observed_at: int
    received_at: int
    content_hash: int
    observed_is_sent: bool
    is_first: bool
    source: str
    ticker: str
    connection: UUID | None
    sid: int | None
    seq: int | None
    sent_at: int | None
    requested_at: int | None
    cut_exchange_ts: int | None
    cut_pos: int | None
    yes: Ladder | None
    no: Ladder | None


class SnapshotCutRow(NamedTuple):
    """Completes the cut of a stream's first snapshot: the first later exchange_ts and how many deltas of that millisecond followed it."""

    exchange_ts: int
    received_at: int
    seq: int
    deltas: int
    sid: int
    row_no: int
    connection: UUID
    ticker: str


class LifecycleRow(NamedTuple):
    """One lifecycle message; `ticker` is the event's ticker for event messages, `body` the message as canonical JSON."""

    observed_at: int
    received_at: int
    content_hash: int
    seq: int
    sid: int
    observed_is_sent: bool
    connection: UUID
    message_type: str
    event_type: str
    ticker: str
    body: str
    sent_at: int | None
    open_at: int | None
    close_at: int | None
    determined_at: int | None
    settled_at: int | None
    settlement_value: int | None
    result: str | None


class MarketVersionRow(NamedTuple):
    """A series, event or market (`level`) as it stood when one of its fields changed; `body` is canonical JSON without trading fields."""

    updated_at: int
    received_at: int
    content_hash: int
    level: str
    ticker: str
    body: str


class ExchangeStatusRow(NamedTuple):
    """The exchange's status or schedule (`source`) as answered by REST."""

    received_at: int
    requested_at: int
    row_no: int
    source: str
    body: str
    exchange_active: bool | None
    trading_active: bool | None


class RejectedFrameRow(NamedTuple):
    """Bytes that could not be decoded or counted, with the reason."""

    received_at: int
    row_no: int
    is_truncated: bool
    reason: str
    frame: bytes
    connection: UUID | None
    sid: int | None
    seq: int | None
    sent_at: int | None
    ticker: str | None


class ListenRangeRow(NamedTuple):
    """A run of frames of one sid with contiguous seq all of whose rows stand in this batch; `margin` in microseconds."""

    received_at: int
    seq_from: int
    seq_to: int
    sent_from: int
    sent_to: int
    margin: int
    sid: int
    row_no: int
    connection: UUID
    channel: str


class ListenOpenedRow(NamedTuple):
    """A stream began (ticker NULL: every stream of the sid) with the frame `seq`; `margin` is the start margin, microseconds."""

    received_at: int
    seq: int
    sent_at: int
    margin: int
    stream: int
    sid: int
    row_no: int
    connection: UUID
    channel: str
    slot: str
    ticker: str | None


class ListenClosedRow(NamedTuple):
    """A stream ended (ticker NULL: every stream of the sid); seq and sent_at are those of the last frame it heard."""

    received_at: int
    seq: int
    sent_at: int
    stream: int
    sid: int
    row_no: int
    connection: UUID
    channel: str
    reason: str
    ticker: str | None


class GapRow(NamedTuple):
    """The cause of a gap; never cuts listening."""

    received_at: int
    row_no: int
    channel: str
    slot: str
    reason: str
    detail: str
    ticker: str | None
    from_ts: int | None
    to_ts: int | None
    received_from: int | None
    received_to: int | None
    seq_from: int | None
    seq_to: int | None
    rows_lost: int | None
    connection: UUID | None
    sid: int | None


LOST_CHANNELS: Final[dict[Family, tuple[str, ...]]] = {
    Family.DELTAS: ("orderbook_delta",),
    Family.TRADES: ("trade",),
    Family.TICKERS: ("ticker",),
    Family.REST: ("market_lifecycle_v2",),
}
"""The exchange channels whose facts a lost lane or batch of a family may have held. Of the rest only the lifecycle is
told by a channel of its own; books, catalogue and status are observed again by themselves."""
OLD_LANE_CHANNELS: Final[dict[Family, tuple[str, ...]]] = {Family.TRADES: ("ticker",)}
"""What a lane that is read may have held besides: before level 4 tickers went over the lanes of trades."""
EXCHANGE_CHANNELS: Final = frozenset(
    {
        *(channel for channels in LOST_CHANNELS.values() for channel in channels),
        "multivariate_market_lifecycle",
    }
)
"""What `gaps.channel` may say: always a channel of the exchange, never a family or a table."""


def gap(
    received_at: int,
    channel: str,
    reason: str,
    *,
    row_no: int = 0,
    slot: str = "",
    detail: str = "",
    ticker: str | None = None,
    from_ts: int | None = None,
    to_ts: int | None = None,
    received_from: int | None = None,
    received_to: int | None = None,
    seq_from: int | None = None,
    seq_to: int | None = None,
    rows_lost: int | None = None,
    connection: UUID | None = None,
    sid: int | None = None,
) -> GapRow:
    """Build the row that names a gap's cause; what is not known is left out. Times are microseconds.

    Args:
        channel: one of EXCHANGE_CHANNELS. reason: one of GAP_REASONS.
    """
    assert channel in EXCHANGE_CHANNELS, channel
    assert reason in GAP_REASONS, reason
    return GapRow(
        received_at, row_no, channel, slot, reason, detail, ticker, from_ts, to_ts, received_from, received_to,
        seq_from, seq_to, rows_lost, connection, sid,
    )  # fmt: skip


def family_gaps(
    received_at: int, family: str, reason: str, *, detail: str = "", received_to: int | None = None
) -> tuple[GapRow, ...]:
    """Build the gaps of a lost lane or batch of a family: one for each channel it may have held.

    They are numbered 0, -1, ..., which no row of a batch ever is, so that they may stand beside a batch's own rows.
    """
    channels = LOST_CHANNELS[Family(family)]
    if reason == "dropped_at_gatherer":
        channels += OLD_LANE_CHANNELS.get(Family(family), ())
    return tuple(
        gap(received_at, channel, reason, row_no=-n, detail=detail, received_to=received_to)
        for n, channel in enumerate(channels)
    )


ROW_TYPES: dict[str, type[tuple[object, ...]]] = {
    "orderbook_deltas": DeltaRow,
    "trades": TradeRow,
    "tickers": TickerRow,
    "orderbook_snapshots": SnapshotRow,
    "snapshot_cuts": SnapshotCutRow,
    "market_lifecycle": LifecycleRow,
    "market_versions": MarketVersionRow,
    "exchange_status": ExchangeStatusRow,
    "rejected_frames": RejectedFrameRow,
    "listen_ranges": ListenRangeRow,
    "listen_opened": ListenOpenedRow,
    "listen_closed": ListenClosedRow,
    "gaps": GapRow,
}
"""Row type of each table of facts, by the table's name."""
