"""What the plot of coverage shows, as plain numbers: facts a minute by who delivered them, lanes of listening, lags. Pure.

Lanes are of one channel: that of the question, or the order books. Times are seconds since the epoch, since that is
what an axis is made of.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from libs.marketdata.listening import Span, holes
from libs.marketdata.units import MINUTE, SECOND
from libs.store.coverage_records import FactCount, LagCount
from services.coverage.counted import Coverage, lag_quantiles
from services.coverage.heard import ChannelHeard, Lane

Bar = tuple[float, float]
"""Start and length, seconds."""


@dataclass(frozen=True, slots=True)
class LanePicture:
    """One gatherer's (None: production's) lane: everything heard, some market not heard, nothing heard."""

    gatherer: int | None
    heard: list[Bar]
    partly: list[Bar]
    unheard: list[Bar]
    share: float | None


@dataclass(frozen=True, slots=True)
class Picture:
    """Everything that is drawn.

    start, end: of the time axis. minutes: starts of the bars. stacks: by set of gatherers, largest first, facts of each
    minute. lags: by gatherer (minute's middle, p99 seconds).
    """

    channel: str
    start: float
    end: float
    minutes: list[float]
    stacks: dict[tuple[int, ...], list[int]]
    lanes: list[LanePicture]
    lags: dict[int, list[tuple[float, float]]]


def make_picture(coverage: Coverage, span: Span) -> Picture:
    """Lay out what was recorded in a span [from, to), microseconds; the axis ends where records do."""
    heard = coverage.channels[0]
    minutes, stacks = _stacks(coverage.facts)
    moments = [*minutes, *(minute + MINUTE for minute in minutes)]
    moments += [moment for moment in (heard.first, heard.last) if moment is not None]
    start = max(min(moments, default=span[0]), span[0])
    end = min(max(moments, default=span[1]), span[1])
    return Picture(
        channel=heard.channel,
        start=start / SECOND,
        end=end / SECOND,
        minutes=[minute / SECOND for minute in minutes],
        stacks=stacks,
        lanes=[_lane(lane, heard) for lane in heard.lanes],
        lags=_lags(coverage.lags, start, end),
    )


def _stacks(facts: Sequence[FactCount]) -> tuple[list[int], dict[tuple[int, ...], list[int]]]:
    """Return every minute from the first to the last that has facts, and the facts of each by set."""
    counted = [count for count in facts if count.facts]
    if not counted:
        return [], {}
    first = min(count.minute for count in counted)
    last = max(count.minute for count in counted)
    minutes = list(range(first, last + MINUTE, MINUTE))
    stacks: dict[tuple[int, ...], list[int]] = {
        who: [0] * len(minutes)
        for who in sorted({count.gatherers for count in counted}, key=lambda who: (-len(who), who))
    }
    for count in counted:
        stacks[count.gatherers][(count.minute - first) // MINUTE] += count.facts
    return minutes, stacks


def _lane(lane: Lane, heard: ChannelHeard) -> LanePicture:
    told = sorted([*lane.heard, *lane.partly])
    unheard = (
        [] if heard.first is None or heard.last is None else holes(told, heard.first, heard.last)
    )
    return LanePicture(
        lane.gatherer, _bars(lane.heard), _bars(lane.partly), _bars(unheard), lane.share
    )


def _bars(spans: Iterable[Span]) -> list[Bar]:
    return [(start / SECOND, (end - start) / SECOND) for start, end in spans]


def _lags(counts: Sequence[LagCount], start: int, end: int) -> dict[int, list[tuple[float, float]]]:
    """Return the minutes whose middle is on the axis."""
    lines: dict[int, list[tuple[float, float]]] = defaultdict(list)
    found = lag_quantiles(counts, lambda count: (count.gatherer, count.minute + MINUTE // 2))
    for (gatherer, moment), lag in sorted(found.items()):
        if start <= moment <= end:
            lines[gatherer].append((moment / SECOND, lag.p99_s))
    return dict(lines)
