import pytest

from libs.exchange.rest_wire import AccountLimits, Budget
from libs.runtime.sections import SlotSettings
from services.doctor.judge_account import cost_of_books, judge_budget, judge_connections
from services.doctor.settings import Plan


def limits(rate: float = 200, capacity: float = 400, tier: str = "basic") -> AccountLimits:
    return AccountLimits(read=Budget(rate, capacity), usage_tier=tier)


def test_the_basic_tier_reads_a_round_of_100_000_markets_in_100_seconds() -> None:
    """1,000 reads of 100 books at half of 20 a second."""
    finding = judge_budget(limits(), 10.0, 20.0, Plan(), None)
    assert finding.state == "ok"
    assert finding.found == (
        "tier basic: 200 tokens/s = 20 reads/s (bucket 400, 2.0 s); registry 8.0/s, poller 10.0/s;"
        " books of about 100,000 open markets: 1,000 reads, 1 min 40 s a round"
    )


def test_counted_markets_are_used_as_counted() -> None:
    """250 open markets are three reads."""
    assert "books of 250 open markets: 3 reads" in judge_budget(limits(), 10.0, 20.0, Plan(), 250).found  # fmt: skip


def test_a_round_longer_than_its_period_is_a_warning() -> None:
    """If a batch is billed by the book, the poller cannot keep its period."""
    finding = judge_budget(limits(), 1000.0, 20.0, Plan(), None)
    assert finding.state == "warn"
    assert "poller.period_s (900 s)" in finding.advice


def test_settings_that_ask_for_more_than_the_account_has_are_named() -> None:
    """The services slow down by themselves; still somebody should know."""
    finding = judge_budget(limits(), 10.0, 60.0, Plan(), None)
    assert finding.state == "warn"
    assert "asks for 60" in finding.found
    assert "exchange.reads_per_s to 20" in finding.advice


def test_no_reads_at_all_is_a_fault() -> None:
    """A refill rate of zero would stop everything."""
    assert judge_budget(limits(0, 0), 10.0, 20.0, Plan(), None).state == "fail"


@pytest.mark.parametrize(
    ("costs", "cost"),
    [
        (None, 10.0),
        ({"default_cost": 10, "endpoint_costs": []}, 10.0),
        ({"default_cost": 20}, 20.0),
        ({"default_cost": 10, "endpoint_costs": [{"path": "/trade-api/v2/markets/orderbooks", "cost": 50}]}, 50.0),
        ({"default_cost": "many", "endpoint_costs": "none"}, 10.0),
    ],
)  # fmt: skip
def test_the_exchanges_own_list_of_costs_is_used(costs: dict[str, object] | None, cost: float) -> None:  # fmt: skip
    """Its price for many books, else its default, else the documented 10."""
    assert cost_of_books(costs) == cost


def test_the_default_zone_fits_the_account() -> None:
    """150 slots and one to move are 151 of 200; that nobody can count the open ones is said."""
    finding = judge_connections("main", SlotSettings())
    assert finding.state == "ok"
    assert "150 slots + 1 to move = 151 of 200 this zone may hold of account main" in finding.found
    assert "does not tell how many are open now; room for one zone" in finding.found


def test_small_zones_share_an_account() -> None:
    """What one account carries is said in zones."""
    slots = SlotSettings(orderbook=40, ticker=2, trade=2, lifecycle=2)
    assert "room for 4 such zones" in judge_connections("main", slots).found


def test_too_many_slots_fail() -> None:
    """A hand-over needs one more than the slots."""
    slots = SlotSettings(orderbook=196, ticker=2, trade=2, lifecycle=2)
    assert judge_connections("main", slots).state == "fail"
