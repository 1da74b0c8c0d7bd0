"""How a process tells what it does: log lines, metrics, traces; the only door to prometheus-client and OpenTelemetry."""
