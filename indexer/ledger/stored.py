"""The ledger on storage: the Delta table ``ledger`` beside ``logs``, and how to bring it up.

The keeper writes what it has folded; readers take that and fold in the coverage objects of the
versions since, so that everybody sees the same ledger of the same version of the table. Files that
may still come again are the live part, by partition; those gone for long are the past one, which is
only looked up in.
"""

import contextlib
import io
import itertools
import json
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from deltalake import CommitProperties, DeltaTable
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from deltalake.transaction import AddAction, RemoveAction

from indexer.errors import (
    BucketError,
    ObjectDamaged,
    ObjectMissing,
    TableDamaged,
    TableError,
    TableUnavailable,
    VersionGone,
)
from indexer.ledger.entries import FileEntry, FileKey
from indexer.ledger.folded import FoldedLog, folded_up_to, folded_version, sweep
from indexer.ledger.ledger import Ledger
from indexer.ledger.rows import (
    LEDGER_SCHEMA,
    ROW_SCHEMA,
    Prefixes,
    file_rows,
    gone_before,
    latest,
    prefixes,
    state_rows,
    take_files,
    take_state,
)
from indexer.object_names import LIVE, PAST, STATE, folded_at, folder_uri, ledger_folder
from indexer.store.bucket import Bucket, put_own
from indexer.store.checked_file import CheckedFile, add_checksums, checked_name
from indexer.table.coverage import Coverage
from indexer.table.table import LOG_CONFIGURATION, LogEntry, Table, one_line

Lookup = Callable[[Collection[bytes]], dict[FileKey, FileEntry]]
Seen = Callable[[LogEntry, Sequence[Coverage]], None]

_WHOLE_BYTES = 8 << 20  # an object of so few bytes is read by one request
_TAIL_BYTES = 256 << 10  # read first of others; holds most footers
_ROW_GROUP = 4096  # of past files, so that one of them costs little more than a page
_VERSIONS_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class _Object:
    """A member of the table: ``name`` starts with its part and the version of its fold."""

    name: str
    size: int
    rows: int


