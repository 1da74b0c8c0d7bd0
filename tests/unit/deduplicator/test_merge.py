"""The pure merge room: what is inserted, what is counted, what is known and since when."""

import dataclasses
from collections import Counter
from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from libs.marketdata.tables import Family
from libs.store.merge_transaction import TRADE_CONTENT
from services.deduplicator.merge import Plan, dropped_gaps
from tests.unit.deduplicator.support import (
    LANE,
    MINUTE,
    NOON,
    arrival,
    batch,
    committed,
    coverage,
    delta,
    room,
    staged,
    ticker,
    trade,
)


def test_two_copies_in_one_transaction_are_inserted_once() -> None:
    """The first one goes; both gatherers are credited."""
    rows = [delta(1), delta(2)]
    plan = room().plan(
        [arrival(1, batch(orderbook_deltas=rows)), arrival(2, batch(orderbook_deltas=rows[:1]))]
    )
    assert staged(plan, "orderbook_deltas") == rows
    assert coverage(plan) == {((1, 2), False): 1, ((1,), False): 1}
    assert plan.transaction.rows_read == 3


def test_a_copy_inside_one_gatherer_counts_once() -> None:
    """A hand-over's two connections of one zone deliver one fact."""
    plan = room().plan([arrival(1, batch(1, orderbook_deltas=[delta(1)] * 2))])
    assert len(staged(plan, "orderbook_deltas")) == 1
    assert coverage(plan) == {((1,), False): 1}


def test_an_identity_is_known_only_after_its_commit() -> None:
    """What was planned and not confirmed comes again in full."""
    merge = room()
    page = [arrival(1, batch(orderbook_deltas=[delta(1)]))]
    merge.plan(page)
    merge.forget()
    plan = merge.plan(page)
    assert len(staged(plan, "orderbook_deltas")) == 1
    merge.confirm(committed(plan), NOON)
    plan = merge.plan([arrival(2, batch(orderbook_deltas=[delta(1)]))])
    assert staged(plan, "orderbook_deltas") == []
    assert plan.duplicates(committed(plan)) == {"orderbook_deltas": 1}
    assert coverage(plan) == {((1, 2), False): 1, ((1,), False): -1}


def test_an_abandoned_plan_leaves_what_was_known_before() -> None:
    """Its facts come again in full, those of the transaction before are still copies."""
    merge = room()
    plan = merge.plan([arrival(1, batch(trades=[trade("x")]))])
    merge.confirm(committed(plan), NOON)
    merge.plan([arrival(2, batch(trades=[trade("x", size=7), trade("y"), trade("y", size=9)]))])
    merge.abandon()
    plan = merge.plan([arrival(2, batch(trades=[trade("x"), trade("y", size=9)]))])
    assert staged(plan, "trades") == [trade("y", size=9)]
    assert plan.transaction.judge({}) == []
    assert coverage(plan) == {((1, 2), False): 1, ((1,), False): -1, ((2,), False): 1}


def test_a_third_gatherer_moves_the_fact_to_the_set_of_three() -> None:
    """Increments of all transactions add up to one fact under all three."""
    merge, total = room(), Counter[tuple[tuple[int, ...], bool]]()
    for gatherer in (3, 1, 2, 1):
        plan = merge.plan([arrival(gatherer, batch(tickers=[ticker(1)]))])
        total.update(coverage(plan))
        merge.confirm(committed(plan), NOON)
    assert {key: facts for key, facts in total.items() if facts} == {((1, 2, 3), False): 1}


def test_what_production_had_before_counts_as_late_for_every_later_copy() -> None:
    """After a restart the memory is empty: facts stay counted once."""
    merge = room()
    plan = merge.plan([arrival(1, batch(tickers=[ticker(1), ticker(2)]))])
    known = [("M", NOON, 1)]
    assert coverage(plan, tickers=known) == {((1,), False): 1, ((1,), True): 1}
    merge.confirm(committed(plan, tickers=known), NOON)
    plan = merge.plan([arrival(2, batch(tickers=[ticker(1), ticker(2)]))])
    assert coverage(plan) == {((2,), True): 1, ((1, 2), False): 1, ((1,), False): -1}


