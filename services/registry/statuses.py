"""What a market's status means to us, by the exchange's word, by its messages and by the clock.

The exchange announces neither the opening nor the close of a market, and a REST answer may be 15 s old. So the clock
moves `status` at open_at and close_at, while `wanted` falls only on the exchange's own word: to keep listening to a
closed market costs nothing, to leave a live one is a loss.
"""

INITIALIZED, ACTIVE, INACTIVE, CLOSED = "initialized", "active", "inactive", "closed"
REMOVED = "removed"
"""Our own word: the exchange does not know the market any more."""

BEFORE_CLOSE = frozenset({INITIALIZED, ACTIVE, INACTIVE})
"""The exchange's words for a market that trades or will."""

_RANKS = {
    INITIALIZED: 0, ACTIVE: 1, INACTIVE: 1, CLOSED: 2, "determined": 3, "disputed": 4, "amended": 4, "finalized": 5,
    REMOVED: 6,
}  # fmt: skip


def rank(status: str) -> int:
    """Order statuses along a market's life; a word not known yet ranks as open, so that nothing is left by mistake."""
    return _RANKS.get(status, 1)


def is_before_close(status: str) -> bool:
    """True for a market that trades or will, and for a word we do not know."""
    return rank(status) <= 1


def by_clock(status: str, open_at: int | None, close_at: int | None, now: int) -> str:
    """Return the status at `now`: opened or closed on time if nobody said otherwise. Times in microseconds."""
    if is_before_close(status) and close_at is not None and close_at <= now:
        return CLOSED
    if status == INITIALIZED and open_at is not None and open_at <= now:
        return ACTIVE
    return status


def is_wanted(status: str, open_at: int | None, now: int, ahead: int) -> bool:
    """Decide whether a market that passes the filter is to be heard, by the exchange's own `status`.

    It is subscribed `ahead` (microseconds) before its opening.
    """
    if not is_before_close(status):
        return False
    return status != INITIALIZED or open_at is None or open_at - ahead <= now


def next_due(
    status: str, open_at: int | None, close_at: int | None, now: int, ahead: int
) -> int | None:
    """Return the next moment after `now` at which the clock alone changes this market; None when there is none."""
    if not is_before_close(status):
        return None
    moments = [close_at] if close_at is not None else []
    if status == INITIALIZED and open_at is not None:
        moments += [open_at - ahead, open_at]
    return min((moment for moment in moments if moment > now), default=None)
