"""Where the exchange is: the addresses of an environment, and addresses of the configuration made whole or refused."""

import re
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit, urlunsplit

from libs.exchange.errors import EndpointInvalid

REST_PATH = "/trade-api/v2"
WS_PATH = "/trade-api/ws/v2"
SIMULATOR = "simulator"
_USER = re.compile(r"//[^/@]*@")


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
        EndpointInvalid: unknown environment, or an address that cannot be right; names every fault and what to write.
    """
    known = ENVIRONMENTS.get(environment)
    if known is None and environment != SIMULATOR:
        fault = f"exchange.environment: {environment!r} is none of prod, demo, simulator"
        raise EndpointInvalid((f"{fault}; write prod for Kalshi itself",))
    faults: list[str] = []
    rest = _REST.complete(rest_url, known, faults)
    ws = _WS.complete(ws_url, known, faults)
    if faults:
        raise EndpointInvalid(tuple(faults))
    return Endpoints(environment, rest, ws)


def path_of(url: str) -> str:
    """Return the path of an address: what is signed."""
    return urlsplit(url).path


@dataclass(frozen=True, slots=True)
class _Kind:
    """One of the two addresses: its setting, schemes (the safe one first), path."""

    field: str
    schemes: tuple[str, str]
    path: str

    def of(self, known: Endpoints) -> str:
        return known.rest_url if self.schemes[0] == "https" else known.ws_url

    def complete(self, url: str, known: Endpoints | None, faults: list[str]) -> str:
        """Return the whole address, the environment's own when none is given; append what is wrong with it to faults.

        A bare host is one of TLS, but for the simulator, which speaks without.
        """
        if not url and known is not None:
            return self.of(known)
        if not url:
            example = f"{self.schemes[1]}://127.0.0.1:8765{self.path}"
            faults.append(f"{self.field}: the simulator's address must be given, as {example}")
            return ""
        url = url.strip()
        usual = self.schemes[0] if known is not None else self.schemes[1]
        parts = _split(url if "://" in url else f"{usual}://{url}")
        fault = self._fault(parts, known)
        if fault:
            faults.append(f"{self.field}: {_USER.sub('//***@', url)!r} {fault}")
        return urlunsplit((parts.scheme, parts.netloc, self.path, "", ""))

    def _fault(self, parts: SplitResult, known: Endpoints | None) -> str:
        """Say what is wrong with an address and what to write; "" when it can be right."""
        allowed = self.schemes if known is None else self.schemes[:1]
        host = _host_of(parts)
        if not host:
            return f"has no valid host and port; write {allowed[-1]}://HOST:PORT{self.path}"
        wanted = f"{allowed[-1]}://{host}{self.path}"
        other, path = _WS if self is _REST else _REST, parts.path.rstrip("/")
        for endpoints in ENVIRONMENTS.values():
            if host == urlsplit(other.of(endpoints)).netloc:
                return f"is the address of {other.field}; write {self.of(endpoints)}, or leave it empty"
        is_others = parts.scheme in other.schemes and parts.scheme not in self.schemes
        if is_others or path == other.path:
            return f"is an address for {other.field}; write {wanted}"
        if parts.scheme not in allowed:
            return (
                f"must begin with {' or '.join(f'{name}://' for name in allowed)}; write {wanted}"
            )
        if parts.query or parts.fragment or parts.username or parts.password:
            return f"must be scheme, host and path only; write {wanted}"
        if path not in ("", self.path):
            return f"has another path than {self.path}; write {wanted}"
        return self._foreign(host, known)

    def _foreign(self, host: str, known: Endpoints | None) -> str:
        """Say that a host belongs to another environment."""
        for name, endpoints in ENVIRONMENTS.items():
            if endpoints is not known and host == urlsplit(self.of(endpoints)).netloc:
                wanted = "leave it empty" if known is not None else "give the simulator's own"
                return f"is the address of {name}; write environment: {name}, or {wanted}"
        return ""


_REST = _Kind("exchange.rest_url", ("https", "http"), REST_PATH)
_WS = _Kind("exchange.ws_url", ("wss", "ws"), WS_PATH)


def _split(url: str) -> SplitResult:
    """Split an address; one whose brackets do not match has no host."""
    try:
        return urlsplit(url)
    except ValueError:
        return urlsplit(f"{url.partition('://')[0]}://")


def _host_of(parts: SplitResult) -> str:
    """Return host and port of an address without user and password; "" when there are none, or none that can be."""
    try:
        port_is_valid = parts.port is None or parts.port > 0
    except ValueError:
        port_is_valid = False
    if not parts.hostname or not port_is_valid or any(c.isspace() for c in parts.netloc):
        return ""
    return parts.netloc.rpartition("@")[2]
