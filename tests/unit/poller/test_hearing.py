"""What is kept of the trade channel's claims says the same as all rows together."""

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.marketdata.listening import claims, union
from libs.marketdata.rows import ListenClosedRow, ListenOpenedRow, ListenRangeRow
from services.poller import hearing as room
from services.poller.hearing import Hearing, condensed, from_text, to_text

MS = 1_000
Part = tuple[list[ListenRangeRow], list[ListenOpenedRow], list[ListenClosedRow]]
LANE = UUID(int=99)


def ranged(seq_from: int, seq_to: int, sid: int = 1, margin: int = MS) -> ListenRangeRow:
    """A range whose frames were sent one a second."""
    return ListenRangeRow(
        5, seq_from, seq_to, seq_from * 1_000_000, seq_to * 1_000_000, margin, sid, 7, UUID(int=1), "trade"
    )  # fmt: skip


def opened(seq: int, sid: int = 1, stream: int = 1) -> ListenOpenedRow:
    """An opening with the frame `seq`."""
    return ListenOpenedRow(
        5, seq, seq * 1_000_000, MS, stream, sid, 3, UUID(int=1), "trade", "trade/0", None
    )


def closed(seq: int, sid: int = 1, stream: int = 1) -> ListenClosedRow:
    """A closing with the frame `seq`."""
    return ListenClosedRow(
        5, seq, seq * 1_000_000, stream, sid, 4, UUID(int=1), "trade", "closed", None
    )


RANGES = st.builds(
    lambda at, long, sid, margin: ranged(at, at + long, sid, margin),
    st.integers(0, 40), st.integers(0, 8), st.integers(1, 2), st.sampled_from([MS, 3 * MS]),
)  # fmt: skip
OPENED = st.builds(opened, st.integers(0, 40), st.integers(1, 2), st.integers(1, 3))
CLOSED = st.builds(closed, st.integers(0, 40), st.integers(1, 2), st.integers(1, 3))
PARTS = st.lists(
    st.tuples(st.lists(RANGES, max_size=6), st.lists(OPENED, max_size=3), st.lists(CLOSED, max_size=2)),
    max_size=6,
)  # fmt: skip


def _add(rows: Part, part: Part) -> None:
    rows[0].extend(part[0])
    rows[1].extend(part[1])
    rows[2].extend(part[2])


@given(PARTS)
def test_piece_by_piece_is_as_all_at_once(parts: list[Part]) -> None:
    """However the rows are dealt out, with a restart after each piece, the spans are those of all rows."""
    hearing = Hearing()
    rows: Part = ([], [], [])
    for part in parts:
        hearing.absorb(*part)
        hearing, _ = from_text(to_text(hearing, {}))
        _add(rows, part)
    assert hearing.spans() == union((c.from_ts, c.to_ts) for c in claims(*rows))


@given(st.lists(RANGES, max_size=10), st.lists(OPENED, max_size=3))
def test_joined_ranges_claim_the_same(
    ranges: list[ListenRangeRow], openings: list[ListenOpenedRow]
) -> None:
    """Condensing one sid's ranges changes no claim."""
    own = [row._replace(sid=1) for row in ranges]
    openings = [row._replace(sid=1) for row in openings]
    assert claims(condensed(own), openings, ()) == claims(own, openings, ())


def test_what_is_known_survives_being_written_down() -> None:
    """Cursors of both followers, settled spans and rows come back as they were."""
    hearing = Hearing()
    hearing.absorb([ranged(0, 10)], [opened(0)], [])
    hearing.lanes = {LANE: 4}
    again, gaps = from_text(to_text(hearing, {LANE: 9}))
    assert (again.lanes, gaps) == ({LANE: 4}, {LANE: 9})
    assert again.spans() == hearing.spans() == [(MS, 10_000_000 - MS)]
    assert from_text(None)[0].spans() == []


def test_many_sids_and_many_holes_stay_small_and_claim_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Beyond its limits the oldest is settled: what was claimed stays claimed, and nothing else is."""
    monkeypatch.setattr(room, "SIDS_MAX", 3)
    monkeypatch.setattr(room, "ROWS_MAX", 12)
    monkeypatch.setattr(room, "RANGES_KEPT", 4)
    hearing = Hearing()
    rows: Part = ([], [], [])
    for number in range(120):
        sid, at = 1 + number // 20, 100 * number
        part = (
            [ranged(at, at + 50, sid)],
            [opened(at, sid, number)],
            [closed(at + 40, sid, number)],
        )
        hearing.absorb(*part)
        _add(rows, part)
    assert hearing.spans() == union((c.from_ts, c.to_ts) for c in claims(*rows))
    assert len(to_text(hearing, {})) < 20_000
    before = hearing.spans()
    hearing.forget_before(5_000_000_000)
    assert hearing.spans() == [span for span in before if span[1] > 5_000_000_000]
