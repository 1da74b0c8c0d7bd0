"""The capture filter: which markets this gatherer records. What it excludes is not a gap.

A market passes when every dimension (series, category, event, ticker) passes: no exclude pattern matches, and an
include pattern does or there is none. Patterns are globs (`*`, `?`, `[...]`), compared without regard to case.
Combo markets (multivariate, ticker prefix KXMVE) pass only by choice: they are most of the exchange and hardly trade.
"""

import fnmatch
import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass

COMBO_PREFIX = "KXMVE"


def is_combo_ticker(ticker: str) -> bool:
    """Tell a combo market, event or series by its ticker's prefix."""
    return ticker.startswith(COMBO_PREFIX)


def series_of(ticker: str) -> str:
    """Guess the series of an event or market from its ticker: what stands before the first dash."""
    return ticker.partition("-")[0]


def event_of(ticker: str) -> str:
    """Guess the event of a market from its ticker: what stands before the last dash."""
    return ticker.rpartition("-")[0] or ticker


@functools.lru_cache(maxsize=64)
def _compiled(patterns: tuple[str, ...]) -> re.Pattern[str] | None:
    if not patterns:
        return None
    alternatives = "|".join(fnmatch.translate(pattern) for pattern in patterns)
    return re.compile(alternatives, re.IGNORECASE)


def _passes(value: str | None, include: tuple[str, ...], exclude: tuple[str, ...]) -> bool:
    """Judge one dimension; an unknown value (None) matches no pattern."""
    wanted, refused = _compiled(include), _compiled(exclude)
    if value is None:
        return wanted is None
    if refused is not None and refused.match(value):
        return False
    return wanted is None or wanted.match(value) is not None


@dataclass(frozen=True, slots=True)
class CaptureFilter:
    """Glob patterns by dimension; the fields are those of the `capture` section of the configuration."""

    series_include: tuple[str, ...] = ()
    series_exclude: tuple[str, ...] = ()
    category_include: tuple[str, ...] = ()
    category_exclude: tuple[str, ...] = ()
    event_include: tuple[str, ...] = ()
    event_exclude: tuple[str, ...] = ()
    ticker_include: tuple[str, ...] = ()
    ticker_exclude: tuple[str, ...] = ()
    combos: bool = False

    @property
    def needs_category(self) -> bool:
        """True when a market cannot be judged before its series is known."""
        return bool(self.category_include or self.category_exclude)

    @property
    def is_everything(self) -> bool:
        """True when no pattern is set: all markets pass (combos by their own choice)."""
        return not (self.needs_category or self._patterns_but_category())

    def _patterns_but_category(self) -> Sequence[str]:
        return (
            *self.series_include, *self.series_exclude, *self.event_include,
            *self.event_exclude, *self.ticker_include, *self.ticker_exclude,
        )  # fmt: skip

    def wants(
        self,
        ticker: str,
        *,
        event_ticker: str,
        series_ticker: str,
        category: str | None,
        is_combo: bool,
    ) -> bool:
        """Decide for one market; category None = not known, which no include pattern matches."""
        if is_combo and not self.combos:
            return False
        return (
            _passes(ticker, self.ticker_include, self.ticker_exclude)
            and _passes(event_ticker, self.event_include, self.event_exclude)
            and _passes(series_ticker, self.series_include, self.series_exclude)
            and _passes(category, self.category_include, self.category_exclude)
        )

    def may_want(self, ticker: str) -> bool:
        """Decide from the ticker alone, for streams that name nothing else.

        Event and series are guessed from the ticker; the category is not known and passes.
        """
        if is_combo_ticker(ticker) and not self.combos:
            return False
        return (
            _passes(ticker, self.ticker_include, self.ticker_exclude)
            and _passes(event_of(ticker), self.event_include, self.event_exclude)
            and _passes(series_of(ticker), self.series_include, self.series_exclude)
        )
