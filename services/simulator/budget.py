"""What reads cost and who may make how many: one token bucket per API key, one per address for unsigned reads.

Buckets refill continuously; there is no penalty: whoever is refused may come again as soon as the tokens are there
(kalshi-api 1.3).
"""

from dataclasses import dataclass
from typing import Final

from libs.marketdata.units import SECOND
from services.simulator.settings import Tier

READ_COST: Final = 10
"""Tokens of a read that is no exception."""
BUCKETS_MAX: Final = 10_000
"""Buckets that are remembered; full ones are forgotten first, they say nothing."""
COSTS: Final = tuple(
    {"cost": cost, "method": method, "path": f"/trade-api/v2{path}"}
    for cost, method, path in (
        (30, "POST", "/account/api_usage_level/upgrade"),
        (150, "GET", "/cfbenchmarks"),
        (150, "GET", "/cfbenchmarks/*endpoint"),
        (2, "POST", "/communications/quotes"),
        (2, "DELETE", "/communications/quotes/:quote_id"),
        (5, "GET", "/margin/balance"),
        (2, "PUT", "/multivariate_event_collections/:collection_ticker/lookup"),
        (2, "DELETE", "/portfolio/events/orders/:order_id"),
        (2, "DELETE", "/portfolio/events/orders/batched"),
        (20, "POST", "/portfolio/orders"),
        (4, "DELETE", "/portfolio/orders/:order_id"),
        (2, "GET", "/portfolio/orders/:order_id"),
        (20, "POST", "/portfolio/orders/:order_id/amend"),
        (20, "POST", "/portfolio/orders/:order_id/decrease"),
        (4, "DELETE", "/portfolio/orders/batched"),
        (20, "POST", "/portfolio/orders/batched"),
    )
)
"""What costs another number of tokens, as the exchange said in June 2026; nothing of it is served here."""
BOOKS_PATH: Final = "/trade-api/v2/markets/orderbooks"


@dataclass(frozen=True, slots=True)
class Limit:
    """A bucket: tokens per second, and how many it holds."""

    refill_rate: int
    bucket_capacity: int

    def body(self) -> dict[str, int]:
        """Return it as /account/limits says it."""
        return {"refill_rate": self.refill_rate, "bucket_capacity": self.bucket_capacity}


def _limits(read: int, write: int, seconds: int = 1) -> tuple[Limit, Limit]:
    return Limit(read, read * seconds), Limit(write, write)


TIERS: Final[dict[str, tuple[Limit, Limit]]] = {
    "basic": _limits(200, 100, 2),
    "advanced": _limits(300, 300, 2),
    "expert": _limits(600, 600),
    "premier": _limits(1_000, 1_000),
    "paragon": _limits(2_000, 2_000),
    "prime": _limits(4_000, 4_000),
    "prestige": _limits(10_000, 8_000),
}
"""Read and write bucket of each tier; the read bucket holds two seconds in the two lowest."""
UNSIGNED: Final = Limit(230, 460)
"""Bucket of an address without a key. Never published; this one refuses 25 of 240 reads at 32.6 a second and none at
17.7, as it was measured."""


class _Bucket:
    __slots__ = ("at", "level", "limit")

    def __init__(self, limit: Limit, now: int) -> None:
        self.limit = limit
        self.at = now
        self.level = limit.bucket_capacity * SECOND
        """Millionths of a token, so that every microsecond counts and nothing is rounded."""

    def refill(self, now: int) -> None:
        full = self.limit.bucket_capacity * SECOND
        self.level = min(full, self.level + max(0, now - self.at) * self.limit.refill_rate)
        self.at = max(now, self.at)

    def take(self, cost: int, now: int) -> bool:
        self.refill(now)
        if self.level < cost * SECOND:
            return False
        self.level -= cost * SECOND
        return True


class Budgets:
    """Everybody's read buckets.

    Args:
        tier: of every account; "none" counts nothing. It may be set to another one at any time.
        books_cost: tokens of a batch of order books.
    """

    def __init__(self, tier: Tier, books_cost: int = READ_COST) -> None:
        self.tier: Tier = tier
        own = {"cost": books_cost, "method": "GET", "path": BOOKS_PATH}
        self._named = [*COSTS, own] if books_cost != READ_COST else list(COSTS)
        self._costs = {
            str(c["path"]): int(str(c["cost"])) for c in self._named if c["method"] == "GET"
        }
        self._buckets: dict[tuple[bool, str], _Bucket] = {}

    def allows(self, key_id: str, address: str, now: int, path: str = "") -> bool:
        """Pay for a read of an account, or of an address when there is no key; False: refused, nothing paid.

        path: from the root; what it costs is what costs() says.
        """
        if self.tier == "none":
            return True
        who = (bool(key_id), key_id or address)
        bucket = self._buckets.get(who)
        if bucket is None:
            self._forget_full(now)
            bucket = self._buckets[who] = _Bucket(self._limit(key_id), now)
        bucket.limit = self._limit(key_id)
        return bucket.take(self._costs.get(path, READ_COST), now)

    def _limit(self, key_id: str) -> Limit:
        return TIERS[self.tier][0] if key_id else UNSIGNED

    def costs(self) -> dict[str, object]:
        """Return the body of /account/endpoint_costs."""
        return {"default_cost": READ_COST, "endpoint_costs": self._named}

    def limits(self) -> dict[str, object]:
        """Return the body of /account/limits; where nothing is counted, the highest tier's."""
        tier = "prestige" if self.tier == "none" else self.tier
        read, write = TIERS[tier]
        return {"usage_tier": tier, "read": read.body(), "write": write.body(), "grants": []}

    def _forget_full(self, now: int) -> None:
        if len(self._buckets) < BUCKETS_MAX:
            return
        for bucket in self._buckets.values():
            bucket.refill(now)
        kept = {
            who: bucket
            for who, bucket in self._buckets.items()
            if bucket.level < bucket.limit.bucket_capacity * SECOND
        }
        # All of them in use: the longest known go.
        self._buckets = dict(list(kept.items())[-BUCKETS_MAX // 2 :])
