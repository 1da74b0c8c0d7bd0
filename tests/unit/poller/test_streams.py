"""Which stream a book may be rebuilt from."""

from uuid import UUID

from libs.store.book_checks import Island, Opening, WsBook
from services.poller.agreement import Base
from services.poller.streams import SLACK, Heard, Look, Patience, by_sid, from_rest, from_socket

S = 1_000_000
C, SID = UUID(int=1), 3
BOOK = WsBook("A", C, SID, 100, 50 * S, ((1, 2),), ((3, 4),))
ISLAND = Island(C, SID, 90, 500, 40 * S, 200 * S, S)
WINDOW = (150 * S, 199 * S)
PATIENCE = Patience(15 * S, S)
EARLIER = Look("A", 70 * S, 71 * S, {(True, 1): 2})
START = PATIENCE.window(EARLIER)
OPENING = Opening("A", C, SID, 60, 20 * S, S)


def heard(*islands: Island, again: Opening | None = None, **closed: int) -> Heard:
    """What the database says: `own` and `all_streams` are the seq of the last closings."""
    closings: dict[tuple[str | None, UUID, int], int] = {}
    if "own" in closed:
        closings["A", C, SID] = closed["own"]
    if "all_streams" in closed:
        closings[None, C, SID] = closed["all_streams"]
    return Heard(by_sid(islands), {(C, SID): again} if again else {}, closings)


def test_the_window_is_as_wide_as_an_answer_may_be_old() -> None:
    """From the request back by the cache's age, to the receipt, and the clocks' skew on both sides."""
    assert START == (54 * S, 72 * S)


def test_a_book_of_the_socket_is_an_exact_base() -> None:
    """Heard from the book to the window's end: its stream's deltas after it, up to where hearing reaches."""
    found = from_socket(BOOK, WINDOW, heard(ISLAND))
    assert found is not None
    assert (found.stream.seq_after, found.stream.seq_to) == (100, 500)
    assert found.stream.since_ts == 50 * S - SLACK
    assert found.base == Base({(True, 1): 2, (False, 3): 4}, None)
    assert (found.kind, found.base_at) == ("ws", 50 * S)


def test_without_proof_there_is_no_stream() -> None:
    """No frames, a hole after the book, hearing that ends too early, or a closing after it: nothing is claimed."""
    assert from_socket(BOOK, WINDOW, heard()) is None
    assert from_socket(BOOK, WINDOW, heard(ISLAND._replace(seq_from=102))) is None
    assert from_socket(BOOK, WINDOW, heard(ISLAND._replace(seq_to=99))) is None
    assert from_socket(BOOK, WINDOW, heard(ISLAND._replace(sent_to=200 * S - 1))) is None
    assert from_socket(BOOK, WINDOW, heard(ISLAND, own=100)) is None
    assert from_socket(BOOK, WINDOW, heard(ISLAND, all_streams=300)) is None
    assert from_socket(BOOK, WINDOW, heard(ISLAND, own=99, all_streams=99)) is not None


def test_an_earlier_answer_is_a_base_where_its_whole_window_was_heard() -> None:
    """The stream was open before the earlier window and heard without a hole to the end of the later one."""
    found = from_rest(OPENING, EARLIER, START, WINDOW, heard(ISLAND))
    assert found is not None
    assert (found.stream.seq_after, found.stream.since_ts) == (89, START[0])
    assert found.base == Base(EARLIER.levels, START)
    assert (found.kind, found.base_at) == ("rest", 71 * S)
    late = OPENING._replace(sent_at=START[0] - S + 1)
    assert from_rest(late, EARLIER, START, WINDOW, heard(ISLAND)) is None
    assert from_rest(OPENING, EARLIER, START, WINDOW, heard(ISLAND, own=60)) is None
    short = ISLAND._replace(sent_from=START[0] - S + 1)
    assert from_rest(OPENING, EARLIER, START, WINDOW, heard(short)) is None
    assert (
        from_rest(OPENING, EARLIER, START, WINDOW, heard(ISLAND._replace(sent_to=190 * S))) is None
    )


def test_streams_that_were_all_begun_anew_go_on_from_there() -> None:
    """After a hole in the sid's numbers every stream is closed and opened again: the later opening counts."""
    again = Opening(None, C, SID, 80, 30 * S, S)
    assert (
        from_rest(OPENING, EARLIER, START, WINDOW, heard(ISLAND, again=again, all_streams=70))
        is not None
    )
    assert from_rest(OPENING, EARLIER, START, WINDOW, heard(ISLAND, all_streams=70)) is None
    late = again._replace(sent_at=START[0])
    assert (
        from_rest(OPENING, EARLIER, START, WINDOW, heard(ISLAND, again=late, all_streams=70))
        is None
    )
    ended = heard(ISLAND, again=again, all_streams=90)
    assert from_rest(OPENING, EARLIER, START, WINDOW, ended) is None
