"""What a scenario is: the run it needs, what it does to it, and the figures it is judged by."""

from dataclasses import dataclass
from typing import ClassVar

from tests.soak.evidence import Evidence, Measured
from tests.soak.ground import Ground, Terms, start_zone


@dataclass
class Scenario:
    """Base of all; fields are figures, so that `make soak` and the test suite run the same code.

    Attributes:
        name: what a person types. timeout_s: of one run from its first process to its verdict.
    """

    name: ClassVar[str]
    timeout_s: float = 600.0

    def terms(self) -> Terms:
        """Return what the run needs."""
        return Terms()

    async def begin(self, ground: Ground) -> None:
        """Start the zone; asked of the first scenario of a run only."""
        await start_zone(ground)

    async def act(self, ground: Ground) -> None:
        """Do it; leave the zone whole, so that another scenario may follow."""
        raise NotImplementedError

    async def measure(self, ground: Ground, evidence: Evidence) -> list[Measured]:
        """Return the figures; asked when everything has ended but the databases."""
        raise NotImplementedError
