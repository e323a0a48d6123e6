"""Several segments of one hour into one: sorted, packed tighter, with a filter of its own.

The bytes of segments go in, each with its rows in the table's order; out go the bytes of a segment
that has all of them in that order. Of each source a few row groups are decoded at a time, each
once, and what was written is decoded again and must hold the same rows.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from indexer.errors import SegmentUnsorted
from indexer.runs import runs
from indexer.schema import open_segment
from indexer.segment.conserve import check, tally
from indexer.segment.parquet import ROW_GROUP_BYTES, ROW_GROUP_ROWS
from indexer.segment.write import SegmentWriter, row_group_bounds

ZSTD_LEVEL = 9

_FILE = ("namespace", "container", "pod", "file_id", "epoch")
_KEYS = (*_FILE, "offset")

_Longs = NDArray[np.int64]


class _Source:
    """One segment: its row groups are decoded in order, and let go of once they are used up."""

    def __init__(self, data: bytes, read: dict[tuple[object, ...], tuple[int, int]]) -> None:
        self._file = open_segment(pa.BufferReader(data))
        groups = [
            self._file.metadata.row_group(number) for number in range(self._file.num_row_groups)
        ]
        self._starts = np.cumsum([0, *(group.num_rows for group in groups)])
        self.row_bytes = max((g.total_byte_size / max(1, g.num_rows) for g in groups), default=0.0)
        self._held: list[tuple[int, pa.Table]] = []
        self._next = 0
        self._read = read

    def keys(self) -> pa.Table:
        return self._file.read(list(_KEYS), use_threads=False)

    def rows(self, wanted: _Longs) -> pa.Table:
        """Return rows by number; ascending, and none below those of an earlier call."""
        first, last = int(wanted[0]), int(wanted[-1])
        while self._starts[self._next] <= last:
            table = self._file.read_row_group(self._next, use_threads=False)
            tally(table, self._read)
            self._held.append((int(self._starts[self._next]), table))
            self._next += 1
        self._held = [(at, table) for at, table in self._held if at + table.num_rows > first]
        start = self._held[0][0]
        held = pa.concat_tables([table for _, table in self._held])
        if last - first + 1 == len(wanted):
            return held.slice(first - start, len(wanted))
        return held.take(pa.array(wanted - start))


def merge(sources: Sequence[bytes]) -> bytes:
    """Return one segment with the rows of all ``sources``.

    Raises SegmentUnsorted for a source whose rows are in no order, NotBalanced if what was written
    is not what was read.
    """
    read: dict[tuple[object, ...], tuple[int, int]] = {}
    opened = [_Source(data, read) for data in sources]
    source, row = _order([each.keys() for each in opened])
    row_bytes = max((each.row_bytes for each in opened), default=1.0)
    chunk = max(1, min(ROW_GROUP_ROWS, int(2 * ROW_GROUP_BYTES / max(1.0, row_bytes))))
    writer = SegmentWriter(ZSTD_LEVEL)
    for start in range(0, len(row), chunk):
        rows = _gathered(opened, source[start : start + chunk], row[start : start + chunk])
        for table in in_row_groups(rows):
            writer.append(table)
    written: bytes = writer.finish()
    check(read, [written], {}, "a compaction")
    return written


def in_row_groups(rows: pa.Table) -> Iterator[pa.Table]:
    """Yield rows in pieces that are no larger than a row group may be."""
    sizes = pa.compute.binary_length(rows.column("message")).to_numpy()
    for start, end in row_group_bounds(sizes):
        yield rows.slice(start, end - start)


def _gathered(opened: Sequence[_Source], source: NDArray[np.int32], row: _Longs) -> pa.Table:
    """Return these rows in this order."""
    tables, place = [], np.empty(len(row), np.int64)
    filled = 0
    for number in np.unique(source).tolist():
        chosen = np.flatnonzero(source == number)
        tables.append(opened[number].rows(row[chosen]))
        place[chosen] = np.arange(filled, filled + len(chosen))
        filled += len(chosen)
    # Words are dictionaries of their row groups; those of several have to be one.
    rows = pa.concat_tables(tables, promote_options="default").unify_dictionaries().combine_chunks()
    if len(tables) == 1:
        return rows
    return rows.take(pa.array(place))


def _order(keys: Sequence[pa.Table]) -> tuple[NDArray[np.int32], _Longs]:
    """Return source and row of each row, in the order in which they are to be written."""
    # Words of row groups with dictionaries of their own are compared by one.
    files = [runs(each.select(_FILE).unify_dictionaries()) for each in keys]
    known = sorted({file for _, names in files for file in names})
    rank_of = {file: rank for rank, file in enumerate(known)}
    ranks, offsets, rows = [], [], []
    for each, (starts, names) in zip(keys, files, strict=True):
        counts = np.diff(np.append(starts, each.num_rows))
        rank = np.repeat([rank_of[file] for file in names], counts)
        offset = each.column("offset").to_numpy()
        ascending = np.diff(rank) > 0
        ascending |= (np.diff(rank) == 0) & (np.diff(offset) > 0)
        if not ascending.all():
            raise SegmentUnsorted("rows of a segment are not sorted by stream, file and offset")
        ranks.append(rank)
        offsets.append(offset)
        rows.append(np.arange(each.num_rows))
    source = np.repeat(np.arange(len(keys), dtype=np.int32), [each.num_rows for each in keys])
    order = np.lexsort((np.concatenate(offsets), np.concatenate(ranks)))
    return source[order], np.concatenate(rows)[order]
