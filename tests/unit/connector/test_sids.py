"""One sid: what it hands over to batches, and when it claims nothing."""

from uuid import UUID

import pytest

from libs.marketdata.sequence import Margin
from libs.marketdata.tables import Family
from services.connector.sids import Sid

S = 1_000_000
T0 = 1_795_000_000 * S
CONNECTION = UUID(int=5)


def sid_of(channel: str = "orderbook_delta") -> Sid:
    return Sid(CONNECTION, 1, channel, "slot/0", Margin(), T0, T0, T0)


@pytest.mark.parametrize(
    ("channel", "family", "seq", "number"),
    [
        ("orderbook_delta", Family.DELTAS, 7, 7),
        ("trade", Family.TRADES, 7, 7),
        ("ticker", Family.TICKERS, None, 1),
        ("market_lifecycle_v2", Family.REST, 7, 7),
    ],
)
def test_a_frame_has_its_seq_or_our_own_number(
    channel: str, family: Family, seq: int | None, number: int
) -> None:
    """Tickers carry none; ranges go with the family of the channel's rows."""
    sid = sid_of(channel)
    assert (sid.number(seq), sid.family) == (number, family)


def test_a_whole_channel_claims_from_its_answer_on_and_a_book_from_its_first_stream() -> None:
    """A book sid without streams has nothing to lose."""
    assert sid_of("trade").claims_anything
    sid = sid_of()
    said = [sid.claims_anything]
    sid.open_stream("A", 1, T0, T0)
    said.append(sid.claims_anything)
    sid.disclaim("A", "deleted", T0)
    said.append(sid.claims_anything)
    assert said == [False, True, False]
    assert "A" in sid.streams


def test_a_leaving_market_is_closed_with_the_frames_after_it() -> None:
    """The closing is held back until frames follow, so that it cannot be lost without a hole."""
    sid = sid_of()
    sid.open_stream("A", 1, T0, T0)
    sid.sequence.count(1, T0)
    first = sid.drain(T0)
    assert first is not None
    assert [(r.ticker, r.seq) for r in first.opened] == [("A", 1)]
    sid.disclaim("A", "deleted", T0)
    assert sid.drain(T0) is None
    sid.sequence.count(2, T0 + S)
    notes = sid.drain(T0 + S)
    assert notes is not None
    (closing,) = notes.closed
    assert (closing.row.ticker, closing.row.seq, closing.row.reason) == ("A", 1, "deleted")
    assert [(r.seq_from, r.seq_to) for r in notes.ranges] == [(2, 2)]


def test_a_restart_closes_all_streams_of_a_book_by_one_row_and_carries_them_on() -> None:
    """Both rows have no ticker; the whole channel gets a new stream instead."""
    book, channel = sid_of(), sid_of("trade")
    book.open_stream("A", 1, T0, T0)
    for sid in (book, channel):
        sid.sequence.count(1, T0)
        sid.drain(T0)
        sid.restart(5, T0 + S, "seq", T0 + S)
        notes = sid.drain(T0 + S)
        assert notes is not None
        assert [(c.row.ticker, c.row.seq, c.row.reason) for c in notes.closed] == [(None, 1, "seq")]
        assert [(o.ticker, o.seq) for o in notes.opened] == [(None, 5)]
    assert (book.epoch, book.streams["A"].epoch) == (1, 0)
    assert channel.streams[None].number == 2


def test_after_its_end_a_sid_hands_over_once_more() -> None:
    """The last closing, even of markets that were leaving; ending twice is ending once."""
    sid = sid_of()
    sid.open_stream("A", 1, T0, T0)
    sid.sequence.count(1, T0)
    sid.drain(T0)
    sid.disclaim("A", "deleted", T0)
    sid.end("drained", T0)
    sid.end("again", T0)
    notes = sid.drain(T0)
    assert notes is not None
    assert [(c.row.ticker, c.row.reason) for c in notes.closed] == [
        (None, "drained"),
        ("A", "deleted"),
    ]
    assert (sid.ended, sid.drain(T0)) == (True, None)


def test_heard_until_is_the_last_frame_less_the_margin() -> None:
    """In exchange time."""
    sid = sid_of("trade")
    sid.sequence.count(1, T0 + 5 * S)
    assert sid.heard_until == T0 + 4 * S
