"""Which spans of the trade channel are to be read from the tape, and how one is cut into pieces. Pure.

A span is what nobody proves to have heard: a hole between claims, the time since the last one when the channel is
silent for long, or what a gap row names as far as no claim covers it. Healing adds trades and no claim: the span stays
a gap of listening.
"""

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from libs.marketdata.listening import Span, holes, union
from libs.marketdata.rows import GapRow
from libs.store.trade_repairs import NewRepair

TRADE_CHANNEL: Final = "trade"
NOT_HEARD: Final = "not_heard"
"""The cause of a repair that a hole between claims led to."""
WIDER: Final = 2_000_000
"""Microseconds added on both sides of a gap row's times, which may be receive times: clock skew, and the margin."""
LOOKBACK: Final = 60_000_000
"""Microseconds before a gap's end where neither the gap nor any claim says where it begins."""


class Limits(NamedTuple):
    """delay: until the tape surely shows what was traded. silence: without a claim until that is a gap. age_max: oldest
    trade that is still read. All microseconds.
    """

    delay: int
    silence: int
    age_max: int


def hole_repairs(
    heard: Sequence[Span], noted: Iterable[Span], now: int, limits: Limits
) -> list[NewRepair]:
    """Return the repairs for what lies between claims, or too long after the last one, and is not noted yet.

    Args:
        heard: spans in which the channel was heard, joined and ascending. noted: those of known repairs.
    """
    if not heard:
        return []
    oldest, until = now - limits.age_max, now - limits.delay
    start, end = max(heard[0][0], oldest), heard[-1][1]
    taken = union([*heard, *noted])
    found = [hole for hole in holes(taken, start, min(end, until)) if hole[1] < until]
    silent_from = max((high for _, high in taken if high <= until), default=end)
    if until - end >= limits.silence and until - silent_from >= limits.silence:
        found.append((max(silent_from, oldest), until))
    return [NewRepair(None, a, b, b + limits.delay, NOT_HEARD) for a, b in found if a < b]


def gap_repair(gap: GapRow, heard: Sequence[Span], limits: Limits) -> NewRepair:
    """Return the repair for a gap row of the trade channel; unknown ends are taken from receive times and claims."""
    ends = [t for t in (gap.to_ts, gap.received_to) if t is not None]
    to_ts = max(ends, default=gap.received_at)
    starts = [t for t in (gap.from_ts, gap.received_from) if t is not None]
    from_ts = min(starts, default=_heard_before(heard, to_ts))
    span = (min(from_ts, to_ts) - WIDER, to_ts + WIDER)
    due_at = max(gap.received_at, span[1]) + limits.delay
    return NewRepair(gap.ticker, *span, due_at, gap.reason)


def _heard_before(heard: Sequence[Span], moment: int) -> int:
    """Return the end of the last claim before the moment, else of a lookback's length before it."""
    ends = [min(b, moment) for a, b in heard if a < moment]
    return max(ends, default=moment - LOOKBACK)


def unheard_parts(span: Span, heard: Iterable[Span], healed: Iterable[Span]) -> list[Span]:
    """Return what of a span was neither heard nor read before, the newest part first: the tape's own order."""
    return holes([*heard, *healed], *span)[::-1]


def chunks(part: Span, width: int) -> list[Span]:
    """Cut a part into pieces of at most `width` microseconds, the newest first."""
    pieces, high = [], part[1]
    while high > part[0]:
        low = max(part[0], high - width)
        pieces.append((low, high))
        high = low
    return pieces
