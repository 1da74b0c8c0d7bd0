"""The one way to make a gap row."""

import pytest

from libs.marketdata.rows import EXCHANGE_CHANNELS, ROW_TYPES, family_gaps, gap
from libs.marketdata.tables import GAP_REASONS, Family


def test_what_is_not_known_is_left_out() -> None:
    """Only the required columns have values of their own."""
    row = gap(7, "trade", "silent", slot="trade/0", from_ts=5, sid=3)
    known = {name: value for name, value in row._asdict().items() if value is not None}
    assert isinstance(row, ROW_TYPES["gaps"])
    assert known == {
        "received_at": 7, "row_no": 0, "channel": "trade", "slot": "trade/0", "reason": "silent", "detail": "",
        "from_ts": 5, "sid": 3,
    }  # fmt: skip


@pytest.mark.parametrize("channel", ["trades", "deltas", "rest", "orderbook_deltas", ""])
def test_a_channel_is_one_of_the_exchange(channel: str) -> None:
    """Families and tables are no channels: who follows a channel's gaps would miss them."""
    with pytest.raises(AssertionError):
        gap(7, channel, "silent")


def test_a_reason_is_of_the_closed_list() -> None:
    """Another one is our own mistake."""
    assert "bored" not in GAP_REASONS
    with pytest.raises(AssertionError):
        gap(7, "trade", "bored")


@pytest.mark.parametrize("family", Family)
def test_a_lost_family_is_a_gap_of_each_of_its_channels(family: Family) -> None:
    """One row a channel, none with a number that a batch's row may have, all different."""
    rows = family_gaps(7, family, "database_went_back", detail="why", received_to=9)
    assert {row.channel for row in rows} <= EXCHANGE_CHANNELS
    assert len({row.channel for row in rows}) == len(rows) == len({row.row_no for row in rows})
    assert all((row.row_no <= 0, row.detail, row.received_to) == (True, "why", 9) for row in rows)


def test_tickers_travel_apart_from_trades() -> None:
    """One lane each; of a lane that is read nobody knows whether it is from before that."""
    for family, channel in (("trades", "trade"), ("tickers", "ticker")):
        assert [r.channel for r in family_gaps(7, family, "database_went_back")] == [channel]
    rows = family_gaps(7, "trades", "dropped_at_gatherer")
    assert [(row.channel, row.row_no) for row in rows] == [("trade", 0), ("ticker", -1)]
