import errno
import json
import ssl
from pathlib import Path
from unittest.mock import Mock

import aiohttp
import pytest
from aiohttp.client_reqrep import ConnectionKey
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from libs.exchange.errors import ConnectionEnded, TransportError
from libs.exchange.keyfiles import make_key_pair
from libs.exchange.probe import Cause, KeyKind, cause_of, kind_of, subscribe_as_is
from libs.exchange.signing import Signer, load_signer
from services.doctor.judge_exchange import ADVICE

TO = ConnectionKey("h", 443, True, True, None, None, None)


def test_kinds_of_keys_are_told_apart(tmp_path: Path) -> None:
    """RSA with its bits, Ed25519 without."""
    private, _ = make_key_pair(tmp_path)
    assert kind_of(load_signer("id", str(private))) == KeyKind("RSA", 2048)
    pem = ed25519.Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    assert kind_of(Signer("id", pem)) == KeyKind("Ed25519", 0)


@pytest.mark.parametrize(
    ("cause", "named"),
    [
        (aiohttp.ClientConnectorDNSError(TO, OSError("Name or service not known")), "name"),
        (aiohttp.ClientConnectorError(TO, ConnectionRefusedError(errno.ECONNREFUSED, "no")), "refused"),
        (aiohttp.ClientConnectorError(TO, OSError(errno.EHOSTUNREACH, "no route")), "other"),
        (aiohttp.ClientConnectorSSLError(TO, ssl.SSLError(1, "WRONG_VERSION_NUMBER")), "tls"),
        (aiohttp.ClientConnectorCertificateError(TO, Mock(spec=ssl.CertificateError)), "tls"),
        (TimeoutError(), "timeout"),
        (None, "other"),
    ],
)  # fmt: skip
def test_why_nothing_was_reached_is_told(cause: BaseException | None, named: Cause) -> None:
    """Each cause has advice of its own."""
    error = TransportError("x")
    error.__cause__ = cause
    assert cause_of(error) == named
    assert ADVICE[named]


def test_a_closed_connection_has_no_network_cause() -> None:
    """It was there."""
    assert cause_of(ConnectionEnded(1001, "going away")) == "other"


def test_the_exchanges_default_is_asked_for_by_saying_nothing() -> None:
    """No use_yes_price, and nothing else that captures send."""
    assert json.loads(subscribe_as_is(3, "KXA-1")) == {
        "id": 3,
        "cmd": "subscribe",
        "params": {"channels": ["orderbook_delta"], "market_tickers": ["KXA-1"]},
    }
