"""The exchange's hours: Thursdays 03:00 to 05:00 Eastern, winter and summer."""

import datetime as dt

import pytest

from libs.marketdata.units import parse_rfc3339
from services.simulator import hours

SATURDAY = parse_rfc3339("2026-11-21T12:00:00Z")
WINTER = ("2026-11-26T08:00:00Z", "2026-11-26T10:00:00Z")
"""Thanksgiving: Eastern Standard Time is five hours behind."""
SUMMER = ("2026-07-16T07:00:00Z", "2026-07-16T09:00:00Z")


def test_the_schedule_names_the_next_thursdays() -> None:
    """kalshi-api 4: maintenance every Thursday 03:00 to 05:00 Eastern, the next weeks of it."""
    schedule = hours.schedule(SATURDAY)["schedule"]
    assert isinstance(schedule, dict)
    windows = schedule["maintenance_windows"]
    assert len(windows) == 6
    assert (windows[0]["start_datetime"], windows[0]["end_datetime"]) == WINTER
    begins = [parse_rfc3339(window["start_datetime"]) for window in windows]
    assert {dt.datetime.fromtimestamp(at / 1e6, dt.UTC).weekday() for at in begins} == {3}
    assert begins == sorted(set(begins))
    assert set(schedule["standard_hours"][0]) == {*hours._DAYS, "start_time", "end_time"}


def test_summer_and_the_change_of_clocks() -> None:
    """Eastern Daylight Time is four hours behind; a week over the change keeps the local hour."""
    (first, _) = hours.windows(parse_rfc3339("2026-07-13T00:00:00Z"), 2)
    assert first == tuple(map(parse_rfc3339, SUMMER))
    before, after = hours.windows(parse_rfc3339("2026-10-27T00:00:00Z"), 2)
    assert (before[0] // 3_600_000_000) % 24 == 7
    assert (after[0] // 3_600_000_000) % 24 == 8


@pytest.mark.parametrize("offset", [0, 1, 7_199_999_999])
def test_in_a_window_trading_pauses(offset: int) -> None:
    """kalshi-api 1.6: the status says until when; top level and every shard agree; the exchange itself goes on."""
    begin, end = map(parse_rfc3339, WINTER)
    status = hours.status(begin + offset, None)
    assert (status["exchange_active"], status["trading_active"]) == (True, False)
    assert status["exchange_estimated_resume_time"] == WINTER[1]
    assert end > begin + offset
    shards = status["exchange_index_statuses"]
    assert isinstance(shards, list)
    assert [shard["exchange_index"] for shard in shards] == [0, 1, 2, 3]
    assert not any(shard["trading_active"] for shard in shards)


@pytest.mark.parametrize("at", [SATURDAY, parse_rfc3339(WINTER[1]), parse_rfc3339(WINTER[0]) - 1])
def test_outside_of_windows_all_is_active(at: int) -> None:
    """Before, after and at the very end of a window."""
    status = hours.status(at, None)
    assert (status["exchange_active"], status["trading_active"]) == (True, True)
    assert "exchange_estimated_resume_time" not in status


def test_an_unplanned_pause_stops_everything() -> None:
    """A pause of the whole exchange wins over the plan, with its own time."""
    resume = parse_rfc3339("2026-11-21T12:30:00Z")
    status = hours.status(SATURDAY, resume)
    assert (status["exchange_active"], status["trading_active"]) == (False, False)
    assert status["exchange_estimated_resume_time"] == "2026-11-21T12:30:00Z"
