from prometheus_client import Counter, Gauge, Histogram

from libs.telemetry.metrics import PREFIX, Metrics

LABELS = {
    *("channel", "table", "family", "reason", "gatherer", "endpoint", "status", "task"),
    *("service", "version", "revision", "cause", "outcome", "change", "state", "kind"),
}


def test_the_zone_stands_on_every_sample() -> None:
    """Without any caller knowing it; beside the metric's own labels."""
    metrics = Metrics("a")
    metrics.ws_frames_received_total.labels(channel="trade").inc(2)
    text = metrics.exposition()[0].decode()
    assert 'kalshi_data_ws_frames_received_total{channel="trade",zone="a"} 2.0' in text
    samples = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert all('zone="a"' in line for line in samples)
    assert "_created" not in text


def test_a_process_without_a_zone_has_no_such_label() -> None:
    """The deduplicator's samples name gatherers, not a zone of its own."""
    metrics = Metrics()
    metrics.gatherer_quarantined.labels(gatherer="b").set(1)
    text = metrics.exposition()[0].decode()
    assert 'kalshi_data_gatherer_quarantined{gatherer="b"} 1.0' in text


def test_registries_do_not_share() -> None:
    """Two in one process do not collide and do not see each other."""
    one, two = Metrics(), Metrics()
    one.ws_connections.set(5)
    assert "kalshi_data_ws_connections 0.0" in two.exposition()[0].decode()


def test_openmetrics_is_served_to_who_asks_for_it() -> None:
    """By the Accept header."""
    body, content_type = Metrics().exposition("application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    assert body.endswith(b"# EOF\n")


def test_every_metric_is_named_after_its_attribute_and_explained() -> None:
    """Prefix, help that is a sentence, known low-cardinality labels, units last."""
    metrics = Metrics()
    found = {
        name: metric
        for name, metric in vars(metrics).items()
        if isinstance(metric, Counter | Gauge | Histogram)
    }
    assert len(found) > 35
    for name, metric in found.items():
        described = list(metric.describe())
        suffix = "_total" if isinstance(metric, Counter) else ""
        assert [d.name + suffix for d in described] == [PREFIX + name]
        assert described[0].documentation.endswith(".") and len(described[0].documentation) > 20
        assert set(metric._labelnames) <= LABELS, name
        assert isinstance(metric, Counter) == name.endswith("_total"), name
        assert not isinstance(metric, Histogram) or name.endswith("_seconds"), name
