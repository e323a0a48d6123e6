"""What a keeper does with a table: one method for each job, each of them a whole.

The table as it is goes in; it comes out folded, with fewer and larger objects, and without the rows
that have expired or were asked to go. A job that is ended half-way has left a table that is right:
the next turn begins with what is there.
"""

import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from deltalake.exceptions import DeltaError

from indexer.errors import BadRequest, TableUnavailable
from indexer.keeper.compact import CompactionLimits, compact, plan_compactions
from indexer.keeper.delete import Examined, delete
from indexer.keeper.exchange import LEFT_ALONE
from indexer.keeper.expire import Namespaces, expire, parse_retention
from indexer.keeper.fence import FencedTable
from indexer.keeper.fold import Fold
from indexer.keeper.gather import Versions, gather
from indexer.keeper.metrics import KeeperMetrics
from indexer.keeper.scrub import Scrubber
from indexer.keeper.settings import KeeperSettings
from indexer.ledger.streams import StreamsTable
from indexer.names import cluster_folder
from indexer.store.bucket import Bucket
from indexer.table.request import Deletion, DeletionRequest, Requests
from indexer.table.table import Table, one_line
from indexer.times import HOUR_NS

_log = logging.getLogger(__name__)


@dataclass
class Progress:
    """How far the job at work is, for whoever looks at the status page."""

    job: str = ""
    done: int = 0
    todo: int = 0
    since_ns: int = 0


