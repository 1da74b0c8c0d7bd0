import datetime as dt
from typing import Any

import pytest

from libs.exchange.errors import ApiError, ApiUnavailable, ExchangeError, RateLimited, Undecodable
from libs.exchange.rest_wire import ExchangeStatus
from libs.marketdata.units import parse_rfc3339
from services.doctor.judge_exchange import (
    advice_for,
    judge_reach,
    judge_schedule,
    judge_status,
)

NOW = parse_rfc3339("2026-11-21T12:00:00Z")
EASTERN = dt.timezone(dt.timedelta(hours=-5), "EST")


def schedule(*windows: tuple[str, str]) -> dict[str, Any]:
    spans = [{"start_datetime": start, "end_datetime": end} for start, end in windows]
    return {"schedule": {"standard_hours": [], "maintenance_windows": spans}}


def test_the_next_window_is_said_in_utc_and_here() -> None:
    """Past ones are left out, the nearest coming one is named with the time left."""
    body = schedule(
        ("2026-12-03T08:00:00Z", "2026-12-03T10:00:00Z"),
        ("2026-11-26T03:00:00-05:00", "2026-11-26T05:00:00-05:00"),
        ("2026-11-19T08:00:00Z", "2026-11-19T10:00:00Z"),
    )
    finding = judge_schedule(body, NOW, EASTERN)
    assert finding.state == "ok"
    assert finding.found == (
        "next maintenance Thu 2026-11-26 08:00 to Thu 2026-11-26 10:00 UTC"
        " (Thu 2026-11-26 03:00 to 05:00 EST here), in 4.8 days"
    )


def test_maintenance_now_is_a_warning() -> None:
    """Whoever looks during it should know why things fail."""
    body = schedule(("2026-11-21T11:00:00Z", "2026-11-21T13:00:00Z"))
    finding = judge_schedule(body, NOW, EASTERN)
    assert finding.state == "warn"
    assert "maintenance now" in finding.found


def test_no_window_names_the_usual_one() -> None:
    """Thursdays, whether announced or not."""
    finding = judge_schedule(schedule(), NOW)
    assert finding.state == "ok"
    assert "Thursdays 03:00 to 05:00 Eastern" in finding.found


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"schedule": []},
        {"schedule": {"maintenance_windows": ["soon"]}},
        {"schedule": {"maintenance_windows": [{"start_datetime": "soon", "end_datetime": "later"}]}},
        {"schedule": {"maintenance_windows": [{"start_datetime": 5, "end_datetime": None}]}},
    ],
)  # fmt: skip
def test_a_schedule_nobody_can_read_is_a_warning(body: dict[str, Any]) -> None:
    """Capturing does not hang on it."""
    assert judge_schedule(body, NOW).state == "warn"


@pytest.mark.parametrize(
    ("exchange", "trading", "body", "state", "found"),
    [
        (True, True, {}, "ok", "trading active"),
        (False, False, {"exchange_estimated_resume_time": "2026-11-26T10:00:00Z"}, "warn", "paused, resumes about 2026-11-26T10:00:00Z"),
        (True, False, {"exchange_estimated_resume_time": None}, "warn", "trading is paused"),
        (True, True, {"exchange_index_statuses": [{"description": "crypto", "trading_active": False}]}, "warn", "paused on crypto"),
        (None, None, {}, "warn", "does not say"),
    ],
)  # fmt: skip
def test_a_pause_is_named(
    exchange: bool | None, trading: bool | None, body: dict[str, Any], state: str, found: str
) -> None:
    """The whole exchange, its trading, or one of its shards."""
    finding = judge_status(ExchangeStatus(exchange, trading, body))
    assert finding.state == state
    assert found in finding.found


def test_latency_is_the_middle_and_slow_is_a_warning() -> None:
    """One slow answer among quick ones is not slow."""
    assert "answers in 20 ms (10 to 3000, 3 requests)" in judge_reach("u", [3000, 10, 20]).found
    assert judge_reach("u", [3000, 10, 20]).state == "ok"
    assert judge_reach("u", [3000, 10, 2000]).state == "warn"


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (RateLimited("HTTP 429", None), "read budget"),
        (ApiUnavailable(503, "", "", ""), "try again later"),
        (ApiError(404, "", "", ""), "another product's"),
        (Undecodable("REST answer: x"), "not documented"),
    ],
)
def test_what_the_exchange_answers_instead_has_its_advice(
    error: ExchangeError, advice: str
) -> None:
    """Budget, maintenance, another API and drift are told apart."""
    assert advice in advice_for(error)
