"""One segment without some of its rows: what expiry and deletion leave of it.

The rows of a segment and a choice of them go in; out come the bytes of a segment with the others,
in their order, and which rows went. Rows kept and rows dropped must add up to what was read.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from indexer.errors import IndexerError, NotBalanced, ObjectMissing, SegmentDamaged
from indexer.keeper.fence import FencedTable
from indexer.segment.conserve import check, tally
from indexer.segment.merge import ZSTD_LEVEL
from indexer.segment.write import SegmentWriter, stats_of
from indexer.table.coverage import Coverage
from indexer.table.table import Added, Live, segment_folder

LEFT_ALONE = (SegmentDamaged, ObjectMissing, NotBalanced)
"""What keeps segments from being rewritten, but not others."""

SEGMENTS_AT_ONCE = 16
BYTES_AT_ONCE = 64 << 20
"""What one commit exchanges: what a crash makes a keeper do again, and its marks in memory."""


_Dropped = TypeVar("_Dropped")


@dataclass(frozen=True, slots=True)
class Rewritten(Generic[_Dropped]):
    """What is left: ``data`` is empty if no row is. ``dropped`` tells of the ``rows`` that went."""

    data: bytes
    rows: int
    dropped: _Dropped


def without(
    row_groups: Iterable[pa.Table],
    drops: Callable[[pa.Table], pa.Array],
    columns: Sequence[str],
    what: str,
    unread: int = 0,
) -> Rewritten[pa.Table]:
    """Return a segment of the rows of which ``drops`` does not say true.

    ``drops`` is asked for each row group; ``columns`` of the dropped rows are kept. ``unread`` rows
    more have gone with row groups that nobody needs to look at. Raises NotBalanced if a row would
    be lost or kept that should not.
    """
    writer = SegmentWriter(ZSTD_LEVEL)
    before: dict[tuple[object, ...], tuple[int, int]] = {}
    gone: dict[tuple[object, ...], tuple[int, int]] = {}
    dropped, is_left = [], False
    for rows in row_groups:
        mask = drops(rows)
        tally(rows, before)
        of_group = rows.filter(mask)
        tally(of_group, gone)
        dropped.append(of_group.select(columns))
        kept = rows.filter(pc.invert(mask))
        if kept.num_rows:
            writer.append(kept)
            is_left = True
    all_dropped = pa.concat_tables(dropped).unify_dictionaries()
    went = all_dropped.num_rows + unread
    written = writer.finish() if is_left and went else b""
    if went:
        check(before, [written] if written else [], gone, what)
    return Rewritten(written, went, all_dropped)


def batches(segments: Sequence[Live]) -> Iterator[list[Live]]:
    """Yield segments in groups that one commit may exchange, each of one at least."""
    group: list[Live] = []
    for each in segments:
        size = sum(one.size for one in group) + each.size
        if group and (len(group) == SEGMENTS_AT_ONCE or size > BYTES_AT_ONCE):
            yield group
            group = []
        group.append(each)
    if group:
        yield group


def exchange(
    fenced: FencedTable,
    segments: Sequence[Live],
    rewrite: Callable[[Live], Rewritten[_Dropped]],
    marks: Callable[[Sequence[_Dropped]], Coverage],
    what: str,
) -> int:
    """Exchange segments for what ``rewrite`` leaves, in one commit with ``marks`` of what went.

    ``marks`` is given what was dropped, for each segment. Returns how many rows went; without any,
    nothing is committed. What keeps a segment from being rewritten is raised when the others are
    exchanged.
    """
    added: list[Added] = []
    removed: list[Live] = []
    dropped: list[_Dropped] = []
    rows = 0
    failed: IndexerError | None = None
    for each in segments:
        try:
            left = rewrite(each)
        except LEFT_ALONE as error:
            failed = failed or error
            continue
        except (pa.ArrowException, OSError) as error:
            failed = failed or SegmentDamaged(f"{what}: {each.name} is damaged: {error}")
            continue
        if not left.rows:
            continue
        removed.append(each)
        dropped.append(left.dropped)
        rows += left.rows
        if left.data and each.date is not None and each.hour is not None:
            name = fenced.upload(segment_folder(each.date, each.hour), left.data)
            stats = stats_of(pq.read_metadata(pa.BufferReader(left.data)))
            added.append(Added(name, len(left.data), stats, each.date, each.hour))
    if removed:
        fenced.commit([*added, fenced.upload_coverage(marks(dropped))], removed)
    if failed is not None:
        raise failed
    return rows
