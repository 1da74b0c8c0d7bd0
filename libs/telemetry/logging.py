"""Log lines: a closed event name and key=value facts, one line per unit of work, to standard output and nothing else.

    log = get_logger(__name__)
    log.info("batch_committed", family="deltas", rows=5000)

An event is lower_snake_case and says what happened; the facts say to what. The process binds its service and zone once.
Lines of other libraries come out in the same form as the event `library_message`.
"""

import json
import logging
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from libs.telemetry import tracing

LEVELS: Final[Mapping[str, int]] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
LIBRARY_MESSAGE = "library_message"
_QUIET_LIBRARIES = (
    *("asyncio", "aiohttp", "websockets", "sqlalchemy", "alembic", "botocore", "s3fs"),
    "kubernetes_asyncio",  # it would log the text of Secrets
)
_MUTE_LIBRARIES = ("kopf",)
"""kopf calls every attempt to reach an API that is away an error; that it ends, and why, is said by who runs it."""


class Logger:
    """A named logger whose only argument beside the event is its facts.

    The level is compared before anything is built, so a disabled `debug` costs one look-up.
    """

    __slots__ = ("_facts", "_logger")

    def __init__(self, logger: logging.Logger, facts: Mapping[str, Any]) -> None:
        self._logger = logger
        self._facts = facts

    def bind(self, **facts: Any) -> "Logger":
        """The same logger with more facts on every line."""
        return Logger(self._logger, {**self._facts, **facts})

    def debug(self, event: str, **facts: Any) -> None:
        """A line for someone looking for a fault."""
        self._write(logging.DEBUG, event, facts)

    def info(self, event: str, **facts: Any) -> None:
        """A line for the history of the process."""
        self._write(logging.INFO, event, facts)

    def warning(self, event: str, **facts: Any) -> None:
        """A line someone should read tomorrow."""
        self._write(logging.WARNING, event, facts)

    def error(self, event: str, **facts: Any) -> None:
        """A line someone should read now."""
        self._write(logging.ERROR, event, facts)

    def exception(self, event: str, **facts: Any) -> None:
        """An error line with the traceback of the exception being handled."""
        self._write(logging.ERROR, event, facts, exc_info=True)

    def _write(
        self, level: int, event: str, facts: Mapping[str, Any], *, exc_info: bool = False
    ) -> None:
        if self._logger.isEnabledFor(level):
            extra = {"event": event, "facts": {**self._facts, **facts}}
            self._logger.log(level, event, exc_info=exc_info, extra=extra, stacklevel=3)


class _Formatter(logging.Formatter):
    def __init__(self, bound: Mapping[str, str]) -> None:
        super().__init__()
        self._bound = bound

    def fields(self, record: logging.LogRecord) -> dict[str, Any]:
        """The line as a mapping, in the order it is written."""
        moment = datetime.fromtimestamp(record.created, UTC)
        fields: dict[str, Any] = {
            "time": moment.isoformat(timespec="microseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "event": getattr(record, "event", LIBRARY_MESSAGE),
            **self._bound,
            "logger": record.name,
        }
        if fields["event"] == LIBRARY_MESSAGE:
            fields["message"] = record.getMessage()
        facts: Mapping[str, Any] = getattr(record, "facts", {})
        fields |= {f"{key}_" if key in fields else key: fact for key, fact in facts.items()}
        fields |= tracing.current_ids()
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        return fields


class JsonFormatter(_Formatter):
    """One JSON object a line; what JSON cannot say is written as its text."""

    def format(self, record: logging.LogRecord) -> str:
        return json.dumps(self.fields(record), default=str, ensure_ascii=False)


class TextFormatter(_Formatter):
    """`12:00:00.123 INFO  batch_committed zone=a rows=5000`, for eyes; a traceback follows on its own lines."""

    def format(self, record: logging.LogRecord) -> str:
        fields = self.fields(record)
        clock, level, event = fields.pop("time")[11:23], fields.pop("level"), fields.pop("event")
        traceback = fields.pop("traceback", None)
        if event != LIBRARY_MESSAGE:
            fields.pop("logger")
        rest = " ".join(f"{key}={_quoted(value)}" for key, value in fields.items())
        line = f"{clock} {level.upper():<7} {event} {rest}".rstrip()
        return f"{line}\n{traceback}" if traceback else line


def configure(format: str, level: str, service: str, zone: str) -> None:  # noqa: A002 - the setting's name
    """Send every log line of the process to standard output; called once, by the entry point.

    Args:
        format: "json" or "text".
        level: a key of LEVELS; other libraries speak from "warning" on only.
        service: bound to every line.
        zone: bound to every line; empty for a service that belongs to no zone.
    """
    bound = {"service": service} | ({"zone": zone} if zone else {})
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonFormatter(bound) if format == "json" else TextFormatter(bound))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(LEVELS[level])
    for library in _QUIET_LIBRARIES:
        logging.getLogger(library).setLevel(max(LEVELS[level], logging.WARNING))
    for library in _MUTE_LIBRARIES:
        logging.getLogger(library).setLevel(logging.CRITICAL)


def get_logger(name: str, **facts: Any) -> Logger:
    """The logger of a module: `get_logger(__name__)`; facts given here stand on every line."""
    return Logger(logging.getLogger(name), facts)


def _quoted(value: Any) -> str:
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if not text or set(text) & set(' "=\n\t') else text
