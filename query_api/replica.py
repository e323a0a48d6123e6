"""What one replica of the service holds: the table's latest version, and those that cursors pin.

Versions of the table go in; out come snapshots, each with the segments and the ledger of exactly
one version. A snapshot is never changed: the ledger that goes on is folded in a copy.
"""

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable

import msgspec
import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from indexer.bucket import Bucket
from indexer.errors import TableUnavailable
from indexer.ledger import Ledger
from indexer.ledger_table import LedgerTable, bring_up
from indexer.table import Table
from query_api.gaps import Gap, find_gaps
from query_api.plan import Segments

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
        self._handle: DeltaTable | None = None
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
        snapshot = self._open(self.table.snapshot(version), self._folded(version))
        self.pin(snapshot)
        return snapshot

    def _refresh(self) -> Snapshot:
        if self._handle is None:
            self._handle = self.table.snapshot()
        elif self._latest is not None:
            try:
                self._handle.update_incremental()
            except (DeltaError, OSError) as error:
                self._handle = None
                raise TableUnavailable(f"cannot refresh {self.table.uri}: {error}") from error
            if self._handle.version() == self._latest.version:
                return self._latest
        version = self._handle.version()
        if self._latest is None or version - self._latest.version > _FAR_BEHIND:
            ledger = self._folded(version)
            if self._latest is not None and ledger.version < self._latest.version:
                ledger = _copy(self._latest.ledger)
        else:
            ledger = _copy(self._latest.ledger)
        return self._open(self._handle, ledger)

    def _folded(self, version: int) -> Ledger:
        """Return the keeper's ledger if it speaks of no later version, else an empty one."""
        ledger = self._ledger_table.load()
        return ledger if ledger.version <= version else Ledger()

    def _open(self, handle: DeltaTable, ledger: Ledger) -> Snapshot:
        version = handle.version()
        ledger = bring_up(ledger, self.table, version)
        try:
            actions = pa.table(handle.get_add_actions(flatten=True))
        except (DeltaError, OSError) as error:
            raise TableUnavailable(f"cannot read {self.table.uri}: {error}") from error
        _log.debug("opened a version", extra={"version": version, "objects": actions.num_rows})
        return Snapshot(version, Segments(actions), ledger)


def _copy(ledger: Ledger) -> Ledger:
    return msgspec.msgpack.decode(msgspec.msgpack.encode(ledger), type=Ledger)
