"""Hand-over between readers and the writer."""

import asyncio
from uuid import uuid4

import pytest

from libs.marketdata.units import HOUR
from libs.store.dropped import Range
from libs.store.errors import StoreUnavailable
from services.deduplicator.board import Board, Delivery
from services.deduplicator.merge import Reading
from tests.unit.deduplicator.support import LANE, batch, delta


def page(board: Board, gatherer: int, number: int = 1) -> Delivery:
    """A page of one row, of the zone in the gatherer's place."""
    feed = list(board.feeds.values())[gatherer - 1]
    found, readings = (
        batch(number, orderbook_deltas=[delta(number)]),
        {LANE: Reading(number, "deltas")},
    )
    return Delivery(feed, board.generation, feed.session, gatherer, [found], readings, 1)


async def test_pages_are_taken_in_turn_and_bounded() -> None:
    """One of each gatherer, then the next round, until there are enough rows."""
    board = Board(["a", "b"], pages_ahead=3)
    for number in (1, 2, 3):
        await board.hand_over(page(board, 1, number))
    await board.hand_over(page(board, 2))
    taken = board.take(3)
    assert [delivery.gatherer for delivery in taken] == [1, 2, 1]
    assert len(board.take(100)) == 1


async def test_a_reader_too_far_ahead_waits_and_old_pages_are_thrown_away() -> None:
    """A new generation frees it; what it then hands over is of the old one."""
    board = Board(["a"], pages_ahead=1)
    feed = board.feeds["a"]
    await board.hand_over(page(board, 1, 1))
    waiting = asyncio.create_task(board.hand_over(page(board, 1, 2)))
    await asyncio.sleep(0)
    assert not waiting.done()
    board.begin_anew()
    async with asyncio.timeout(60):
        await waiting
    assert board.take(10) == []
    assert feed.waiting == 0


async def test_drained_is_the_earliest_of_all_or_nothing() -> None:
    """One zone that is behind or away keeps the whole from being drained."""
    board = Board(["a", "b"], pages_ahead=1)
    board.feeds["a"].drained_at = 5
    first: int | None = board.drained_at
    board.feeds["b"].drained_at = 3
    second: int | None = board.drained_at
    await board.hand_over(page(board, 2))
    assert (first, second, board.drained_at) == (None, 3, None)


def test_two_zones_of_one_database_are_noticed() -> None:
    """The second to come is refused."""
    board, identity = Board(["a", "b"], pages_ahead=1), uuid4()
    assert board.claim(board.feeds["a"], identity) is None
    assert board.claim(board.feeds["b"], identity) == "a"


async def test_merged_pages_move_the_acknowledgement() -> None:
    """lane -> (batch_no, merge_no), and the time of the newest batch."""
    board = Board(["a"], pages_ahead=1)
    feed = board.feeds["a"]
    feed.gatherer = 1
    await board.hand_over(page(board, 1, 4))
    for delivery in board.take(10):
        board.note_merged(delivery, 17)
    assert feed.merged == {LANE: (4, 17)}
    assert (feed.waiting, feed.rows_read) == (0, 1)
    assert feed.merged_at == 1_767_225_600_000_000


async def test_pages_of_an_emptied_zone_are_told_of_by_their_zone() -> None:
    """The zone came back as another gatherer while a page was on its way: the page counts, its lanes are not shown."""
    board = Board(["a"], pages_ahead=2)
    feed = board.feeds["a"]
    feed.gatherer = 1
    await board.hand_over(page(board, 1))
    (delivery,) = board.take(10)
    board.drop(feed)
    feed.gatherer = 7
    board.note_merged(delivery, 5)
    assert (feed.waiting, feed.rows_read, feed.merged) == (0, 1, {})


async def test_a_zone_read_anew_has_nothing_waiting_and_late_pages_are_thrown_away() -> None:
    """What was read before a new connection is neither merged nor waited for; what is read after it is."""
    board = Board(["a", "b"], pages_ahead=3)
    feed, old = board.feeds["a"], page(board, 1, 2)
    await board.hand_over(page(board, 1, 1))
    await board.hand_over(page(board, 2, 1))
    board.drop(feed)
    assert feed.waiting == 0
    await board.hand_over(old)
    await board.hand_over(page(board, 1, 1))
    assert [(d.gatherer, d.batches[0].batch_no) for d in board.take(10)] == [(2, 1), (1, 1)]
    assert feed.waiting == 1


def ranges(*hours: int) -> list[Range]:
    return [Range("orderbook_deltas", hour * HOUR, (hour + 1) * HOUR) for hour in hours]


async def test_a_parked_feed_keeps_its_order_and_no_other_waits() -> None:
    """What was taken comes again first, then what came after it; the others' pages are taken meanwhile."""
    board = Board(["a", "b"], pages_ahead=3)
    feed = board.feeds["a"]
    feed.status = "reading"
    for number in (1, 2, 3):
        await board.hand_over(page(board, 1, number))
    taken = board.take(2)
    board.park(taken, ranges(5, 6))
    parked = (str(feed.status), feed.last_error)
    assert parked == (
        "reopening",
        "waits until 2 ranges are open again: orderbook_deltas_p19700101_05 ...",
    )
    await board.hand_over(page(board, 2))
    assert [delivery.gatherer for delivery in board.take(9)] == [2]
    assert not board.is_done
    board.unpark(feed)
    assert (str(feed.status), feed.last_error) == ("reading", "")
    assert [delivery.readings[LANE].batch_no for delivery in board.take(9)] == [1, 2, 3]


async def test_what_is_parked_is_thrown_away_with_its_cursors() -> None:
    """A new session or generation reads it again; it is parked again when its time has not come."""
    board = Board(["a"], pages_ahead=3)
    await board.hand_over(page(board, 1))
    board.park(board.take(9), ranges(5))
    board.begin_anew()
    assert not board.feeds["a"].waits_for and board.take(9) == []
    await board.hand_over(page(board, 1))
    assert len(board.take(9)) == 1


async def test_a_stop_frees_a_reader_that_waits_behind_a_parked_page() -> None:
    """What it still holds is not merged before the stop, and it is told so; a feed that waits for nothing goes on."""
    board = Board(["a", "b"], pages_ahead=1)
    await board.hand_over(page(board, 1))
    board.park(board.take(9), ranges(5))
    await board.hand_over(page(board, 1, 2))
    waiting = asyncio.create_task(board.hand_over(page(board, 1, 3)))
    await asyncio.sleep(0)
    assert not waiting.done()
    board.give_up_parked()
    async with asyncio.timeout(60):
        await waiting
    with pytest.raises(StoreUnavailable):
        await board.hand_over(page(board, 1, 4))
    await board.hand_over(page(board, 2))
    assert [delivery.gatherer for delivery in board.take(9)] == [2]
