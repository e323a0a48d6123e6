"""The process ``everyline keeper``: it does each of its jobs when it is due, one after the other.

Settings go in; the table and its ledger are kept in order. What fails is done again at the next
turn, and a keeper that meets another one stands by: two, or none for a while, change nothing that
a reader is told.
"""

import logging
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import prometheus_client

from collector.process import Page, load_settings, log_to_stderr
from indexer.errors import BucketUnavailable, IndexerError, PositionMoved
from indexer.keeper.jobs import Jobs
from indexer.keeper.metrics import KeeperMetrics
from indexer.keeper.settings import KeeperSettings
from indexer.store.open import open_bucket
from indexer.store.probe import probe

_log = logging.getLogger(__name__)
_AGAIN_S = 10.0


@dataclass
class _Job:
    """When a job is due next, by a monotonic clock, and what it last complained of."""

    name: str
    run: Callable[[], object]
    interval_ms: int
    changes: bool  # the table, so that one keeper may do it
    due_s: float = 0.0
    said: str = ""


class Keeper:
    """The jobs of one keeper, and whether it stands by."""

    def __init__(self, jobs: Jobs, monotonic: Callable[[], float] = time.monotonic) -> None:
        """Do nothing yet; every job is due at once but vacuuming."""
        settings = jobs.settings
        self.jobs = jobs
        self._monotonic = monotonic
        self._standby_until_s = 0.0
        self._failing: dict[str, str] = {}
        self._list = [
            _Job("fold", jobs.fold, settings.fold_interval_ms, False),
            _Job("streams", jobs.streams, settings.fold_interval_ms, False),
            _Job("checkpoint", jobs.checkpoint, settings.fold_interval_ms, False),
            _Job("expire", jobs.expire, settings.expire_interval_ms, True),
            _Job("delete", jobs.delete, settings.delete_interval_ms, True),
            _Job("gather", jobs.gather, settings.gather_interval_ms, True),
            _Job("compact", jobs.compact, settings.compact_interval_ms, True),
            _Job("scrub", jobs.scrub, settings.scrub_interval_ms, True),
            _Job("vacuum", jobs.vacuum, settings.vacuum_interval_ms, True),
            _Job("sweep", jobs.sweep, settings.sweep_interval_ms, False),
        ]
        later = monotonic() + settings.vacuum_interval_ms / 1000
        self._list[-2].due_s = self._list[-1].due_s = later

    @property
    def stands_by(self) -> bool:
        """Whether another keeper was at work a short while ago."""
        return self._monotonic() < self._standby_until_s

    def turn(self) -> float:
        """Do the jobs that are due; return in how many seconds the next one is."""
        for job in self._list:
            if self.jobs.stopped():
                break
            if self._monotonic() >= job.due_s and not (job.changes and self.stands_by):
                self._do(job)
                pause_ms = 0 if self.jobs.unfinished else job.interval_ms
                job.due_s = self._monotonic() + pause_ms / 1000
        self.jobs.metrics.standby.set(self.stands_by)
        return max(0.0, min(map(self._due_s, self._list)) - self._monotonic())

    def _due_s(self, job: _Job) -> float:
        return max(job.due_s, self._standby_until_s) if job.changes else job.due_s

    def _do(self, job: _Job) -> None:
        progress = self.jobs.progress
        progress.job, progress.done, progress.todo = job.name, 0, 0
        progress.since_ns = self.jobs.clock()
        self.jobs.unfinished = False
        metrics = self.jobs.metrics
        try:
            with metrics.job_seconds.labels(job.name).time():
                job.run()
        except PositionMoved as error:
            self._standby_until_s = self._monotonic() + self.jobs.settings.standby_ms / 1000
            _log.warning("another keeper is at work; standing by", extra={"error": str(error)})
        except IndexerError as error:
            self._failing[job.name] = str(error)
            metrics.job_failures.labels(job.name).inc()
            if str(error) != job.said:
                job.said = str(error)
                tell = _log.warning if error.retriable else _log.error
                tell("a job failed", extra={"job": job.name, "error": job.said})
        else:
            job.said = ""
            self._failing.pop(job.name, None)
            metrics.job_succeeded_at.labels(job.name).set(self.jobs.clock() / 1e9)
        finally:
            progress.job, progress.since_ns = "", 0

    def status(self) -> dict[str, Any]:
        """Return what ``/status`` shows; called from another thread."""
        jobs, progress = self.jobs, self.jobs.progress
        return {
            "process": "keeper",
            "cluster": jobs.settings.cluster,
            "healthy": True,
            "ready": jobs.metrics.folded_ns > 0,
            "standby": self.stands_by,
            "folded_version": jobs.metrics.folded_at_version,
            "folded_at_ns": jobs.metrics.folded_ns,
            "job": progress.job,
            "done": progress.done,
            "todo": progress.todo,
            "job_since_ns": progress.since_ns if progress.job else None,
            "failing": dict(self._failing),
        }


def main(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run the keeper until it is told to stop; return the exit code."""
    settings = load_settings(KeeperSettings, "keeper", argv, environ)
    log_to_stderr(settings.log_level)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    metrics = KeeperMetrics(prometheus_client.CollectorRegistry())
    jobs = Jobs(settings, open_bucket(settings.bucket), metrics, stopped=stop.is_set)
    keeper = Keeper(jobs)
    page = Page(settings.listen, metrics.registry, keeper.status)
    try:
        _try_store(jobs, stop)
        while not stop.is_set():
            stop.wait(keeper.turn())
    finally:
        page.shutdown()
        page.server_close()
    _log.info("stopped")
    return 0


def _try_store(jobs: Jobs, stop: threading.Event) -> None:
    """Return once the store has kept conditional writes; raise StoreUnfit if it ignores them."""
    while not stop.is_set():
        try:
            probe(jobs.bucket, jobs.settings.cluster)
            return
        except BucketUnavailable as error:
            _log.warning("waiting for the bucket", extra={"error": str(error)})
            stop.wait(_AGAIN_S)
