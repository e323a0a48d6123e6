"""Every metric of the collector, with its unit in its name."""

from functools import partial

import prometheus_client as prometheus


class CollectorMetrics:
    """Counters and gauges of one collector, in a registry of its own."""

    def __init__(self, registry: prometheus.CollectorRegistry) -> None:
        """Register all of them."""
        self.registry = registry
        self._told: dict[prometheus.Counter, int] = {}
        gauge = partial(prometheus.Gauge, registry=registry)
        counter = partial(prometheus.Counter, registry=registry)
        summary = partial(prometheus.Summary, registry=registry)
        self.files = gauge("everyline_collector_files", "Files held open")
        self.read_bytes = counter("everyline_collector_read_bytes", "Raw bytes read and packed")
        self.acked_batches = counter(
            "everyline_collector_acked_batches", "Batches that the topic has acknowledged"
        )
        self.wire_bytes = counter("everyline_collector_wire_bytes", "Bytes sent to the topic")
        self.unread_bytes = gauge("everyline_collector_unread_bytes", "Bytes on disk not read yet")
        self.unacked_bytes = gauge(
            "everyline_collector_unacked_bytes", "Bytes read that the topic has not acknowledged"
        )
        self.oldest_unacked_seconds = gauge(
            "everyline_collector_oldest_unacked_seconds",
            "Age of the oldest batch that the topic has not acknowledged",
        )
        self.scan_seconds = summary("everyline_collector_scan_seconds", "Duration of a scan")
        self.scan_errors = gauge(
            "everyline_collector_scan_errors",
            "Files and directories that the last scan could not read",
        )
        self.checkpoint_failed = gauge(
            "everyline_collector_checkpoint_failed", "1 while the checkpoint cannot be written"
        )
        self.seconds_until_deletion = gauge(
            "everyline_collector_seconds_until_deletion",
            "Time until the kubelet deletes unread bytes, for the worst file; +Inf: never",
        )
        self.held_bytes = gauge(
            "everyline_collector_held_bytes", "Disk space of deleted files that are held open"
        )
        self.spool_bytes = gauge("everyline_collector_spool_bytes", "Bytes of the spool on disk")
        self.spool_batches = gauge("everyline_collector_spool_batches", "Batches in the spool")
        self.spool_failed = gauge(
            "everyline_collector_spool_failed", "1 while the spool cannot be written"
        )
        self.topic_stalled = gauge(
            "everyline_collector_topic_stalled", "1 while the topic accepts nothing, or too slowly"
        )
        self.shed_bytes = counter(
            "everyline_collector_shed_bytes",
            "Raw bytes given up, each in a GAP, because spool_bytes or held_bytes was reached",
        )
        self._add_policy(registry)
        self._add_metadata(registry)

    def _add_policy(self, registry: prometheus.CollectorRegistry) -> None:
        gauge = partial(prometheus.Gauge, registry=registry)
        counter = partial(prometheus.Counter, registry=registry)
        self.elided_bytes = counter(
            "everyline_collector_elided_bytes", "Bytes that a rule of the policy left out", ["rule"]
        )
        self.elided_lines = counter(
            "everyline_collector_elided_lines", "Lines that a rule of the policy left out", ["rule"]
        )
        self.redacted_ranges = counter(
            "everyline_collector_redacted_ranges", "Ranges in which a rule has overwritten bytes"
        )
        self.policy_rules = gauge("everyline_collector_policy_rules", "Rules in force")
        self.policy_reload_failures = counter(
            "everyline_collector_policy_reload_failures",
            "Changed policy files that could not be used",
        )

    def _add_metadata(self, registry: prometheus.CollectorRegistry) -> None:
        gauge = partial(prometheus.Gauge, registry=registry)
        counter = partial(prometheus.Counter, registry=registry)
        self.metadata_pods = gauge(
            "everyline_collector_metadata_pods", "Pods whose labels are known"
        )
        self.metadata_requests = counter(
            "everyline_collector_metadata_requests", "Requests for labels"
        )
        self.metadata_failures = counter(
            "everyline_collector_metadata_failures", "Requests for labels that failed"
        )
        self.metadata_success_timestamp_seconds = gauge(
            "everyline_collector_metadata_success_timestamp_seconds",
            "Time at which labels were last received",
        )
        self.metadata_limit_reached = counter(
            "everyline_collector_metadata_limit_reached",
            "Labels, values and pods left out, by the name of the limit",
            ["limit"],
        )

    def advance(self, counter: prometheus.Counter, total: int) -> None:
        """Bring a counter up to a total that is counted elsewhere."""
        counter.inc(total - self._told.get(counter, 0))
        self._told[counter] = total
