"""What a keeper does with a table: one object for each job, each of them a whole.

The table as it is goes in; it comes out folded, with fewer and larger objects, and without the rows
that have expired or were asked to go. A job that is ended half-way has left a table that is right:
the next turn begins with what is there.
"""

import contextlib
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from deltalake.exceptions import DeltaError

from indexer.errors import PositionMoved, TableUnavailable
from indexer.keeper.compact import CompactionLimits, compact, plan_compactions
from indexer.keeper.delete import Examined, delete
from indexer.keeper.expire import Namespaces, expire, parse_retention
from indexer.keeper.fence import FencedTable
from indexer.keeper.fold import Fold
from indexer.keeper.gather import Versions, gather
from indexer.keeper.metrics import KeeperMetrics
from indexer.keeper.scrub import Scrubber
from indexer.keeper.settings import KeeperSettings
from indexer.ledger.streams import StreamsTable
from indexer.object_names import cluster_folder
from indexer.store.bucket import Bucket
from indexer.table.request import Deletion, DeletionRequest, Requests
from indexer.table.table import Table, one_line
from indexer.times import HOUR_NS

_log = logging.getLogger(__name__)
_PAUSE_MOST_MS = 600_000


@dataclass
class Means:
    """What every job works with; ``clock()`` gives ns since 1970, ``monotonic()`` seconds."""

    settings: KeeperSettings
    fenced: FencedTable
    metrics: KeeperMetrics
    clock: Callable[[], int]
    monotonic: Callable[[], float]
    stopped: Callable[[], bool]


@dataclass(frozen=True, slots=True)
class Failing:
    """That a job fails: since when (ns since 1970), how often in a row, and why the last time."""

    since_ns: int
    times: int
    why: str


@dataclass
class Progress:
    """How far a job is, for whoever looks at the status page."""

    done: int = 0
    todo: int = 0
    since_ns: int = 0  # 0: it is not at work


class Job(ABC):
    """One job: calling it does it once. What it remembers until the next time may be lost."""

    name: ClassVar[str]
    changes: ClassVar[bool]  # the table, so that one keeper may do it

    def __init__(self, means: Means, interval_ms: int, first_ms: int = 0) -> None:
        """Be due in ``first_ms``, and ``interval_ms`` after each time that it was done."""
        self._means = means
        self._interval_ms = interval_ms
        self.due_s = means.monotonic() + first_ms / 1000
        self.progress = Progress()
        self.failing: Failing | None = None  # None: it did not fail the last time
        self.succeeded_ns = 0  # 0: not yet
        self._unfinished = False  # it has let others be done

    @abstractmethod
    def __call__(self) -> object:
        """Do it; raise IndexerError, and PositionMoved if another keeper is at work."""

    def begin(self) -> None:
        """Note that it is at work, and has done nothing yet."""
        self.progress = Progress(since_ns=self._means.clock())
        self._unfinished = False

    def succeed(self) -> None:
        """Note that it was done; if it has let others be done, it is due again at once."""
        self.failing, self.succeeded_ns = None, self._means.clock()
        self.end(0 if self._unfinished else self._interval_ms)

    def fail(self, why: str, *, retriable: bool) -> bool:
        """Note that it could not be done; return whether that is news.

        What may succeed by itself is done again after the usual time. All else waits twice as long
        after each time, up to ten minutes: it costs the others their turn, and says nothing new.
        """
        before, now_ns = self.failing, self._means.clock()
        times = before.times + 1 if before else 1
        self.failing = Failing(before.since_ns if before else now_ns, times, why)
        pause_ms = self._interval_ms
        if not retriable:
            pause_ms = max(pause_ms, min(pause_ms << min(times - 1, 32), _PAUSE_MOST_MS))
        self.end(pause_ms)
        return before is None or before.why != why

    def end(self, pause_ms: int | None = None) -> None:
        """Note that it is at work no more; it is due again after a pause, or its usual time."""
        self.progress.since_ns = 0
        pause_ms = self._interval_ms if pause_ms is None else pause_ms
        self.due_s = self._means.monotonic() + pause_ms / 1000

    def overdue(self, now_ns: int, after_ns: int) -> str:
        """Return why it counts as not done, if it fails or hangs for longer than ``after_ns``."""
        failing = self.failing  # another thread changes it
        if failing and now_ns - failing.since_ns >= after_ns:
            return failing.why
        since_ns = self.progress.since_ns
        return "it has not come to an end" if since_ns and now_ns - since_ns >= after_ns else ""

    def _is_over(self) -> bool:
        """Return whether it should let others be done, and go on at its next turn."""
        means, since_ns = self._means, self.progress.since_ns
        most_ns = means.settings.job_most_ms * 1_000_000
        self._unfinished = bool(since_ns) and means.clock() - since_ns > most_ns
        return means.stopped() or self._unfinished

    def _tell(self, done: int, todo: int) -> None:
        self.progress.done, self.progress.todo = done, todo
        self._means.metrics.progress.labels(self.name).set(done / todo if todo else 1.0)


