"""When the exchange is open: always, but for Thursdays from 3 to 5 in the morning, Eastern time (kalshi-api 4)."""

import datetime as dt
from typing import Final
from zoneinfo import ZoneInfo

from libs.marketdata.units import DAY, SECOND, format_rfc3339

WEEKS_AHEAD: Final = 6
_EASTERN: Final = ZoneInfo("America/New_York")
_THURSDAY: Final = 3
_FROM, _TO = dt.time(3), dt.time(5)
_DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_SHARDS = ("default", "combos", "crypto", "tennis and baseball")

Json = dict[str, object]


def windows(now: int, weeks: int = WEEKS_AHEAD) -> list[tuple[int, int]]:
    """Return the maintenance windows that are not over yet: begin and end in microseconds."""
    today = dt.datetime.fromtimestamp(now // SECOND, _EASTERN).date()
    first = today + dt.timedelta(days=(_THURSDAY - today.weekday()) % 7)
    days = (first + dt.timedelta(weeks=week) for week in range(weeks + 1))
    found = [(_moment(day, _FROM), _moment(day, _TO)) for day in days]
    return [(begin, end) for begin, end in found if end > now][:weeks]


def schedule(now: int) -> Json:
    """Return the body of /exchange/schedule."""
    today = now // DAY * DAY
    always = [{"open_time": "00:00", "close_time": "00:00"}]
    hours: Json = dict.fromkeys(_DAYS, always)
    hours["start_time"] = format_rfc3339(today - 365 * DAY)
    hours["end_time"] = format_rfc3339(today + 365 * DAY)
    planned = [
        {"start_datetime": format_rfc3339(begin), "end_datetime": format_rfc3339(end)}
        for begin, end in windows(now)
    ]
    return {"schedule": {"standard_hours": [hours], "maintenance_windows": planned}}


def status(now: int, pause: int | None) -> Json:
    """Return the body of /exchange/status.

    In a planned window trading pauses while the exchange itself goes on; a pause of everything is not planned.

    Args:
        pause: until when everything is paused, microseconds; None: it is not.
    """
    begin, end = windows(now, 1)[0]
    resume = pause if pause is not None else end if begin <= now else None
    state: Json = {
        "exchange_active": pause is None,
        "trading_active": resume is None,
        "intra_exchange_transfers_active": resume is None,
    }
    shards = [
        {"exchange_index": index, "description": name, **state}
        for index, name in enumerate(_SHARDS)
    ]
    body: Json = {**state, "exchange_index_statuses": shards}
    if resume is not None:
        body["exchange_estimated_resume_time"] = format_rfc3339(resume)
    return body


def _moment(day: dt.date, time: dt.time) -> int:
    return int(dt.datetime.combine(day, time, _EASTERN).timestamp()) * SECOND
