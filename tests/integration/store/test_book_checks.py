"""What a comparison of books reads of many connections' rows."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID, uuid4

from libs.marketdata.rows import DeltaRow, ListenOpenedRow, ListenRangeRow
from libs.marketdata.tables import Family
from libs.store.batches import seal
from libs.store.book_checks import Island, Stream, last_openings, read_islands, stream_deltas
from libs.store.lanes import LaneWriter
from libs.store.pool import Target, open_pool

S = 1_000_000
AT = 1_700_006_400 * S
SID = 3


def opened(connection: UUID, ticker: str, seq: int) -> ListenOpenedRow:
    return ListenOpenedRow(
        AT, seq, AT + seq, S, seq, SID, 0, connection, "orderbook_delta", "orderbook/0", ticker
    )


def ranged(connection: UUID, first: int, last: int, channel: str) -> ListenRangeRow:
    return ListenRangeRow(AT, first, last, AT + first, AT + last, S, SID, 0, connection, channel)


def delta(connection: UUID, ticker: str, seq: int) -> DeltaRow:
    return DeltaRow(AT + seq, AT, 100, seq, 1000, 1, SID, True, connection, ticker, AT, None)


async def test_only_asked_sids_and_markets_come_back(gatherer_db: Target) -> None:
    """However many connections a market was heard on before: the limit is not spent on them; ranges are joined by sid."""
    live, dead = uuid4(), [uuid4() for _ in range(20)]
    rows: dict[str, Sequence[Any]] = {
        "listen_opened": [opened(c, t, 5) for c in [*dead, live] for t in "AB"]
        + [opened(live, "A", 9)],
        "listen_ranges": [
            ranged(live, 1, 4, "orderbook_delta"),
            ranged(live, 5, 9, "orderbook_delta"),
            ranged(live, 11, 12, "orderbook_delta"),
            ranged(dead[0], 1, 2, "orderbook_delta"),
            ranged(live, 1, 99, "trade"),
        ],
        "orderbook_deltas": [
            delta(c, t, n) for n in (6, 7, 12) for c in (live, dead[0]) for t in "AB"
        ],
    }
    async with open_pool(gatherer_db) as pool:
        lane = LaneWriter(pool, family=Family.DELTAS, process="connector-a-1", instance=uuid4())
        await lane.write(seal(rows))
        await lane.close()
        async with pool.acquire() as conn:
            openings = await last_openings(conn, ["A", "B"], [(live, SID)], 2)
            assert [(o.ticker, o.connection, o.seq) for o in openings] == [
                ("A", live, 9), ("B", live, 5),
            ]  # fmt: skip
            islands = await read_islands(conn, AT, 0)
            assert set(islands) == {
                Island(live, SID, 1, 9, AT + 1, AT + 9, S),
                Island(live, SID, 11, 12, AT + 11, AT + 12, S),
                Island(dead[0], SID, 1, 2, AT + 1, AT + 2, S),
            }
            streams = [Stream("A", live, SID, 6, 11, AT), Stream("B", dead[0], SID, 0, 7, AT)]
            found, is_whole = await stream_deltas(conn, streams, 10, 0)
    assert is_whole
    assert {ticker: [d[0] for d in deltas] for ticker, deltas in found.items()} == {
        "A": [7], "B": [6, 7],
    }  # fmt: skip
