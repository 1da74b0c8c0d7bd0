"""The live stage: model time follows the clock, in slices when it is late, and the delay is remembered."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from libs.marketdata.units import MILLISECOND, SECOND
from services.simulator.exchange import Exchange
from services.simulator.journal import Journal, MemoryJournal
from services.simulator.model import market_journal
from services.simulator.plan import ModelPlan
from services.simulator.settings import SimulatorSettings
from services.simulator.stages import CHANGES_MAX, SLICE, LiveStage

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


def test_what_happens_besides_is_published_from_its_millisecond_on(journal: Journal) -> None:
    """Told before they are due, a clock step, a halt and a mass creation leave the journal any run with them leaves."""
    exchange = Exchange(1_000)
    stage = LiveStage(SETTINGS, exchange, journal, NOW)
    epoch = stage.epoch
    stage.tick(epoch + SECOND)
    at = [
        stage.clock_step(-2_500, epoch + SECOND + 300),
        stage.create_markets(3_000, epoch + SECOND),
        stage.halt(epoch + 4 * SECOND, epoch + 2 * SECOND),
    ]
    assert at == [epoch + SECOND + MILLISECOND, epoch + SECOND, epoch + 2 * SECOND]
    assert exchange.pause == epoch + 4 * SECOND
    end = stage.end(epoch + 3 * SECOND)
    stage.finish(end + SECOND, end + SECOND)
    journal.flush()
    expected = market_journal(
        ModelPlan.of(SETTINGS), epoch, end, end + SECOND,
        [("clock", -2_500 * MILLISECOND, at[0]), ("create", 3_000, at[1]), ("halt", epoch + 4 * SECOND, at[2])],
    )  # fmt: skip
    assert journal.path.read_bytes() == expected
    created = sum(json.loads(line)["kind"] == "created" for line in expected.splitlines())
    assert len(exchange.listings) == created >= 10 + 3_000 + 1


def test_a_crowd_of_changes_is_published_in_several_rounds(journal: Journal) -> None:
    """However much happens in a slice, a round publishes a bounded number of changes and asks for another one."""
    exchange = Exchange(1_000)
    stage = LiveStage(SETTINGS, exchange, journal, NOW)
    stage.create_markets(2_000, stage.epoch)
    late, before, rounds = stage.epoch + SLICE, 0, 0
    while stage.published_until < late:
        stage.tick(late)
        total = sum(exchange.counts.values())
        assert total - before < CHANGES_MAX + 200
        before, rounds = total, rounds + 1
    assert rounds >= sum(exchange.counts.values()) // (CHANGES_MAX + 200)
    assert rounds > 3


def test_a_million_markets_are_there_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """All are listed and can be looked at; those without a line at the beginning get it before their first change."""
    journalled = 1_000
    for module in ("model", "crowd"):
        monkeypatch.setattr(f"services.simulator.{module}.OPENINGS_MAX", journalled)
    exchange, journal = Exchange(1_000), MemoryJournal()
    settings = SimulatorSettings(markets=1_000_000, rate=20_000.0, closing_share=0.0)
    stage = LiveStage(settings, exchange, journal, NOW)
    assert len(exchange.listings) == 1_000_000
    assert len(journal.lines) == journalled
    while not stage.tick(stage.epoch + 100 * MILLISECOND):
        pass
    position, listing = next(exchange.listings.after(999_999))
    assert position == 999_999
    assert exchange.listings[listing.instrument.ticker].book_record() == listing.book_record()
    known: set[str] = set()
    late = 0
    for line in map(json.loads, journal.lines):
        if line["kind"] == "created":
            late += line["initial"] and len(known) >= journalled
            known.add(line["ticker"])
        elif line["kind"] in ("delta", "trade", "ticker"):
            assert line["ticker"] in known
    assert late > 100
    assert late <= sum(1 for _ in exchange.listings.changed()) < 2_000