def test_memory_ends_at_the_horizon_and_at_its_bound() -> None:
    """Old minutes are forgotten, a wrong clock ahead of ours empties nothing."""
    merge = room(horizon_s=120.0, identities_max=5)
    for minute in range(4):
        plan = merge.plan([arrival(1, batch(tickers=[ticker(1, NOON + minute * MINUTE)]))])
        merge.confirm(committed(plan), NOON + minute * MINUTE)
    assert merge.identities == 3
    plan = merge.plan([arrival(1, batch(tickers=[ticker(1, NOON + 99 * MINUTE)]))])
    merge.confirm(committed(plan), NOON + 4 * MINUTE)
    assert merge.identities == 4
    plan = merge.plan([arrival(1, batch(tickers=[ticker(n, NOON + 4 * MINUTE) for n in range(9)]))])
    merge.confirm(committed(plan), NOON + 4 * MINUTE)
    assert merge.identities <= 5


def test_trades_are_one_by_id_and_other_content_is_a_conflict() -> None:
    """Another time is the same trade; another size is told of, and refused."""
    merge = room()
    plan = merge.plan([arrival(1, batch(trades=[trade("x"), trade("x", NOON + 5)]))])
    assert staged(plan, "trades") == [trade("x")]
    assert plan.transaction.judge({}) == []
    merge.confirm(committed(plan), NOON)
    plan = merge.plan([arrival(2, batch(trades=[trade("x", size=7)]))])
    assert staged(plan, "trades") == []
    (conflict,) = plan.transaction.judge({})
    assert conflict.key == "x" and "size=100" in conflict.kept and "size=7" in conflict.refused
    merge.confirm(committed(plan), NOON)
    assert merge.plan([arrival(1, batch(trades=[trade("x")]))]).transaction.judge({}) == []


def test_copies_are_judged_against_what_production_keeps() -> None:
    """The first copy in memory was refused: one that agrees with production is none, one that repeats the first is."""
    merge, kept = room(), {"x": ("M", 100, 40_000, 60_000, True)}
    assert kept["x"] == tuple(getattr(trade("x"), name) for name in TRADE_CONTENT)
    copies = [trade("x", size=7), trade("x"), trade("x", size=7)]
    plan = merge.plan([arrival(n, batch(trades=[copy])) for n, copy in enumerate(copies, 1)])
    (conflict,) = plan.transaction.judge(kept)
    assert "size=100" in conflict.kept and "size=7" in conflict.refused
    answer = dataclasses.replace(committed(plan, trades=["x"]), kept=kept)
    merge.confirm(answer, NOON)
    plan = merge.plan([arrival(1, batch(trades=[trade("x"), trade("x", size=7)]))])
    assert staged(plan, "trades") == []
    (conflict,) = plan.transaction.judge({})
    assert "size=100" in conflict.kept and "size=7" in conflict.refused


def test_a_dropped_batch_leaves_a_gap_that_is_the_same_when_read_again() -> None:
    """Nothing else of it is merged; its cursor goes on."""
    merge = room()
    plans = [merge.plan([arrival(1, batch(7, dropped=True))]) for _ in range(2)]
    (gap,), (again,) = (staged(plan, "gaps") for plan in plans)
    assert gap == again
    assert (gap.reason, gap.row_no) == ("dropped_at_gatherer", 0)
    assert gap.channel == "orderbook_delta"
    (cursor,) = plans[0].transaction.cursors
    assert (cursor.gatherer, cursor.lane, cursor.batch_no) == (1, LANE, 7)


def test_a_dropped_batch_of_trades_is_a_gap_of_both_its_channels() -> None:
    """A batch of that family may have held either; both rows have numbers of their own, so neither hides the other."""
    gaps = dropped_gaps(dataclasses.replace(batch(7, dropped=True), family=Family.TRADES))
    assert {(gap.channel, gap.row_no) for gap in gaps} == {("trade", 0), ("ticker", -1)}


def test_a_time_far_from_its_receipt_is_told() -> None:
    """It goes in all the same; only rows that go in are counted."""
    merge, far = room(), delta(1, received_at=NOON + 86_400_000_001)
    plan = merge.plan([arrival(1, batch(orderbook_deltas=[far, far, delta(2)]))])
    assert len(staged(plan, "orderbook_deltas")) == 2
    assert plan.far == {"orderbook_deltas": 1}
    assert [event.kind for event in plan.transaction.events] == ["far_exchange_ts"]


