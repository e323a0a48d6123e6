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
            "Partitions that wait for an upgrade of the indexer",
            registry=registry,
        )
        self.buffered_bytes = prometheus.Gauge(
            "everyline_indexer_buffered_bytes", "Raw bytes not committed yet", registry=registry
        )


class KeeperMetrics:
    """Gauges of one keeper, in a registry of its own."""

    def __init__(self, registry: prometheus.CollectorRegistry) -> None:
        """Register all of them."""
        self.registry = registry

        def gauge(name: str, text: str) -> prometheus.Gauge:
            return prometheus.Gauge(f"everyline_keeper_{name}", text, registry=registry)

        self.folded_version = gauge("folded_version", "Version of the table in the ledger")
        self.files = gauge("files", "Files in the ledger")
        self.lost = gauge("lost_ranges", "Ranges of files that are lost")
        self.lane_holes = gauge("lane_holes", "Runs of batches that are lost")
        self.jumps = gauge("jumps", "Positions passed over, as ranges")
        self.folded_at = gauge("folded_timestamp_seconds", "When the last fold ended")
        self.fold_seconds = prometheus.Summary(
            "everyline_keeper_fold_seconds", "Time of a fold", registry=registry
        )
