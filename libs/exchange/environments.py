"""Where the exchange is: the addresses of an environment, and addresses of the configuration made whole or refused."""

from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit

from libs.exchange.errors import EndpointInvalid

REST_PATH = "/trade-api/v2"
WS_PATH = "/trade-api/ws/v2"
SIMULATOR = "simulator"


@dataclass(frozen=True, slots=True)
class Endpoints:
    """The two addresses of one environment, with their paths and without a trailing slash."""

    environment: str
    rest_url: str
    ws_url: str


ENVIRONMENTS = {
    "prod": Endpoints(
        "prod",
        f"https://external-api.kalshi.com{REST_PATH}",
        f"wss://external-api-ws.kalshi.com{WS_PATH}",
    ),
    "demo": Endpoints(
        "demo",
        f"https://external-api.demo.kalshi.co{REST_PATH}",
        f"wss://external-api-ws.demo.kalshi.co{WS_PATH}",
    ),
}
"""The hosts for programs, documented since 2026-05; a key of one environment is unknown in the other."""


def resolve_endpoints(environment: str, rest_url: str = "", ws_url: str = "") -> Endpoints:
    """Return the addresses of an environment; a given url replaces its own, and a bare host gets Kalshi's path.

    Raises:
        EndpointInvalid: unknown environment, or an address that cannot be right; names every fault.
    """
    known = ENVIRONMENTS.get(environment)
    if known is None and environment != SIMULATOR:
        raise EndpointInvalid(
            (f"exchange.environment: {environment!r} is none of prod, demo, simulator",)
        )
    faults: list[str] = []
    rest = _complete("exchange.rest_url", rest_url, ("https", "http"), REST_PATH, known, faults)
    ws = _complete("exchange.ws_url", ws_url, ("wss", "ws"), WS_PATH, known, faults)
    if faults:
        raise EndpointInvalid(tuple(faults))
    return Endpoints(
        environment,
        rest or (known.rest_url if known else ""),
        ws or (known.ws_url if known else ""),
    )


def path_of(url: str) -> str:
    """Return the path of an address: what is signed."""
    return urlsplit(url).path


def _complete(
    field: str,
    url: str,
    schemes: tuple[str, str],
    path: str,
    known: Endpoints | None,
    faults: list[str],
) -> str:
    """Return the url with its path, "" when none is given; append what is wrong with it to faults."""
    if not url:
        if known is None:
            faults.append(f"{field}: the simulator's address must be given")
        return ""
    parts = urlsplit(url if "://" in url else f"{schemes[0]}://{url}")
    try:
        port_is_valid = parts.port is None or parts.port > 0
    except ValueError:
        port_is_valid = False
    allowed = schemes if known is None else schemes[:1]
    if parts.scheme not in allowed:
        faults.append(f"{field}: {url!r} must begin with {' or '.join(allowed)}://")
    elif not parts.hostname or not port_is_valid:
        faults.append(f"{field}: {url!r} has no valid host and port")
    elif parts.query or parts.fragment or parts.username:
        faults.append(f"{field}: {url!r} must be scheme, host and path only")
    elif parts.path.rstrip("/") not in ("", path):
        faults.append(f"{field}: the path of {url!r} must be {path}")
    return urlunsplit((parts.scheme, parts.netloc, path, "", ""))