class Jobs:
    """The jobs of one keeper, ``in_turn`` as they are done."""

    def __init__(
        self,
        settings: KeeperSettings,
        bucket: Bucket,
        metrics: KeeperMetrics,
        *,
        clock: Callable[[], int] = time.time_ns,
        monotonic: Callable[[], float] = time.monotonic,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        """Open nothing yet; raise SettingError for a retention that is not a list of rules."""
        fenced = FencedTable(Table(bucket, settings.cluster, clock=clock))
        self.means = means = Means(settings, fenced, metrics, clock, monotonic, stopped)
        self.fenced, self.metrics = fenced, metrics
        folded = Fold(bucket, settings.cluster, settings.gone_live_hours, clock)
        streams = StreamsTable(bucket, settings.cluster)
        self.fold = FoldJob(means, folded, streams)
        self.streams = StreamsJob(means, streams)
        self.checkpoint = CheckpointJob(means, folded)
        self.expire = ExpireJob(means)
        self.delete = DeleteJob(means, folded)
        self.gather = GatherJob(means, folded)
        self.compact = CompactJob(means)
        self.scrub = ScrubJob(means)
        self.vacuum = VacuumJob(means)
        self.sweep = SweepJob(means, folded, streams)
        self.in_turn: tuple[Job, ...] = (
            self.fold, self.streams, self.checkpoint, self.expire, self.delete, self.gather,
            self.compact, self.scrub, self.vacuum, self.sweep,
        )  # fmt: skip


class FoldJob(Job):
    """Fold in what the table has gained."""

    name, changes = "fold", False

    def __init__(self, means: Means, folded: Fold, streams: StreamsTable) -> None:
        """What is read for ``folded`` is noted for ``streams``."""
        super().__init__(means, means.settings.fold_interval_ms)
        self._folded, self._streams = folded, streams

    def __call__(self) -> bool:
        """Return whether there was anything; raise TableUnavailable if it cannot be folded in."""
        means = self._means
        advanced = self._folded.advance(means.fenced.table, self._streams.note)
        if advanced and self._folded.ledger is not None:
            means.metrics.measure(self._folded.ledger, means.clock())
        return advanced


class StreamsJob(Job):
    """Fold labels of what the table has gained into the table of streams."""

    name, changes = "streams", False

    def __init__(self, means: Means, streams: StreamsTable) -> None:
        """Be due as often as the fold."""
        super().__init__(means, means.settings.fold_interval_ms)
        self._streams = streams

    def __call__(self) -> None:
        table = self._means.fenced.table
        self._means.metrics.streams_rows.inc(self._streams.fold(table, table.version()))


class CheckpointJob(Job):
    """Write down the table's state once enough versions have come; clean up the log before it.

    Who opens the table reads the last checkpoint and what came after it.
    """

    name, changes = "checkpoint", False

    def __init__(self, means: Means, folded: Fold) -> None:
        """Versions that ``folded`` lacks do not count yet."""
        super().__init__(means, means.settings.fold_interval_ms)
        self._folded = folded

    def __call__(self) -> None:
        table, ledger = self._means.fenced.table, self._folded.ledger
        done = table.last_checkpoint()
        if ledger is None or ledger.version - done < self._means.settings.checkpoint_commits:
            return
        table.write_checkpoint()
        self._means.metrics.checkpoints.inc()


class GatherJob(Job):
    """Merge coverage objects that the stored ledger has folded."""

    name, changes = "gather", True

    def __init__(self, means: Means, folded: Fold) -> None:
        """Remember in which versions coverage objects came."""
        super().__init__(means, means.settings.gather_interval_ms)
        self._folded, self._versions = folded, Versions(means.fenced.table)

    def __call__(self) -> None:
        means, ledger = self._means, self._folded.ledger
        if ledger is None:
            return
        least = means.settings.gather_objects_min
        for merged in gather(means.fenced, self._versions, ledger.version, least):
            means.metrics.gathered_objects.inc(merged.objects)


class SweepJob(Job):
    """Delete ledgers and streams of more than a day ago."""

    name, changes = "sweep", False

    def __init__(self, means: Means, folded: Fold, streams: StreamsTable) -> None:
        """Be due first when vacuuming is."""
        super().__init__(means, means.settings.sweep_interval_ms, means.settings.vacuum_interval_ms)
        self._folded, self._streams = folded, streams

    def __call__(self) -> None:
        self._folded.sweep()
        self._streams.sweep()


class CompactJob(Job):
    """Merge small segments of the same hour."""

    name, changes = "compact", True

    def __init__(self, means: Means) -> None:
        """Remember which segments cannot be compacted."""
        settings = means.settings
        super().__init__(means, settings.compact_interval_ms)
        self._left_alone: set[str] = set()
        self._limits = CompactionLimits(
            settings.compact_target_bytes, settings.compact_inputs_min,
            settings.compact_memory_bytes, settings.compact_settle_ms,
        )  # fmt: skip

    def __call__(self) -> None:
        means, metrics = self._means, self._means.metrics
        objects = [each for each in means.fenced.take() if each.name not in self._left_alone]
        plans = plan_compactions(objects, means.clock(), self._limits)
        threads = means.settings.compact_threads
        for number, made in enumerate(compact(means.fenced, plans, threads)):
            names = [each.name for each in made.plan.segments]
            if made.added is None:
                # The others of the group are merged without the one that the error names.
                named = [name for name in names if name in str(made.error)]
                self._left_alone.update(named or names)
                metrics.compactions_refused.inc()
                _log.error("segments are left as they are",
                           extra={"error": str(made.error), "segments": names})  # fmt: skip
            else:
                metrics.compactions.inc()
                metrics.compacted_bytes.inc(sum(each.size for each in made.plan.segments))
                metrics.compacted_to_bytes.inc(made.added.size)
            self._tell(number + 1, len(plans))
            if self._is_over():
                return


class ExpireJob(Job):
    """Remove rows whose time is over."""

    name, changes = "expire", True

    def __init__(self, means: Means) -> None:
        """Remember the namespaces of segments; raise SettingError for rules that cannot be read."""
        super().__init__(means, means.settings.expire_interval_ms)
        self._rules, self._namespaces = parse_retention(means.settings.retention), Namespaces()

    def __call__(self) -> None:
        means = self._means
        now_ns = means.clock()
        for done, todo, rows in expire(means.fenced, self._rules, self._namespaces, now_ns):
            means.metrics.expired_rows.inc(rows)
            self._tell(done, todo)
            if self._is_over():
                return


class DeleteJob(Job):
    """Carry out requests for deletion; note those that nothing can be left for."""

    name, changes = "delete", True

    def __init__(self, means: Means, folded: Fold) -> None:
        """Remember for each request what it has been through."""
        super().__init__(means, means.settings.delete_interval_ms)
        self._folded, self._examined = folded, Examined()
        self._requests = Requests(means.fenced.bucket, means.settings.cluster)
        self._clean_at: dict[str, int] = {}  # version from which on a request left no row

    def __call__(self) -> None:
        """Do it; what cannot be carried out is raised when all others are done."""
        waiting = 0
        failed: Exception | None = None
        for request, done in self._requests.all():
            if done is not None:
                continue
            waiting += 1
            try:
                if not self._delete(request):
                    return
            except PositionMoved:
                raise
            except Exception as error:  # whatever it is, the other requests are carried out
                self._clean_at.pop(request.id, None)  # others of its segments may have lost rows
                failed = failed or error
        self._means.metrics.open_deletions.set(waiting)
        if failed is not None:
            raise failed

    def _delete(self, request: DeletionRequest) -> bool:
        """Carry out one request; return False if it is time for other jobs."""
        means = self._means
        for done, todo, rows in delete(means.fenced, request, self._examined, means.clock()):
            means.metrics.deleted_rows.inc(rows)
            self._tell(done, todo)
            if rows:
                self._clean_at.pop(request.id, None)
            if self._is_over():
                return False
        self._finish(request)
        return True

    def _finish(self, request: DeletionRequest) -> None:
        """Note that a request is done, once no row can be on its way and the ledger counts all."""
        ledger, now_ns = self._folded.ledger, self._means.clock()
        open_ms = (now_ns - max(request.requested_ns, request.to_ns)) // 1_000_000
        if open_ms < self._means.settings.delete_open_ms:
            return
        version = self._clean_at.setdefault(request.id, self._means.fenced.version)
        if ledger is None or ledger.version < version:
            return
        rows = sum(entry.rows for entry in ledger.deleted.values() if entry.request == request.id)
        self._requests.finish(Deletion(request.id, rows, version, now_ns))
        del self._clean_at[request.id]
        _log.info("a deletion is done", extra={"request": request.id, "rows": rows})


class ScrubJob(Job):
    """Read again some of what was committed, and name what storage has damaged."""

    name, changes = "scrub", True

    def __init__(self, means: Means) -> None:
        """Remember how far the round over all objects is; that is stored, too."""
        settings = means.settings
        super().__init__(means, settings.scrub_interval_ms)
        self._scrubber = Scrubber(
            means.fenced.bucket, settings.cluster, settings.scrub_bytes_per_s,
            settings.scrub_round_hours, means.clock,
        )  # fmt: skip

    def __call__(self) -> None:
        means, metrics = self._means, self._means.metrics
        with contextlib.closing(self._scrubber.turn(means.fenced.take())) as turn:
            for done, todo, checked in turn:
                metrics.scrubbed_objects.inc()
                metrics.scrubbed_bytes.inc(checked.read_bytes)
                self._tell(done, todo)
                if 10 * done // todo > 10 * (done - 1) // todo:
                    _log.info("scrubbing", extra={"done": done, "todo": todo})
                if means.stopped():
                    break
        metrics.damaged_objects.set(len(self._scrubber.round.damaged))
        metrics.scrubbed_since.set(self._scrubber.round.complete_ns / 1e9)


class VacuumJob(Job):
    """Delete objects that no kept version names: removed ones, and those of lost commits."""

    name, changes = "vacuum", True

    def __init__(self, means: Means) -> None:
        """Be due first after one interval: a restart of the keeper is no reason."""
        interval_ms = means.settings.vacuum_interval_ms
        super().__init__(means, interval_ms, interval_ms)

    def __call__(self) -> None:
        means, settings = self._means, self._means.settings
        table = means.fenced.table
        snapshot = table.snapshot()
        try:
            gone = snapshot.vacuum(
                retention_hours=settings.vacuum_age_hours, dry_run=False,
                enforce_retention_duration=False, full=True,
            )  # fmt: skip
        except (DeltaError, OSError) as error:
            raise TableUnavailable(f"cannot vacuum {table.uri}: {one_line(error)}") from error
        age_ns = settings.vacuum_age_hours * HOUR_NS
        means.fenced.bucket.sweep(cluster_folder(settings.cluster), means.clock() - age_ns)
        means.metrics.vacuumed_objects.inc(len(gone))
        if gone:
            _log.info(
                "deleted objects that no version of the table names", extra={"objects": len(gone)}
            )
