"""Things to happen: in the order of their time, whatever the steps, and with room for what nobody planned."""

from services.simulator.chance import Chance
from services.simulator.timeline import Timeline

BEGIN = 1_795_000_000_000_000


def never() -> bool:
    return False


class Play:
    """A timeline, and what happened on it."""

    def __init__(self) -> None:
        self.time = Timeline(Chance(1), BEGIN)
        self.seen: list[tuple[int, object]] = []

    def note(self, at: int, subject: object) -> None:
        self.seen.append((at - BEGIN, subject))


def test_what_nobody_planned_comes_first_of_its_millisecond() -> None:
    """Put there early or late, an intervention precedes everything planned for its own microsecond."""
    for is_late in (False, True):
        play = Play()
        if not is_late:
            play.time.before_all(BEGIN + 1_500, play.note, "first")
        play.time.at(BEGIN + 2_000, play.note, "planned")
        if is_late:
            play.time.run(BEGIN + 1_000, never)
            assert play.time.before_all(BEGIN + 1_500, play.note, "first") == BEGIN + 2_000
        play.time.before_all(BEGIN + 1_501, play.note, "second")
        play.time.run(BEGIN + 3_000, never)
        assert play.seen == [(2_000, "first"), (2_000, "second"), (2_000, "planned")]


def test_what_is_over_cannot_be_changed() -> None:
    """An intervention into a millisecond of which something has happened, or that has passed, comes with the next one."""
    play = Play()
    play.time.at(BEGIN + 7_300, play.note, "one")
    play.time.at(BEGIN + 7_900, play.note, "two")
    play.time.run(BEGIN + 20_000, lambda: bool(play.seen))
    assert play.seen == [(7_300, "one")]
    assert not play.time.is_through(BEGIN + 20_000)
    assert play.time.before_all(BEGIN, play.note, "late") == BEGIN + 8_000
    play.time.run(BEGIN + 20_000, never)
    assert play.seen == [(7_300, "one"), (7_900, "two"), (8_000, "late")]
    assert play.time.before_all(BEGIN, play.note, "later") == BEGIN + 20_000


def test_a_mean_of_nothing_is_never() -> None:
    """What has no rate does not happen; what has one does, after its waiting time."""
    play = Play()
    play.time.next(BEGIN, 0.0, play.note)
    assert play.time.is_through(1 << 62)
    play.time.next(BEGIN, 0.001, play.note)
    play.time.run(BEGIN + 1_000_000, never)
    assert [subject for _, subject in play.seen] == [None]
    assert 0 < play.seen[0][0] < 50_000
