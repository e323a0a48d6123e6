"""The ledger on storage: the Delta table ``ledger`` beside ``logs``, and how to bring it up.

The keeper writes what it has folded; readers take that and fold in the coverage objects of the
versions since, so that everybody sees the same ledger of the same version of the table. Open files
are one part of it; settled ones are kept by the day on which they were settled, and written once.
"""

from collections.abc import Collection, Iterable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError

from indexer.allocator import give_pages_back
from indexer.errors import PositionMoved, TableUnavailable
from indexer.ledger.entries import FileEntry, FileKey
from indexer.ledger.folded import FoldedTable, Member, folded_version, members
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
from indexer.object_names import OPEN, SETTLED, STATE, folded_at, ledger_folder
from indexer.store.bucket import Bucket
from indexer.table.table import one_line
from indexer.times import HOUR_NS, to_datetime

_ROW_GROUP = 4096  # so that a file that is looked up costs little more than a page
_MERGED_ROWS_MAX = 500_000  # an object of more rows stays as it is
_NO_DAY = "9999"
_ENTRIES = ["file_id", "epoch", "version", "entry"]


class LedgerTable:
    """The Delta table ``ledger`` of one cluster.

    An object of a part holds the files that a fold has touched, or several folds; a newer one
    overrides, and of a file that was settled one says among the open ones that it has left. A fold
    merges its own with the newest ones before of the same part, so that each is more than twice as
    large as the next: few objects, and each entry is rewritten a few times only.
    """

    def __init__(self, bucket: Bucket, cluster: str) -> None:
        """Name the table; nothing is read yet."""
        self._table = FoldedTable(bucket, ledger_folder(cluster), LEDGER_SCHEMA)
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
        with self._table.reading():
            ledger = Ledger(settles=True)
            table = self._open()
            if table is None:
                return ledger
            objects = self._take_state(ledger, table)
            take_files(ledger, self._open_rows(objects, None, _ENTRIES))
            oldest = day_of(ledger.swept_hour * HOUR_NS - SETTLED_KEPT_S * SECOND_NS)
            for each in objects:
                if each.name.startswith(SETTLED) and _settled_on(each) >= oldest:
                    take_settled(ledger, self._table.rows(each, SETTLED_COLUMNS))
            for file in ledger.files.values():
                ledger.take_out(file)  # it has gone on since it was settled
        give_pages_back()
        return ledger

    def _load(self, partitions: Collection[int] | None, *, all_days: bool) -> Ledger:
        with self._table.reading():
            table = self._open()
            if table is None:
                return Ledger()
            ledger = Ledger()
            objects = self._take_state(ledger, table)
            oldest = "" if all_days else day_of(ledger.past_ns)
            wanted = None if partitions is None else pc.field("partition").isin(list(partitions))
            settled = [
                self._table.rows(each, _ENTRIES, wanted).cast(_some(_ENTRIES))
                for each in objects
                if each.name.startswith(SETTLED) and _settled_on(each) >= oldest
            ]
            if settled:
                take_files(ledger, pa.concat_tables(settled))
            # A file of which there is such a row has gone on, if it ever was settled.
            take_files(ledger, self._open_rows(objects, wanted, _ENTRIES))
            return ledger

    def _take_state(self, ledger: Ledger, table: DeltaTable) -> list[Member]:
        """Put whatever is not a file into a ledger; return the objects of the table."""
        ledger.version = folded_version(table)
        objects = members(table)
        for each in objects:
            if each.name.startswith(STATE):
                take_state(ledger, self._table.rows(each, ["kind", "entry"]))
        return objects

    def _open_rows(
        self, objects: Iterable[Member], wanted: pc.Expression | None, columns: list[str]
    ) -> pa.Table:
        columns = [*columns, "settled_time"]
        rows = [
            self._table.rows(each, columns, wanted).cast(_some(columns))
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
        with self._table.reading():
            table = self._open()
            objects = [] if table is None else members(table)
            settled = [each for each in objects if each.name.startswith(SETTLED)]
            self._settled_ids = {
                each.name: self._settled_ids[each.name]
                if each.name in self._settled_ids
                else prefixes(self._table.rows(each, ["file_id"])["file_id"])
                for each in settled
            }
            wanted = sorted(file_ids)
            heads = prefixes(pa.chunked_array([wanted], pa.binary()))
            for each in settled:
                ids = self._settled_ids[each.name]
                is_here = ids[np.searchsorted(ids[:-1], heads)] == heads
                if is_here.any():
                    here = [wanted[at] for at in np.flatnonzero(is_here)]
                    rows = self._table.rows(each, _ENTRIES, pc.field("file_id").isin(here))
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
            table = self._table.made()
            if folded_version(table) != before:
                return False
            objects = members(table)
            keys = {*ledger.files, *ledger.leaving} if touched is None else touched
            files = [ledger.files.get(key) or ledger.leaving[key] for key in keys]
            days = {day_of(file.settled_ns) for file in files if file.settled_ns}
            days |= {_settled_on(each) for each in objects if each.name.startswith(SETTLED)}
            if min(days, default=_NO_DAY) < day_of(settled_before_ns):
                ledger.past_ns = settled_before_ns
            parts, removed = self._parts(objects if touched is not None else [], files, ledger)
            removed += [each for each in objects if each.name.startswith(STATE) or touched is None]
            added = [self._put(part, rows, ledger.version) for part, rows in parts]
            added.append(self._put(STATE, state_rows(ledger), ledger.version))
            self._table.commit(added, removed, before, ledger.version)
        except PositionMoved:
            return False
        except (DeltaError, pa.ArrowException, OSError) as error:
            raise TableUnavailable(f"cannot write {self._table.uri}: {one_line(error)}") from error
        ledger.leaving.clear()
        if settled_before_ns:
            ledger.let_go(settled_before_ns)
        return True

    def _parts(
        self, objects: Sequence[Member], files: Sequence[FileEntry], ledger: Ledger
    ) -> tuple[list[tuple[str, pa.Table]], list[Member]]:
        """Return the rows that are to be put into each part, and the objects merged with them."""
        parts: list[tuple[str, pa.Table]] = []
        removed: list[Member] = []
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

    def _merged(self, objects: Iterable[Member], rows: pa.Table) -> pa.Table:
        with self._table.reading():
            found = [self._table.rows(each).cast(ROW_SCHEMA) for each in objects]
        return latest(pa.concat_tables([*found, rows]))

    def _put(self, part: str, rows: pa.Table, version: int) -> Member:
        names = ["kind", "node", "namespace", "pod", "container"]
        start = folded_at(part, version)
        return self._table.put(start, rows, row_group_size=_ROW_GROUP, use_dictionary=names)

    def sweep(self) -> int:
        """Delete objects that no ledger of the last day uses; return how many."""
        return self._table.sweep()

    def _open(self) -> DeltaTable | None:
        try:
            return self._table.opened()
        except TableNotFoundError:
            return None


def _to_merge(objects: Sequence[Member], rows: int) -> list[Member]:
    """Return the newest objects of a part that new rows are merged with."""
    merged: list[Member] = []
    for each in reversed(objects):
        if each.rows > min(2 * rows, _MERGED_ROWS_MAX):
            break
        merged.append(each)
        rows += each.rows
    return merged


def day_of(ns: int) -> str:
    """Return the day of a time."""
    return to_datetime(max(ns, 0)).date().isoformat()


def _settled_on(each: Member) -> str:
    """Return the day of an object of settled files."""
    return each.name.removeprefix(SETTLED).partition("/")[0]


def _day(day: str) -> str:
    return f"{SETTLED}{day}/"


def _some(columns: Iterable[str]) -> pa.Schema:
    return pa.schema([ROW_SCHEMA.field(name) for name in columns])
