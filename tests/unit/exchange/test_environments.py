import pytest

from libs.exchange.environments import path_of, resolve_endpoints
from libs.exchange.errors import EndpointInvalid


def test_known_environments() -> None:
    """Production and demo have their addresses with the paths that are signed."""
    prod = resolve_endpoints("prod")
    assert prod.rest_url == "https://external-api.kalshi.com/trade-api/v2"
    assert prod.ws_url == "wss://external-api-ws.kalshi.com/trade-api/ws/v2"
    assert path_of(prod.ws_url) == "/trade-api/ws/v2"
    assert "demo" in resolve_endpoints("demo").ws_url


@pytest.mark.parametrize(
    "url",
    [
        "wss://api.elections.kalshi.com",
        "wss://api.elections.kalshi.com/",
        "api.elections.kalshi.com",
        "wss://api.elections.kalshi.com/trade-api/ws/v2",
        "wss://api.elections.kalshi.com/trade-api/ws/v2/",
    ],
)
def test_a_bare_host_gets_the_path(url: str) -> None:
    """A host without path or scheme is completed, a whole address stays."""
    endpoints = resolve_endpoints("prod", ws_url=url)
    assert endpoints.ws_url == "wss://api.elections.kalshi.com/trade-api/ws/v2"
    assert endpoints.rest_url == "https://external-api.kalshi.com/trade-api/v2"


def test_the_simulator_has_the_given_addresses() -> None:
    """The simulator may speak without TLS and has no address of its own."""
    endpoints = resolve_endpoints("simulator", "http://127.0.0.1:81", "ws://127.0.0.1:82")
    assert endpoints.rest_url == "http://127.0.0.1:81/trade-api/v2"
    assert endpoints.ws_url == "ws://127.0.0.1:82/trade-api/ws/v2"


@pytest.mark.parametrize(
    ("environment", "rest", "ws", "words"),
    [
        ("staging", "", "", ["environment"]),
        ("simulator", "", "", ["rest_url", "ws_url"]),
        ("prod", "http://host", "ws://host", ["https://", "wss://"]),
        ("prod", "", "wss://host/trade-api/ws/v2/margin", ["path"]),
        ("simulator", "http://host:99999", "ws://", ["rest_url", "ws_url"]),
        ("prod", "https://user@host", "wss://host?x=1", ["rest_url", "ws_url"]),
    ],
)
def test_what_cannot_be_right_is_refused_all_at_once(
    environment: str, rest: str, ws: str, words: list[str]
) -> None:
    """Every faulty address is named in one error."""
    with pytest.raises(EndpointInvalid) as caught:
        resolve_endpoints(environment, rest, ws)
    assert len(caught.value.faults) == len(words)
    for fault, word in zip(caught.value.faults, words, strict=True):
        assert word in fault
