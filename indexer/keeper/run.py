"""The process ``everyline keeper``: it does each of its jobs when it is due, one after the other.

Settings go in; the table and its ledger are kept in order. What fails is done again at the next
turn, and a keeper that meets another one stands by: two, or none for a while, change nothing that
a reader is told.
"""

import logging
import signal
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import prometheus_client

from collector.process import StatusServer, load_settings, log_to_stderr, look_for_cycles_rarely
from indexer.errors import BucketUnavailable, IndexerError, PositionMoved
from indexer.keeper.fence import Fence
from indexer.keeper.jobs import Job, Jobs, Progress
from indexer.keeper.metrics import KeeperMetrics
from indexer.keeper.settings import KeeperSettings
from indexer.store.bucket import Bucket
from indexer.store.open import open_bucket
from indexer.store.probe import probe
from indexer.table.table import one_line

_log = logging.getLogger(__name__)
_AGAIN_S = 10.0


class Keeper:
    """The jobs of one keeper, and until when it stands by."""

    def __init__(self, jobs: Jobs) -> None:
        """Do nothing yet."""
        self.jobs = jobs
        self._fenced = jobs.fenced
        self._monotonic = jobs.means.monotonic
        self._standby_until_s = 0.0
        self._latest: Job | None = None  # the job at work, or the one that was last
        for job in jobs.in_turn:  # so that both are there before anything fails
            jobs.metrics.job_failures.labels(job.name)
            jobs.metrics.job_failing_since.labels(job.name)

    @property
    def stands_by(self) -> bool:
        """Whether another keeper was at work a short while ago."""
        is_over = self._monotonic() >= self._standby_until_s
        return self._fenced.state is Fence.STANDBY and not is_over

    def turn(self) -> float:
        """Do the jobs that are due; return in how many seconds the next one is."""
        jobs = self.jobs.in_turn
        for job in jobs:
            if self.jobs.means.stopped():
                break
            if self._monotonic() >= job.due_s and (not job.changes or self._may_change()):
                self._do(job)
        self.jobs.metrics.standby.set(self.stands_by)
        return max(0.0, min(map(self._due_s, jobs)) - self._monotonic())

    def _may_change(self) -> bool:
        """Whether a job may change the table; ends standing by once its time is over."""
        if self._fenced.state is Fence.STANDBY and not self.stands_by:
            self._fenced.move(Fence.IDLE)
        return self._fenced.state is not Fence.STANDBY

    def _due_s(self, job: Job) -> float:
        return max(job.due_s, self._standby_until_s) if job.changes else job.due_s

    def _do(self, job: Job) -> None:
        self._latest = job
        job.begin()
        metrics = self.jobs.metrics
        try:
            with metrics.job_seconds.labels(job.name).time():
                job()
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # a panic of Rust is no Exception; the other jobs go on
            if isinstance(error, PositionMoved) and self._fenced.state is Fence.FORESTALLED:
                self._stand_by(error)
                job.end()
            else:
                self._note_failure(job, error)
        else:
            job.succeed()
            metrics.job_succeeded_at.labels(job.name).set(job.succeeded_ns / 1e9)
            metrics.job_failing_since.labels(job.name).set(0)

    def _stand_by(self, error: PositionMoved) -> None:
        self._fenced.move(Fence.STANDBY)
        standby_ms = self.jobs.means.settings.standby_ms
        self._standby_until_s = self._monotonic() + standby_ms / 1000
        _log.warning("another keeper is at work; standing by", extra={"error": str(error)})
        for job in filter(lambda job: job.changes, self.jobs.in_turn):
            job.failing = None  # it is the other one's now
            self.jobs.metrics.job_failing_since.labels(job.name).set(0)

    def _note_failure(self, job: Job, error: BaseException) -> None:
        metrics = self.jobs.metrics
        foreseen = isinstance(error, IndexerError)
        retriable = isinstance(error, IndexerError) and error.retriable
        why = str(error) if foreseen else f"{type(error).__name__}: {one_line(error)}"
        if job.fail(why, retriable=retriable):
            _log.log(
                logging.WARNING if retriable else logging.ERROR,
                "a job failed",
                extra={"job": job.name, "error": why},
                exc_info=None if foreseen else error,
            )
        metrics.job_failures.labels(job.name).inc()
        if job.failing is not None:
            metrics.job_failing_since.labels(job.name).set(job.failing.since_ns / 1e9)

    def _overdue(self) -> dict[str, str]:
        """Return why each job counts as not done that fails or hangs for ``unhealthy_after_ms``."""
        means = self.jobs.means
        now_ns, after_ns = means.clock(), means.settings.unhealthy_after_ms * 1_000_000
        found = {job.name: job.overdue(now_ns, after_ns) for job in self.jobs.in_turn}
        return {name: why for name, why in found.items() if why}

    def status(self) -> dict[str, Any]:
        """Return what ``/status`` shows; called from another thread.

        A keeper whose loop has ended has ended itself, and no failure of a job goes away by a
        restart: it is ``alive`` as long as it answers, whether it is ``healthy`` or not.
        """
        jobs, latest = self.jobs, self._latest
        progress = latest.progress if latest is not None else Progress()
        since_ns = progress.since_ns
        failing = {job.name: now for job in jobs.in_turn if (now := job.failing)}
        overdue = self._overdue()
        return {
            "process": "keeper",
            "cluster": jobs.means.settings.cluster,
            "alive": True,
            "healthy": not overdue,
            "ready": jobs.metrics.folded_ns > 0,
            "standby": self.stands_by,
            "folded_version": jobs.metrics.folded_at_version,
            "folded_at_ns": jobs.metrics.folded_ns,
            "job": latest.name if latest is not None and since_ns else "",
            "done": progress.done,
            "todo": progress.todo,
            "job_since_ns": since_ns or None,
            "failing": {name: each.why for name, each in failing.items()},
            "failing_since_ns": {name: each.since_ns for name, each in failing.items()},
            "failures_in_row": {name: each.times for name, each in failing.items()},
            "succeeded_ns": {job.name: job.succeeded_ns or None for job in jobs.in_turn},
            "unhealthy": overdue,
        }


def main(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run the keeper until it is told to stop; return the exit code."""
    settings = load_settings(KeeperSettings, "keeper", argv, environ)
    log_to_stderr(settings.log_level)
    look_for_cycles_rarely()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    metrics = KeeperMetrics(prometheus_client.CollectorRegistry())
    bucket = open_bucket(settings.bucket)
    keeper = Keeper(Jobs(settings, bucket, metrics, stopped=stop.is_set))
    status_server = StatusServer(settings.listen, metrics.registry, keeper.status)
    try:
        _try_store(bucket, settings.cluster, stop)
        while not stop.is_set():
            stop.wait(keeper.turn())
    finally:
        status_server.shutdown()
        status_server.server_close()
    _log.info("stopped")
    return 0


def _try_store(bucket: Bucket, cluster: str, stop: threading.Event) -> None:
    """Return once the store has kept conditional writes; raise StoreUnfit if it ignores them."""
    while not stop.is_set():
        try:
            probe(bucket, cluster)
            return
        except BucketUnavailable as error:
            _log.warning("waiting for the bucket", extra={"error": str(error)})
            stop.wait(_AGAIN_S)
