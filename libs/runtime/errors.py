"""What can be wrong with a process before and beside its work.

The first line of a class is the sentence an operator reads when the error brings no other.
"""

from collections.abc import Sequence
from typing import ClassVar


class RuntimeFault(Exception):
    """The process cannot run as it is set up."""

    retryable: ClassVar[bool] = False

    def __str__(self) -> str:
        return super().__str__() or (type(self).__doc__ or type(self).__name__).splitlines()[0]


class ConfigInvalid(RuntimeFault):
    """The configuration is not usable; every fault of it is listed at once.

    Attributes:
        faults: one sentence each, beginning with the dotted key or the variable's name.
    """

    def __init__(self, faults: Sequence[str]) -> None:
        self.faults = tuple(faults)
        super().__init__(f"{len(self.faults)} faults in the configuration")

    def __str__(self) -> str:
        return "\n".join(self.faults)


class EternalTaskEnded(RuntimeFault):
    """A task that should run until the stop signal ended before it."""


class PortUnavailable(RuntimeFault):
    """A port of the health server cannot be opened; another process may be using it."""
