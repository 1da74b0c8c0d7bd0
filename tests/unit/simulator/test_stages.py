"""The live stage: model time follows the clock, in slices when it is late, and the delay is remembered."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from libs.marketdata.units import MILLISECOND, SECOND
from services.simulator.exchange import Exchange
from services.simulator.journal import Journal
from services.simulator.model import market_journal
from services.simulator.plan import ModelPlan
from services.simulator.settings import SimulatorSettings
from services.simulator.stages import SLICE, LiveStage

NOW = 1_795_000_000 * SECOND + 300_000
SETTINGS = SimulatorSettings(markets=10, rate=2_000.0)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    """A market journal that is closed in the end."""
    made = Journal(tmp_path / "market.jsonl")
    yield made
    made.close()


def test_epoch_is_the_next_whole_second(journal: Journal) -> None:
    """Nothing is published before the epoch, which lies ahead of the start."""
    exchange = Exchange(10)
    stage = LiveStage(SETTINGS, exchange, journal, NOW)
    assert stage.epoch == NOW - 300_000 + SECOND
    assert stage.tick(NOW)
    assert exchange.counts == {"created": 10}


def test_a_late_round_catches_up_in_slices(journal: Journal) -> None:
    """After a stall each round publishes one slice; the journal is the same as without the stall."""
    exchange = Exchange(1_000)
    stage = LiveStage(SETTINGS, exchange, journal, NOW)
    late = stage.epoch + 3 * SECOND + 400
    rounds = 1
    while not stage.tick(late):
        rounds += 1
    stage.tick(late)
    assert rounds == 3 * SECOND // SLICE
    assert stage.lag_max == 3 * SECOND + 400
    assert stage.end(late) == stage.epoch + 3 * SECOND
    final = stage.epoch + 5 * SECOND
    stage.finish(final, final)
    journal.flush()
    end = stage.epoch + 3 * SECOND
    expected = market_journal(ModelPlan.of(SETTINGS), stage.epoch, end, final)
    assert journal.path.read_bytes() == expected
    assert SLICE % MILLISECOND == 0
    books = {record.instrument.ticker: record for record in exchange.listings.values()}
    assert sum(record.position for record in books.values()) == exchange.counts["delta"]
