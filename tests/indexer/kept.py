"""A table with segments as indexers commit them, and a keeper for it, on any body of the bucket.

Rows are written as files of the indexer's own assembly, so what is kept is what there would be.
"""

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import prometheus_client
from deltalake import DeltaTable

from collector.wire.range import Stream, file_id
from indexer.keeper.jobs import Jobs
from indexer.keeper.metrics import KeeperMetrics
from indexer.keeper.run import Keeper
from indexer.keeper.settings import KeeperSettings
from indexer.ledger.bring_up import bring_up
from indexer.ledger.ledger import Ledger
from indexer.object_names import COVERAGE_FOLDER, new_name, segment_folder
from indexer.store.bucket import Bucket
from indexer.store.checked_file import checked_name
from indexer.table.coverage import to_object
from indexer.table.table import NO_ROWS, Added, Live, Table, live
from tests.indexer.shipped import CLUSTER, START_NS, File, Run, Way

HOUR_NS = 3600 * 10**9
A_DAY_LATER = START_NS + 24 * HOUR_NS
KEYS = ("namespace", "pod", "file_id", "epoch", "offset")
FAST = {"compact_inputs_min": 2, "compact_settle_ms": 0, "gather_objects_min": 2}


@dataclass(frozen=True)
class PodFile(File):
    """A log file in any namespace."""

    namespace: str = "shop"

    @property
    def stream(self) -> Stream:
        uid = f"uid-{self.namespace}-{self.pod}"
        return Stream(self.namespace, self.pod, uid, "app", 0)

    @property
    def id(self) -> bytes:
        return file_id(CLUSTER, self.node, self.stream, self.data.partition(b"\n")[0])


@dataclass
class Kept:
    """A table, what has been committed to it, and the time."""

    bucket: Bucket
    now_ns: int = A_DAY_LATER
    way: Way = field(default_factory=Way)
    run: Run = field(default_factory=Run)
    at: int | None = None

    def __post_init__(self) -> None:
        self.table.make()

    @property
    def table(self) -> Table:
        return Table(self.bucket, CLUSTER)

    def commit(self, *files: File, count: int | None = None) -> None:
        """Commit files, or their first ``count`` lines, as an indexer does."""
        for file in files:
            end = len(b"".join(file.data.splitlines(keepends=True)[:count]))
            batches = [self.run.batch(each, of=[file]) for each in file.ranges((), end=end)]
            coverage = self.way.commit(*batches)
            added = []
            for segment in self.way.done[-1].segments:
                folder = segment_folder(segment.date, segment.hour)
                name = checked_name(folder, segment.data)
                self.bucket.put(self.table.folder + name, segment.data)
                added.append(
                    Added(name, len(segment.data), segment.stats, segment.date, segment.hour)
                )
            data = to_object(coverage)
            name = new_name(COVERAGE_FOLDER, data)
            self.bucket.put(self.table.folder + name, data)
            added.append(Added(name, len(data), NO_ROWS))
            [position] = coverage.positions
            self.table.commit(added, {"logs/0/0": self.at}, {"logs/0/0": position.end})
            self.at = position.end

    def jobs(
        self,
        bucket: Bucket | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        **settings: Any,
    ) -> Jobs:
        """Return the jobs of a new keeper."""
        return Jobs(
            KeeperSettings(cluster=CLUSTER, **{**FAST, **settings}),
            bucket or self.bucket,
            KeeperMetrics(prometheus_client.CollectorRegistry()),
            clock=lambda: self.now_ns,
            monotonic=monotonic,
        )

    def keeper(self, monotonic: Callable[[], float], **settings: Any) -> Keeper:
        """Return a new keeper."""
        return Keeper(self.jobs(monotonic=monotonic, **settings))

    def objects(self) -> list[Live]:
        return live(self.table.snapshot())

    def segments(self) -> list[Live]:
        return [each for each in self.objects() if not each.is_coverage]

    def coverage(self) -> list[Live]:
        return [each for each in self.objects() if each.is_coverage]

    def ledger(self) -> Ledger:
        return bring_up(Ledger(), self.table, self.table.snapshot().version())

    def rows(self) -> list[dict[str, Any]]:
        """Return every row with all its columns, in the order of the files."""
        options = self.bucket.storage_options
        rows: list[dict[str, Any]] = (
            DeltaTable(self.table.uri, storage_options=options).to_pyarrow_table().to_pylist()
        )
        return sorted(rows, key=lambda row: tuple(row[key] for key in KEYS))

    def messages(self) -> list[str]:
        return [row["message"] for row in self.rows()]

    def stored(self) -> dict[str, str]:
        """Return name and content of every object of the table, also of those it does not name."""
        return {
            name: hashlib.sha256(self.bucket.get(name)).hexdigest()
            for name in self.bucket.names(self.table.folder)
            if "_delta_log" not in name
        }


def before_commit(jobs: Jobs, act: Callable[[], object]) -> None:
    """Let something happen between the work for a commit of these jobs and the commit itself."""
    commit = jobs.fenced.commit

    def late(*args: Any, **more: Any) -> None:
        act()
        commit(*args, **more)

    jobs.fenced.commit = late  # type: ignore[method-assign]
