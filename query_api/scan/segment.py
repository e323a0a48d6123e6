"""The scan of one segment: a function of plain values that returns the rows of a page.

A segment's name and what is asked go in; out come the matching rows of a page in the order of the
answer, with one more if there is one, and what they cost. Only the footer, the row groups that may
match and the columns needed of those are read, and of a row group without a match nothing but what
showed that.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from indexer.errors import BucketError, ObjectMissing, SegmentDamaged
from indexer.query.meant import EVER_NS, Matcher, meant
from indexer.query.needed import ANY_ROW, Needed, holding, most_telling, needed
from indexer.query.scope import Scope
from indexer.query.tree import Query
from indexer.schema import times_ns
from indexer.segment.reader import SegmentReader
from indexer.segment.token_filter import TokenFilter, WholeFilter
from indexer.store.bucket import Ranges
from indexer.store.checked_file import End
from indexer.store.open import open_bucket

_TOKENS_ASKED_MAX = 4  # of one segment's filter; each costs a request
FILTER_GETS_MAX = _TOKENS_ASKED_MAX + 1
"""So many requests a filter takes at most: its list of common tokens is one more."""

KEYS = ("ns", "file_id", "epoch", "offset")
"""Columns that tell one row from all others, in the order of an answer."""

_WORDS = ("namespace", "pod", "container", "node", "output", "level", "pod_uid", "message")
SHOWN = (*_WORDS, "restart", "raw", "partial")
"""Columns that a row of an answer has besides its keys."""

RESULT_SCHEMA = pa.schema(
    [
        pa.field("ns", pa.int64()),  # time in nanoseconds
        pa.field("file_id", pa.binary(16)),
        pa.field("epoch", pa.int32()),
        pa.field("offset", pa.int64()),
        *(pa.field(name, pa.string()) for name in _WORDS),
        pa.field("restart", pa.int32()),
        pa.field("raw", pa.binary()),
        pa.field("partial", pa.bool_()),
    ]
)
NO_ROWS = RESULT_SCHEMA.empty_table()

Key = tuple[int, bytes, int, int]
"""What orders rows: time in nanoseconds, file_id, epoch, offset."""


@dataclass(frozen=True, slots=True)
class ScanTask:
    """What to look for in which segment: rows of ``[from_ns, to_ns)`` whose columns are equal to
    one of the values given, that ``query`` means, and that come after ``after``.
    """

    bucket: str  # URL, as open_bucket takes it
    name: str
    size_bytes: int
    from_ns: int
    to_ns: int
    equals: tuple[tuple[str, tuple[str, ...]], ...]
    query: Query
    newest_first: bool
    after: Key | None
    limit: int  # rows of a page, in number
    page_bytes: int  # and of their messages in all, of which the first may be longer
    row_groups: tuple[int, ...] | None = None  # that may hold the tokens; None: ask the filter
    end: End | None = None  # of the segment, if it was read before


@dataclass(frozen=True, slots=True)
class Scanned:
    """Rows in the order of the answer (RESULT_SCHEMA), and their cost.

    ``error`` says why a segment could not be read, ``missing`` that there is no such object, and
    ``damaged`` that it is not what was written.
    """

    rows: pa.Table
    gets: int
    bytes: int
    error: str = ""
    missing: bool = False
    damaged: bool = False
    name: str = ""
    end: End | None = None  # of the segment, for those who scan it next
    filter: WholeFilter | None = None  # where it was read whole
    is_cut: bool = False  # nobody waited for the rest


def scan_segment(
    task: ScanTask,
    bucket: Ranges | None = None,
    cancelled: Callable[[], bool] = lambda: False,
) -> Scanned:
    """Return the first rows that match: a page, and one more; ``bucket`` spares opening its URL.

    ``cancelled`` is asked before each row group. A bad segment is no exception.
    """
    best = NO_ROWS

    def take(segment: SegmentReader, group: Group, matching: Matcher) -> None:
        nonlocal best
        from_ns, to_ns = tightened(task, best)
        if from_ns <= group.high_ns and group.low_ns < to_ns:
            rows = _matches(RowGroup(segment, group), task, matching, from_ns, to_ns)
            if len(rows):
                best = first_rows([best, rows], task)

    scanned = visit(task, bucket, cancelled, take)
    return scanned if scanned.error else replace(scanned, rows=best)


def visit(
    task: ScanTask,
    bucket: Ranges | None,
    cancelled: Callable[[], bool],
    take: Callable[[SegmentReader, "Group", Matcher], None],
) -> Scanned:
    """Hand each row group of a segment that may match to ``take``; return what that cost.

    ``cancelled`` is asked before each. A bad segment is no exception.
    """
    matching, tokens = Matcher(task.query), needed(task.query)
    bucket = bucket or open_bucket(task.bucket)
    segment = SegmentReader(bucket, task.name, task.size_bytes, task.end)
    whole, is_cut = None, False
    try:
        with segment.reading():
            groups = _row_groups(segment.footer, task)
            if task.row_groups is None and tokens != ANY_ROW:
                found = segment.token_filter()
                # Who asks a second time may well ask again; of a small one it costs nothing.
                if task.end is not None or segment.is_held:
                    whole = found.whole()
                groups = _with_tokens(groups, tokens, found)
            for group in groups:
                if is_cut := cancelled():
                    break
                take(segment, group, matching)
    except ObjectMissing as error:
        return _failed(segment, str(error), missing=True)
    except SegmentDamaged as error:
        return _failed(segment, str(error), damaged=True)
    except BucketError as error:
        return _failed(segment, f"cannot read segment {task.name}: {error}")
    gets, read_bytes = segment.gets, segment.read_bytes
    end = segment.end if task.end is None else None
    return Scanned(NO_ROWS, gets, read_bytes, name=task.name, end=end, filter=whole, is_cut=is_cut)


def _failed(
    segment: SegmentReader, error: str, *, missing: bool = False, damaged: bool = False
) -> Scanned:
    gets, read_bytes = segment.gets, segment.read_bytes
    return Scanned(NO_ROWS, gets, read_bytes, error, missing, damaged, segment.name)


def first_rows(tables: Sequence[pa.Table], task: ScanTask) -> pa.Table:
    """Return the first rows of the tables in the order of the answer: a page, and one more.

    That one tells whether there is another page.
    """
    rows = _first([table for table in tables if len(table)] or tables[:1], task)
    return rows.slice(0, fitting(rows, task) + 1)


def _first(tables: Sequence[pa.Table], task: ScanTask) -> pa.Table:
    """Return the first ``limit`` rows, and one more, of tables that have at least their keys."""
    rows = pa.concat_tables(tables)
    order = "descending" if task.newest_first else "ascending"
    keys = [(name, order) for name in KEYS]
    return rows.take(pc.select_k_unstable(rows.select(KEYS), k=task.limit + 1, sort_keys=keys))


def fitting(rows: pa.Table, task: ScanTask) -> int:
    """Return how many of the rows, which are in order, are a page: at least one if there is one."""
    if not len(rows):
        return 0
    size = pc.add(
        pc.fill_null(pc.binary_length(rows.column("message")), 0),
        pc.fill_null(pc.binary_length(rows.column("raw")), 0),
    )
    ends = np.cumsum(size.to_numpy(), dtype=np.int64)
    within = int(np.searchsorted(ends, task.page_bytes, side="right"))
    return min(len(rows), task.limit, max(1, within))


def tightened(task: ScanTask, best: pa.Table) -> tuple[int, int]:
    """Return the times that can still enter ``best``: all of the task until that is full."""
    if len(best) <= fitting(best, task):
        return task.from_ns, task.to_ns
    last_ns: int = best.column("ns")[-1].as_py()
    if task.newest_first:
        return max(task.from_ns, last_ns), task.to_ns
    return task.from_ns, min(task.to_ns, last_ns + 1)


@dataclass(frozen=True, slots=True)
class Group:
    """A row group that may match: bounds of its times, columns that must be compared."""

    number: int
    low_ns: int
    high_ns: int
    compared: tuple[str, ...]


def _row_groups(metadata: Any, task: ScanTask) -> list[Group]:
    """Return the row groups whose statistics allow a match, those that come first first."""
    groups = []
    places = {metadata.schema.column(at).path: at for at in range(metadata.num_columns)}
    for number in range(metadata.num_row_groups) if task.row_groups is None else task.row_groups:
        group = metadata.row_group(number)
        time = group.column(places["time"])
        low, high = _bounds(time, raw=True) or (-(2**63) // 1000, (2**63 - 1) // 1000)
        if not (low * 1000 < task.to_ns and task.from_ns <= high * 1000 + 999):
            continue
        compared = []
        for name, wanted in task.equals:
            bounds = _bounds(group.column(places[name]))
            if bounds is None or (bounds[0] != bounds[1] and _between(bounds, wanted)):
                compared.append(name)
            elif not _between(bounds, wanted):
                break
        else:
            groups.append(Group(number, low * 1000, high * 1000 + 999, tuple(compared)))
    if task.newest_first:
        return sorted(groups, key=lambda group: -group.high_ns)
    return sorted(groups, key=lambda group: group.low_ns)


def _with_tokens(groups: list[Group], tokens: Needed, found: TokenFilter) -> list[Group]:
    """Return the row groups that may hold what is needed, by the segment's filter."""
    asked = 0

    def ask(all_of: frozenset[bytes]) -> NDArray[np.bool_]:
        nonlocal asked
        held = found.everything
        for token in most_telling(all_of):
            if asked == _TOKENS_ASKED_MAX or not held.any():
                break
            asked += 1
            held = held & found.row_groups(token)
        return held

    held = holding(tokens, ask, found.everything)
    return [group for group in groups if held[group.number]]


