"""Looks at an object after a message: one soon, one that is sure."""

from services.registry.looks import Looks
from services.registry.raised import Raised


def test_a_message_is_looked_after_twice() -> None:
    """Soon, and again when no cache can hold what was before it; only what is asked for then is surely true."""
    looks = Looks()
    looks.put_earlier("A", 5)
    looks.put_sure("A", 20)
    assert looks.take(4, 9) == []
    assert (looks.take(6, 9), len(looks), looks.next_at()) == (["A"], 1, 20)
    assert looks.is_early("A", 19) and not looks.is_early("A", 20)
    assert (looks.take(20, 9), len(looks)) == (["A"], 0)
    assert not looks.is_early("A", 0)


def test_the_last_message_decides_what_is_sure() -> None:
    """A second message puts the sure look off; other looks do not."""
    looks = Looks()
    looks.put_sure("A", 20)
    looks.put_sure("A", 30)
    looks.put_earlier("A", 25)
    assert (looks.take(20, 9), looks.take(25, 9), looks.take(30, 9)) == (["A"], [], ["A"])


def test_what_is_taken_late_is_sure_at_once() -> None:
    """A look that waited for the budget until after the sure moment need not be repeated."""
    looks = Looks()
    looks.put_earlier("A", 5)
    looks.put_sure("A", 20)
    assert (looks.take(21, 9), len(looks)) == (["A"], 0)


def test_raised_markets_are_forgotten_when_no_cache_can_hold_the_past() -> None:
    """Unseen by what was asked for within the cache's reach; lowered ones are not raised any more."""
    raised = Raised(cache=10)
    raised.note(["A", "B"], [], 100)
    assert raised.unseen(["A", "C"], 109) == {"A"}
    assert raised.unseen(["A"], 110) == set()
    assert raised.sure_at("A") == 110
    raised.note([], ["A"], 101)
    assert raised.unseen(["A", "B"], 101) == {"B"}
    raised.note([f"T{n}" for n in range(2_000)], [], 200)
    assert raised.unseen(["B"], 100) == set()
