"""Small segments of an hour become large ones: fewer objects to ask, and fewer bytes.

The objects of a snapshot go in; out come groups of segments of one hour that are worth merging,
and each is exchanged for its merger in one commit. Rows are moved, never changed.
"""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import groupby

import pyarrow as pa
import pyarrow.parquet as pq

from indexer.errors import (
    IndexerError,
    NotBalanced,
    ObjectMissing,
    SegmentDamaged,
    SegmentUnsorted,
)
from indexer.keeper.fence import FencedTable
from indexer.object_names import segment_folder
from indexer.segment.merge import merge
from indexer.segment.parquet import ROW_GROUP_BYTES, stats_of
from indexer.table.table import Added, Live
from indexer.times import HOUR_NS, hour_of

# A source that is so many times larger than all smaller ones together waits for more of them: each
# byte is then rewritten a few times at most, however small the late segments are.
_STEP = 4


@dataclass(frozen=True, slots=True)
class CompactionLimits:
    """What is worth merging, and how much at once."""

    target_bytes: int  # size of a segment that is left alone; a merger grows up to it
    inputs_min: int  # segments of the current hour that are worth merging
    memory_bytes: int  # decoded rows held at once by one merge
    settle_ms: int  # age from which an hour takes no new segments but late ones


@dataclass(frozen=True, slots=True)
class Compaction:
    """Segments of one hour that are to become one."""

    date: str
    hour: int
    segments: tuple[Live, ...]


@dataclass(frozen=True, slots=True)
class Compacted:
    """What came of a compaction: the segment that was added, or why there is none."""

    plan: Compaction
    added: Added | None
    error: IndexerError | None = None


def plan_compactions(
    objects: Iterable[Live], now_ns: int, limits: CompactionLimits
) -> list[Compaction]:
    """Return what to merge, hour by hour, the oldest first; no segment is in two of them."""
    small = [
        each for each in objects if not each.is_coverage and each.size < limits.target_bytes // 2
    ]
    small.sort(key=lambda each: (each.date, each.hour, each.size, each.name))
    settled_ns = now_ns - limits.settle_ms * 1_000_000
    most = max(2, limits.memory_bytes // ROW_GROUP_BYTES)
    plans = []
    for (date, hour), of_hour in groupby(small, key=lambda each: (each.date, each.hour)):
        if date is None or hour is None:
            continue
        ends_ns = (hour_of(date, hour) + 1) * HOUR_NS
        least = 2 if ends_ns <= settled_ns else limits.inputs_min
        plans += [
            Compaction(date, hour, tuple(group))
            for group in _groups(list(of_hour), most, limits.target_bytes)
            if len(group) >= least
        ]
    return plans


def _groups(ascending: Sequence[Live], most: int, target_bytes: int) -> Iterable[list[Live]]:
    group: list[Live] = []
    size = 0
    for each in ascending:
        full = len(group) >= most or size + each.size > target_bytes
        if group and (full or each.size > _STEP * size):
            yield group
            group, size = [], 0
        group.append(each)
        size += each.size
    if group:
        yield group


def compact(fenced: FencedTable, plans: Sequence[Compaction], threads: int) -> Iterator[Compacted]:
    """Do what was planned from ``fenced``'s snapshot; yield each as it is committed or given up.

    A segment that cannot be read, is not sorted or does not balance is left as it is. Raises
    PositionMoved if another keeper is at work.
    """
    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(plans), threads):
            for made in pool.map(partial(_compact, fenced), plans[start : start + threads]):
                if made.added is not None:
                    fenced.commit([made.added], made.plan.segments, same_rows=True)
                yield made


def _compact(fenced: FencedTable, plan: Compaction) -> Compacted:
    try:
        data = merge([fenced.reader(each) for each in plan.segments])
    except (ObjectMissing, SegmentDamaged, NotBalanced, SegmentUnsorted) as error:
        return Compacted(plan, None, error)
    except (pa.ArrowException, OSError) as error:
        return Compacted(plan, None, SegmentDamaged(f"a segment is damaged: {error}"))
    footer = pq.read_metadata(pa.BufferReader(data))
    name = fenced.upload(segment_folder(plan.date, plan.hour), data)
    return Compacted(plan, Added(name, len(data), stats_of(footer), plan.date, plan.hour))
