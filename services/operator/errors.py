"""What can be wrong with a zone as the operator sees it."""

from typing import ClassVar


class OperatorError(Exception):
    """A zone cannot be reconciled."""

    retryable: ClassVar[bool] = False


class GathererInvalid(OperatorError):
    """A Gatherer does not say what it must; its message says which field."""


class LoginUnknown(OperatorError):
    """The planner's Secret cannot be read and was not read before; asked again."""

    retryable: ClassVar[bool] = True
