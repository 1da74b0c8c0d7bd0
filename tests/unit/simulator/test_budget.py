"""Token buckets: what every tier may read, and what nobody told of unsigned reads."""

import pytest

from services.simulator.answers import too_many
from services.simulator.budget import BOOKS_PATH, BUCKETS_MAX, TIERS, UNSIGNED, Budgets
from services.simulator.settings import Tier

T0 = 1_795_000_000_000_000
SECOND = 1_000_000


def refused(budgets: Budgets, key: str, reads: int, rate: float, start: int = T0) -> int:
    """Read at a steady rate and count what is refused."""
    step = SECOND / rate
    return sum(
        not budgets.allows(key, "10.0.0.1", start + int(number * step)) for number in range(reads)
    )


@pytest.mark.parametrize(
    ("tier", "reads_per_s", "at_once"),
    [
        ("basic", 20, 40), ("advanced", 30, 60), ("expert", 60, 60), ("premier", 100, 100),
        ("paragon", 200, 200), ("prime", 400, 400), ("prestige", 1_000, 1_000),
    ],
)  # fmt: skip
def test_a_tier_reads_at_its_rate(tier: Tier, reads_per_s: int, at_once: int) -> None:
    """kalshi-api 1.3: cost 10 a read; the bucket holds 2 s in the two lowest tiers, 1 s above."""
    budgets = Budgets(tier)
    assert refused(budgets, "k", at_once, 1e9) == 0
    assert not budgets.allows("k", "", T0 + 1)
    again = T0 + 10 * SECOND
    assert refused(budgets, "k", 3 * reads_per_s, reads_per_s, again) == 0
    assert refused(budgets, "k", at_once + 1, 1e9, again + 20 * SECOND) == 1


def test_it_refills_continuously_and_without_penalty() -> None:
    """kalshi-api 1.3: a refused read costs nothing, the next is allowed the moment its tokens are there."""
    budgets = Budgets("basic")
    assert refused(budgets, "k", 40, 1e9) == 0
    now = T0 + 40
    assert all(not budgets.allows("k", "", now + micros) for micros in range(0, 49_000, 100))
    assert budgets.allows("k", "", T0 + 50_000)
    assert not budgets.allows("k", "", T0 + 50_000)


def test_accounts_and_addresses_have_buckets_of_their_own() -> None:
    """An empty bucket of one key leaves other keys alone, and reads without a key."""
    budgets = Budgets("basic")
    refused(budgets, "k1", 50, 1e9)
    assert not budgets.allows("k1", "10.0.0.1", T0)
    assert budgets.allows("k2", "10.0.0.1", T0)
    assert refused(budgets, "", 46, 1e9) == 0
    assert not budgets.allows("", "10.0.0.1", T0)
    assert budgets.allows("", "10.0.0.2", T0)


def test_unsigned_reads_are_limited_as_measured() -> None:
    """kalshi-api 1.3: of 240 reads at 32.6 a second 25 were refused, at 17.7 a second none."""
    assert refused(Budgets("basic"), "", 240, 32.6) in (24, 25, 26)
    assert refused(Budgets("basic"), "", 240, 17.7) == 0
    assert UNSIGNED.refill_rate < TIERS["advanced"][0].refill_rate


def test_no_tier_counts_nothing() -> None:
    """With tier `none` nobody is ever refused; the limits that are said are the highest."""
    budgets = Budgets("none")
    assert refused(budgets, "k", 5_000, 1e9) == 0
    assert refused(budgets, "", 5_000, 1e9) == 0
    assert budgets.limits()["usage_tier"] == "prestige"


def test_limits_say_what_is_enforced() -> None:
    """kalshi-api 1.3: /account/limits has the tier's own numbers."""
    assert Budgets("basic").limits() == {
        "usage_tier": "basic",
        "read": {"refill_rate": 200, "bucket_capacity": 400},
        "write": {"refill_rate": 100, "bucket_capacity": 100},
        "grants": [],
    }
    assert Budgets("prestige").limits()["read"] == {
        "refill_rate": 10_000,
        "bucket_capacity": 10_000,
    }


def test_a_clock_that_goes_back_gives_nothing() -> None:
    """Time that repeats itself refills no bucket twice."""
    budgets = Budgets("basic")
    refused(budgets, "k", 40, 1e9)
    assert not budgets.allows("k", "", T0 - 10 * SECOND)
    assert not budgets.allows("k", "", T0 + 40)


def test_full_buckets_are_forgotten() -> None:
    """Many addresses do not fill the memory: those that came back to full are forgotten, a busy one is not."""
    budgets = Budgets("basic")
    for number in range(BUCKETS_MAX - 1):
        budgets.allows("", f"address-{number}", T0)
    later = T0 + 60 * SECOND
    assert refused(budgets, "busy", 40, 1e9, later) == 0
    budgets.allows("", "one more", later)
    assert len(budgets._buckets) == 2
    assert not budgets.allows("busy", "", later + 1)


def test_refusals_alternate_between_both_bodies() -> None:
    """kalshi-api 1.3: as documented, as observed, as documented; no header tells when to come back."""
    answers = too_many()
    first, second, third = (next(answers) for _ in range(3))
    assert first.body == b'{"error":"too many requests"}'
    assert second.body == (b'{"error":{"code":"too_many_requests","message":"too many requests"}}')
    assert third == first
    assert (first.status, first.headers, second.headers) == (429, (), ())


def test_a_batch_of_books_costs_what_is_said() -> None:
    """kalshi-api 1.3: /account/endpoint_costs names it, and the bucket is charged with it."""
    budgets = Budgets("basic", 50)
    named = {cost["path"]: cost["cost"] for cost in budgets.costs()["endpoint_costs"]}  # type: ignore[attr-defined]
    assert named[BOOKS_PATH] == 50
    assert [budgets.allows("k", "", T0, BOOKS_PATH) for _ in range(9)] == [True] * 8 + [False]
    budgets.tier = "premier"
    assert budgets.allows("k", "", T0 + SECOND // 20, BOOKS_PATH)
