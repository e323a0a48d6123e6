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
        self.trimmed_bytes = counter(
            "trimmed_bytes", "Raw bytes dropped because the table had them already"
        )
        self.rows = counter("rows", "Rows committed")
        self.segment_bytes = counter("segment_bytes", "Bytes of segments uploaded")
        self.dead_letters = counter("dead_letters", "Records that could not be decoded as a batch")
        self.jumps = counter("jumps", "Times that positions of the topic were skipped")
        self.buffer_full = counter(
            "buffer_full",
            "Times that reading waited for a commit, as the buffer was full",
        )
        self.refused_batches = counter(
            "refused_batches", "Batches kept as dead letters because their counts differ"
        )
        self.shares_changed = counter(
            "shares_changed", "Times that this indexer's share of the partitions changed"
        )
        self.positions_moved = counter("positions_moved", "Commits lost to another indexer")
        self.epochs_raised = counter(
            "epochs_raised", "Ranges whose bytes differ from those known of their file"
        )
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
            "Partitions that are stopped until somebody acts",
            registry=registry,
        )
        self.flooded = prometheus.Gauge(
            "everyline_indexer_flooded_partitions",
            "Partitions in which dead_letters_in_row_max is reached",
            registry=registry,
        )
        self.partitions = prometheus.Gauge(
            "everyline_indexer_partitions", "Partitions that this indexer reads", registry=registry
        )
        self.buffered_bytes = prometheus.Gauge(
            "everyline_indexer_buffered_bytes",
            "Bytes fetched, decoded and being committed, as buffer_bytes counts them",
            registry=registry,
        )
