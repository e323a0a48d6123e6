"""Segments of the table for others, in one commit with the marks of what went.

What a rewrite leaves of each segment goes in; the table then has that in its place. A segment that
cannot be rewritten stays as it is and is named, and holds up none of the others.
"""

from collections.abc import Callable, Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from indexer.errors import IndexerError, NotBalanced, ObjectMissing, SegmentDamaged
from indexer.keeper.fence import FencedTable
from indexer.object_names import segment_folder
from indexer.segment.parquet import stats_of
from indexer.segment.rewrite import Rewritten, _Dropped
from indexer.table.coverage import Coverage
from indexer.table.table import Added, Live

LEFT_ALONE = (SegmentDamaged, ObjectMissing, NotBalanced)
"""What keeps segments from being rewritten, but not others."""


SEGMENTS_AT_ONCE = 16


BYTES_AT_ONCE = 64 << 20
"""What one commit exchanges: what a crash makes a keeper do again, and its marks in memory."""


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
