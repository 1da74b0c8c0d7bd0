"""The picture as a PNG: matplotlib without a display."""

from datetime import UTC
from pathlib import Path
from typing import Final

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import EngFormatter, LogLocator, NullLocator

from services.coverage.picture import Picture
from services.coverage.show import Names
from services.coverage.tables import percent

WIDTH_IN, DPI = 12.0, 120
STACK_IN, LAG_IN, LANE_IN = 3.2, 1.8, 0.36
HEARD, PARTLY, UNHEARD = "#3a923a", "#e8a33d", "#c03d3e"
SETS: Final = ("#2f5d8a", "#6a9bc8", "#a9c7e3", "#d9b26f", "#e07b39", "#b5502f", "#8c564b")
"""From sets of many gatherers to those of one."""


def draw(picture: Picture, names: Names, path: Path) -> tuple[int, int]:
    """Write the picture; return its width and height in pixels.

    Raises:
        OSError: the file cannot be written.
    """
    lanes_in = LANE_IN * max(len(picture.lanes), 1) + 0.3
    height = STACK_IN + lanes_in + LAG_IN + 1.6
    figure = Figure(figsize=(WIDTH_IN, height), dpi=DPI, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    stack, lanes, lag = figure.subplots(
        3, 1, sharex=True, gridspec_kw={"height_ratios": [STACK_IN, lanes_in, LAG_IN]}
    )
    _draw_stacks(stack, picture, names)
    _draw_lanes(lanes, picture, names)
    _draw_lags(lag, picture, names)
    lag.set_xlim(_day(picture.start), _day(picture.end))
    locator = AutoDateLocator(tz=UTC)  # type: ignore[no-untyped-call]
    lag.xaxis.set_major_locator(locator)
    formatter = ConciseDateFormatter(locator, tz=UTC)  # type: ignore[no-untyped-call]
    lag.xaxis.set_major_formatter(formatter)
    lag.set_xlabel("exchange time, UTC (lag: time of receipt)")
    figure.savefig(path, dpi=DPI, format="png")
    width_px, height_px = canvas.get_width_height()
    return width_px, height_px


def _day(moment: float) -> float:
    """Convert seconds since the epoch to matplotlib's days."""
    return moment / 86_400


def _draw_stacks(axes: Axes, picture: Picture, names: Names) -> None:
    below = [0] * len(picture.minutes)
    lefts = [_day(minute) for minute in picture.minutes]
    largest = max(map(len, picture.stacks), default=0)
    for place, (who, facts) in enumerate(picture.stacks.items()):
        axes.bar(
            lefts, facts, bottom=below, width=_day(60) * 0.94, align="edge", label=f"{names.of_set(who)}: {sum(facts):,}",
            color=SETS[place % len(SETS)] if largest > 1 else SETS[0], linewidth=0,
        )  # fmt: skip
        below = [low + more for low, more in zip(below, facts, strict=True)]
    axes.set_title("Facts a minute (deltas, trades, tickers) by who delivered them", loc="left")
    axes.yaxis.set_major_formatter(EngFormatter(sep=""))
    axes.margins(y=0.08)
    if picture.stacks:
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=8)
    else:
        _say_nothing(axes)


def _draw_lanes(axes: Axes, picture: Picture, names: Names) -> None:
    labels = []
    for row, lane in enumerate(picture.lanes):
        for bars, colour in ((lane.heard, HEARD), (lane.partly, PARTLY), (lane.unheard, UNHEARD)):
            days = [(_day(start), _day(length)) for start, length in bars]
            axes.broken_barh(days, (row - 0.38, 0.76), facecolors=colour, linewidth=0)
        labels.append(f"{names.of(lane.gatherer)}  {percent(lane.share, 2)}")
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.set_title(f"Listening to {picture.channel}", loc="left")
    handles = [Patch(color=HEARD, label="heard"), Patch(color=PARTLY, label="some market unheard"), Patch(color=UNHEARD, label="nothing heard")]  # fmt: skip
    axes.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=8)  # fmt: skip


def _draw_lags(axes: Axes, picture: Picture, names: Names) -> None:
    for gatherer in names.in_order(picture.lags):
        points = picture.lags[gatherer]
        days, lags = [_day(moment) for moment, _ in points], [lag for _, lag in points]
        axes.plot(days, lags, label=names.of(gatherer), marker="o", markersize=3, linewidth=1.2)
    axes.set_title("Lag from receipt to production, p99", loc="left")
    axes.grid(visible=True, axis="y", alpha=0.3)
    if picture.lags:
        axes.set_yscale("log")
        lags = [lag for points in picture.lags.values() for _, lag in points]
        axes.set_ylim(min(lags) / 2, max(lags) * 2)
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter(EngFormatter(unit="s"))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=8)
    else:
        _say_nothing(axes)


def _say_nothing(axes: Axes) -> None:
    axes.text(0.5, 0.5, "nothing recorded", ha="center", va="center", transform=axes.transAxes)
