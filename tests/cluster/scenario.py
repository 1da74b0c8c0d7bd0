"""What a scenario is: the release it needs, whether it breaks nodes, its time, and what it does."""

from typing import ClassVar

from tests.cluster.figures import Figure
from tests.cluster.ground import Ground
from tests.cluster.values import ZONES


class Scenario:
    """Base of all.

    Attributes:
        number: as the issue counts them. title: what it shows. timeout_s: of one run, release included.
        zones: gatherers of the release it needs; empty: it installs by itself.
        breaks: it needs somebody who can break nodes or the Kubernetes API.
        fresh: what ran before it goes first: journals and databases that have grown long make every verdict slow.
    """

    number: ClassVar[int]
    title: ClassVar[str]
    timeout_s: ClassVar[float]
    zones: ClassVar[tuple[str, ...]] = ZONES
    breaks: ClassVar[bool] = False
    fresh: ClassVar[bool] = False

    async def play(self, ground: Ground) -> list[Figure]:
        """Do it, leave the release whole, return the figures.

        Raises:
            NotInTime, CommandFailed: something did not happen.
        """
        raise NotImplementedError
