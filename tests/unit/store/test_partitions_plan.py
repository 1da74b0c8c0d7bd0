"""Which partitions there should be and when one may go."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.marketdata.tables import GATHERER_TABLES
from libs.marketdata.units import DAY, HOUR
from libs.store.partition_plan import (
    BIGINT_MAX,
    BIGINT_MIN,
    ArchivedWindow,
    Horizon,
    Partition,
    archived_fault,
    missing,
    parse_bound,
    partition_name,
    partitioned_tables,
    partitions_around,
    render_partitioned,
    width_of,
    window_bounds,
)

NOON = 1_795_262_400_000_000  # 2026-11-21T12:00:00Z


def test_names_state_the_first_moment_in_utc() -> None:
    """An hour's partition names the hour, a day's the day, a narrower one the second."""
    assert (
        partition_name("orderbook_deltas", NOON - 3 * HOUR, HOUR) == "orderbook_deltas_p20261121_09"
    )
    assert partition_name("trades", NOON - 12 * HOUR, DAY) == "trades_p20261121"
    assert partition_name("trades", NOON, 10_000_000) == "trades_p20261121_120000"


def test_partitions_cover_the_horizon_and_no_more() -> None:
    """Behind and ahead are covered whole, with one partition per aligned width."""
    made = partitions_around("tickers", NOON + 1, HOUR, Horizon(behind=HOUR, ahead=2 * HOUR))
    assert [(p.start - NOON) // HOUR for p in made] == [-1, 0, 1, 2]
    assert made[0] == Partition("tickers", "tickers_p20261121_11", NOON - HOUR, NOON)


@given(now=st.integers(0, 2**52), behind=st.integers(0, 40 * HOUR), ahead=st.integers(0, 40 * HOUR))
def test_every_moment_of_the_horizon_has_exactly_one_partition(
    now: int, behind: int, ahead: int
) -> None:
    """Ranges are adjacent, aligned, and hold both ends of the horizon."""
    made = partitions_around("tickers", now, HOUR, Horizon(behind, ahead))
    assert made[0].start <= now - behind < made[0].end
    assert made[-1].start <= now + ahead < made[-1].end
    assert all(one.end == other.start for one, other in itertools.pairwise(made))
    assert all(p.start % HOUR == 0 and p.end - p.start == HOUR for p in made)


@given(st.integers(BIGINT_MIN, BIGINT_MAX), st.sampled_from([HOUR, DAY]))
def test_no_moment_that_a_row_may_have_is_too_much(now: int, width: int) -> None:
    """Before 1970, beyond the calendar, at either end of bigint: adjacent ranges within bigint, with names of their own."""
    made = partitions_around("market_lifecycle", now, width, Horizon())
    assert made[0].start <= now and made[-1].end >= min(now + 1, BIGINT_MAX)
    assert all(BIGINT_MIN <= p.start < p.end <= BIGINT_MAX for p in made)
    assert all(one.end == other.start for one, other in itertools.pairwise(made))
    names = [p.name for p in made]
    assert len(set(names)) == len(names)
    assert all(len(name) < 64 and name.replace("_", "").isalnum() for name in names)


def test_moments_beyond_the_calendar_are_named_by_their_microseconds() -> None:
    """A year of five digits or before 1970 has no date in the name."""
    assert partition_name("trades", 2**62, DAY) == "trades_us4611686018427387904"
    assert partition_name("trades", -DAY, DAY) == "trades_usm86400000000"


def test_a_partition_of_another_width_is_not_doubled() -> None:
    """A wanted range that an existing partition overlaps is left out."""
    day = [Partition("tickers", "tickers_p20261121", NOON - 12 * HOUR, NOON + 12 * HOUR)]
    wanted = partitions_around("tickers", NOON, HOUR, Horizon(behind=0, ahead=13 * HOUR))
    assert [p.name for p in missing(wanted, day)] == [
        "tickers_p20261122_00",
        "tickers_p20261122_01",
    ]


def test_bounds_are_read_from_the_server_s_text() -> None:
    """A range's two ends; None for the default partition."""
    assert parse_bound("FOR VALUES FROM ('100') TO ('-5')") == (100, -5)
    assert parse_bound("DEFAULT") is None


def test_widths_follow_the_kind_of_database() -> None:
    """Gatherers use the tables' own chunk; production an hour for deltas and tickers, a day for the others."""
    deltas, trades = GATHERER_TABLES["orderbook_deltas"], GATHERER_TABLES["trades"]
    assert (width_of(deltas, "gatherer"), width_of(trades, "gatherer")) == (
        deltas.chunk,
        trades.chunk,
    )
    assert (width_of(deltas, "production"), width_of(trades, "production")) == (HOUR, DAY)
    assert "market_versions" in partitioned_tables("gatherer")
    assert "market_versions" not in partitioned_tables("production")


SCRIPT = "CREATE TABLE plain (\n  a int\n);\nCREATE TABLE t (\n  at bigint\n) /*partition by at width 3600*/;\n"


def test_marks_become_native_partitions_with_a_default() -> None:
    """Without the extension a marked table is range partitioned, another is left alone."""
    script = render_partitioned(SCRIPT, timescale=False)
    assert ") PARTITION BY RANGE (at);" in script
    assert "CREATE TABLE t_default PARTITION OF t DEFAULT;" in script
    assert "plain_default" not in script and "hypertable" not in script


def test_marks_become_hypertables_with_their_own_interval() -> None:
    """With the extension every marked table states its chunk interval and what now is."""
    script = render_partitioned(SCRIPT, timescale=True)
    assert (
        "create_hypertable('t', by_range('at', 3600::bigint), create_default_indexes => false)"
        in script
    )
    assert "set_integer_now_func('t', 'now_us')" in script
    assert "PARTITION BY" not in script and "DEFAULT" not in script


PARTITION = Partition("tickers", "tickers_p", 100, 200)
WINDOWS = [ArchivedWindow(100, 150, 3, 7), ArchivedWindow(150, 200, 0, 7)]


def test_a_partition_goes_when_every_row_is_in_a_manifest() -> None:
    """Counts equal and nothing merged after the export: no fault."""
    assert window_bounds(WINDOWS) == [100, 150, 200]
    assert archived_fault(PARTITION, WINDOWS, {100: (3, 7)}) is None


@pytest.mark.parametrize(
    ("windows", "counted", "words"),
    [
        (WINDOWS, {100: (4, 7)}, "holds 4 rows, its manifests 3"),
        (WINDOWS, {}, "holds 0 rows, its manifests 3"),
        (WINDOWS, {100: (3, 8)}, "merged to up to 8"),
        (WINDOWS[1:], {99: (3, 7)}, "3 rows lie in no archived window"),
        ([], {99: (1, 1)}, "1 rows lie in no archived window"),
        ([ArchivedWindow(50, 150, 3, 7)], {50: (3, 7)}, "reaches beyond"),
    ],
)
def test_a_partition_stays_when_anything_is_unaccounted_for(
    windows: list[ArchivedWindow], counted: dict[int, tuple[int, int]], words: str
) -> None:
    """More rows, fewer rows, later merges, rows outside of windows, windows beyond the partition: it stays."""
    fault = archived_fault(PARTITION, windows, counted)
    assert fault is not None and words in fault
