"""The table ``logs`` of one cluster: which objects exist, and up to which topic position.

Objects that were uploaded go in with the positions that they stand for; a commit shows all of them
to readers or none. A commit is made only against a snapshot whose positions are those that the
writer went on from, so nobody's work is done twice.
"""

import heapq
import itertools
import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Schema
from deltalake.exceptions import DeltaError, TableNotFoundError

from collector.checksum import crc32
from indexer.errors import (
    BucketUnavailable,
    CoverageError,
    ObjectMissing,
    TableError,
    TableUnavailable,
    VersionGone,
)
from indexer.object_names import folder_uri, is_coverage, is_merged, logs_folder, named_crc
from indexer.schema import PARTITION_COLUMNS, SEGMENT_SCHEMA
from indexer.store.bucket import Bucket
from indexer.table.coverage import Coverage, from_object
from indexer.table.delta_log import (
    RESTORE,
    DeltaLog,
    add_action,
    commit_info,
    remove_action,
    txn_action,
)

NO_ROWS = json.dumps({"numRecords": 0})
"""The statistics of a coverage object."""

CLOSED = 2**63 - 1
"""The version of an ``app_id`` under which nobody may commit again."""

LOG_CONFIGURATION = {
    "delta.logRetentionDuration": "interval 1 days",
    "delta.deletedFileRetentionDuration": "interval 1 days",
}


def one_line(error: BaseException) -> str:
    """Return what Delta Lake says of an error, without its colours and line breaks."""
    return " ".join(re.sub(r"\x1b\[[0-9;]*m|↳", "", str(error)).split())


def _plain(kind: pa.DataType) -> pa.DataType:
    """Return the type that the Delta log knows for a column's type."""
    if pa.types.is_dictionary(kind):
        return kind.value_type
    return pa.binary() if pa.types.is_fixed_size_binary(kind) else kind


TABLE_SCHEMA = pa.schema(
    [
        pa.field("date", pa.date32()),
        pa.field("hour", pa.int32()),
        *(pa.field(f.name, _plain(f.type), nullable=f.nullable) for f in SEGMENT_SCHEMA),
    ]
)
"""The columns as other programs see them."""


@dataclass(frozen=True, slots=True)
class Added:
    """An uploaded object that a commit adds; no ``date`` and ``hour``: a coverage object."""

    name: str
    size: int
    stats: str
    date: str | None = None
    hour: int | None = None


@dataclass(frozen=True, slots=True)
class Live:
    """An object of a snapshot; no ``date`` and ``hour``: a coverage object."""

    name: str
    size: int
    date: str | None = None
    hour: int | None = None
    stats: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)  # least, greatest
    rows: int | None = None  # None: nobody has said

    @property
    def is_coverage(self) -> bool:
        """Whether it holds coverage, and no rows."""
        return self.date is None


@dataclass(frozen=True, slots=True)
class LogEntry:
    """What one version of the table has added and removed."""

    version: int
    actions: tuple[Mapping[str, Any], ...]  # one for each object that was added
    removed: tuple[str, ...]

    @property
    def added(self) -> tuple[str, ...]:
        """Names of the objects that were added."""
        return tuple(action["path"] for action in self.actions)

    @property
    def coverage(self) -> tuple[str, ...]:
        """Names of the coverage objects among them; merged ones repeat what was added before."""
        return tuple(name for name in self.added if is_coverage(name) and not is_merged(name))


