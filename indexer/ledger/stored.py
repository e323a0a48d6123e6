"""The ledger on storage: the Delta table ``ledger`` beside ``logs``, and how to bring it up.

The keeper writes what it has folded; readers take that and fold in the coverage objects of the
versions since, so that everybody sees the same ledger of the same version of the table. Open files
are one part of it; settled ones are kept by the day on which they were settled, and written once.
"""

import contextlib
import io
import itertools
import json
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from deltalake import CommitProperties, DeltaTable
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from deltalake.transaction import AddAction, RemoveAction

from indexer.allocator import give_pages_back
from indexer.errors import (
    BucketError,
    ObjectDamaged,
    TableDamaged,
    TableUnavailable,
)
from indexer.ledger.entries import FileEntry, FileKey
from indexer.ledger.folded import FoldedLog, folded_up_to, folded_version, sweep
from indexer.ledger.ledger import Ledger
from indexer.ledger.rows import (
    LEDGER_SCHEMA,
    ROW_SCHEMA,
    SETTLED_COLUMNS,
    Prefixes,
    file_rows,
    latest,
    left_rows,
    prefixes,
    state_rows,
    take_files,
    take_settled,
    take_state,
    without_left,
)
from indexer.ledger.settled import SECOND_NS, SETTLED_KEPT_S
from indexer.object_names import OPEN, SETTLED, STATE, folded_at, folder_uri, ledger_folder
from indexer.store.bucket import Bucket, put_own
from indexer.store.checked_file import CheckedFile, add_checksums, checked_name
from indexer.table.table import LOG_CONFIGURATION, one_line
from indexer.times import HOUR_NS, to_datetime

_WHOLE_BYTES = 8 << 20  # an object of so few bytes is read by one request
_TAIL_BYTES = 256 << 10  # read first of others; holds most footers
_ROW_GROUP = 4096  # so that a file that is looked up costs little more than a page
_MERGED_ROWS_MAX = 500_000  # an object of more rows stays as it is
_NO_DAY = "9999"
_ENTRIES = ["file_id", "epoch", "version", "entry"]


@dataclass(frozen=True, slots=True)
class _Object:
    """A member of the table: ``name`` starts with its part and the version of its fold."""

    name: str
    size: int
    rows: int

    @property
    def day(self) -> str:
        """The day of a settled object."""
        return self.name.removeprefix(SETTLED).partition("/")[0]


