"""The bounded buffer's drops: what their gap rows say."""

from uuid import UUID

import pytest

from libs.flow.batch import Batch
from libs.marketdata.rows import RejectedFrameRow, SnapshotCutRow, TradeRow, family_gaps
from libs.marketdata.tables import Family
from services.connector import drops
from services.connector.buffer import Buffer

CONNECTION = UUID(int=5)


def trade(trade_id: str) -> TradeRow:
    return TradeRow(1, 1, 100, 40_000, 60_000, True, trade_id, "A", CONNECTION, 1, 2, 1, False)


def batch(family: Family, **rows: list[tuple[object, ...]]) -> Batch:
    return Batch(family, dict(rows), {}, {}, 1)


def test_a_drop_names_the_channel_not_the_table() -> None:
    """So that the poller finds the gaps of trades by their channel."""
    buffer = Buffer(Family.TRADES, 1)
    assert buffer.put(batch(Family.TRADES, trades=[trade("t1")]), 1) == []
    assert buffer.put(batch(Family.TRADES, trades=[trade("t2"), trade("t3")]), 2) == []
    buffer.commit()
    (gap,) = buffer.put(batch(Family.TRADES, trades=[trade("t4")]), 3)
    assert (gap.channel, gap.reason, gap.rows_lost, gap.sid) == ("trade", "spool_full", 2, 1)
    assert buffer.dropped == {"trades": 2}


def test_a_sid_keeps_the_channel_of_its_facts() -> None:
    """Rows that belong to no channel of their own do not rename a sid's drop, nor stay without one."""
    buffer = Buffer(Family.REST, 1)
    cut = SnapshotCutRow(1, 1, 2, 0, 1, 0, CONNECTION, "A")
    rejected = RejectedFrameRow(1, 0, False, "why", b"x", CONNECTION, 1, 2, 1, None)
    stray = rejected._replace(connection=None, sid=None)
    buffer.put(batch(Family.REST, snapshot_cuts=[cut]), 1)
    buffer.put(batch(Family.REST, rejected_frames=[rejected, stray], snapshot_cuts=[cut]), 2)
    buffer.commit()
    gaps = buffer.put(batch(Family.REST, snapshot_cuts=[cut]), 3)
    assert {(gap.sid, gap.channel, gap.rows_lost) for gap in gaps} == {
        (1, "orderbook_delta", 2),
        (None, "market_lifecycle_v2", 1),
    }


def test_gap_rows_beyond_what_is_kept_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are dropped like any other row, and not in silence."""
    monkeypatch.setattr(drops, "GAPS_KEPT_MAX", 3)
    gaps = 2 * family_gaps(1, Family.TRADES, "database_went_back", detail="", received_to=1)
    buffer = Buffer(Family.REST, 1)
    buffer.put(batch(Family.REST, gaps=list(gaps)), 1)
    buffer.put(batch(Family.REST, gaps=[*gaps, *gaps]), 2)
    assert buffer.dropped == {"gaps": 1}
    buffer.commit()
    assert len(buffer.put(batch(Family.REST, gaps=list(gaps)), 3)) == 3
