"""Every metric of the collector, with its unit in its name."""

import prometheus_client as prometheus


class CollectorMetrics:
    """Counters and gauges of one collector, in a registry of its own."""

    def __init__(self, registry: prometheus.CollectorRegistry) -> None:
        """Register all of them."""
        self.registry = registry
        self._told: dict[prometheus.Counter, int] = {}
        self.files = prometheus.Gauge(
            "everyline_collector_files", "Files held open", registry=registry
        )
        self.read_bytes = prometheus.Counter(
            "everyline_collector_read_bytes", "Raw bytes read and packed", registry=registry
        )
        self.acked_batches = prometheus.Counter(
            "everyline_collector_acked_batches", "Batches the topic has", registry=registry
        )
        self.wire_bytes = prometheus.Counter(
            "everyline_collector_wire_bytes", "Bytes given to the topic", registry=registry
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
        self.seconds_until_deletion = prometheus.Gauge(
            "everyline_collector_seconds_until_deletion",
            "Until the kubelet deletes bytes that are not read yet, worst file; +Inf: never",
            registry=registry,
        )
        self.held_bytes = prometheus.Gauge(
            "everyline_collector_held_bytes",
            "Disk that deleted files hold because they are open",
            registry=registry,
        )
        self.spool_bytes = prometheus.Gauge(
            "everyline_collector_spool_bytes", "Bytes of the spool on disk", registry=registry
        )
        self.spool_batches = prometheus.Gauge(
            "everyline_collector_spool_batches", "Batches in the spool", registry=registry
        )
        self.spool_failed = prometheus.Gauge(
            "everyline_collector_spool_failed",
            "1 while the spool cannot be written",
            registry=registry,
        )
        self.topic_stalled = prometheus.Gauge(
            "everyline_collector_topic_stalled",
            "1 while the topic takes nothing, or too slowly",
            registry=registry,
        )
        self.shed_bytes = prometheus.Counter(
            "everyline_collector_shed_bytes",
            "Raw bytes given up, each in a GAP, because spool or held files were full",
            registry=registry,
        )
        self.elided_bytes = prometheus.Counter(
            "everyline_collector_elided_bytes",
            "Bytes that a rule of the policy left out",
            ["rule"],
            registry=registry,
        )
        self.elided_lines = prometheus.Counter(
            "everyline_collector_elided_lines",
            "Lines that a rule of the policy left out",
            ["rule"],
            registry=registry,
        )
        self.redacted_ranges = prometheus.Counter(
            "everyline_collector_redacted_ranges",
            "Ranges in which a rule has overwritten bytes",
            registry=registry,
        )
        self.policy_rules = prometheus.Gauge(
            "everyline_collector_policy_rules", "Rules in force", registry=registry
        )
        self.policy_reload_failures = prometheus.Counter(
            "everyline_collector_policy_reload_failures",
            "Changed policy files that could not be used",
            registry=registry,
        )
        self.metadata_pods = prometheus.Gauge(
            "everyline_collector_metadata_pods", "Pods whose labels are known", registry=registry
        )
        self.metadata_requests = prometheus.Counter(
            "everyline_collector_metadata_requests", "Requests for labels", registry=registry
        )
        self.metadata_failures = prometheus.Counter(
            "everyline_collector_metadata_failures",
            "Requests for labels that failed",
            registry=registry,
        )
        self.metadata_success_timestamp_seconds = prometheus.Gauge(
            "everyline_collector_metadata_success_timestamp_seconds",
            "When labels were last heard of",
            registry=registry,
        )
        self.metadata_limit_reached = prometheus.Counter(
            "everyline_collector_metadata_limit_reached",
            "Labels, values and pods left out, by the name of the limit",
            ["limit"],
            registry=registry,
        )

    def advance(self, counter: prometheus.Counter, total: int) -> None:
        """Bring a counter up to a total that is counted elsewhere."""
        counter.inc(total - self._told.get(counter, 0))
        self._told[counter] = total
