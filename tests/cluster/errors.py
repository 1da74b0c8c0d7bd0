"""What can go wrong while a cluster is tested."""


class CommandFailed(RuntimeError):
    """A program ended with another status than 0, or not in time; the message has its last words."""


class NotInTime(AssertionError):
    """Something that had to happen did not; the message says what, and how things stood at the end."""


class ScenarioFailed(AssertionError):
    """A scenario's figures do not hold."""


class Skipped(Exception):
    """A scenario cannot be played here; the message says what it needs."""