class LedgerTable:
    """The Delta table ``ledger`` of one cluster.

    An object of the live part holds the files that a fold has touched, or several folds; a newer
    one overrides. A fold merges its own with the newest ones before, so that each is more than
    twice as large as the next: few objects, and each entry is rewritten a few times only.
    """

    def __init__(self, bucket: Bucket, cluster: str) -> None:
        """Name the table; nothing is read yet."""
        self._bucket = bucket
        self._folder = ledger_folder(cluster)
        self._uri = folder_uri(bucket.uri, self._folder)
        self._log = FoldedLog(bucket, self._folder)
        self._past_ids: dict[str, Prefixes] = {}  # by object; 8 bytes a file

    def load(self) -> Ledger:
        """Return the ledger as it was last folded, past files too; an empty one if it never was."""
        ledger = self._load((STATE, LIVE, PAST), None)
        ledger.past_ns = 0
        return ledger

    def load_live(self, partitions: Collection[int] | None = None) -> Ledger:
        """Return the ledger without past files, and with files of these partitions only.

        Whatever is not a file is there for all partitions. ``past_ns`` says what may be missing.
        """
        return self._load((STATE, LIVE), partitions)

    def _load(self, parts: tuple[str, ...], partitions: Collection[int] | None) -> Ledger:
        with self._reading():
            table = self._open()
            if table is None:
                return Ledger()
            ledger = Ledger(version=folded_version(table))
            wanted = None if partitions is None else pc.field("partition").isin(list(partitions))
            objects = [each for each in _objects(table) if each.name.startswith(parts)]
            for each in objects:
                if each.name.startswith(STATE):
                    take_state(ledger, self._rows(each, ["kind", "entry"]))
            columns = ["file_id", "epoch", "version", "entry"]
            files = [
                self._rows(each, columns, wanted).cast(_some(columns))
                for each in objects
                if not each.name.startswith(STATE)
            ]
            if files:
                take_files(ledger, pa.concat_tables(files))
            return ledger

    def lookup(self, file_ids: Collection[bytes]) -> dict[FileKey, FileEntry]:
        """Return the past files of these ids, every epoch; live ones are not looked for.

        One read for all: past objects are sorted by id, so of each only the row groups are read
        that hold one of them. The first call reads all past ids and keeps eight bytes of each.
        """
        if not file_ids:
            return {}
        found: list[pa.Table] = []
        with self._reading():
            table = self._open()
            objects = [] if table is None else _objects(table)
            past_objects = [each for each in objects if each.name.startswith(PAST)]
            self._past_ids = {
                each.name: self._past_ids[each.name]
                if each.name in self._past_ids
                else prefixes(self._rows(each, ["file_id"])["file_id"])
                for each in past_objects
            }
            wanted = sorted(file_ids)
            heads = prefixes(pa.chunked_array([wanted], pa.binary()))
            columns = ["file_id", "epoch", "version", "entry"]
            for each in past_objects:
                past = self._past_ids[each.name]
                is_here = past[np.searchsorted(past[:-1], heads)] == heads
                if is_here.any():
                    here = [wanted[at] for at in np.flatnonzero(is_here)]
                    rows = self._rows(each, columns, pc.field("file_id").isin(here))
                    found.append(rows.cast(_some(columns)))
        ledger = Ledger()
        if found:
            take_files(ledger, pa.concat_tables(found))
        return ledger.files

    def save(
        self,
        ledger: Ledger,
        before: int,
        touched: Collection[FileKey] | None = None,
        gone_before_ns: int = 0,
    ) -> bool:
        """Store the ledger if the stored one is still that of version ``before``.

        ``touched`` are the files that have changed since then; None: the ledger has every file,
        and replaces all. With ``gone_before_ns`` files gone before that become past ones, and
        leave ``ledger``. One commit shows it all or nothing; returns False if another keeper was
        faster.
        """
        try:
            table = self._open() or self._make()
            if folded_version(table) != before:
                return False
            keys = ledger.files if touched is None else touched
            rows = latest(file_rows([ledger.files[key] for key in keys], ledger.version))
            objects = _objects(table)
            removed = [each for each in objects if each.name.startswith(STATE)]
            if touched is None:
                removed = objects
            else:
                merged = _to_merge(objects, rows.num_rows, whole=gone_before_ns > 0)
                rows = self._merged(merged, rows)
                removed += merged
            is_past = gone_before(rows, gone_before_ns)
            past, live = rows.filter(is_past), rows.filter(pc.invert(is_past))
            ledger.past_ns = gone_before_ns if past.num_rows else ledger.past_ns
            added = [self._put(STATE, state_rows(ledger), ledger.version)]
            for part, of in ((LIVE, live.sort_by("partition")), (PAST, past)):
                if of.num_rows:
                    added.append(self._put(part, of, ledger.version))
            self._commit(table, added, removed, ledger.version)
        except CommitFailedError:
            return False
        except (DeltaError, pa.ArrowException, OSError) as error:
            raise TableUnavailable(f"cannot write {self._uri}: {one_line(error)}") from error
        if gone_before_ns:
            ledger.forget(gone_before_ns)
        return True

    def _merged(self, objects: Iterable[_Object], rows: pa.Table) -> pa.Table:
        with self._reading():
            found = [self._rows(each).cast(ROW_SCHEMA) for each in objects]
        return latest(pa.concat_tables([*found, rows]))

    def _rows(
        self, each: _Object, columns: list[str] | None = None, wanted: pc.Expression | None = None
    ) -> pa.Table:
        """Return columns of an object, of the row groups that may hold rows that are wanted.

        What is read is checked before Arrow decodes it.
        """
        file = CheckedFile(self._bucket, self._folder + each.name, each.size)
        file.footer(each.size if each.size <= _WHOLE_BYTES else _TAIL_BYTES)
        fragment = ds.ParquetFileFormat().make_fragment(file)
        return fragment.to_table(schema=LEDGER_SCHEMA, columns=columns, filter=wanted)

    def _put(self, part: str, rows: pa.Table, version: int) -> AddAction:
        body = io.BytesIO()
        pq.write_table(
            rows,
            body,
            row_group_size=_ROW_GROUP,
            compression="zstd",
            use_dictionary=["kind", "node", "namespace", "pod", "container"],
            store_schema=False,
        )
        add_checksums(body)
        data = body.getvalue()
        name = checked_name(folded_at(part, version), data)
        put_own(self._bucket, self._folder + name, data)
        stats = json.dumps({"numRecords": rows.num_rows})
        return AddAction(name, len(data), {}, 0, True, stats)

    def _commit(
        self,
        table: DeltaTable,
        added: Collection[AddAction],
        removed: Collection[_Object],
        version: int,
    ) -> None:
        now_ms = time.time_ns() // 1_000_000
        actions: list[AddAction | RemoveAction] = [
            *added,
            *(RemoveAction(each.name, True, now_ms, each.size, {}) for each in removed),
        ]
        table.create_write_transaction(
            actions,
            mode="append",
            schema=LEDGER_SCHEMA,
            # The number of every commit of a keeper is one of the table's versions already.
            commit_properties=folded_up_to(version),
        )

    def sweep(self) -> int:
        """Delete objects that no ledger of the last day uses; return how many."""
        try:
            table = self._log.opened(self._bucket.storage_options)
            return sweep(table)
        except TableNotFoundError:
            return 0
        except (DeltaError, OSError) as error:
            raise TableUnavailable(f"cannot sweep {self._uri}: {one_line(error)}") from error

    def _open(self) -> DeltaTable | None:
        try:
            table = self._log.opened(self._bucket.storage_options)
        except TableNotFoundError:
            return None
        if "version" not in {field.name for field in table.schema().fields}:
            raise TableError(
                f"{self._uri} was written by an older version; delete it, and it is folded again"
            )
        return table

    def _make(self) -> DeltaTable:
        return DeltaTable.create(
            self._uri,
            LEDGER_SCHEMA,
            mode="ignore",
            configuration=LOG_CONFIGURATION,
            # A second try would put the same schema, under another id, into version 1.
            commit_properties=CommitProperties(max_commit_retries=0),
            storage_options=self._bucket.storage_options,
        )

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except ObjectDamaged as error:
            raise TableDamaged(
                f"{error}; delete all of {self._uri}: the keeper folds it again"
            ) from error
        except (BucketError, DeltaError, pa.ArrowException, OSError) as error:
            raise TableUnavailable(f"cannot read {self._uri}: {one_line(error)}") from error


