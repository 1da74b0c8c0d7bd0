import json

import pytest

from libs.exchange import commands


def test_subscribe_names_the_orientation_of_order_books() -> None:
    """use_yes_price is sent by name for order books, and not to channels that do not know it."""
    books = json.loads(commands.subscribe(1, ["orderbook_delta"], ["A", "B"]))
    assert books == {
        "id": 1,
        "cmd": "subscribe",
        "params": {
            "channels": ["orderbook_delta"],
            "market_tickers": ["A", "B"],
            "use_yes_price": False,
            "skip_ticker_ack": True,
        },
    }
    trades = json.loads(commands.subscribe(2, ["trade"], skip_ticker_ack=False))
    assert trades["params"] == {"channels": ["trade"]}
    tickers = json.loads(commands.subscribe(3, ["ticker"], ["A"], send_initial_snapshot=True))
    assert tickers["params"]["send_initial_snapshot"] is True
    flipped = json.loads(commands.subscribe(4, ["orderbook_delta"], ["A"], use_yes_price=True))
    assert flipped["params"]["use_yes_price"] is True


@pytest.mark.parametrize("action", ["add_markets", "delete_markets", "get_snapshot"])
def test_updates_name_one_subscription_and_their_markets(action: str) -> None:
    """Each update carries its action, exactly one sid and its markets; none without markets."""
    build = getattr(commands, action)
    assert json.loads(build(5, 7, ["A"])) == {
        "id": 5,
        "cmd": "update_subscription",
        "params": {"action": action, "sids": [7], "market_tickers": ["A"]},
    }
    with pytest.raises(ValueError, match=action):
        build(5, 7, [])


def test_unsubscribe_and_list() -> None:
    """Unsubscribe names sids; the listing has no params at all."""
    assert json.loads(commands.unsubscribe(6, [1, 2])) == {
        "id": 6,
        "cmd": "unsubscribe",
        "params": {"sids": [1, 2]},
    }
    assert json.loads(commands.list_subscriptions(7)) == {"id": 7, "cmd": "list_subscriptions"}


def test_ids_begin_at_one() -> None:
    """The exchange reads id 0 as none."""
    ids = commands.CommandIds()
    assert [ids.next(), ids.next()] == [1, 2]
