"""Masks and what moves between them."""

from services.deduplicator.facts import LATE, bits, make_facts
from tests.unit.deduplicator.support import NOON, delta


def test_bits_of_a_mask_come_one_by_one() -> None:
    """Each as a mask of its own, lowest first."""
    assert list(bits(0b10110)) == [0b10, 0b100, 0b10000]
    assert LATE not in list(bits(0b10110))


def test_only_tables_whose_identity_is_content_are_remembered() -> None:
    """Observations differ by gatherer: nothing of theirs is ever a copy."""
    facts = make_facts(horizon=1, identities_max=1)
    assert sorted(facts) == ["orderbook_deltas", "tickers", "trades"]


def test_identities_are_the_key_of_a_delta() -> None:
    """Any column of the key makes another fact, no other column does."""
    facts = make_facts(horizon=600_000_000, identities_max=100)["orderbook_deltas"]
    base = delta(1)
    others = [
        base._replace(ticker="N"), base._replace(exchange_ts=NOON + 1000), base._replace(price=1),
        base._replace(side=False), base._replace(size_delta=2), base._replace(occurrence=2),
    ]  # fmt: skip
    same = [base._replace(seq=9, sid=9, received_at=NOON + 5, sent_at=1, pos=3)]
    rows = [base, *others, *same]
    assert facts.admit(rows, [b"%d" % n for n in range(len(rows))], 2) == [
        b"%d" % n for n in range(7)
    ]
