"""What ends a rollout, by what to do about it."""

from typing import ClassVar


class RolloutError(Exception):
    """The rollout cannot go on; the message says why."""

    retryable: ClassVar[bool] = False


class ToolMissing(RolloutError):
    """helm or kubectl is not on PATH."""


class ToolFailed(RolloutError):
    """helm or kubectl ended with an error.

    Attributes:
        output: what it wrote to standard output all the same.
    """

    retryable: ClassVar[bool] = True

    def __init__(self, message: str, output: str = "") -> None:
        super().__init__(message)
        self.output = output


class ToolTimedOut(ToolFailed):
    """helm or kubectl did not answer in time and was ended."""


class AnswerUnreadable(RolloutError):
    """helm or kubectl answered what nobody expected."""

    retryable: ClassVar[bool] = True


class ReleaseNotThere(RolloutError):
    """There is no such release to upgrade; install it first."""


class ReleaseBusy(RolloutError):
    """The release is in the middle of another operation, or one that was killed."""


class Stopped(RolloutError):
    """A step did not end well: what was released stays, the rest is held."""


class WordsWrong(RolloutError):
    """The command line asks for what would break the procedure."""
