"""Every metric of the keeper, with its unit in its name."""

import prometheus_client as prometheus

from indexer.ledger.ledger import Ledger


class KeeperMetrics:
    """Gauges and counters of one keeper, in a registry of its own."""

    def __init__(self, registry: prometheus.CollectorRegistry) -> None:
        """Register all of them."""
        self.registry = registry
        self.folded_at_version = -1
        self.folded_ns = 0

        def gauge(name: str, text: str, *labels: str) -> prometheus.Gauge:
            return prometheus.Gauge(f"everyline_keeper_{name}", text, labels, registry=registry)

        def counter(name: str, text: str, *labels: str) -> prometheus.Counter:
            return prometheus.Counter(f"everyline_keeper_{name}", text, labels, registry=registry)

        self.folded_version = gauge("folded_version", "Version of the table in the ledger")
        self.files = gauge("files", "Files in the ledger")
        self.lost = gauge("lost_ranges", "Ranges of files that are lost")
        self.lane_holes = gauge("lane_holes", "Runs of batches that are lost")
        self.jumps = gauge("jumps", "Ranges of topic positions that were skipped")
        self.folded_at = gauge("folded_timestamp_seconds", "Time at which the last fold ended")
        self.standby = gauge("standby", "1 while another keeper is at work")
        self.progress = gauge("job_progress_ratio", "Progress of a job, from 0 to 1", "job")
        self.job_succeeded_at = gauge(
            "job_success_timestamp_seconds", "Time at which a job last succeeded", "job"
        )
        self.job_failures = counter("job_failures", "Times that a job failed", "job")
        self.job_failing_since = gauge(
            "job_failing_since_timestamp_seconds", "Since then a job has failed; 0: it works", "job"
        )
        self.job_seconds = prometheus.Summary(
            "everyline_keeper_job_seconds", "Duration of a job", ["job"], registry=registry
        )
        self.checkpoints = counter(
            "checkpoints", "Checkpoints of the table's log that were written"
        )
        self.compactions = counter("compactions", "Groups of segments that were merged into one")
        self.compactions_refused = counter(
            "compactions_refused", "Groups not merged: damaged, unsorted, or not balancing"
        )
        self.compacted_bytes = counter(
            "compacted_bytes", "Bytes of the segments that compaction read"
        )
        self.compacted_to_bytes = counter(
            "compacted_to_bytes", "Bytes of the segments that compaction wrote"
        )
        self.streams_rows = counter("streams_rows", "Rows of labels added to the table of streams")
        self.gathered_objects = counter("gathered_objects", "Coverage objects that were merged")
        self.expired_rows = counter("expired_rows", "Rows removed by retention")
        self.deleted_rows = counter("deleted_rows", "Rows removed on request")
        self.open_deletions = gauge("open_deletions", "Requests for deletion that are not done")
        self.scrubbed_objects = counter(
            "scrubbed_objects", "Committed objects that were read again"
        )
        self.scrubbed_bytes = counter(
            "scrubbed_bytes", "Bytes of committed objects that were read again"
        )
        self.damaged_objects = gauge(
            "damaged_objects", "Objects that are missing or not what was committed"
        )
        self.scrubbed_since = gauge(
            "scrubbed_since_timestamp_seconds",
            "Since then every object has been read again; 0: not yet",
        )
        self.vacuumed_objects = counter(
            "vacuumed_objects", "Objects that were vacuumed, as no version named them"
        )

    def measure(self, ledger: Ledger, now_ns: int) -> None:
        """Note what a ledger that was just folded holds."""
        self.folded_at_version, self.folded_ns = ledger.version, now_ns
        self.folded_version.set(ledger.version)
        self.files.set(len(ledger.files) + sum(map(len, ledger.settled.values())))
        self.lost.set(sum(len(file.lost) for file in ledger.files.values()))
        self.lane_holes.set(sum(len(lane.holes) for lane in ledger.lanes.values()))
        self.jumps.set(len(ledger.jumps))
        self.folded_at.set(now_ns / 1e9)
