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


@pytest.mark.parametrize("slashes", ["", "/", "//"])
@pytest.mark.parametrize("scheme", ["", "https://", "HTTPS://"])
def test_a_rest_address_is_completed_the_same_way(scheme: str, slashes: str) -> None:
    """With or without scheme, path and slashes at its end."""
    for path in ("", "/trade-api/v2"):
        url = f" {scheme}api.elections.kalshi.com{path}{slashes} "
        assert resolve_endpoints("prod", url).rest_url == (
            "https://api.elections.kalshi.com/trade-api/v2"
        )


def test_a_bare_address_of_the_simulator_is_without_tls() -> None:
    """It has no certificate; one behind TLS says so."""
    endpoints = resolve_endpoints("simulator", "127.0.0.1:81", "127.0.0.1:81")
    assert endpoints.rest_url == "http://127.0.0.1:81/trade-api/v2"
    assert endpoints.ws_url == "ws://127.0.0.1:81/trade-api/ws/v2"
    behind = resolve_endpoints("simulator", "https://sim.example", "wss://sim.example")
    assert behind.ws_url == "wss://sim.example/trade-api/ws/v2"


PROD_WS = "wss://external-api-ws.kalshi.com/trade-api/ws/v2"


@pytest.mark.parametrize(
    ("environment", "rest", "ws", "words"),
    [
        ("staging", "", "", ["'staging' is none of prod, demo, simulator; write prod"]),
        ("production", "", "", ["write prod for Kalshi itself"]),
        ("simulator", "", "", ["rest_url: the simulator's", "ws_url: the simulator's"]),
        ("prod", "http://host", "ws://host", ["https://host/trade-api/v2", "wss://host/trade-api"]),
        ("prod", "ftp://host", "", ["must begin with https://; write https://host/trade-api/v2"]),
        ("prod", "", "wss://host/trade-api/ws/v2/margin", ["write wss://host/trade-api/ws/v2"]),
        ("prod", "", "wss://host/trade-api/ws", ["another path than /trade-api/ws/v2; write wss"]),
        ("simulator", "http://host:99999", "ws://", ["no valid host and port"] * 2),
        ("simulator", "http://[::1", "ws://h]:1", ["no valid host and port; write http://HOST", "write ws://HOST"]),
        ("prod", "https://user:pw@host", "wss://host?x=1", ["write https://host/", "host and path only"]),
        ("prod", "", "https://host/trade-api/v2", ["for exchange.rest_url; write wss://host/"]),
        ("prod", "", "host/trade-api/v2", ["for exchange.rest_url; write wss://host/trade-api/ws/v2"]),
        ("prod", "wss://host", "", ["for exchange.ws_url; write https://host/trade-api/v2"]),
        ("prod", "", "https://external-api.kalshi.com/trade-api/v2", [f"write {PROD_WS}"]),
        ("prod", "", "external-api.kalshi.com", [f"write {PROD_WS}"]),
        ("prod", "external-api-ws.kalshi.com", "", ["https://external-api.kalshi.com/trade-api/v2"]),
        ("demo", "", PROD_WS, ["is the address of prod; write environment: prod"]),
        ("simulator", "https://external-api.demo.kalshi.co", "ws://h", ["write environment: demo"]),
    ],
)  # fmt: skip
def test_what_cannot_be_right_is_refused_all_at_once(
    environment: str, rest: str, ws: str, words: list[str]
) -> None:
    """Every faulty address is named in one error, with what to write instead, and without a password."""
    with pytest.raises(EndpointInvalid) as caught:
        resolve_endpoints(environment, rest, ws)
    assert len(caught.value.faults) == len(words)
    for fault, word in zip(caught.value.faults, words, strict=True):
        assert word in fault
        assert "\n" not in fault
        assert "pw" not in fault


@pytest.mark.parametrize("environment", ["prod", "demo"])
def test_what_is_advised_is_accepted(environment: str) -> None:
    """Who writes what the message says gets no other message."""
    for rest, ws in (("http://host/x", ""), ("", "http://host/x"), ("", "ws://a@host:1/?q")):
        with pytest.raises(EndpointInvalid) as caught:
            resolve_endpoints(environment, rest, ws)
        (fault,) = caught.value.faults
        advice = fault.rpartition("; write ")[2]
        resolved = resolve_endpoints(environment, rest and advice, ws and advice)
        assert advice in (resolved.rest_url, resolved.ws_url)
