"""Several segments of one hour into one: sorted, packed tighter, with a filter of its own.

Readers of segments go in, each with its rows in the table's order; out go the bytes of a segment
that has all of them in that order. Of each source a few row groups are held at a time, each is read
and decoded once, and what was written is decoded again and must hold the same rows.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from indexer.equal_runs import runs
from indexer.errors import SegmentUnsorted
from indexer.segment.conserve import check, tally
from indexer.segment.parquet import ROW_GROUP_BYTES, ROW_GROUP_ROWS
from indexer.segment.reader import SegmentReader
from indexer.segment.write import SegmentWriter, row_group_bounds

ZSTD_LEVEL = 9

_FILE = ("namespace", "container", "pod", "file_id", "epoch")

_Longs = NDArray[np.int64]
_Key = tuple[tuple[Any, ...], int]  # file and offset of a row


class _Run(NamedTuple):
    """Rows of one file that lie together in a source: the number of the first, all offsets."""

    file: tuple[Any, ...]
    first: int
    offsets: _Longs


class _Source:
    """One segment: its row groups are decoded in order, and let go of once they are used up."""

    def __init__(
        self, segment: SegmentReader, read: dict[tuple[object, ...], tuple[int, int]]
    ) -> None:
        self._segment = segment
        self._groups = segment.row_groups()
        self._left = len(segment.numbers)
        self._held: list[tuple[int, pa.Table]] = []
        self._decoded = 0
        self._waiting: deque[_Run] = deque()
        self._read = read
        self.last: _Key = ((), -1)
        """That of the last row that is decoded."""

    @property
    def row_bytes(self) -> float:
        """Bytes that a row takes decoded, at most."""
        groups = map(self._segment.footer.row_group, self._segment.numbers)
        return max((g.total_byte_size / max(1, g.num_rows) for g in groups), default=0.0)

    @property
    def is_read(self) -> bool:
        """Whether every row is decoded."""
        return not self._left

    def decode(self) -> None:
        """Decode the next row group; raise SegmentUnsorted if its rows do not follow in order."""
        table = next(self._groups)
        self._left -= 1
        if not table.num_rows:
            return
        tally(table, self._read)
        with self._segment.reading():
            # Words of a row group may come as several dictionaries.
            starts, files = runs(table.select(_FILE).unify_dictionaries())
            offsets = table.column("offset").to_numpy()
        self._held.append((self._decoded, table))
        for file, rows in zip(files, np.split(offsets, starts[1:]), strict=True):
            if (file, int(rows[0])) <= self.last or (np.diff(rows) <= 0).any():
                raise SegmentUnsorted(
                    f"rows of segment {self._segment.name} are not sorted by stream, file and "
                    "offset"
                )
            self.last = file, int(rows[-1])
            self._waiting.append(_Run(file, self._decoded, rows))
            self._decoded += len(rows)

    def up_to(self, limit: _Key | None) -> Iterator[_Run]:
        """Yield once which decoded rows are not behind a file and offset; None: all of them."""
        while self._waiting:
            run = self._waiting.popleft()
            count = len(run.offsets)
            if limit is not None and run.file >= limit[0]:
                is_of_file = run.file == limit[0]
                count = int(np.searchsorted(run.offsets, limit[1], "right")) if is_of_file else 0
            if count:
                yield _Run(run.file, run.first, run.offsets[:count])
            if count < len(run.offsets):
                self._waiting.appendleft(_Run(run.file, run.first + count, run.offsets[count:]))
                return

    def rows(self, wanted: _Longs) -> pa.Table:
        """Return decoded rows by number; ascending, and none below those of an earlier call."""
        first, last = int(wanted[0]), int(wanted[-1])
        start = self._held[0][0]
        held = pa.concat_tables([table for at, table in self._held if at <= last])
        self._held = [(at, table) for at, table in self._held if at + table.num_rows > last + 1]
        if last - first + 1 == len(wanted):
            return held.slice(first - start, len(wanted))
        return held.take(pa.array(wanted - start))


def merge(segments: Sequence[SegmentReader]) -> bytes:
    """Return one segment with the rows of all ``segments``.

    Raises SegmentUnsorted for one whose rows are in no order, NotBalanced if what was written is
    not what was read, and what a SegmentReader raises.
    """
    read: dict[tuple[object, ...], tuple[int, int]] = {}
    sources = [_Source(each, read) for each in segments]
    row_bytes = max((each.row_bytes for each in sources), default=1.0)
    chunk = max(1, min(ROW_GROUP_ROWS, int(2 * ROW_GROUP_BYTES / max(1.0, row_bytes))))
    writer = SegmentWriter(ZSTD_LEVEL)
    for source, row in _chunks(_ordered(sources), chunk):
        for table in in_row_groups(_gathered(sources, source, row)):
            writer.append(table)
    written: bytes = writer.finish()
    check(read, [written], {}, "a compaction")
    return written


def _chunks(
    ordered: Iterator[tuple[NDArray[np.int32], _Longs]], rows: int
) -> Iterator[tuple[NDArray[np.int32], _Longs]]:
    """Yield the same so many rows at a time, the last ones fewer."""
    source, row = np.zeros(0, np.int32), np.zeros(0, np.int64)
    for more_source, more_row in ordered:
        source, row = np.concatenate([source, more_source]), np.concatenate([row, more_row])
        while len(row) >= rows:
            yield source[:rows], row[:rows]
            source, row = source[rows:], row[rows:]
    if len(row):
        yield source, row


def _ordered(sources: Sequence[_Source]) -> Iterator[tuple[NDArray[np.int32], _Longs]]:
    """Yield source and row of each row in the order in which they are to be written.

    Of each source one row group is decoded at first. What is not behind the last decoded row of any
    source can be put in order; then the source that holds up the others is decoded further.
    """
    behind = [each for each in sources if not each.is_read]
    while behind:
        for each in behind:
            each.decode()
        unread = [each for each in sources if not each.is_read]
        limit = min((each.last for each in unread), default=None)
        yield _sorted([list(each.up_to(limit)) for each in sources])
        behind = [each for each in unread if each.last == limit]


def _sorted(taken: Sequence[Sequence[_Run]]) -> tuple[NDArray[np.int32], _Longs]:
    """Return source and row of the runs of each source, by file and offset."""
    found = [run for of_source in taken for run in of_source]
    if not found:
        return np.zeros(0, np.int32), np.zeros(0, np.int64)
    rank_of = {file: rank for rank, file in enumerate(sorted({run.file for run in found}))}
    counts = [len(run.offsets) for run in found]
    ranks = np.repeat([rank_of[run.file] for run in found], counts)
    order = np.lexsort((np.concatenate([run.offsets for run in found]), ranks))
    numbers = [number for number, of_source in enumerate(taken) for _ in of_source]
    source = np.repeat(np.array(numbers, np.int32), counts)
    row = np.concatenate([np.arange(run.first, run.first + len(run.offsets)) for run in found])
    return source[order], row[order]


def in_row_groups(rows: pa.Table) -> Iterator[pa.Table]:
    """Yield rows in pieces that are no larger than a row group may be."""
    sizes = pa.compute.binary_length(rows.column("message")).to_numpy()
    for start, end in row_group_bounds(sizes):
        yield rows.slice(start, end - start)


def _gathered(sources: Sequence[_Source], source: NDArray[np.int32], row: _Longs) -> pa.Table:
    """Return these rows in this order."""
    tables, place = [], np.empty(len(row), np.int64)
    filled = 0
    for number in np.unique(source).tolist():
        chosen = np.flatnonzero(source == number)
        tables.append(sources[number].rows(row[chosen]))
        place[chosen] = np.arange(filled, filled + len(chosen))
        filled += len(chosen)
    # Words are dictionaries of their row groups; those of several have to be one.
    rows = pa.concat_tables(tables, promote_options="default").unify_dictionaries().combine_chunks()
    if len(tables) == 1:
        return rows
    return rows.take(pa.array(place))
