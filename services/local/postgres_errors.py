"""What can be wrong with an embedded server."""

from typing import ClassVar


class PostgresUnusable(Exception):
    """An embedded PostgreSQL cannot be run here; the message says what to change."""

    retryable: ClassVar[bool] = False


class PostgresFailed(Exception):
    """An embedded PostgreSQL did not start or did not stop; the message ends with its log."""

    retryable: ClassVar[bool] = False
