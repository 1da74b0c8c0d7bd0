"""Windows and the names of what is stored for them; names are printed, parsed and compared."""

import datetime as dt
import re
from dataclasses import dataclass
from typing import Final

from libs.marketdata.units import SECOND

BIGINT_MIN, BIGINT_MAX = -(2**63), 2**63 - 1

PARQUET: Final = ".parquet"
MANIFEST: Final = ".manifest.json"
SUPERSEDED: Final = ".superseded"
"""Ends the name of an object that is no part of the archive; with `.json` behind it, of the note that says why."""

_CALENDAR_S_MAX: Final = 253_402_300_799
"""The last second of the year 9999: no later date has four digits."""

_KEY = re.compile(
    r"(?P<table>[a-z_]+)/date=\d{4}-\d{2}-\d{2}/hour=\d{2}/(?P=table)-(?P<start>-?\d+)-(?P<end>-?\d+)"
    r"(?:-s(?P<supplement>\d+))?-m(?P<merge_to>\d+)\.parquet"
)


@dataclass(frozen=True, slots=True, order=True)
class Window:
    """The time range [start, end) of one object, microseconds; an end at BIGINT_MAX holds that moment too."""

    start: int
    end: int

    @property
    def last(self) -> int:
        """The last moment inside."""
        return self.end if self.end == BIGINT_MAX else self.end - 1


def window_of(moment: int, width: int) -> Window:
    """Return the window of this width (microseconds) that holds the moment; cut off where bigint ends."""
    start = moment - moment % width
    return Window(max(start, BIGINT_MIN), min(start + width, BIGINT_MAX))


@dataclass(frozen=True, slots=True)
class ObjectKey:
    """Name of one object: supplement 0 is the window's first object, later ones hold what came after it.

    merge_to: the last merge whose rows it holds. It keeps two attempts at a supplement apart: whoever comes late puts
    another object, never another content under a name that a manifest records.
    """

    table: str
    window: Window
    supplement: int
    merge_to: int

    def __str__(self) -> str:
        number = f"-s{self.supplement}" if self.supplement else ""
        return (
            f"{self.table}/{_folder(self.window.start)}/"
            f"{self.table}-{self.window.start}-{self.window.end}{number}-m{self.merge_to}.parquet"
        )

    @property
    def manifest(self) -> str:
        """Name of the manifest beside the object."""
        return str(self).removesuffix(PARQUET) + MANIFEST

    @property
    def folder(self) -> str:
        """The folder that object and manifest lie in."""
        return f"{self.table}/{_folder(self.window.start)}"

    def aside(self, sha256: str) -> str:
        """Name of an object with these bytes once another history of its window is what counts.

        It does not end as an object's name ends, so that reading every `*.parquet` does not meet it.
        """
        return f"{str(self).removesuffix(PARQUET)}-{sha256[:16]}{SUPERSEDED}"


def _folder(moment: int) -> str:
    """Date and hour for finding; what no date of four digits after 1970 names lies in the first or last hour of them."""
    second = min(max(moment // SECOND, 0), _CALENDAR_S_MAX)
    start = dt.datetime.fromtimestamp(second, dt.UTC)
    return f"date={start:%Y-%m-%d}/hour={start:%H}"


def key_of(name: str) -> ObjectKey | None:
    """Return the object that the name of an object or of a manifest belongs to; None for any other name."""
    if name.endswith(MANIFEST):
        name = name.removesuffix(MANIFEST) + PARQUET
    try:
        return parse_key(name)
    except ValueError:
        return None


def parse_key(text: str) -> ObjectKey:
    """Read what ObjectKey printed.

    Raises:
        ValueError: not the name of an object of ours.
    """
    match = _KEY.fullmatch(text)
    if match is None:
        raise ValueError(f"not an object of the archive: {text!r}")
    window = Window(int(match["start"]), int(match["end"]))
    key = ObjectKey(match["table"], window, int(match["supplement"] or 0), int(match["merge_to"]))
    if str(key) != text:
        raise ValueError(f"date and hour do not fit the window: {text!r}")
    return key
