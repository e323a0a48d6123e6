"""Every metric of the collector, with its unit in its name."""

import prometheus_client as prometheus


class CollectorMetrics:
    """Counters and gauges of one collector, in a registry of its own."""

    def __init__(self, registry: prometheus.CollectorRegistry) -> None:
        """Register all of them."""
        self.registry = registry
        self.files = prometheus.Gauge(
            "everyline_collector_files", "Files held open", registry=registry
        )
        self.read_bytes = prometheus.Counter(
            "everyline_collector_read_bytes", "Raw bytes read and packed", registry=registry
        )
        self.acked_batches = prometheus.Counter(
            "everyline_collector_acked_batches", "Batches the topic has", registry=registry
        )
        self.wire_bytes = prometheus.Gauge(
            "everyline_collector_wire_bytes_total", "Bytes given to the topic", registry=registry
        )
        self.unread_bytes = prometheus.Gauge(
            "everyline_collector_unread_bytes", "Bytes on disk not read yet", registry=registry
        )
        self.unacked_bytes = prometheus.Gauge(
            "everyline_collector_unacked_bytes", "Bytes read, not in the topic", registry=registry
        )
        self.oldest_unacked_seconds = prometheus.Gauge(
            "everyline_collector_oldest_unacked_seconds",
            "Age of the oldest batch that the topic does not have",
            registry=registry,
        )
        self.scan_seconds = prometheus.Summary(
            "everyline_collector_scan_seconds", "Time of a scan", registry=registry
        )
        self.scan_errors = prometheus.Gauge(
            "everyline_collector_scan_errors", "Places a scan could not see", registry=registry
        )
        self.checkpoint_failed = prometheus.Gauge(
            "everyline_collector_checkpoint_failed",
            "1 while the checkpoint cannot be written",
            registry=registry,
        )
