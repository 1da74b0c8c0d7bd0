"""What a read costs, by the exchange's list."""

from libs.exchange.costs import Costs
from libs.exchange.rest_wire import EndpointCost, EndpointCosts

BASE = "/trade-api/v2"


def costs(*named: tuple[str, str, float], usual: float = 10.0) -> Costs:
    entries = [EndpointCost(method, BASE + path, cost) for method, path, cost in named]
    return Costs(EndpointCosts(usual, entries))


def test_a_read_costs_one_until_the_exchange_says_otherwise() -> None:
    """Also where it says nothing, or that reads are free by default."""
    for known in (Costs(), Costs(EndpointCosts()), costs(("POST", "/markets", 50.0))):
        assert (known.of(BASE + "/markets"), known.usual) == (1.0, 10.0)


def test_costs_are_told_in_reads_of_the_usual_cost() -> None:
    """Patterns fit one segment, or all that follow; the more literal one counts, whatever their order."""
    known = costs(
        ("GET", "/markets/:ticker", 30.0),
        ("GET", "/markets/orderbooks", 100.0),
        ("GET", "/markets/{ticker}/orderbook", 5.0),
        ("GET", "/deep/*rest", 40.0),
        usual=20.0,
    )
    paths = (
        "/markets",
        "/markets/A",
        "/markets/orderbooks",
        "/markets/A/orderbook",
        "/deep/a/b",
        "/deep",
    )
    assert [known.of(BASE + path) for path in paths] == [1.0, 1.5, 5.0, 0.25, 2.0, 1.0]


def test_paths_of_one_endpoint_are_looked_up_once() -> None:
    """A million tickers leave one entry."""
    known = costs(("GET", "/markets/:ticker", 30.0))
    for number in range(100):
        assert known.of(f"{BASE}/markets/T{number}", "/markets/{ticker}") == 3.0
    assert len(known._known) == 1
