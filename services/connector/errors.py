"""What ends a connection from our side; each class says what to do."""

from typing import ClassVar


class ConnectorError(Exception):
    """The connector cannot go on with a connection."""

    retryable: ClassVar[bool] = False


class CrossedBook(ConnectorError):
    """A first snapshot is crossed: the exchange reads use_yes_price otherwise than we do; fix connector.use_yes_price."""


class Silent(ConnectorError):
    """The socket, or a subscription on it, is dead: nothing came for too long, or the exchange says so; reconnect."""

    retryable: ClassVar[bool] = True


class Late(ConnectorError):
    """The connection is open, but its frames come ever later; reconnect."""

    retryable: ClassVar[bool] = True


class NumbersReused(ConnectorError):
    """The exchange began a subscription's numbers anew, or gave its sid again: what it proves can only be told by another
    connection; reconnect.
    """

    retryable: ClassVar[bool] = True


class Unanswered(ConnectorError):
    """The exchange did not answer a command in time; reconnect."""

    retryable: ClassVar[bool] = True
