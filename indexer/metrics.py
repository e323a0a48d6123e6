"""Every metric of indexer and keeper, with its unit in its name."""

import prometheus_client as prometheus


class IndexerMetrics:
    """Counters and gauges of one indexer, in a registry of its own."""

    def __init__(self, registry: prometheus.CollectorRegistry) -> None:
        """Register all of them."""
        self.registry = registry

        def counter(name: str, text: str) -> prometheus.Counter:
            return prometheus.Counter(f"everyline_indexer_{name}", text, registry=registry)

        self.commits = counter("commits", "Commits made")
        self.raw_bytes = counter("raw_bytes", "Raw bytes committed, before trimming")
        self.trimmed_bytes = counter("trimmed_bytes", "Raw bytes that were there already")
        self.rows = counter("rows", "Rows committed")
        self.segment_bytes = counter("segment_bytes", "Bytes of segments uploaded")
        self.dead_letters = counter("dead_letters", "Records that were no batch")
        self.jumps = counter("jumps", "Times that positions were passed over")
        self.buffer_full = counter(
            "buffer_full",
            "Times that reading waited for a commit, buffer_bytes or flush_bytes held",
        )
        self.refused_batches = counter("refused_batches", "Batches buried for they do not add up")
        self.shares_changed = counter("shares_changed", "Times that other partitions became ours")
        self.positions_moved = counter("positions_moved", "Commits that another one forestalled")
        self.epochs_raised = counter("epochs_raised", "Ranges with other bytes than those known")
        self.commit_seconds = prometheus.Summary(
            "everyline_indexer_commit_seconds", "Time from flush to commit", registry=registry
        )
        self.lag_records = prometheus.Gauge(
            "everyline_indexer_lag_records",
            "Records in the topic that are not committed",
            ["partition"],
            registry=registry,
        )
        self.stopped = prometheus.Gauge(
            "everyline_indexer_stopped_partitions",
            "Partitions that wait for somebody to act",
            registry=registry,
        )
        self.flooded = prometheus.Gauge(
            "everyline_indexer_flooded_partitions",
            "Partitions in which dead_letters_in_row_max is reached",
            registry=registry,
        )
        self.partitions = prometheus.Gauge(
            "everyline_indexer_partitions", "Partitions followed", registry=registry
        )
        self.buffered_bytes = prometheus.Gauge(
            "everyline_indexer_buffered_bytes",
            "Bytes fetched, decoded and being committed, as buffer_bytes counts them",
            registry=registry,
        )
