"""What one replica of the service holds: the table's latest version, and those that cursors pin.

Versions of the table go in; out come snapshots, each with the segments and the ledger of exactly
one version. A snapshot is never changed: the next one shares with it what has stayed the same, so
a refresh costs what has come since.
"""

import contextlib
import hashlib
import logging
import threading
from collections import OrderedDict

import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from indexer.errors import TableUnavailable
from indexer.ledger.bring_up import Seen, bring_up
from indexer.ledger.ledger import Ledger
from indexer.ledger.stored import LedgerTable
from indexer.store.bucket import Bucket
from indexer.table.table import LogEntry, Table
from query_api.completeness.gap_columns import GapColumns
from query_api.completeness.gaps import Gap, OfFiles, file_gaps, other_gaps
from query_api.completeness.progress import Marks
from query_api.completeness.statement import GapView, gap_view
from query_api.scan.plan import Segments

# From so many versions behind on, what the keeper has folded meanwhile is the shorter way.
_FAR_BEHIND = 50
# So many commits may a request fold, for the exact ledger of a version that is not held.
_FOLDED_IN_REQUEST = 16

_VIEWS_MAX = 10_000

_log = logging.getLogger(__name__)


class Snapshot:
    """One version of the table: its segments, its ledger and the gaps in that."""

    def __init__(
        self, version: int, segments: Segments, ledger: Ledger, before: "Snapshot | None" = None
    ) -> None:
        """Take what must not be changed afterwards; of ``before`` gaps that are the same stay."""
        self.version = version
        self.segments = segments
        self.ledger = ledger
        self._of_files: OfFiles = file_gaps(ledger, before._of_files if before else {})
        self.marks = Marks(ledger)
        of_files = (gap for _, gaps in self._of_files.values() for gap in gaps)
        self.columns = GapColumns((*of_files, *other_gaps(ledger)), ledger.totals)
        self._views: dict[str, tuple[Gap, GapView]] = before._views if before else {}

    @property
    def gaps(self) -> list[Gap]:
        """All gaps of the ledger, the latest found first."""
        return self.columns.gaps

    def view(self, gap: Gap, cluster: str) -> GapView:
        """Return a gap as answers show it, made once as long as it stays the same."""
        known = self._views.get(gap.id)
        if known is None or known[0] is not gap:
            if len(self._views) > _VIEWS_MAX:
                self._views.clear()
            self._views[gap.id] = known = gap, gap_view(gap, cluster)
        return known[1]


class Replica:
    """Snapshots of one cluster's table; its methods may be called from any thread."""

    def __init__(
        self,
        bucket: Bucket,
        cluster: str,
        pinned_versions: int,
    ) -> None:
        """Name the table; nothing is read yet."""
        self.bucket = bucket
        self.table = Table(bucket, cluster)
        self._ledger_table = LedgerTable(bucket, cluster)
        self._pinned_versions = pinned_versions
        self._lock = threading.Lock()  # of what is pinned
        self._opening = threading.Lock()
        self._latest: Snapshot | None = None
        self._pinned: OrderedDict[int, Snapshot] = OrderedDict()
        self._secret = b""

    @property
    def held(self) -> Snapshot | None:
        """The version that was read last, at once and without a look at the table."""
        return self._latest

    @property
    def newest(self) -> Snapshot:
        """The same; raise TableUnavailable if none was read yet."""
        if self._latest is None:
            raise TableUnavailable(f"{self.table.uri} has not been read yet")
        return self._latest

    @property
    def secret(self) -> bytes:
        """What cursors are signed with, once a version was read: the same in each replica, and
        unknown to who cannot read the table.

        It is derived from the table's random identity, so there is nothing to set up or to store.
        """
        return self._secret

    def refresh(self) -> Snapshot:
        """Read on to the newest version and return it; raise TableError if there is none.

        For one thread at a time.
        """
        self._latest = self._refresh()
        return self._latest

    def pin(self, snapshot: Snapshot) -> None:
        """Keep a snapshot for the cursors that name its version."""
        with self._lock:
            self._pinned[snapshot.version] = snapshot
            self._pinned.move_to_end(snapshot.version)
            while len(self._pinned) > self._pinned_versions:
                self._pinned.popitem(last=False)

    def at(self, version: int) -> tuple[Snapshot, bool]:
        """Return the segments of a version with a ledger, and whether that is of the same version.

        A version that is not held is judged by the newest ledger, unless a few commits lead to its
        own: to fold it anew costs as much as the table has ever had commits. Raises VersionGone if
        the version is no longer kept.
        """
        latest = self.newest
        with self._lock:
            held = self._pinned.get(version)
        if held is None and latest.version == version:
            held = latest
        if held is not None:
            return held, held.ledger.version == version
        if version > latest.version:
            # Another replica has seen more; this one looks as soon as its refresh is due.
            raise TableUnavailable(f"version {version} of {self.table.uri} is not seen here yet")
        with self._opening:  # many pages of one version are opened once
            return self._opened(version, latest)

    def _opened(self, version: int, latest: Snapshot) -> tuple[Snapshot, bool]:
        with self._lock:
            held = self._pinned.get(version)
            earlier = [p.ledger for p in self._pinned.values() if p.ledger.version <= version]
        if held is not None:
            return held, held.ledger.version == version
        handle = self.table.snapshot(version)
        nothing = Ledger(settles=True)
        ledger = max(earlier, key=lambda each: each.version, default=nothing)
        if version - ledger.version <= _FOLDED_IN_REQUEST:
            ledger = self._brought_up(ledger.branch(), version)
        else:
            ledger = latest.ledger
        snapshot = Snapshot(version, self._segments(handle), ledger)
        self.pin(snapshot)
        return snapshot, ledger.version == version

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
            if ledger is self._brought_up(ledger, version, lambda entry, _: entries.append(entry)):
                with contextlib.suppress(pa.ArrowException, ValueError):  # statistics of others
                    return Snapshot(version, before.segments.after(entries), ledger, before)
        return self._open(self.table.snapshot())

    def _brought_up(self, ledger: Ledger, version: int, seen: Seen | None = None) -> Ledger:
        """Fold a ledger on, in place, and return it; another one if its log is gone."""
        lookup = self._ledger_table.lookup
        ledger = bring_up(ledger, self.table, version, lookup=lookup, seen=seen)
        ledger.leaving.clear()  # the keeper stores them
        return ledger

    def _newest(self, version: int) -> Ledger:
        """Return the newest ledger at hand that speaks of no later version: stored, held or empty.

        It may be folded on.
        """
        stored, held = self._ledger_table.load_settling(), self._latest
        ledger = stored if stored.version <= version else Ledger(settles=True)
        if held is not None and ledger.version < held.version <= version:
            return held.ledger.branch()
        return ledger

    def _open(self, handle: DeltaTable) -> Snapshot:
        """Return the snapshot of a version, all of it read again but the ledger to begin with."""
        version = handle.version()
        ledger = self._brought_up(self._newest(version), version)
        segments = self._segments(handle)
        identity = str(handle.metadata().id).encode()
        self._secret = hashlib.blake2b(identity, digest_size=32, person=b"cursor").digest()
        return Snapshot(version, segments, ledger)

    def _segments(self, handle: DeltaTable) -> Segments:
        try:
            actions = pa.table(handle.get_add_actions(flatten=True))
        except (DeltaError, OSError) as error:
            raise TableUnavailable(f"cannot read {self.table.uri}: {error}") from error
        _log.debug(
            "opened a version", extra={"version": handle.version(), "objects": actions.num_rows}
        )
        return Segments(actions)
