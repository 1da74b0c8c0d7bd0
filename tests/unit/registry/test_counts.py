"""Markets by status, kept with every write."""

import pytest

from libs.store.errors import StoreUnavailable
from services.registry.counts import Counts
from tests.unit.registry.factories import state


async def test_writes_are_counted_when_they_are_done() -> None:
    """New markets, another status, not wanted any more: the numbers are those of counting again."""
    counts = Counts()
    counts.set({"active": 1, "total": 1, "wanted": 1})
    old, new = state("A"), state("B")
    closed = old._replace(status="closed", wanted=False)
    async with counts.changing({"A": old}, [closed, new]):
        assert counts.as_dict()["active"] == 1
    assert counts.is_known
    assert counts.as_dict() == {"active": 1, "closed": 1, "total": 2, "wanted": 1}


async def test_a_write_in_doubt_makes_them_unknown() -> None:
    """Nobody knows whether it was committed: they stay as they were until somebody counts again."""
    counts = Counts()
    counts.set({"active": 1, "total": 1, "wanted": 1})

    async def write() -> None:
        async with counts.changing({}, [state("B")]):
            raise StoreUnavailable("away")

    with pytest.raises(StoreUnavailable):
        await write()
    known = [counts.is_known]
    counts.set({"closed": 2, "total": 2, "wanted": 0})
    known.append(counts.is_known)
    assert known == [False, True]
    assert counts.as_dict() == {"active": 0, "closed": 2, "total": 2, "wanted": 0}


async def test_a_write_on_its_way_does_not_make_numbers_known_that_were_forgotten_meanwhile() -> (
    None
):
    """The database turned out to be an older copy while it was written to."""
    counts = Counts()
    counts.set({"active": 1, "total": 1, "wanted": 1})
    async with counts.changing({}, [state("B")]):
        counts.forget()
    assert not counts.is_known
