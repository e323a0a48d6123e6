"""Every metric of the query service, with its unit in its name."""

import prometheus_client as prometheus


class QueryMetrics:
    """Counters and gauges of one service, in a registry of its own."""

    def __init__(self, registry: prometheus.CollectorRegistry) -> None:
        """Register all of them."""
        self.registry = registry
        self.request_seconds = prometheus.Histogram(
            "everyline_query_request_seconds",
            "Time of a request, by endpoint and status",
            ["endpoint", "status"],
            registry=registry,
        )
        self.answers = prometheus.Counter(
            "everyline_query_answers",
            "Answers to searches, by verdict",
            ["verdict"],
            registry=registry,
        )
        self.limit_reached = prometheus.Counter(
            "everyline_query_limit_reached",
            "Requests that a limit cut short or refused, by the limit's setting",
            ["limit"],
            registry=registry,
        )
        self.scanned_bytes = prometheus.Counter(
            "everyline_query_scanned_bytes", "Bytes read from segments", registry=registry
        )
        self.gets = prometheus.Counter(
            "everyline_query_gets", "Ranged requests for segments", registry=registry
        )
        self.outline_bytes = prometheus.Gauge(
            "everyline_query_outline_bytes",
            "Bytes of segments' footers and token filters that are held",
            registry=registry,
        )
        self.segments_failed = prometheus.Counter(
            "everyline_query_segments_failed", "Segments that could not be read", registry=registry
        )
        self.version = prometheus.Gauge(
            "everyline_query_table_version", "Version of the table that is held", registry=registry
        )
        self.refresh_failed = prometheus.Gauge(
            "everyline_query_refresh_failed",
            "1 while the view of the table cannot be refreshed",
            registry=registry,
        )
