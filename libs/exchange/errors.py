"""What can go wrong with the exchange; each class says what to do, and foreign errors are mapped to these at the border."""

from typing import ClassVar


class ExchangeError(Exception):
    """The exchange could not be used."""

    retryable: ClassVar[bool] = False


class TransportError(ExchangeError):
    """The exchange is not reachable or broke off; try again after a while."""

    retryable: ClassVar[bool] = True


class ConnectionEnded(TransportError):
    """The websocket is closed; open a new one.

    Attributes: code and reason are those of the exchange's close frame, None and a description without one.
    """

    def __init__(self, code: int | None, reason: str) -> None:
        super().__init__(f"websocket closed: {reason}" if code is None else f"{code} {reason}")
        self.code = code
        self.reason = reason


class ClockSkewed(TransportError):
    """The exchange refused our timestamp: check that this machine's clock is within a few seconds of UTC."""


class RateLimited(ExchangeError):
    """The exchange answers 429: the read budget of the account or address is used up.

    Attributes: retry_after_s, None when the exchange names no time (it does not, today).
    """

    retryable: ClassVar[bool] = True

    def __init__(self, message: str, retry_after_s: float | None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class ApiError(ExchangeError):
    """The exchange refused a request; repeating it would not help."""

    def __init__(self, status: int, code: str, message: str, details: str) -> None:
        text = " ".join(part for part in (code, message, details) if part)
        super().__init__(f"HTTP {status} {text}".rstrip())
        self.status = status
        self.code = code
        self.message = message
        self.details = details


class ApiUnavailable(ApiError):
    """The exchange answered 5xx; try again after a while."""

    retryable: ClassVar[bool] = True


class PagingBroken(ExchangeError):
    """A listing did not come to its end (a cursor came twice, or too many pages); begin it again."""

    retryable: ClassVar[bool] = True


class SubscriptionRejected(ExchangeError):
    """The exchange refused a subscription; counted by the session, which gives up after some."""

    retryable: ClassVar[bool] = True

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"error {code}: {message}")
        self.code = code


class Undecodable(ExchangeError):
    """A frame or answer that is not what the exchange documents; it costs itself, the session lives.

    Attributes: reason, one line.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class AuthRejected(ExchangeError):
    """The key is missing, unusable or refused; check api_key_id, private_key_file and the environment."""


class KeyLapsed(ExchangeError):
    """A key that this process has read with is refused now: in passing, or for good. Ask again; a person should look."""

    retryable: ClassVar[bool] = True


class EndpointInvalid(ValueError):
    """An address in the configuration cannot be used. Attributes: faults, all of them, one line each."""

    def __init__(self, faults: tuple[str, ...]) -> None:
        super().__init__("; ".join(faults))
        self.faults = faults
