"""REST faults: whom they hit, for how long, with which bodies."""

import json
from typing import Any

import pytest

from services.simulator.answers import Answer
from services.simulator.rest_trouble import RestTrouble

T0 = 1_795_000_000_000_000


def hits(trouble: RestTrouble, count: int, path: str = "/markets", key: str = "k") -> list[Answer]:
    found = (trouble.answer(path, key, T0) for _ in range(count))
    return [answer for answer in found if answer is not None]


def test_nothing_is_hit_before_and_after_and_past_its_end() -> None:
    """A trouble is on from begin to end, or until its time comes."""
    trouble = RestTrouble()
    assert trouble.answer("/markets", "k", T0) is None
    first = trouble.begin("rest", {"status": 500})
    assert trouble.answer("/markets", "k", T0) is not None
    trouble.end(first)
    trouble.end(first)
    assert trouble.answer("/markets", "k", T0) is None
    trouble.begin("rest", {"status": 500}, until=T0 + 10)
    assert trouble.answer("/markets", "k", T0 + 9) is not None
    assert trouble.answer("/markets", "k", T0 + 10) is None


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("nested", {"error": {"code": "service_unavailable", "message": "service unavailable"}}),
        ("flat", {"code": "service_unavailable", "message": "service unavailable",
                  "details": "service unavailable"}),
        ("msg", {"msg": "service unavailable"}),
        ("plain", {"error": "service unavailable"}),
    ],
)  # fmt: skip
def test_the_four_shapes_of_errors(body: str, expected: Any) -> None:
    """kalshi-api 1.4: nested, flat, a message alone, a plain string."""
    trouble = RestTrouble()
    trouble.begin("rest", {"status": 503, "body": body})
    (answer,) = hits(trouble, 1)
    assert (answer.status, answer.content_type) == (503, "application/json")
    assert json.loads(answer.body) == expected


@pytest.mark.parametrize("status", [502, 503, 504])
def test_proxies_answer_html_and_nothing(status: int) -> None:
    """kalshi-api 1.4: an HTML or empty 502/503 body must be survived; without a shape all come in turn."""
    trouble = RestTrouble()
    trouble.begin("rest", {"status": status})
    html, empty, body = hits(trouble, 3)
    assert html.content_type == "text/html"
    assert html.body.startswith(b"<html>")
    assert empty.body == b""
    assert b'"error"' in body.body
    assert {html.status, empty.status, body.status} == {status}


def test_a_burst_of_429_has_both_bodies() -> None:
    """kalshi-api 1.3: the documented and the observed body; no Retry-After."""
    trouble = RestTrouble()
    trouble.begin("rest", {"status": 429})
    answers = hits(trouble, 4)
    assert [json.loads(answer.body) for answer in answers[:2]] == [
        {"error": "too many requests"},
        {"error": {"code": "too_many_requests", "message": "too many requests"}},
    ]
    assert answers[2:] == answers[:2]
    assert all(answer.headers == () for answer in answers)


@pytest.mark.parametrize("status", [500, 503, 504])
def test_a_failing_status_endpoint_says_the_status(status: int) -> None:
    """kalshi-api 1.4: /exchange/status documents 500, 503 and 504 with an ExchangeStatus body; 502 is the proxy's."""
    trouble = RestTrouble()
    trouble.begin("rest", {"status": status})
    answer = trouble.answer("/exchange/status", "", T0)
    assert answer is not None
    assert json.loads(answer.body) == {"exchange_active": False, "trading_active": False}
    other = RestTrouble()
    other.begin("rest", {"status": 502})
    proxy = other.answer("/exchange/status", "", T0)
    assert proxy is not None
    assert proxy.content_type == "text/html"


def test_only_the_named_are_hit() -> None:
    """By key, by zone, by the beginning of the path; everyone else gets the exchange's own answer."""
    trouble = RestTrouble(zones={"k1": "a", "k2": "b"})
    trouble.begin("rest", {"status": 500, "zone": "a", "path": "/markets/orderbooks"})
    assert hits(trouble, 1, "/markets/orderbooks", "k1")
    assert not hits(trouble, 1, "/markets", "k1")
    assert not hits(trouble, 1, "/markets/orderbooks", "k2")
    assert not hits(trouble, 1, "/markets/orderbooks", "")
    by_key = RestTrouble()
    by_key.begin("rest", {"key": "k2"})
    assert not hits(by_key, 1, key="k1")
    assert hits(by_key, 1, key="k2")


def test_a_share_is_drawn_from_the_seed() -> None:
    """About the share is hit; the same seed hits the same requests, another seed others."""

    def drawn(seed: int) -> list[bool]:
        trouble = RestTrouble(seed)
        trouble.begin("rest", {"share": 0.25})
        return [trouble.answer("/markets", "k", T0) is not None for _ in range(2_000)]

    assert drawn(7) == drawn(7)
    assert drawn(7) != drawn(8)
    assert 430 < sum(drawn(7)) < 570


def test_an_expired_key_is_refused_wherever_it_signs() -> None:
    """Unsigned reads go on; the signed ones get 401 as for an unknown key."""
    trouble = RestTrouble()
    trouble.begin("auth_expiry", {"key": "k"})
    assert trouble.answer("/markets", "", T0) is None
    (answer,) = hits(trouble, 1)
    assert answer.status == 401
    assert json.loads(answer.body) == {
        "error": {
            "code": "authentication_error",
            "message": "authentication_error",
            "details": "NOT_FOUND",
        }
    }


def test_hits_are_told() -> None:
    """Every request that is hit is told of with its key, path and status; the others are not."""
    told: list[tuple[int, dict[str, object]]] = []
    trouble = RestTrouble()
    trouble.begin(
        "rest", {"status": 502, "path": "/series"}, hit=lambda at, facts: told.append((at, facts))
    )
    trouble.answer("/markets", "k", T0)
    trouble.answer("/series", "k", T0 + 5)
    assert told == [(T0 + 5, {"key_id": "k", "path": "/series", "status": 502})]


@pytest.mark.parametrize(
    ("kind", "params", "word"),
    [
        ("rest", {"status": 200}, "status"),
        ("rest", {"status": "500"}, "status"),
        ("rest", {"body": "xml"}, "body"),
        ("rest", {"share": 2}, "share"),
        ("rest", {"shape": "html"}, "shape"),
        ("flood", {}, "flood"),
    ],
)
def test_errors_name_the_field(kind: str, params: dict[str, object], word: str) -> None:
    """A trouble that cannot be is refused when it begins, with the field in the message."""
    with pytest.raises(ValueError, match=word):
        RestTrouble().begin(kind, params)
