"""REST faults: answers that take the place of the exchange's own, for a share of the requests of a key or a zone.

Pure: time and requests come with the calls, chance from the seed, so that the same requests meet the same troubles.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import count, cycle
from typing import Final

from services.simulator import answers
from services.simulator.answers import Answer
from services.simulator.chance import Chance
from services.simulator.frames import encode

STATUS_PATH = "/exchange/status"
STATUS_DOCUMENTED = frozenset({500, 503, 504})
"""Failures of the status endpoint that carry a status all the same (kalshi-api 1.4)."""
CODES: Final = {
    400: "bad_request", 401: "authentication_error", 403: "forbidden", 404: "not_found",
    429: "too_many_requests", 500: "internal_server_error", 502: "bad_gateway",
    503: "service_unavailable", 504: "gateway_timeout",
}  # fmt: skip
BODIES = ("", "json", "nested", "flat", "msg", "plain", "html", "empty", "status")
"""Shapes a trouble may ask for. "": in turn whatever is known of its status; "json" is "nested"."""

Record = Callable[[dict[str, object]], None]
Hit = Callable[[int, dict[str, object]], None]
"""Told of a request that is hit: when, microseconds, and its key, path and status."""


@dataclass(frozen=True, slots=True)
class RestParams:
    """What a trouble does and to whom; an empty `zone`, `key` or `path` means all of them.

    Args:
        status: 400..599. body: one of BODIES. share: part of the requests that is hit, 0..1.
        path: beginning of the paths that are hit, without the base: "/markets/orderbooks".
    """

    status: int = 503
    body: str = ""
    share: float = 1.0
    zone: str = ""
    key: str = ""
    path: str = ""

    @classmethod
    def read(cls, params: Mapping[str, object]) -> "RestParams":
        """Read a fault's own fields; the message of an error names the field.

        Raises:
            ValueError: a field is unknown or has no possible value.
        """
        unknown = sorted(params.keys() - set(cls.__slots__))
        if unknown:
            raise ValueError(f"rest: unknown field {unknown[0]}")
        status, body, share = (
            params.get(k, d) for k, d in (("status", 503), ("body", ""), ("share", 1.0))
        )
        if not isinstance(status, int) or not 400 <= status <= 599:
            raise ValueError(f"rest: status must be 400 to 599, not {status!r}")
        if not isinstance(body, str) or body not in BODIES:
            raise ValueError(f"rest: body must be one of {', '.join(BODIES[1:])}, not {body!r}")
        if not isinstance(share, int | float) or not 0 <= share <= 1:
            raise ValueError(f"rest: share must be 0 to 1, not {share!r}")
        zone, key, path = (str(params.get(name, "")) for name in ("zone", "key", "path"))
        return cls(status, body, float(share), zone, key, path)


@dataclass(slots=True)
class _Active:
    params: RestParams
    until: int | None
    chance: Chance
    bodies: Iterator[Answer]
    hit: Hit | None


class RestTrouble:
    """The REST faults that are on.

    Args:
        seed: of the draws that choose which requests are hit. zones: the zone of each key id that has one.
        record: told of every read beyond its budget, as a line of the session journal.
    """

    def __init__(
        self, seed: int = 0, zones: Mapping[str, str] | None = None, record: Record | None = None
    ) -> None:
        self._seed = seed
        self._zones = dict(zones or {})
        self._record = record
        self._numbers = count(1)
        self._active: dict[int, _Active] = {}

    def begin(
        self,
        kind: str,
        params: Mapping[str, object],
        until: int | None = None,
        hit: Hit | None = None,
    ) -> int:
        """Let a trouble begin and return its number.

        Args:
            kind: "rest", with the fields of RestParams, or "auth_expiry" (of those `zone`, `key`, `share`, `path`):
                every signed request is refused as if its key did not exist.
            until: when it ends by itself, microseconds; None: by `end`. hit: told of every request that is hit.

        Raises:
            ValueError: an unknown kind or field, or an impossible value.
        """
        number = next(self._numbers)
        if kind == "auth_expiry":
            read = RestParams.read({**params, "status": 401})
        elif kind == "rest":
            read = RestParams.read(params)
        else:
            raise ValueError(f"no REST trouble: {kind}")
        chance = Chance(self._seed * 1_000_003 + number)
        self._active[number] = _Active(read, until, chance, _bodies(read), hit)
        return number

    def end(self, number: int) -> None:
        """End a trouble; one that is over already stays so."""
        self._active.pop(number, None)

    def throttled(self, key_id: str, now: int) -> None:
        """Note a read that its account had no budget for."""
        if self._record is not None:
            self._record({"kind": "throttled", "at": now, "key_id": key_id})

    def answer(self, path: str, key_id: str, now: int) -> Answer | None:
        """Return what a request gets instead of its own answer, if a trouble hits it.

        Args:
            path: without the base (`/markets`). key_id: "" for an unsigned request. now: microseconds.
        """
        for number in [n for n, active in self._active.items() if _is_over(active, now)]:
            self.end(number)
        for active in self._active.values():
            params = active.params
            if not self._concerns(params, path, key_id) or active.chance.draw() >= params.share:
                continue
            given = _documented_status(params, path) or next(active.bodies)
            if active.hit is not None:
                active.hit(now, {"key_id": key_id, "path": path, "status": given.status})
            return given
        return None

    def _concerns(self, params: RestParams, path: str, key_id: str) -> bool:
        if not path.startswith(params.path) or (params.status == 401 and not key_id):
            return False
        is_key = not params.key or params.key == key_id
        return is_key and (not params.zone or params.zone == self._zones.get(key_id, ""))


def _is_over(active: _Active, now: int) -> bool:
    return active.until is not None and now >= active.until


def _documented_status(params: RestParams, path: str) -> Answer | None:
    if params.body == "status" or (
        not params.body and path == STATUS_PATH and params.status in STATUS_DOCUMENTED
    ):
        body = {"exchange_active": False, "trading_active": False}
        return Answer(params.status, answers.found(body).body)
    return None


def _bodies(params: RestParams) -> Iterator[Answer]:
    """Return the answers of a trouble, in turn."""
    status = params.status
    code = CODES.get(status, "error")
    words = code.replace("_", " ")
    details = "NOT_FOUND" if status == 401 else ""
    shapes = {
        "nested": answers.nested(status, code, code if status == 401 else words, details),
        "flat": answers.flat(status, code, words, details or words),
        "msg": Answer(status, encode({"msg": words})),
        "plain": answers.plain(status, words),
        "html": answers.page(status),
        "empty": answers.nothing(status),
    }
    shapes["json"] = shapes["nested"]
    if params.body in shapes:
        return cycle((shapes[params.body],))
    if status == 429:
        return answers.too_many()
    if status in (502, 503, 504):
        return cycle((shapes["html"], shapes["empty"], shapes["nested"]))
    return cycle((shapes["nested"],))
