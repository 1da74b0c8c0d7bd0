"""When a rebuilt book agrees with the exchange's answer."""

import random

from hypothesis import given
from hypothesis import strategies as st

from libs.marketdata.rebuild import Levels
from services.poller.agreement import Base, StreamDelta, judge, states_within

S = 1_000_000
YES, NO = True, False
History = tuple[Levels, list[StreamDelta], list[Levels], tuple[int, int]]


def stream(*changes: tuple[float, bool, int, int]) -> list[StreamDelta]:
    """Deltas at these seconds: (when, side, price, change)."""
    return [StreamDelta(n, int(t * S), side, p, d) for n, (t, side, p, d) in enumerate(changes, 1)]


EXACT = Base({(YES, 50): 100}, None)
CHANGES = stream((10, YES, 50, 20), (20, NO, 40, 5), (30, YES, 50, -120))
STATES: list[Levels] = [
    {(YES, 50): 100},
    {(YES, 50): 120},
    {(YES, 50): 120, (NO, 40): 5},
    {(NO, 40): 5},
]


def test_any_state_of_the_window_agrees_and_no_other() -> None:
    """The answer may be of any moment of the window, its ends included; an older or younger book does not agree."""
    window = (15 * S, 20 * S)
    verdicts = [judge(EXACT, CHANGES, state, window) for state in STATES]
    assert [v.outcome for v in verdicts] == ["disagree", "agree", "agree", "disagree"]
    assert [v.matched_ts for v in verdicts] == [None, 10 * S, 20 * S, None]
    assert judge(EXACT, CHANGES, STATES[0], (5 * S, 6 * S)).matched_ts is None
    assert judge(EXACT, CHANGES, STATES[0], (5 * S, 6 * S)).outcome == "agree"
    assert judge(EXACT, CHANGES, STATES[0], (10 * S, 12 * S)).outcome == "agree"
    assert judge(EXACT, CHANGES, STATES[0], (10 * S + 1, 12 * S)).outcome == "disagree"
    assert judge(EXACT, [], STATES[0], (5 * S, 6 * S)).outcome == "agree"


def test_a_disagreement_says_what_differs() -> None:
    """Levels with both sizes, the age of an equal book before the window, and how many more there are."""
    verdict = judge(EXACT, CHANGES, STATES[0], (16 * S, 40 * S))
    assert (verdict.outcome, verdict.reason) == ("disagree", "levels")
    assert "no 40: rest 0, rebuilt 5" in verdict.detail
    assert "yes 50: rest 100, rebuilt 0" in verdict.detail
    assert "equals the book until 6.000 s before the window" in verdict.detail
    many = {(YES, price): 1 for price in range(30)}
    assert "and 23 more" in judge(EXACT, [], many, (0, S)).detail
    assert "equals" not in judge(EXACT, CHANGES, many, (16 * S, 40 * S)).detail


def test_a_level_below_zero_is_named_as_impossible() -> None:
    """A delta that was counted twice or missed shows itself."""
    twice = [*CHANGES, StreamDelta(4, 31 * S, YES, 50, -120)]
    verdict = judge(EXACT, twice, STATES[3], (32 * S, 40 * S))
    assert (verdict.outcome, verdict.reason) == ("disagree", "impossible")
    assert "size -120 at yes 50 after seq 4" in verdict.detail


def test_an_earlier_answer_stands_for_any_state_of_its_window() -> None:
    """The earlier answer was made after the first or before the second change: both are tried."""
    base = Base(STATES[1], (9 * S, 12 * S))
    assert judge(base, CHANGES, STATES[3], (35 * S, 40 * S)).outcome == "agree"
    older = Base(STATES[0], (9 * S, 12 * S))
    assert judge(older, CHANGES, STATES[3], (35 * S, 40 * S)).outcome == "agree"
    wrong = Base(STATES[0], (11 * S, 12 * S))
    assert judge(wrong, CHANGES, STATES[3], (35 * S, 40 * S)).outcome == "disagree"


def test_a_busy_market_takes_no_longer_than_its_deltas() -> None:
    """Thousands of states of both windows are compared with each other by one look each."""
    deltas = stream(*((n / 1_000, YES, 50 + n % 40, 1 + n % 3) for n in range(20_000)))
    book: Levels = {}
    for delta in deltas[:19_000]:
        key = (delta.side, delta.price)
        book[key] = book.get(key, 0) + delta.size_delta
    base = Base({}, (0, 10 * S))
    assert judge(base, deltas, book, (15 * S, 20 * S)).matched_ts == deltas[18_999].exchange_ts
    book[NO, 1] = 1
    assert judge(base, deltas, book, (15 * S, 20 * S)).outcome == "disagree"


def test_states_of_a_time() -> None:
    """There is always a state; at the moment of a change both its sides count."""
    assert states_within(CHANGES, (0, 5 * S)) == range(1)
    assert states_within(CHANGES, (12 * S, 13 * S)) == range(1, 2)
    assert states_within(CHANGES, (10 * S, 20 * S)) == range(3)
    assert states_within(CHANGES, (40 * S, 50 * S)) == range(3, 4)
    assert states_within([], (0, 1)) == range(1)


@st.composite
def histories(draw: st.DrawFn) -> History:
    """A book's true history: its first state, its changes, every state, and a window."""
    rng = random.Random(draw(st.integers(0, 1_000_000)))
    book: Levels = {(YES, p): rng.randint(1, 5) for p in range(3) if rng.random() < 0.7}
    states, deltas, at = [dict(book)], [], 0
    for seq in range(1, draw(st.integers(0, 14)) + 1):
        at += rng.choice((0, 0, 1, 3))
        key = (rng.random() < 0.5, rng.randint(0, 2))
        change = rng.randint(-book.get(key, 0), 4) or 1
        book = {**book, key: book.get(key, 0) + change}
        book = {k: v for k, v in book.items() if v}
        deltas.append(StreamDelta(seq, at, *key, change))
        states.append(dict(book))
    start = rng.randint(0, at + 1)
    return states[0], deltas, states, (start, start + rng.randint(0, 4))


@given(histories(), st.data())
def test_the_truth_always_agrees(history: History, data: st.DataObject) -> None:
    """Every state that the book really was in during the window agrees, from a snapshot and from an earlier answer."""
    first, deltas, states, window = history
    shown = data.draw(st.sampled_from(states_within(deltas, window)))
    assert judge(Base(first, None), deltas, states[shown], window).outcome == "agree"
    early = (0, data.draw(st.integers(0, 3)))
    begun = data.draw(st.sampled_from([n for n in states_within(deltas, early) if n <= shown]))
    assert judge(Base(states[begun], early), deltas, states[shown], window).outcome == "agree"


@given(histories(), st.data())
def test_a_lost_delta_never_agrees_unless_a_state_looks_the_same(
    history: History, data: st.DataObject
) -> None:
    """From an exact base: `agree` is said exactly when a rebuilt state of the window is the answer."""
    first, deltas, states, window = history
    if not deltas:
        return
    lost = data.draw(st.integers(0, len(deltas) - 1))
    kept = deltas[:lost] + deltas[lost + 1 :]
    shown = states[data.draw(st.sampled_from(states_within(deltas, window)))]
    rebuilt = []
    for n in states_within(kept, window):
        book = dict(first)
        for delta in kept[:n]:
            key = (delta.side, delta.price)
            book[key] = book.get(key, 0) + delta.size_delta
        rebuilt.append({k: v for k, v in book.items() if v})
    agrees = judge(Base(first, None), kept, shown, window).outcome == "agree"
    assert agrees == (shown in rebuilt)
