"""What can go wrong with the archive."""

from typing import ClassVar


class ArchiveError(Exception):
    """The archive could not be written or read; what was not recorded is tried again."""

    retryable: ClassVar[bool] = True


class ObjectDiffers(ArchiveError):
    """An object read back is not what was put; it is written again."""


class ObjectUnreadable(ArchiveError):
    """An object is not what its name says, or damaged: its rows cannot be had from it."""
