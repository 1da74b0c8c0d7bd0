import sys

import pytest

from libs.telemetry import tracing


def test_without_an_endpoint_a_span_is_nothing() -> None:
    """No export, no ids on log lines."""
    assert tracing.configure({}, "poller", "a", "1.0.0") is False
    with tracing.span("flush", rows=1):
        assert tracing.current_ids() == {}
    tracing.shut_down()


def test_an_endpoint_without_its_exporter_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Tracing that was asked for and cannot be is a fault, not a silence."""
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(tracing.TracingUnavailable, match="install the extra `tracing`"):
        tracing.configure({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x:4318"}, "poller", "a", "1.0.0")


def test_a_span_lends_its_ids_to_log_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hexadecimal of fixed length, only inside."""
    trace = pytest.importorskip("opentelemetry.sdk.trace")
    provider = trace.TracerProvider()
    monkeypatch.setattr(tracing._Door, "provider", provider)
    monkeypatch.setattr(tracing._Door, "tracer", provider.get_tracer("t"))
    with tracing.span("flush"):
        ids = tracing.current_ids()
    assert (len(ids["trace_id"]), len(ids["span_id"])) == (32, 16)
    assert tracing.current_ids() == {}
    tracing.shut_down()
    assert tracing._Door.tracer is None
