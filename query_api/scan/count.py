"""How many rows of one segment match, by step of time and by the value of a column.

A task and steps go in; a table of counts comes out. A row group that lies within one step and of
which every row is meant is counted by its footer, and nothing of it is read.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from indexer.query.meant import Matcher
from indexer.segment.reader import SegmentReader
from indexer.store.bucket import Ranges
from query_api.scan.segment import Group, RowGroup, Scanned, ScanTask, kept_rows, visit

COUNTS = pa.schema(
    [
        pa.field("step", pa.int64()),  # from 0 on
        pa.field("value", pa.string()),  # of the column; "" where none is asked for
        pa.field("rows", pa.int64()),
    ]
)


@dataclass(frozen=True, slots=True)
class Steps:
    """Steps of one length, one behind the other, and the column whose values are told apart."""

    from_ns: int
    length_ns: int
    by: str  # "": none


def count_segment(
    task: ScanTask,
    steps: Steps,
    bucket: Ranges | None = None,
    cancelled: Callable[[], bool] = lambda: False,
) -> Scanned:
    """Return how many rows match (COUNTS); of the task, order and limits do not count."""
    found: list[pa.Table] = []

    def take(segment: SegmentReader, group: Group, matching: Matcher) -> None:
        found.append(_counted(RowGroup(segment, group), task, steps, matching))

    scanned = visit(task, bucket, cancelled, take)
    return scanned if scanned.error else replace(scanned, rows=summed(found))


def summed(tables: list[pa.Table]) -> pa.Table:
    """Return several tables of counts as one."""
    rows = pa.concat_tables([COUNTS.empty_table(), *tables])
    return rows.group_by(["step", "value"]).aggregate([("rows", "sum")]).rename_columns(
        COUNTS.names
    ).select(COUNTS.names).cast(COUNTS)  # fmt: skip


def _counted(reader: RowGroup, task: ScanTask, steps: Steps, matching: Matcher) -> pa.Table:
    group = reader.group
    first, last = ((ns - steps.from_ns) // steps.length_ns for ns in (group.low_ns, group.high_ns))
    is_whole = task.from_ns <= group.low_ns and group.high_ns < task.to_ns
    if first == last and is_whole and not (matching or group.compared or steps.by):
        return pa.table([[first], [""], [reader.rows]], schema=COUNTS)
    kept = kept_rows(reader, task, matching, task.from_ns, task.to_ns)
    chosen = pa.array(np.flatnonzero(kept))
    ns = reader.ns.take(chosen).to_numpy()
    step = pa.array((ns - steps.from_ns) // steps.length_ns)
    if steps.by:
        value = reader.read([steps.by]).column(0).take(chosen).cast(pa.string())
    else:
        value = pa.array([""] * len(ns), pa.string())
    one = pa.array(np.ones(len(ns), np.int64))
    return summed([pa.table([step, pc.fill_null(value, ""), one], schema=COUNTS)])