class LedgerTable:
    """The Delta table ``ledger`` of one cluster.

    An object of a part holds the files that a fold has touched, or several folds; a newer one
    overrides, and of a file that was settled one says among the open ones that it has left. A fold
    merges its own with the newest ones before of the same part, so that each is more than twice as
    large as the next: few objects, and each entry is rewritten a few times only.
    """

    def __init__(self, bucket: Bucket, cluster: str) -> None:
        """Name the table; nothing is read yet."""
        self._bucket = bucket
        self._folder = ledger_folder(cluster)
        self._uri = folder_uri(bucket.uri, self._folder)
        self._log = FoldedLog(bucket, self._folder)
        self._settled_ids: dict[str, Prefixes] = {}  # by object; 8 bytes a file

    def load(self) -> Ledger:
        """Return the ledger as it was last folded, every file in it; an empty one if never."""
        ledger = self._load(None, all_days=True)
        ledger.past_ns = 0
        return ledger

    def load_live(self, partitions: Collection[int] | None = None) -> Ledger:
        """Return the ledger with files of these partitions only, and without past ones.

        Whatever is not a file is there for all partitions. ``past_ns`` says what may be missing.
        """
        return self._load(partitions, all_days=False)

    def load_settling(self) -> Ledger:
        """Return the ledger as one that settles, without an entry of any settled file."""
        with self._reading():
            ledger = Ledger(settles=True)
            table = self._open()
            if table is None:
                return ledger
            objects = self._take_state(ledger, table)
            take_files(ledger, self._open_rows(objects, None, _ENTRIES))
            oldest = day_of(ledger.swept_hour * HOUR_NS - SETTLED_KEPT_S * SECOND_NS)
            for each in objects:
                if each.name.startswith(SETTLED) and each.day >= oldest:
                    take_settled(ledger, self._rows(each, SETTLED_COLUMNS))
            for file in ledger.files.values():
                ledger.take_out(file)  # it has gone on since it was settled
        give_pages_back()
        return ledger

    def _load(self, partitions: Collection[int] | None, *, all_days: bool) -> Ledger:
        with self._reading():
            table = self._open()
            if table is None:
                return Ledger()
            ledger = Ledger()
            objects = self._take_state(ledger, table)
            oldest = "" if all_days else day_of(ledger.past_ns)
            wanted = None if partitions is None else pc.field("partition").isin(list(partitions))
            settled = [
                self._rows(each, _ENTRIES, wanted).cast(_some(_ENTRIES))
                for each in objects
                if each.name.startswith(SETTLED) and each.day >= oldest
            ]
            if settled:
                take_files(ledger, pa.concat_tables(settled))
            # A file of which there is such a row has gone on, if it ever was settled.
            take_files(ledger, self._open_rows(objects, wanted, _ENTRIES))
            return ledger

    def _take_state(self, ledger: Ledger, table: DeltaTable) -> list[_Object]:
        """Put whatever is not a file into a ledger; return the objects of the table."""
        ledger.version = folded_version(table)
        objects = _objects(table)
        for each in objects:
            if each.name.startswith(STATE):
                take_state(ledger, self._rows(each, ["kind", "entry"]))
        return objects

    def _open_rows(
        self, objects: Iterable[_Object], wanted: pc.Expression | None, columns: list[str]
    ) -> pa.Table:
        columns = [*columns, "settled_time"]
        rows = [
            self._rows(each, columns, wanted).cast(_some(columns))
            for each in objects
            if each.name.startswith(OPEN)
        ]
        return without_left(latest(pa.concat_tables([_some(columns).empty_table(), *rows])))

    def lookup(
        self, file_ids: Collection[bytes], version: int | None = None
    ) -> dict[FileKey, FileEntry]:
        """Return the settled files of these ids, every epoch, as they were stored then.

        With a ``version`` only what was folded up to that: who is behind must learn nothing yet.

        One read for all: objects are sorted by id, so of each only the row groups are read that
        hold one of them. The first call reads all ids and keeps eight bytes of each.
        """
        if not file_ids:
            return {}
        found: list[pa.Table] = []
        with self._reading():
            table = self._open()
            objects = [] if table is None else _objects(table)
            settled = [each for each in objects if each.name.startswith(SETTLED)]
            self._settled_ids = {
                each.name: self._settled_ids[each.name]
                if each.name in self._settled_ids
                else prefixes(self._rows(each, ["file_id"])["file_id"])
                for each in settled
            }
            wanted = sorted(file_ids)
            heads = prefixes(pa.chunked_array([wanted], pa.binary()))
            for each in settled:
                ids = self._settled_ids[each.name]
                is_here = ids[np.searchsorted(ids[:-1], heads)] == heads
                if is_here.any():
                    here = [wanted[at] for at in np.flatnonzero(is_here)]
                    rows = self._rows(each, _ENTRIES, pc.field("file_id").isin(here))
                    if version is not None:
                        rows = rows.filter(pc.less_equal(rows["version"], version))
                    found.append(rows.cast(_some(_ENTRIES)))
        ledger = Ledger()
        if found:
            take_files(ledger, pa.concat_tables(found))
        return ledger.files

    def save(
        self,
        ledger: Ledger,
        before: int,
        touched: Collection[FileKey] | None = None,
        settled_before_ns: int = 0,
    ) -> bool:
        """Store the ledger if the stored one is still that of version ``before``.

        ``touched`` are the files that have changed since then; None: the ledger has every file,
        and replaces all. With ``settled_before_ns`` files that were settled on an earlier day
        become past ones, and leave ``ledger``, as those do that it has settled. One commit shows
        it all or nothing; returns False if another keeper was faster.
        """
        try:
            table = self._open() or self._make()
            if folded_version(table) != before:
                return False
            objects = _objects(table)
            keys = {*ledger.files, *ledger.leaving} if touched is None else touched
            files = [ledger.files.get(key) or ledger.leaving[key] for key in keys]
            days = {day_of(file.settled_ns) for file in files if file.settled_ns}
            days |= {each.day for each in objects if each.name.startswith(SETTLED)}
            if min(days, default=_NO_DAY) < day_of(settled_before_ns):
                ledger.past_ns = settled_before_ns
            parts, removed = self._parts(objects if touched is not None else [], files, ledger)
            removed += [each for each in objects if each.name.startswith(STATE) or touched is None]
            added = [self._put(part, rows, ledger.version) for part, rows in parts]
            added.append(self._put(STATE, state_rows(ledger), ledger.version))
            self._commit(table, added, removed, ledger.version)
        except CommitFailedError:
            return False
        except (DeltaError, pa.ArrowException, OSError) as error:
            raise TableUnavailable(f"cannot write {self._uri}: {one_line(error)}") from error
        ledger.leaving.clear()
        if settled_before_ns:
            ledger.let_go(settled_before_ns)
        return True

    def _parts(
        self, objects: Sequence[_Object], files: Sequence[FileEntry], ledger: Ledger
    ) -> tuple[list[tuple[str, pa.Table]], list[_Object]]:
        """Return the rows that are to be put into each part, and the objects merged with them."""
        parts: list[tuple[str, pa.Table]] = []
        removed: list[_Object] = []
        days: dict[str, list[FileEntry]] = {}
        for file in files:
            days.setdefault(day_of(file.settled_ns) if file.settled_ns else "", []).append(file)
        opened = days.pop("", [])
        left = [file for of in days.values() for file in of]
        rows = pa.concat_tables(
            [file_rows(opened, ledger.version), left_rows(left, ledger.version)]
        )
        for part, new in (
            (OPEN, rows),
            *((_day(day), file_rows(of, ledger.version)) for day, of in sorted(days.items())),
        ):
            of_part = [each for each in objects if each.name.startswith(part)]
            merged = _to_merge(of_part, new.num_rows) if new.num_rows else []
            whole = self._merged(merged, new)
            if part == OPEN and len(merged) == len(of_part):
                whole = without_left(whole)  # there is no older row of which it has to be told
            if whole.num_rows:
                parts.append((part, whole.sort_by("partition") if part == OPEN else whole))
            removed += merged
        return parts, removed

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
            return self._log.opened(self._bucket.storage_options)
        except TableNotFoundError:
            return None

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


def _to_merge(objects: Sequence[_Object], rows: int) -> list[_Object]:
    """Return the newest objects of a part that new rows are merged with."""
    merged: list[_Object] = []
    for each in reversed(objects):
        if each.rows > min(2 * rows, _MERGED_ROWS_MAX):
            break
        merged.append(each)
        rows += each.rows
    return merged


def day_of(ns: int) -> str:
    """Return the day of a time."""
    return to_datetime(max(ns, 0)).date().isoformat()


def _day(day: str) -> str:
    return f"{SETTLED}{day}/"


def _some(columns: Iterable[str]) -> pa.Schema:
    return pa.schema([ROW_SCHEMA.field(name) for name in columns])