def _bounds(column: Any, raw: bool = False) -> tuple[Any, Any] | None:
    statistics = column.statistics
    if statistics is None or not statistics.has_min_max:
        return None
    if raw:
        return statistics.min_raw, statistics.max_raw
    return statistics.min, statistics.max


def _between(bounds: tuple[str, str], wanted: Iterable[str]) -> bool:
    return any(bounds[0] <= value <= bounds[1] for value in wanted)


class RowGroup:
    """Reads columns of one row group."""

    def __init__(self, segment: SegmentReader, group: Group) -> None:
        self.group = group
        self.rows: int = segment.footer.row_group(group.number).num_rows
        self._segment = segment
        self._read: dict[str, pa.ChunkedArray] = {}
        self._ns: pa.ChunkedArray | None = None
        segment.begin(group.number)

    @property
    def ns(self) -> pa.ChunkedArray:
        """The time of every row in nanoseconds; read only where it is needed."""
        if self._ns is None:
            self._ns = times_ns(self.read(["time", "time_ns"]))
        return self._ns

    def read(self, names: Sequence[str]) -> pa.Table:
        """Return the columns, all rows; none is read twice."""
        if missing := [name for name in names if name not in self._read]:
            read = self._segment.columns(self.group.number, missing)
            self._read.update(zip(read.column_names, read.columns, strict=True))
        return pa.table({name: self._read[name] for name in names})


