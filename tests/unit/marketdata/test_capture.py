"""The capture filter, dimension by dimension."""

import pytest

from libs.marketdata.capture import CaptureFilter, event_of, is_combo_ticker, series_of


def wants(capture: CaptureFilter, ticker: str, category: str | None = "Sports") -> bool:
    return capture.wants(
        ticker,
        event_ticker=event_of(ticker),
        series_ticker=series_of(ticker),
        category=category,
        is_combo=is_combo_ticker(ticker),
    )


def test_without_patterns_everything_but_combos_passes() -> None:
    """The default records every market; combos only by choice."""
    assert wants(CaptureFilter(), "KXBTC-26NOV20-T57399.99")
    assert not wants(CaptureFilter(), "KXMVECROSSCATEGORY-SHARD1-S1-E2")
    assert wants(CaptureFilter(combos=True), "KXMVECROSSCATEGORY-SHARD1-S1-E2")
    assert CaptureFilter(combos=True).is_everything


@pytest.mark.parametrize(
    ("capture", "passes"),
    [
        (CaptureFilter(series_include=("KXBTC",)), True),
        (CaptureFilter(series_include=("KXBT",)), False),
        (CaptureFilter(series_include=("KXETH*", "kxb?c")), True),
        (CaptureFilter(series_exclude=("KXBTC*",)), False),
        (CaptureFilter(event_include=("KXBTC-26NOV2[01]",)), True),
        (CaptureFilter(event_exclude=("*-26NOV20",)), False),
        (CaptureFilter(ticker_include=("*-T57399.99",)), True),
        (CaptureFilter(ticker_include=("*-T57399x99",)), False),
        (CaptureFilter(ticker_include=("*",), ticker_exclude=("*T5*",)), False),
        (CaptureFilter(category_include=("sports",)), True),
        (CaptureFilter(category_include=("Crypto",)), False),
        (CaptureFilter(category_exclude=("Sp*",)), False),
        (CaptureFilter(series_include=("KXBTC",), category_include=("Crypto",)), False),
    ],
)
def test_each_dimension_must_pass(capture: CaptureFilter, passes: bool) -> None:
    """Exclude wins over include, patterns are whole-value globs, all dimensions are joined by and."""
    assert wants(capture, "KXBTC-26NOV20-T57399.99") is passes
    assert not capture.is_everything


def test_an_unknown_category_matches_no_pattern() -> None:
    """A market of a series not yet known is left out by an include pattern, kept by an exclude pattern."""
    assert not wants(CaptureFilter(category_include=("*",)), "A-B-C", category=None)
    assert wants(CaptureFilter(category_exclude=("*",)), "A-B-C", category=None)
    assert CaptureFilter(category_exclude=("x",)).needs_category


def test_may_want_judges_by_the_ticker_alone() -> None:
    """Whole-channel streams name only the ticker: series and event are guessed, the category passes."""
    assert CaptureFilter(series_include=("KXBTC",)).may_want("KXBTC-26NOV20-T1")
    assert not CaptureFilter(event_exclude=("KXBTC-26NOV20",)).may_want("KXBTC-26NOV20-T1")
    assert CaptureFilter(category_include=("Crypto",)).may_want("KXBTC-26NOV20-T1")
    assert not CaptureFilter().may_want("KXMVEX-1-2")
    assert CaptureFilter(combos=True).may_want("KXMVEX-1-2")


def test_guesses_of_a_ticker_without_dashes() -> None:
    """A ticker without a dash is its own event and series."""
    assert (event_of("ABC"), series_of("ABC")) == ("ABC", "ABC")