class Table:
    """The Delta table of one cluster in a bucket."""

    def __init__(
        self, bucket: Bucket, cluster: str, *, clock: Callable[[], int] = time.time_ns
    ) -> None:
        """Name the table; nothing is read yet. ``clock()`` gives ns since 1970."""
        self.bucket = bucket
        self.cluster = cluster
        self._clock = clock
        self.folder = logs_folder(cluster)
        self.uri = folder_uri(bucket.uri, self.folder)
        self._log = DeltaLog(bucket, self.folder)

    def make(self) -> None:
        """Make the table unless it is there; raise TableError if that has other columns."""
        try:
            table = DeltaTable.create(
                self.uri,
                TABLE_SCHEMA,
                mode="ignore",
                partition_by=list(PARTITION_COLUMNS),
                configuration=LOG_CONFIGURATION,
                # A second try would put the same schema, under another id, into version 1.
                commit_properties=CommitProperties(max_commit_retries=0),
                storage_options=self.bucket.storage_options,
            )
        except (DeltaError, OSError):
            table = self.snapshot()  # another process was faster, or this one says what is wrong
        found = {field.name: field for field in table.schema().fields}
        ours = Schema.from_arrow(TABLE_SCHEMA).fields
        if wrong := [field.name for field in ours if found.get(field.name) != field]:
            raise TableError(
                f"{self.uri} was made by another version: it has other columns {', '.join(wrong)};"
                " move it away, or choose another cluster or bucket"
            )

    def snapshot(self, version: int | None = None) -> DeltaTable:
        """Return the table as of ``version``, or as of now.

        Raises TableError if there is none, VersionGone if that version is no longer kept, and
        TableDamaged if an object of its log is not what was written.
        """
        try:
            self._log.check_checkpoint()
            table = DeltaTable(
                self.uri, version=version, storage_options=self.bucket.storage_options
            )
        except BucketUnavailable as error:
            raise TableUnavailable(f"cannot read {self.uri}: {error}") from error
        except (DeltaError, OSError) as error:
            if version is None and isinstance(error, TableNotFoundError):
                raise TableError(f"no table at {self.uri}; start an indexer first") from error
            if version is not None:
                self.snapshot()  # raises TableUnavailable if it is not this version's fault
                said = one_line(error)
                raise VersionGone(f"version {version} of {self.uri} is gone: {said}") from error
            self._log.explain()
            raise TableUnavailable(f"cannot open {self.uri}: {one_line(error)}") from error
        try:
            self._log.check(table.version())
        except BucketUnavailable as error:
            raise TableUnavailable(f"cannot read {self.uri}: {error}") from error
        return table

    def commit(
        self,
        added: Sequence[Added],
        expected: Mapping[str, int | None],
        reached: Mapping[str, int],
        removed: Sequence[Live] = (),
        *,
        same_rows: bool = False,
    ) -> int:
        """Add uploaded objects, remove others and move positions, all at once; return the version.

        ``expected`` gives for each ``app_id`` the version that this work went on from, ``reached``
        the one to store. ``same_rows``: what is added holds what is removed, so that nobody who
        follows changes needs to read it. Raises PositionMoved if a position is another by now or an
        object was removed since ``watch_removals``: the caller takes its state again from the
        table, which also tells an own commit that was answered with an error from somebody else's.
        """
        now_ms = self._clock() // 1_000_000
        actions = [
            commit_info(now_ms, "Overwrite" if removed else "Append", PARTITION_COLUMNS),
            *(add_action(each.name, each.size, each.stats, _values(each), now_ms,
                         data_change=not same_rows) for each in added),
            *(remove_action(each.name, each.size, _values(each), now_ms,
                            data_change=not same_rows) for each in removed),
            *(txn_action(app_id, version, now_ms) for app_id, version in reached.items()),
        ]  # fmt: skip
        try:
            self._log.commit(actions, expected)
        except BucketUnavailable as error:
            raise TableUnavailable(f"cannot commit to {self.uri}: {error}") from error
        return self._log.version

    def last_checkpoint(self) -> int:
        """Return the version of the last checkpoint; -1 if there is none."""
        return self._log.checkpoint()

    def write_checkpoint(self) -> None:
        """Write down what is there at the newest version, and clean up the log before it."""
        snapshot = self.snapshot()
        try:
            snapshot.create_checkpoint()
            snapshot.cleanup_metadata()
            self._log.vouch_for_checkpoint()
        except (DeltaError, OSError, BucketUnavailable) as error:
            said = one_line(error)
            raise TableUnavailable(f"cannot write a checkpoint of {self.uri}: {said}") from error

    def version(self) -> int:
        """Return the newest version; raise TableError if there is no table."""
        try:
            self._log.refresh()
        except BucketUnavailable as error:
            raise TableUnavailable(f"cannot read {self.uri}: {error}") from error
        return self._log.version

    def watch_removals(self) -> None:
        """From now on, notice what is removed: take the snapshot to work from after this."""
        self.version()
        self._log.removed = set()

    def log(self, after: int, until: int) -> Iterator[LogEntry]:
        """Yield what the versions ``after + 1`` to ``until`` did; raise VersionGone if cleaned."""
        for number in range(after + 1, until + 1):
            try:
                version = self._log.read(number)
            except ObjectMissing as error:
                raise VersionGone(f"the log of {self.uri} starts after {number}") from error
            yield LogEntry(number, version.added, version.removed)

    def coverage(self, name: str) -> list[Coverage]:
        """Return the coverage of each commit that the object of this name holds.

        Raises CoverageError, which names it, if it is not what was written.
        """
        data = self.bucket.get(self.folder + name)
        crc = named_crc(name)
        if crc is not None and crc32(data) != crc:
            raise CoverageError(f"coverage object {self.folder}{name} is damaged; {RESTORE}")
        try:
            return from_object(data)
        except CoverageError as error:
            raise CoverageError(
                f"coverage object {self.folder}{name} is damaged: {error}; {RESTORE}"
            ) from error

    def all_coverage(self, table: DeltaTable) -> list[Coverage]:
        """Return every coverage object of a snapshot, in the order in which they were committed."""
        paths = table.get_add_actions().column("path").to_pylist()
        names = filter(is_coverage, paths)
        return in_order(coverage for name in names for coverage in self.coverage(name))