def _matches(
    reader: RowGroup, task: ScanTask, matching: Matcher, from_ns: int, to_ns: int
) -> pa.Table:
    """Return the first matching rows of a row group (RESULT_SCHEMA): the limit, and one more."""
    chosen = pa.array(np.flatnonzero(kept_rows(reader, task, matching, from_ns, to_ns)))
    if not len(chosen):
        return NO_ROWS
    keys = reader.read(["file_id", "epoch", "offset"]).add_column(0, "ns", reader.ns)
    if len(chosen) < len(keys):
        keys = keys.take(chosen)
    keys = keys.append_column("row", chosen)
    if task.after is not None:
        keys = keys.filter(_after(keys, task.after, task.newest_first))
    keys = _first([keys], task)
    if not len(keys):
        return NO_ROWS
    shown = reader.read(SHOWN).take(keys.column("row"))
    return shown_rows(keys, shown)


def shown_rows(keys: pa.Table, shown: pa.Table) -> pa.Table:
    """Return rows as an answer has them (RESULT_SCHEMA), of their keys and the other columns."""
    columns = {name: keys.column(name) for name in KEYS}
    columns.update({name: shown.column(name) for name in SHOWN})
    # Words are dictionaries of this row group; those of several would have to be unified.
    return pa.table(columns).cast(RESULT_SCHEMA)


def kept_rows(
    reader: RowGroup, task: ScanTask, matching: Matcher, from_ns: int, to_ns: int
) -> NDArray[np.bool_]:
    """Return for each row whether it matches; what statistics have shown is not compared."""
    group = reader.group
    scope = Scope(
        from_ns if from_ns > group.low_ns else EVER_NS[0],
        to_ns if to_ns <= group.high_ns else EVER_NS[1],
        {name: wanted for name, wanted in task.equals if name in group.compared},
    )
    return meant(reader, scope, matching)


def _after(keys: pa.Table, after: Key, newest_first: bool) -> pa.ChunkedArray:
    """Return which rows come after a key in the order of the answer."""
    beyond = pc.less if newest_first else pc.greater
    mask: Any = None
    for name, value in reversed(list(zip(KEYS, after, strict=True))):
        column = keys.column(name)
        bound = pa.scalar(value, column.type)
        further = beyond(column, bound)
        if mask is not None:
            further = pc.or_(further, pc.and_(pc.equal(column, bound), mask))
        mask = further
    return mask
