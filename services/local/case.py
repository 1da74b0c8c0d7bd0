"""What a verdict is taken of: the exchange's journals, production, and what is known to have been done to the zones."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from libs.marketdata.listening import Span
from libs.store.pool import Target
from services.local.troubles import Trouble


@dataclass(frozen=True, slots=True)
class Case:
    """One verdict's evidence; times in microseconds."""

    market: Path
    """The exchange's journal of what was published."""
    session: Path
    """Its journal of what was sent to whom."""
    production: Target
    """The database that is judged."""
    keys: Mapping[str, str]
    """API key id of each zone."""
    wants: Callable[[str], bool]
    """Whether a market is captured at all."""
    done: Sequence[Trouble] = ()
    """What was done to zones that may have cost them rows they had heard."""
    absences: Mapping[str, Span] = field(default_factory=dict)
    """When a zone was away; its gaps must show it."""
    archive: Path | None = None
    """The archive to compare with; None: none."""
    span: Span | None = None
    """What is judged of a run that goes on: [from, to) of exchange time; None: all of a run that has ended."""
    epoch: int | None = None
    """When this exchange began; what production holds of an earlier one is nothing of its journals. None: there was none."""

    def key_id(self, zone: str) -> str:
        """Return the API key id of a zone."""
        return self.keys[zone]


def lines_of(path: Path) -> Iterator[bytes]:
    """Read a journal; a last line that is still being written is left out."""
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                yield line
