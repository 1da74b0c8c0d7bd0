from libs.runtime.sections import SlotSettings, account_faults, account_shares

FULL = SlotSettings()
LAPTOP = SlotSettings(8, 1, 1, 1, 50)


def test_zones_with_accounts_of_their_own_fit() -> None:
    """Three zones of 150 connections, 200 allowed to each."""
    assert account_faults([("a", "x", FULL), ("b", "y", FULL), ("c", "z", FULL)]) == []


def test_three_full_zones_do_not_fit_on_one_account() -> None:
    """The account, its zones and by how much it is over are named."""
    (fault,) = account_faults([("a", "x", FULL), ("b", "x", FULL), ("c", "x", FULL)])
    assert fault == (
        "account x: 150 of a + 150 of b + 150 of c + 3 to move are 453 connections,"
        " 253 above its connections_max of 200; lower the slots or give zones accounts of their own"
    )


def test_small_zones_share_an_account() -> None:
    """Three laptops' zones of 11 connections within 50."""
    assert account_faults([(zone, "x", LAPTOP) for zone in "abc"]) == []


def test_one_connection_of_each_zone_stays_free_to_move() -> None:
    """Exactly full is one too many: a hand-over opens before it closes, and zones do not wait for each other."""
    assert account_faults([("a", "x", SlotSettings(20, 2, 2, 1, 26))]) == []
    half = SlotSettings(20, 2, 2, 1, 52)
    assert account_faults([("a", "x", half), ("b", "x", half)]) == []
    (fault,) = account_faults([("a", "x", half), ("b", "x", SlotSettings(20, 2, 2, 2, 52))])
    assert "25 of a + 26 of b + 2 to move are 53 connections, 1 above its connections_max of 52" in fault  # fmt: skip


def test_what_slots_leave_of_an_account_is_shared_equally() -> None:
    """So that together they never hold more than it may; an account of one zone is all its own."""
    zones = [
        ("a", "x", SlotSettings(60, 2, 2, 2, 210)),
        ("b", "x", SlotSettings(50, 2, 2, 2, 200)),
        ("c", "x", SlotSettings(57, 2, 2, 2, 200)),
        ("d", "y", FULL),
    ]
    assert account_faults(zones) == []
    shares = account_shares(zones)
    assert shares == {"a": 71, "b": 61, "c": 68, "d": 200}
    assert shares["a"] + shares["b"] + shares["c"] <= 200
    assert all(shares[zone] > slots.total for zone, _, slots in zones)


def test_the_smallest_limit_that_is_stated_counts_and_every_account_is_judged() -> None:
    """Zones that disagree about their account's limit: the careful one is believed."""
    zones = [
        ("a", "y", SlotSettings(100, 1, 1, 1, 300)),
        ("b", "y", SlotSettings(100, 1, 1, 1, 200)),
        ("c", "fits", FULL),
        ("d", "x", FULL),
        ("e", "x", FULL),
    ]
    faults = account_faults(zones)
    assert [fault.partition(":")[0] for fault in faults] == ["account x", "account y"]
    assert "8 above its connections_max of 200" in faults[1]


def test_no_zones_are_no_fault() -> None:
    """Nothing to judge."""
    assert account_faults([]) == []
