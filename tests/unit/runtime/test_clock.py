import time

from libs.runtime.clock import ManualClock, SystemClock


def test_the_system_clock_reads_microseconds() -> None:
    """Wall time is an integer of microseconds, between two readings of the system's."""
    before = time.time_ns() // 1000
    now = SystemClock().now()
    assert before <= now <= time.time_ns() // 1000
    assert SystemClock().monotonic() <= SystemClock().monotonic()


def test_a_manual_clock_moves_only_by_hand() -> None:
    """Both readings advance together; the wall alone can be set back."""
    clock = ManualClock(1_000_000)
    clock.advance(1.5)
    assert (clock.now(), clock.monotonic()) == (2_500_000, 1.5)
    clock.set_wall(7)
    assert (clock.now(), clock.monotonic()) == (7, 1.5)
