import json

import pytest

from libs.exchange.errors import ClockSkewed, ExchangeError
from libs.exchange.probe import KeyKind
from libs.exchange.rest_errors import raise_for_answer
from services.doctor.judge_key import judge_key_file, judge_refusal, judge_scopes

BODIES = {
    "NOT_FOUND": {"error": {"code": "authentication_error", "message": "authentication_error", "details": "NOT_FOUND"}},
    "flat NOT_FOUND": {"code": "authentication_error", "message": "x", "details": "NOT_FOUND"},
    "SIGNATURE": {"error": {"code": "authentication_error", "message": "authentication_error", "details": "INCORRECT_API_KEY_SIGNATURE"}},
    "MISSING": {"error": {"code": "signature_is_missing_from_headers", "message": "signature is missing from headers"}},
    "EXPIRED": {"error": {"code": "header_timestamp_expired", "message": "header timestamp expired"}},
    "plain": {"error": "unauthorized"},
    "msg": {"msg": "who are you"},
}  # fmt: skip


def refusal(status: int, body: bytes) -> ExchangeError:
    """The error our own border makes of an answer."""
    with pytest.raises(ExchangeError) as caught:
        raise_for_answer(status, body, {})
    return caught.value


@pytest.mark.parametrize(
    ("body", "found", "advice"),
    [
        ("NOT_FOUND", "does not know this key id", "another environment than demo"),
        ("flat NOT_FOUND", "does not know this key id", "--api-key-id"),
        ("SIGNATURE", "signature is not its key's", "belongs to another key id"),
        ("MISSING", "did not arrive", "proxy"),
        ("EXPIRED", "the time in the signature", "see the line `clock`"),
        ("plain", "unauthorized", "check key id"),
        ("msg", "who are you", "check key id"),
    ],
)
def test_every_401_says_what_to_do(body: str, found: str, advice: str) -> None:
    """Wrong id, wrong key, wrong clock and a proxy are told apart, in every shape of body."""
    error = refusal(401, json.dumps(BODIES[body]).encode())
    finding = judge_refusal("key accepted", error, "demo")
    assert finding.state == "fail"
    assert found in finding.found
    assert advice in finding.advice


@pytest.mark.parametrize("body", [b"", b"<html>401</html>"])
def test_a_401_without_words_is_still_a_refusal(body: bytes) -> None:
    """HTML or nothing at all names key id, file and environment as what to check."""
    finding = judge_refusal("websocket", refusal(401, body), "prod")
    assert finding.check == "websocket"
    assert finding.state == "fail"
    assert finding.advice == "check key id, private key file and environment"


def test_a_403_is_about_scopes() -> None:
    """The key is known, what it may do is not enough."""
    finding = judge_refusal("key accepted", refusal(403, b'{"error":"forbidden"}'), "prod")
    assert "may not" in finding.found
    assert "scope `read`" in finding.advice


def test_a_skewed_clock_is_not_called_a_wrong_key() -> None:
    """The advice is about the clock alone."""
    finding = judge_refusal("key accepted", ClockSkewed("x"), "prod")
    assert "clock" in finding.advice
    assert "key id" not in finding.advice


@pytest.mark.parametrize(
    ("kind", "mode", "state", "found"),
    [
        (KeyKind("RSA", 2048), 0o100600, "ok", "RSA 2048 bits, k.pem, mode 0600"),
        (KeyKind("Ed25519", 0), 0o100400, "ok", "Ed25519, k.pem, mode 0400"),
        (KeyKind("RSA", 4096), 0o100440, "ok", "RSA 4096 bits"),
        (KeyKind("RSA", 2048), 0o100644, "warn", "everybody on this machine can read it"),
        (KeyKind("RSA", 2048), 0o100660, "warn", "others can replace it"),
        (KeyKind("RSA", 1024), 0o100600, "warn", "a short key"),
    ],
)
def test_a_key_file_is_judged_by_kind_and_permissions(
    kind: KeyKind, mode: int, state: str, found: str
) -> None:
    """A mounted Secret (0440) is fine; what others may read or replace is not."""
    finding = judge_key_file("k.pem", kind, mode)
    assert finding.state == state
    assert found in finding.found
    assert bool(finding.advice) == (state == "warn")


@pytest.mark.parametrize(
    ("scopes", "state", "found"),
    [
        (["read"], "ok", "cannot trade"),
        (["read", "write"], "warn", "read, write: more than"),
        ([], "warn", "full access"),
        (None, "ok", "not shown"),
    ],
)
def test_a_key_that_may_trade_is_a_warning(
    scopes: list[str] | None, state: str, found: str
) -> None:
    """Capturing needs `read`; no scopes named means all of them."""
    finding = judge_scopes(scopes)
    assert finding.state == state
    assert found in finding.found