def _objects(table: DeltaTable) -> list[_Object]:
    """Return the members of a snapshot, in each part the oldest first."""
    actions = pa.table(table.get_add_actions())
    columns = (actions[name].to_pylist() for name in ("path", "size_bytes", "num_records"))
    return sorted(itertools.starmap(_Object, zip(*columns, strict=True)), key=lambda o: o.name)


def _to_merge(objects: Iterable[_Object], rows: int, *, whole: bool) -> list[_Object]:
    """Return the newest live objects that new rows are merged with."""
    merged: list[_Object] = []
    for each in reversed([each for each in objects if each.name.startswith(LIVE)]):
        if not whole and each.rows > 2 * rows:
            break
        merged.append(each)
        rows += each.rows
    return merged


def _some(columns: Iterable[str]) -> pa.Schema:
    return pa.schema([ROW_SCHEMA.field(name) for name in columns])


def bring_up(
    ledger: Ledger,
    table: Table,
    version: int,
    *,
    lookup: Lookup | None = None,
    touched: set[FileKey] | None = None,
    seen: Seen | None = None,
) -> Ledger:
    """Fold the coverage of every version up to ``version`` into ``ledger``, in place; return it.

    Where the log no longer reaches back to the ledger, or names objects that were merged since and
    are gone, all coverage objects are folded again, into another ledger. ``lookup`` finds the past
    files of a ledger that was loaded without them; the keys of files that have changed are added to
    ``touched``, and each version that was folded goes to ``seen`` with its coverage.
    """
    log = table.log(ledger.version, version)
    try:
        while entries := list(itertools.islice(log, _VERSIONS_AT_ONCE)):
            found = [
                list(itertools.chain.from_iterable(map(table.coverage, entry.coverage)))
                for entry in entries
            ]
            if lookup is not None and ledger.past_ns:
                unknown = _unknown(ledger, itertools.chain.from_iterable(found))
                for past in lookup(unknown).values():
                    ledger.revive(past)
            for entry, coverages in zip(entries, found, strict=True):
                for coverage in coverages:
                    changed = ledger.apply(coverage, entry.version)
                    if touched is not None:
                        touched |= changed
                ledger.version = entry.version
                if seen is not None:
                    seen(entry, coverages)
    except (VersionGone, ObjectMissing):
        ledger = fold_again(table, version)
    return ledger


def fold_again(table: Table, version: int) -> Ledger:
    """Return the fold of all coverage objects of a version; raise VersionGone if it is not kept."""
    ledger = Ledger()
    for coverage in table.all_coverage(table.snapshot(version)):
        ledger.apply(coverage, version)
    ledger.version = version
    return ledger


def _unknown(ledger: Ledger, found: Iterable[Coverage]) -> set[bytes]:
    return {
        cover.file_id
        for coverage in found
        for cover in coverage.files
        if (cover.file_id, cover.epoch) not in ledger.files
    }
