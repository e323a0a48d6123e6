"""The process ``everyline keeper``: it folds new coverage into the ledger.

Coverage objects of the table go in, the Delta table ``ledger`` comes out. The ledger is derived:
two keepers, or none for a while, change nothing that a reader is told.
"""

import logging
import signal
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

import prometheus_client

from collector.process import Page, load_settings, log_to_stderr
from indexer.bucket import Bucket, open_bucket
from indexer.errors import TableError, VersionGone
from indexer.ledger import Ledger
from indexer.ledger_table import LedgerTable, bring_up
from indexer.metrics import KeeperMetrics
from indexer.settings import KeeperSettings
from indexer.table import Table

_log = logging.getLogger(__name__)


class Keeper:
    """The ledger as this keeper has folded it."""

    def __init__(self, bucket: Bucket, cluster: str, metrics: KeeperMetrics) -> None:
        """Keep the ledger of one cluster."""
        self._table = Table(bucket, cluster)
        self._ledger_table = LedgerTable(bucket, cluster)
        self._metrics = metrics
        self._ledger: Ledger | None = None
        self.folded_ns = 0

    def fold(self) -> bool:
        """Fold in what the table has gained; return whether there was anything.

        Raises TableUnavailable if the table cannot be read or the ledger not be written.
        """
        version = self._table.snapshot().version()
        if self._ledger is None:
            self._ledger = self._ledger_table.load()
        before = self._ledger.version
        if before == version:
            return False
        if before > version:
            raise VersionGone(
                f"the ledger is of version {before}, the table of {version}: the table was made "
                "anew; delete the ledger's folder to fold it again"
            )
        folded, self._ledger = bring_up(self._ledger, self._table, version), None
        if not self._ledger_table.save(folded, before):
            _log.warning("another keeper was faster; taking its ledger")
            return False
        self._ledger = folded
        self.folded_ns = time.time_ns()
        self._measure(folded)
        return True

    def sweep(self) -> int:
        """Delete ledgers of more than a day ago; return how many objects went."""
        return self._ledger_table.sweep()

    def _measure(self, ledger: Ledger) -> None:
        metrics = self._metrics
        metrics.folded_version.set(ledger.version)
        metrics.files.set(len(ledger.files))
        metrics.lost.set(sum(len(file.lost) for file in ledger.files.values()))
        metrics.lane_holes.set(sum(len(lane.holes) for lane in ledger.lanes.values()))
        metrics.jumps.set(len(ledger.jumps))
        metrics.folded_at.set(self.folded_ns / 1e9)

    def status(self) -> dict[str, Any]:
        """Return what ``/status`` shows; called from another thread."""
        return {
            "process": "keeper",
            "healthy": True,
            "ready": self.folded_ns > 0,
            "folded_version": self._metrics.folded_version._value.get(),
            "folded_at_ns": self.folded_ns,
        }


def main(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run the keeper until it is told to stop; return the exit code."""
    settings = load_settings(KeeperSettings, "keeper", argv, environ)
    log_to_stderr(settings.log_level)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    metrics = KeeperMetrics(prometheus_client.CollectorRegistry())
    keeper = Keeper(open_bucket(settings.bucket), settings.cluster, metrics)
    page = Page(settings.listen, metrics.registry, keeper.status)
    try:
        _loop(keeper, settings, metrics, stop)
    finally:
        page.shutdown()
        page.server_close()
    _log.info("stopped")
    return 0


def _loop(
    keeper: Keeper, settings: KeeperSettings, metrics: KeeperMetrics, stop: threading.Event
) -> None:
    said = ""
    swept = time.monotonic()
    while not stop.is_set():
        try:
            with metrics.fold_seconds.time():
                keeper.fold()
            said = ""
            if time.monotonic() - swept >= settings.sweep_interval_ms / 1000:
                swept = time.monotonic()
                keeper.sweep()
        except TableError as error:
            if str(error) != said:
                said = str(error)
                _log.warning("cannot fold yet", extra={"error": said})
        stop.wait(settings.fold_interval_ms / 1000)