@dataclass
class Jobs:
    """The jobs of one keeper, and what it remembers between them; all of that may be lost."""

    settings: KeeperSettings
    bucket: Bucket
    metrics: KeeperMetrics
    clock: Callable[[], int] = time.time_ns
    stopped: Callable[[], bool] = lambda: False
    progress: Progress = field(default_factory=Progress)

    def __post_init__(self) -> None:
        """Open nothing yet; raise SettingError for a retention that is no list of rules."""
        settings = self.settings
        self.fenced = FencedTable(Table(self.bucket, settings.cluster, clock=self.clock))
        self.requests = Requests(self.bucket, settings.cluster)
        self._fold = Fold(self.bucket, settings.cluster, settings.gone_live_hours, self.clock)
        self._streams = StreamsTable(self.bucket, settings.cluster)
        self._scrubber = Scrubber(
            self.bucket,
            settings.cluster,
            settings.scrub_bytes_per_s,
            settings.scrub_round_hours,
            self.clock,
        )
        self._versions = Versions(self.fenced.table)
        self._namespaces = Namespaces()
        self._examined = Examined()
        self.unfinished = False  # the job done last has let others be done
        self._clean_at: dict[str, int] = {}  # version from which on a request left no row
        self._left_alone: set[str] = set()  # segments that cannot be compacted
        self._rules = parse_retention(settings.retention)
        self._limits = CompactionLimits(
            settings.compact_target_bytes,
            settings.compact_inputs_min,
            settings.compact_memory_bytes,
            settings.compact_settle_ms,
        )

    def _is_over(self) -> bool:
        """Return whether the job at work should let others be done, and go on at its next turn."""
        since_ns, most_ns = self.progress.since_ns, self.settings.job_most_ms * 1_000_000
        self.unfinished = bool(since_ns) and self.clock() - since_ns > most_ns
        return self.stopped() or self.unfinished

    def _tell(self, done: int, todo: int) -> None:
        self.progress.done, self.progress.todo = done, todo
        self.metrics.progress.labels(self.progress.job).set(done / todo if todo else 1.0)

    # -- the ledger --------------------------------------------------------------------------

    def fold(self) -> bool:
        """Fold in what the table has gained; return whether there was anything.

        Raises TableUnavailable if the table cannot be read or the ledger not be written.
        """
        advanced = self._fold.advance(self.fenced.table, self._streams.note)
        if advanced and self._fold.ledger is not None:
            self.metrics.measure(self._fold.ledger, self.clock())
        return advanced

    def streams(self) -> None:
        """Fold labels of what the table has gained into the table of streams."""
        table = self.fenced.table
        self.metrics.streams_rows.inc(self._streams.fold(table, table.version()))

    def sweep(self) -> None:
        """Delete ledgers and streams of more than a day ago."""
        self._fold.sweep()
        self._streams.sweep()

    def gather(self) -> None:
        """Merge coverage objects that the stored ledger has folded."""
        ledger = self._fold.ledger
        if ledger is None:
            return
        least = self.settings.gather_objects_min
        for merged in gather(self.fenced, self._versions, ledger.version, least):
            self.metrics.gathered_objects.inc(merged.objects)

    # -- segments ----------------------------------------------------------------------------

    def compact(self) -> None:
        """Merge small segments of the same hour."""
        objects = [each for each in self.fenced.take() if each.name not in self._left_alone]
        plans = plan_compactions(objects, self.clock(), self._limits)
        for number, made in enumerate(compact(self.fenced, plans, self.settings.compact_threads)):
            names = [each.name for each in made.plan.segments]
            if made.added is None:
                self._left_alone.update(names)
                self.metrics.compactions_refused.inc()
                _log.error("segments are left as they are",
                           extra={"error": str(made.error), "segments": names})  # fmt: skip
            else:
                self.metrics.compactions.inc()
                self.metrics.compacted_bytes.inc(sum(each.size for each in made.plan.segments))
                self.metrics.compacted_to_bytes.inc(made.added.size)
            self._tell(number + 1, len(plans))
            if self._is_over():
                return

    def expire(self) -> None:
        """Remove rows whose time is over."""
        for done, todo, rows in expire(self.fenced, self._rules, self._namespaces, self.clock()):
            self.metrics.expired_rows.inc(rows)
            self._tell(done, todo)
            if self._is_over():
                return

    def delete(self) -> None:
        """Carry out requests for deletion; note those that nothing can be left for.

        A request that cannot be carried out is raised when all others are done.
        """
        waiting, failed = 0, None
        for request, done in self.requests.all():
            if done is not None:
                continue
            waiting += 1
            try:
                if not self._delete(request):
                    return
            except (BadRequest, *LEFT_ALONE) as error:
                self._clean_at.pop(request.id, None)  # others of its segments may have lost rows
                failed = failed or error
        self.metrics.open_deletions.set(waiting)
        if failed is not None:
            raise failed

    def _delete(self, request: DeletionRequest) -> bool:
        """Carry out one request; return False if it is time for other jobs."""
        for done, todo, rows in delete(self.fenced, request, self._examined, self.clock()):
            self.metrics.deleted_rows.inc(rows)
            self._tell(done, todo)
            if rows:
                self._clean_at.pop(request.id, None)
            if self._is_over():
                return False
        self._finish(request)
        return True

    def _finish(self, request: DeletionRequest) -> None:
        """Note that a request is done, once no row can be on its way and the ledger counts all."""
        ledger, now_ns = self._fold.ledger, self.clock()
        open_ms = (now_ns - max(request.requested_ns, request.to_ns)) // 1_000_000
        if open_ms < self.settings.delete_open_ms:
            return
        version = self._clean_at.setdefault(request.id, self.fenced.version)
        if ledger is None or ledger.version < version:
            return
        rows = sum(entry.rows for entry in ledger.deleted.values() if entry.request == request.id)
        self.requests.finish(Deletion(request.id, rows, version, now_ns))
        del self._clean_at[request.id]
        _log.info("a deletion is done", extra={"request": request.id, "rows": rows})

    def checkpoint(self) -> None:
        """Write down the table's state once enough versions have come; clean up the log before it.

        Who opens the table reads the last checkpoint and what came after it.
        """
        ledger, done = self._fold.ledger, self.fenced.table.last_checkpoint()
        if ledger is None or ledger.version - done < self.settings.checkpoint_commits:
            return
        table = self.fenced.table.snapshot()
        try:
            table.create_checkpoint()
            table.cleanup_metadata()
        except (DeltaError, OSError) as error:
            uri = self.fenced.table.uri
            said = one_line(error)
            raise TableUnavailable(f"cannot write a checkpoint of {uri}: {said}") from error
        self.metrics.checkpoints.inc()

    # -- objects -----------------------------------------------------------------------------

    def scrub(self) -> None:
        """Read again some of what was committed, and name what storage has damaged."""
        metrics = self.metrics
        with contextlib.closing(self._scrubber.turn(self.fenced.take())) as turn:
            for done, todo, checked in turn:
                metrics.scrubbed_objects.inc()
                metrics.scrubbed_bytes.inc(checked.read_bytes)
                self._tell(done, todo)
                if 10 * done // todo > 10 * (done - 1) // todo:
                    _log.info("scrubbing", extra={"done": done, "todo": todo})
                if self.stopped():
                    break
        metrics.damaged_objects.set(len(self._scrubber.round.damaged))
        metrics.scrubbed_since.set(self._scrubber.round.complete_ns / 1e9)

    def vacuum(self) -> None:
        """Delete objects that no kept version names: removed ones, and those of lost commits."""
        table = self.fenced.table.snapshot()
        try:
            gone = table.vacuum(
                retention_hours=self.settings.vacuum_age_hours,
                dry_run=False,
                enforce_retention_duration=False,
                full=True,
            )
        except (DeltaError, OSError) as error:
            uri = self.fenced.table.uri
            raise TableUnavailable(f"cannot vacuum {uri}: {one_line(error)}") from error
        age_ns = self.settings.vacuum_age_hours * HOUR_NS
        self.bucket.sweep(cluster_folder(self.settings.cluster), self.clock() - age_ns)
        self.metrics.vacuumed_objects.inc(len(gone))
        if gone:
            _log.info("deleted what no version names", extra={"objects": len(gone)})
