import pytest

from libs.exchange.errors import (
    ApiError,
    ApiUnavailable,
    AuthRejected,
    ClockSkewed,
    ConnectionEnded,
    ExchangeError,
    RateLimited,
    SubscriptionRejected,
)
from libs.exchange.rest_errors import ErrorBody, parse_error_body, raise_for_answer, retry_after_s


@pytest.mark.parametrize(
    ("body", "parts"),
    [
        (b'{"error":{"code":"c","message":"m","details":"d","service":"s"}}', ("c", "m", "d")),
        (b'{"code":"c","message":"m","details":"d"}', ("c", "m", "d")),
        (b'{"msg":"Parameter validation failed"}', ("", "Parameter validation failed", "")),
        (b'{"error":"too many requests"}', ("", "too many requests", "")),
        (b'{"error":{"code":5,"message":null}}', ("5", "", "")),
        (
            b"<html>\n<h1>502  Bad Gateway</h1></html>",
            ("", "<html> <h1>502 Bad Gateway</h1></html>", ""),
        ),
        (b"", ("", "", "")),
        (b"null", ("", "", "")),
        (b"[1]", ("", "[1]", "")),
        (b"\xff", ("", "\ufffd", "")),
        (b"[" * 100_000, ("", "[" * 300, "")),
    ],
)
def test_every_shape_of_body(body: bytes, parts: tuple[str, str, str]) -> None:
    """The four shapes, HTML, nothing and nonsense all give code, message and details."""
    assert parse_error_body(body) == ErrorBody(*parts)


@pytest.mark.parametrize(
    ("status", "body", "kind", "retryable"),
    [
        (401, b'{"error":{"code":"header_timestamp_expired"}}', ClockSkewed, True),
        (
            401,
            b'{"error":{"code":"authentication_error","details":"NOT_FOUND"}}',
            AuthRejected,
            False,
        ),
        (403, b"", AuthRejected, False),
        (404, b'{"error":{"code":"not_found"}}', ApiError, False),
        (429, b'{"error":"too many requests"}', RateLimited, True),
        (502, b"<html>", ApiUnavailable, True),
    ],
)
def test_status_decides_the_class(
    status: int, body: bytes, kind: type[ExchangeError], retryable: bool
) -> None:
    """Each refusal has its class, and the class knows whether to try again."""
    with pytest.raises(ExchangeError) as caught:
        raise_for_answer(status, body, {})
    assert type(caught.value) is kind
    assert caught.value.retryable is retryable
    assert "\n" not in str(caught.value)


def test_the_parts_of_an_error_are_kept() -> None:
    """Status, code, message and details can be asked for, and a good status raises nothing."""
    raise_for_answer(200, b"", {})
    with pytest.raises(ApiError) as caught:
        raise_for_answer(400, b'{"code":"bad","message":"m","details":"d"}', {})
    error = caught.value
    assert (error.status, error.code, error.message, error.details) == (400, "bad", "m", "d")
    assert str(error) == "HTTP 400 bad m d"


@pytest.mark.parametrize(
    ("text", "seconds"), [("3", 3.0), ("", None), ("Wed, 21 Oct", None), ("99999999", None)]
)
def test_retry_after(text: str, seconds: float | None) -> None:
    """Seconds are read; a date or nonsense is none."""
    assert retry_after_s({"Retry-After": text}) == seconds


def test_other_errors_show_what_they_hold() -> None:
    """Close codes and rejected subscriptions are in the text."""
    assert str(ConnectionEnded(1001, "going away")) == "1001 going away"
    assert str(ConnectionEnded(None, "lost")) == "websocket closed: lost"
    assert SubscriptionRejected(14, "Market Ticker required").code == 14
