"""What an HTTP answer of the exchange means: four shapes of error body, HTML and nothing at all, to our errors.

Shapes: {"error": {code, message, details}}, {code, message, details}, {"msg": text}, {"error": text}.
"""

from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from libs.exchange.errors import ApiError, ApiUnavailable, AuthRejected, ClockSkewed, RateLimited

TEXT_CHARS_MAX = 300
SKEW_CODE = "header_timestamp_expired"


class ErrorBody(NamedTuple):
    """An error body of any shape; absent parts are empty."""

    code: str
    message: str
    details: str


def parse_error_body(body: bytes) -> ErrorBody:
    """Read an error body; of what is not JSON the beginning is the message."""
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ErrorBody("", _text(body.decode(errors="replace")), "")
    if isinstance(value, dict) and isinstance(value.get("error"), dict):
        value = value["error"]
    if not isinstance(value, dict):
        return ErrorBody("", _text(value), "")
    message = value.get("message") or value.get("msg") or value.get("error") or ""
    return ErrorBody(_text(value.get("code", "")), _text(message), _text(value.get("details", "")))


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Return the seconds of a Retry-After header; None without one or when it is a date."""
    text = headers.get("Retry-After", "").strip()
    return float(text) if text.isascii() and text.isdigit() and len(text) < 7 else None


def raise_for_answer(status: int, body: bytes, headers: Mapping[str, str]) -> None:
    """Raise what a refusal means; return when the status is none (below 400).

    Raises:
        ClockSkewed: 401 for our timestamp; sign again, later report the clock.
        AuthRejected: 401 or 403: the key is refused.
        RateLimited: 429.
        ApiUnavailable: 5xx.
        ApiError: every other status from 400.
    """
    if status < 400:
        return
    code, message, details = error = parse_error_body(body)
    said = " ".join(part for part in error if part) or "no explanation"
    if status == 401 and SKEW_CODE in said:
        raise ClockSkewed(
            f"the exchange refused our timestamp ({said}); its time is {headers.get('Date', 'unknown')}:"
            " check this machine's clock"
        )
    if status in (401, 403):
        raise AuthRejected(
            f"the exchange refused the key (HTTP {status} {said}); check exchange.api_key_id,"
            " exchange.private_key_file and that both belong to exchange.environment"
        )
    if status == 429:
        raise RateLimited(f"HTTP 429 {said}", retry_after_s(headers))
    kind = ApiUnavailable if status >= 500 else ApiError
    raise kind(status, code, message, details)


def _text(value: object) -> str:
    return " ".join(str(value).split())[:TEXT_CHARS_MAX] if value is not None else ""
