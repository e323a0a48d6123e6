"""What one replica of the service holds: the table's latest version, and those that cursors pin.

Versions of the table go in; out come snapshots, each with the segments and the ledger of exactly
one version. A snapshot is never changed: the next one shares with it what has stayed the same, so
a refresh costs what has come since.
"""

import contextlib
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable

import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from indexer.errors import TableUnavailable
from indexer.ledger.ledger import Ledger
from indexer.ledger.stored import LedgerTable, bring_up
from indexer.store.bucket import Bucket
from indexer.table.table import LogEntry, Table
from query_api.completeness.gaps import Gap, find_gaps
from query_api.scan.plan import Segments

# From so many versions behind on, what the keeper has folded meanwhile is the shorter way.
_FAR_BEHIND = 50

_log = logging.getLogger(__name__)


class Snapshot:
    """One version of the table: its segments, its ledger and the gaps in that."""

    def __init__(self, version: int, segments: Segments, ledger: Ledger) -> None:
        """Take what must not be changed afterwards."""
        self.version = version
        self.segments = segments
        self.ledger = ledger
        self._gaps: tuple[Gap, ...] | None = None

    @property
    def gaps(self) -> tuple[Gap, ...]:
        """All gaps of the ledger, found at the first question for them."""
        if self._gaps is None:
            self._gaps = tuple(find_gaps(self.ledger))
        return self._gaps


class Replica:
    """Snapshots of one cluster's table; its methods may be called from any thread."""

    def __init__(
        self,
        bucket: Bucket,
        cluster: str,
        refresh_ms: int,
        pinned_versions: int,
        monotonic: Callable[[], float],
    ) -> None:
        """Name the table; nothing is read yet."""
        self.bucket = bucket
        self.table = Table(bucket, cluster)
        self._ledger_table = LedgerTable(bucket, cluster)
        self._refresh_s = refresh_ms / 1000
        self._pinned_versions = pinned_versions
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._latest: Snapshot | None = None
        self._refreshed_s = 0.0
        self._pinned: OrderedDict[int, Snapshot] = OrderedDict()

    def latest(self) -> Snapshot:
        """Return the newest version, at most ``refresh_ms`` old; raise TableError if there is none.

        A table that is away for a moment is an error, never an old answer.
        """
        with self._lock:
            now_s = self._monotonic()
            if self._latest is None or now_s - self._refreshed_s >= self._refresh_s:
                self._latest = self._refresh()
                self._refreshed_s = now_s
            return self._latest

    def pin(self, snapshot: Snapshot) -> None:
        """Keep a snapshot for the cursors that name its version."""
        with self._lock:
            self._pinned[snapshot.version] = snapshot
            self._pinned.move_to_end(snapshot.version)
            while len(self._pinned) > self._pinned_versions:
                self._pinned.popitem(last=False)

    def at(self, version: int) -> Snapshot:
        """Return the snapshot of a version; raise VersionGone if it is no longer kept."""
        with self._lock:
            held = self._pinned.get(version)
            if held is None and self._latest is not None and self._latest.version == version:
                held = self._latest
        if held is not None:
            return held
        snapshot = self._open(self.table.snapshot(version))
        self.pin(snapshot)
        return snapshot

    def _refresh(self) -> Snapshot:
        before = self._latest
        if before is None:
            return self._open(self.table.snapshot())
        version = self.table.version()
        if version == before.version:
            return before
        if before.version < version <= before.version + _FAR_BEHIND:
            entries: list[LogEntry] = []
            ledger = before.ledger.branch()
            if ledger is bring_up(
                ledger, self.table, version, seen=lambda entry, _: entries.append(entry)
            ):
                with contextlib.suppress(pa.ArrowException, ValueError):  # statistics of others
                    return Snapshot(version, before.segments.after(entries), ledger)
        return self._open(self.table.snapshot())

    def _newest(self, version: int) -> Ledger:
        """Return the newest ledger at hand that speaks of no later version: stored, held or empty.

        It may be folded on.
        """
        stored, held = self._ledger_table.load(), self._latest
        ledger = stored if stored.version <= version else Ledger()
        if held is not None and ledger.version < held.version <= version:
            return held.ledger.branch()
        return ledger

    def _open(self, handle: DeltaTable) -> Snapshot:
        """Return the snapshot of a version, all of it read again but the ledger to begin with."""
        version = handle.version()
        ledger = bring_up(self._newest(version), self.table, version)
        try:
            actions = pa.table(handle.get_add_actions(flatten=True))
        except (DeltaError, OSError) as error:
            raise TableUnavailable(f"cannot read {self.table.uri}: {error}") from error
        _log.debug("opened a version", extra={"version": version, "objects": actions.num_rows})
        return Snapshot(version, Segments(actions), ledger)
