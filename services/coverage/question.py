"""What the two commands are asked: market, channel, span; and where production is."""

import argparse
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from libs.marketdata.units import DAY, HOUR, MINUTE, SECOND
from libs.runtime.clock import SystemClock
from libs.runtime.last_run import last_run_config
from libs.runtime.sections import DEDUPLICATOR_FILE
from libs.runtime.settings import ConfigInvalid, load_settings
from libs.store.pool import Target
from services.coverage.settings import Settings

EXIT_OK, EXIT_AWAY, EXIT_USAGE = 0, 1, 2
CHANNELS: Final = ("orderbook_delta", "trade", "ticker", "market_lifecycle_v2")
"""What is asked about when no channel is named."""
MORE_CHANNELS: Final = ("multivariate_market_lifecycle",)

_UNITS: Final = {"s": SECOND, "m": MINUTE, "h": HOUR, "d": DAY}
_FIRST: Final = -62_135_596_800 * SECOND
_AFTER: Final = 253_402_300_800 * SECOND
"""The years 1 to 9999: what a calendar names."""
_RELATIVE: Final = re.compile(r"([+-]?)(\d+(?:\.\d+)?)([smhd])")


@dataclass(frozen=True, slots=True)
class Question:
    """A span of exchange time [start, end), microseconds; market None: all of them."""

    market: str | None
    channels: tuple[str, ...]
    start: int
    end: int


def parse_time(text: str, now: int) -> int:
    """Read a moment: ISO 8601 (UTC where no offset is given), `now`, or relative to now: -2h, -90s, -1.5d.

    Raises:
        ValueError: it is none of these, or outside the years 1 to 9999.
    """
    moment = _moment(text, now)
    if not _FIRST <= moment < _AFTER:
        raise ValueError(text)
    return moment


def _moment(text: str, now: int) -> int:
    if text == "now":
        return now
    relative = _RELATIVE.fullmatch(text)
    if relative:
        sign, number, unit = relative.groups()
        return now + round(float(number) * _UNITS[unit]) * (1 if sign == "+" else -1)
    moment = datetime.fromisoformat(text)
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    return round(moment.timestamp() * SECOND)


def iso(micros: int) -> str:
    """Write a moment as ISO 8601 in UTC, to the millisecond."""
    moment = datetime.fromtimestamp(micros // SECOND, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{micros % SECOND // 1000:03d}Z"


def seconds(micros: int) -> str:
    """Write a length for eyes."""
    if micros < 10 * MINUTE:
        return f"{micros / SECOND:,.3f} s"
    return f"{micros / MINUTE:,.1f} min" if micros < 10 * HOUR else f"{micros / HOUR:,.1f} h"


def make_parser(verb: str, description: str) -> argparse.ArgumentParser:
    """Return a parser of what both commands take."""
    parser = argparse.ArgumentParser(prog=f"kalshi-data {verb}", description=description)
    parser.add_argument("--market", metavar="TICKER", help="one market; default: all")
    parser.add_argument(
        "--channel", choices=CHANNELS + MORE_CHANNELS, help=f"default: {', '.join(CHANNELS)}"
    )
    for name, default in (("from", "-1h"), ("to", "now")):
        parser.add_argument(
            f"--{name}", dest=name, metavar="TIME", default=default,
            help=f"ISO 8601 (UTC), or relative to now: -2h, -90s, -1d; default: {default}",
        )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="as JSON instead of tables")
    parser.add_argument(
        "--config",
        type=Path,
        default=os.environ.get("KALSHI_DATA_CONFIG"),
        help="the deduplicator's YAML file; default: KALSHI_DATA_CONFIG, else that of the last local run",
    )
    return parser


def parse(
    parser: argparse.ArgumentParser, argv: Sequence[str]
) -> tuple[argparse.Namespace, Question]:
    """Parse the words; a TIME may begin with a minus sign. Ends the process when they make no sense."""
    arguments = parser.parse_args(_join_times(argv))
    now = SystemClock().now()
    moments = []
    for name in ("from", "to"):
        text = getattr(arguments, name)
        try:
            moments.append(parse_time(text, now))
        except ValueError:
            parser.error(
                f"--{name}: {text!r} is neither ISO 8601 nor like -2h, or no calendar has it"
            )
    start, end = moments
    if start >= end:
        parser.error("--from must be before --to")
    channels = (arguments.channel,) if arguments.channel else CHANNELS
    return arguments, Question(arguments.market, channels, start, end)


def _join_times(argv: Sequence[str]) -> list[str]:
    """Write `--from -2h` as `--from=-2h`: the parser takes what begins with a minus for an option."""
    joined: list[str] = []
    for word in argv:
        if joined and joined[-1] in {"--from", "--to"} and _RELATIVE.fullmatch(word):
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined


def find_production(verb: str, config: Path | None) -> Target | None:
    """Return where production is; None, with the faults on standard error, when no usable file says so."""
    path = config or last_run_config()
    try:
        settings = load_settings(Settings, path, foreign=DEDUPLICATOR_FILE).value
    except ConfigInvalid as error:
        sys.stderr.write(
            f"{verb}: the configuration is not usable (--config FILE names the deduplicator's):\n"
        )
        sys.stderr.writelines(f"  {fault}\n" for fault in error.faults)
        return None
    return settings.production.target()
