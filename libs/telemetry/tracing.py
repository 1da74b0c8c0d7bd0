"""A thin door to OpenTelemetry: spans per flush, reconnection, cycle or page, never per message.

Without an OTLP endpoint (OTEL_EXPORTER_OTLP_ENDPOINT) nothing of OpenTelemetry is imported and a span costs nothing
worth measuring. With one, the extra `tracing` must be installed; a span costs about 16 µs.
"""

import importlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

ENDPOINT_VARIABLE = "OTEL_EXPORTER_OTLP_ENDPOINT"
EXPORT_TIMEOUT_S = 2
"""Seconds one export may take, retries included; a stop waits no longer than this for an endpoint that is away."""
_EXPORTER = "opentelemetry.exporter.otlp.proto.http.trace_exporter"


class TracingUnavailable(Exception):
    """An OTLP endpoint is set but its exporter is not installed; install the extra `tracing` or unset the endpoint."""

    def __str__(self) -> str:
        return (type(self).__doc__ or "").strip()


class _Door:
    """The process's tracer, None while there is no endpoint."""

    provider: Any = None
    tracer: Any = None


def configure(environ: Mapping[str, str], service: str, zone: str, version: str) -> bool:
    """Begin to export spans if an endpoint is set; called once, by the entry point.

    Returns:
        Whether spans are exported.

    Raises:
        TracingUnavailable: there is an endpoint but no exporter.
    """
    if not environ.get(ENDPOINT_VARIABLE):
        return False
    try:
        exporter = importlib.import_module(_EXPORTER).OTLPSpanExporter(timeout=EXPORT_TIMEOUT_S)
    except ImportError as error:
        raise TracingUnavailable from error
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    identity = {"service.name": f"kalshi-data-{service}", "service.version": version}
    provider = TracerProvider(resource=Resource.create({**identity, "kalshi_data.zone": zone}))
    provider.add_span_processor(BatchSpanProcessor(exporter))
    _Door.provider, _Door.tracer = provider, provider.get_tracer("kalshi_data")
    return True


def shut_down() -> None:
    """Send what is left and stop; at the end of the process. Takes up to EXPORT_TIMEOUT_S when the endpoint is away."""
    if _Door.provider is not None:
        _Door.provider.shutdown()
        _Door.provider = _Door.tracer = None


@contextmanager
def span(name: str, **attributes: str | float | bool) -> Iterator[None]:
    """A span around a unit of work; nothing at all without an endpoint."""
    if _Door.tracer is None:
        yield
        return
    with _Door.tracer.start_as_current_span(name, attributes=attributes):
        yield


def current_ids() -> dict[str, str]:
    """trace_id and span_id of the running span in hexadecimal, for log lines; empty outside a span."""
    if _Door.tracer is None:
        return {}
    from opentelemetry import trace

    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return {}
    return {"trace_id": f"{context.trace_id:032x}", "span_id": f"{context.span_id:016x}"}