def in_order(found: Iterable[Coverage]) -> list[Coverage]:
    """Return coverage as it was committed: by positions in each partition, else by clock.

    Indexers have clocks of their own, so a later commit of a partition may bear an earlier time.
    """
    waiting = sorted(found, key=lambda coverage: coverage.committed_ns)
    queues: dict[int, list[tuple[int, int, int, int]]] = {}
    for at, coverage in enumerate(waiting):
        for each in coverage.positions:
            place = (each.generation, each.start, each.end, at)
            queues.setdefault(each.partition, []).append(place)
    before: list[set[int]] = [set() for _ in waiting]
    after: list[list[int]] = [[] for _ in waiting]
    for queue in queues.values():
        for (*_, first), (*_, second) in itertools.pairwise(sorted(queue)):
            if first not in before[second]:  # they may follow each other in several partitions
                before[second].add(first)
                after[first].append(second)
    free = [at for at, needs in enumerate(before) if not needs]
    ordered = []
    while free:
        at = heapq.heappop(free)
        ordered.append(waiting[at])
        for each_after in after[at]:
            before[each_after].discard(at)
            if not before[each_after]:
                heapq.heappush(free, each_after)
    return ordered


def live(table: DeltaTable) -> list[Live]:
    """Return the objects of a snapshot, segments with the bounds of their columns."""
    actions = pa.table(table.get_add_actions(flatten=True))
    columns = {name: actions.column(name).to_pylist() for name in actions.column_names}
    bounds = [name[4:] for name in columns if name.startswith("min.")]
    found = []
    for at, name in enumerate(columns["path"]):
        date, hour = columns["partition.date"][at], columns["partition.hour"][at]
        stats = {
            of: (columns[f"min.{of}"][at], columns[f"max.{of}"][at])
            for of in bounds
            if columns[f"min.{of}"][at] is not None
        }
        day = None if date is None else date.isoformat()
        size, rows = columns["size_bytes"][at], columns["num_records"][at]
        found.append(Live(name, size, day, hour, stats, rows))
    return found


def _values(each: Added | Live) -> dict[str, str | None]:
    return {"date": each.date, "hour": None if each.hour is None else str(each.hour)}
