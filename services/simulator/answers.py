"""What a REST request is answered with, without a web server in it, and the bodies the exchange's errors come in."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import cycle

from services.simulator.frames import encode

JSON = "application/json"
HTML_ERROR = (
    b"<html>\r\n<head><title>%d</title></head>\r\n<body>\r\n<center><h1>%d</h1></center>\r\n"
    b"<hr><center>CloudFront</center>\r\n</body>\r\n</html>\r\n"
)


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer as it goes out."""

    status: int
    body: bytes
    content_type: str = JSON
    headers: tuple[tuple[str, str], ...] = field(default=())


def found(body: object) -> Answer:
    """Answer 200 with a JSON body."""
    return Answer(200, encode(body))


def nested(status: int, code: str, message: str, details: str = "") -> Answer:
    """Answer with the first of the four error shapes (kalshi-api 1.4): everything inside `error`."""
    error = {"code": code, "message": message}
    return Answer(status, encode({"error": error | ({"details": details} if details else {})}))


def flat(status: int, code: str, message: str, details: str) -> Answer:
    """Answer with the second shape: code, message and details at the top."""
    return Answer(status, encode({"code": code, "message": message, "details": details}))


def validation(endpoint: str, fields: str, tag: str) -> Answer:
    """Answer 400 with the third shape: a validation message alone."""
    text = (
        f"Parameter validation failed for {endpoint}: Key: '{endpoint}Params.{fields}' "
        f"Error:Field validation for '{fields}' failed on the '{tag}' tag"
    )
    return Answer(400, encode({"msg": text}))


def plain(status: int, text: str) -> Answer:
    """Answer with the fourth shape: `error` is a string."""
    return Answer(status, encode({"error": text}))


def page(status: int) -> Answer:
    """Answer as a proxy in front of the exchange does: HTML."""
    return Answer(status, HTML_ERROR % (status, status), "text/html")


def nothing(status: int) -> Answer:
    """Answer without a body."""
    return Answer(status, b"", "text/plain")


NOT_FOUND = nested(404, "not_found", "not found")


def too_many() -> Iterator[Answer]:
    """Yield 429 answers in turn as documented and as observed (kalshi-api 1.3); neither has a Retry-After."""
    observed = nested(429, "too_many_requests", "too many requests")
    return cycle((plain(429, "too many requests"), observed))
