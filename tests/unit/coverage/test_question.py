"""What the commands are asked: moments, spans, and words that begin with a minus."""

import pytest

from libs.marketdata.units import DAY, HOUR, MINUTE, SECOND
from services.coverage.question import iso, make_parser, parse, parse_time, seconds

NOW = 1_795_262_400_000_000


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("now", NOW),
        ("-2h", NOW - 2 * HOUR),
        ("-90s", NOW - 90 * SECOND),
        ("-1.5d", NOW - 36 * HOUR),
        ("+5m", NOW + 5 * MINUTE),
        ("2026-11-21T12:00:00Z", NOW),
        ("2026-11-21T12:00", NOW),
        ("2026-11-21T13:00:00.25+01:00", NOW + SECOND // 4),
        ("2026-11-22", NOW + DAY // 2),
    ],
)
def test_moments_are_iso_or_relative(text: str, moment: int) -> None:
    """ISO 8601 is UTC where nothing else is said; a relative one counts from now."""
    assert parse_time(text, NOW) == moment


def test_a_moment_is_written_as_it_is_read() -> None:
    """ISO 8601 in UTC to the millisecond; lengths in a unit that reads well."""
    assert iso(NOW + 1_234_999) == "2026-11-21T12:00:01.234Z"
    assert parse_time(iso(NOW + 1_234_000), 0) == NOW + 1_234_000
    assert [seconds(n) for n in (1_500_000, 20 * MINUTE, 30 * HOUR)] == [
        "1.500 s",
        "20.0 min",
        "30.0 h",
    ]


def test_a_relative_time_may_begin_with_a_minus() -> None:
    """`--from -2h` is no option -2h; without a channel all are asked about."""
    arguments, question = parse(make_parser("gaps", ""), ["--from", "-2h", "--to=-1h", "--market", "M"])  # fmt: skip
    assert question.end - question.start == HOUR
    assert question.market == "M" and question.channels[0] == "orderbook_delta"
    assert len(question.channels) == 4 and not arguments.json


@pytest.mark.parametrize("words", [["--from", "tomorrow"], ["--from", "now"], ["--from", "-99999999999d"], ["--from", "99999999d"], ["--channel", "books"]])  # fmt: skip
def test_what_makes_no_sense_is_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    """A time that is none, a span that ends before it begins, a channel that does not exist."""
    with pytest.raises(SystemExit) as end:
        parse(make_parser("gaps", ""), words)
    assert end.value.code == 2
    assert words[0] in capsys.readouterr().err
