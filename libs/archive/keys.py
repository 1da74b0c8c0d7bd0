"""Windows and the names of what is stored for them; names are printed, parsed and compared."""

import datetime as dt
import re
from dataclasses import dataclass

from libs.marketdata.units import SECOND

_KEY = re.compile(
    r"(?P<table>[a-z_]+)/date=\d{4}-\d{2}-\d{2}/hour=\d{2}/(?P=table)-(?P<start>\d+)-(?P<end>\d+)"
    r"(?:-s(?P<supplement>\d+))?\.parquet"
)


@dataclass(frozen=True, slots=True, order=True)
class Window:
    """The closed time range [start, end) of one object, microseconds."""

    start: int
    end: int


def window_of(moment: int, width: int) -> Window:
    """Return the window of this width (microseconds) that holds the moment."""
    start = moment - moment % width
    return Window(start, start + width)


@dataclass(frozen=True, slots=True)
class ObjectKey:
    """Name of one object: supplement 0 is the window's first object, later ones hold what came after it."""

    table: str
    window: Window
    supplement: int = 0

    def __str__(self) -> str:
        start = dt.datetime.fromtimestamp(self.window.start // SECOND, dt.UTC)
        number = f"-s{self.supplement}" if self.supplement else ""
        return (
            f"{self.table}/date={start:%Y-%m-%d}/hour={start:%H}/"
            f"{self.table}-{self.window.start}-{self.window.end}{number}.parquet"
        )

    @property
    def manifest(self) -> str:
        """Name of the manifest beside the object."""
        return str(self).removesuffix(".parquet") + ".manifest.json"


def parse_key(text: str) -> ObjectKey:
    """Read what ObjectKey printed.

    Raises:
        ValueError: not the name of an object of ours.
    """
    match = _KEY.fullmatch(text)
    if match is None:
        raise ValueError(f"not an object of the archive: {text!r}")
    window = Window(int(match["start"]), int(match["end"]))
    key = ObjectKey(match["table"], window, int(match["supplement"] or 0))
    if str(key) != text:
        raise ValueError(f"date and hour do not fit the window: {text!r}")
    return key