def test_far_times_are_an_event_once_a_minute_and_counted_always() -> None:
    """One wrong clock must not fill production with events; what was not committed is told again."""
    merge = room()

    def far(number: int, minute: int) -> Plan:
        row = delta(number, received_at=NOON + 86_400_000_001)
        later = batch(orderbook_deltas=[row])
        moment = later.committed_at + timedelta(minutes=minute)
        return merge.plan([arrival(1, dataclasses.replace(later, committed_at=moment))])

    told = [len(far(number, minute).transaction.events) for number, minute in enumerate((0, 0, 1))]
    assert told == [1, 0, 1]
    merge.abandon()
    plan = far(4, 1)
    assert (plan.far["orderbook_deltas"], len(plan.transaction.events)) == (1, 1)


def test_disagreeing_streams_become_an_event() -> None:
    """Two gatherers hear other orders of one millisecond."""
    merge = room(agreement_sample=1)
    one = [delta(1, NOON, 1), delta(2, NOON, 2), delta(3, NOON + 1000, 1)]
    two = [delta(2, NOON, 1), delta(1, NOON, 2), delta(3, NOON + 1000, 1)]
    plan = merge.plan(
        [arrival(1, batch(orderbook_deltas=one)), arrival(2, batch(orderbook_deltas=two))]
    )
    assert plan.disagreements == 1
    assert [event.kind for event in plan.transaction.events] == ["streams_disagree"]


@given(
    st.lists(
        st.tuples(st.integers(1, 3), st.lists(st.integers(0, 12), max_size=8), st.booleans()),
        max_size=12,
    )
)
def test_any_order_of_copies_merges_to_the_union_and_coverage_adds_up(
    pages: list[tuple[int, list[int], bool]],
) -> None:
    """Also when the memory is lost at any moment: production is the union, coverage counts each fact once."""
    merge, production, total = room(), set[int](), Counter[tuple[int, ...]]()
    for gatherer, numbers, is_forgotten in pages:
        if is_forgotten:
            merge.forget()
        plan = merge.plan([arrival(gatherer, batch(tickers=[ticker(n) for n in numbers]))])
        sent = [row.content_hash for row in staged(plan, "tickers")]
        present = [("M", NOON, number) for number in sent if number in production]
        for row in plan.transaction.settle({"tickers": present}):
            if not row.is_late:
                total[row.gatherers] += row.facts
        production |= set(sent)
        merge.confirm(committed(plan, tickers=present), NOON)
    assert production == {number for _, numbers, _ in pages for number in numbers}
    assert sum(total.values()) == len(production)


def test_who_lacks_a_fact_is_known_of_a_minute_until_it_is_forgotten() -> None:
    """Facts of all are counted, others named with who delivered them; what production had before is neither."""
    merge = room(horizon_s=120.0)
    pages = [
        arrival(1, batch(orderbook_deltas=[delta(n, NOON) for n in (1, 2, 3)], trades=[trade("x")])),
        arrival(2, batch(orderbook_deltas=[delta(n, NOON) for n in (1, 2)])),
        arrival(3, batch(orderbook_deltas=[delta(1, NOON), delta(9, NOON - MINUTE)])),
    ]  # fmt: skip
    plan = merge.plan(pages)
    assert merge.delivered("orderbook_deltas", NOON, [1, 2]) == (0, [])
    merge.confirm(committed(plan, orderbook_deltas=[("M", NOON, 50_000, True, 3, 1)]), NOON)
    by_all, lacking = merge.delivered("orderbook_deltas", NOON, [1, 2, 3])
    assert by_all == 1
    assert [(f.ticker, f.exchange_ts, merge.lackers(f, [1, 2, 3])) for f in lacking] == [
        ("M", NOON, [3])
    ]
    assert merge.delivered("orderbook_deltas", NOON, [1, 2])[0] == 2
    ((traded,),) = (merge.delivered("trades", NOON, [1, 2])[1],)
    assert (traded.ticker, merge.lackers(traded, [1, 2])) == ("M", [2])
    late = merge.plan([arrival(1, batch(tickers=[ticker(1, NOON + 9 * MINUTE)], orderbook_deltas=[delta(1, NOON + 9 * MINUTE)]))])  # fmt: skip
    merge.confirm(committed(late), NOON + 9 * MINUTE)
    assert merge.delivered("orderbook_deltas", NOON, [1, 2]) == (0, [])
