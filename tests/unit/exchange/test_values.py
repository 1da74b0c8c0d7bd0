"""Single values: times of facts lie in this century."""

import pytest

from libs.exchange.values import TIME_MAX, TIME_MIN, milliseconds, moment, rfc3339_of, seconds
from libs.marketdata.units import ValueDoesNotFit

MS = 1_000


@pytest.mark.parametrize("time", [TIME_MIN, 1_795_000_000_000 * MS, TIME_MAX - MS])
def test_times_of_this_century_are_exact(time: int) -> None:
    """In microseconds, of whole milliseconds."""
    assert milliseconds("ts_ms", time // MS) == moment(time // MS, "ts", None) == time


@pytest.mark.parametrize(
    "wild", [0, -1, 1_795_000_000, TIME_MIN // MS - 1, TIME_MAX // MS, 1_795_000_000_000_000, 2**80]
)
def test_a_time_in_another_unit_or_century_does_not_fit(wild: int) -> None:
    """Seconds, microseconds and wild values cost their message, not the merge."""
    with pytest.raises(ValueDoesNotFit, match="ts_ms: not a time"):
        moment(wild, "ts", None)


@pytest.mark.parametrize("text", ["1999-12-31T23:59:59.999Z", "2100-01-01T00:00:00Z"])
def test_texts_are_bound_by_the_same_times(text: str) -> None:
    """Of the deprecated field and of REST."""
    with pytest.raises(ValueDoesNotFit, match="created_time"):
        rfc3339_of("created_time", text)
    assert rfc3339_of("created_time", "2000-01-01T00:00:00Z") == TIME_MIN


def test_business_times_may_lie_anywhere() -> None:
    """They are content, and order nothing."""
    assert seconds("close_ts", 0) == 0
    assert seconds("close_ts", 9_999_999_999) == 9_999_999_999_000_000
