"""How many rows of one segment match, by step of time and by the values of columns.

A task and steps go in; a table of counts comes out. A row group that lies within one step and of
which every row is meant is counted by its footer, and nothing of it is read.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

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
        pa.field("value", pa.string()),  # of the columns, with BETWEEN_VALUES between them
        pa.field("rows", pa.int64()),
        pa.field("bytes", pa.int64()),  # of their messages; 0 where that is not asked for
    ]
)
BETWEEN_VALUES = "\0"
"""What no name holds."""


@dataclass(frozen=True, slots=True)
class Steps:
    """Steps of one length, one behind the other, and the columns whose values are told apart.

    With ``split_ns`` each is two: the second one begins so long after the first.
    """

    from_ns: int
    length_ns: int
    by: tuple[str, ...] = ()
    split_ns: int = 0
    with_bytes: bool = False

    def at(self, ns: Any) -> Any:
        """Return the number of the step at a time, or of each of an array of times."""
        number, rest = divmod(ns - self.from_ns, self.length_ns)
        return 2 * number + (rest >= self.split_ns) if self.split_ns else number


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
    sums = rows.group_by(["step", "value"]).aggregate([("rows", "sum"), ("bytes", "sum")])
    return sums.rename_columns(COUNTS.names).cast(COUNTS)


def _counted(reader: RowGroup, task: ScanTask, steps: Steps, matching: Matcher) -> pa.Table:
    group = reader.group
    first, last = steps.at(group.low_ns), steps.at(group.high_ns)
    is_whole = task.from_ns <= group.low_ns and group.high_ns < task.to_ns
    by_values = steps.by or steps.with_bytes
    if first == last and is_whole and not (matching or group.compared or by_values):
        return pa.table([[first], [""], [reader.rows], [0]], schema=COUNTS)
    kept = kept_rows(reader, task, matching, task.from_ns, task.to_ns)
    chosen = pa.array(np.flatnonzero(kept))
    ns = reader.ns.take(chosen).to_numpy()
    value = pa.array([""] * len(ns), pa.string())
    if steps.by:
        words = (column.take(chosen).cast(pa.string()) for column in reader.read(steps.by).columns)
        value = pc.binary_join_element_wise(
            *(pc.fill_null(each, "") for each in words), BETWEEN_VALUES
        )
    size = pa.array(np.zeros(len(ns), np.int64))
    if steps.with_bytes:
        size = pc.binary_length(reader.read(["message"]).column(0).take(chosen)).cast(pa.int64())
    one = pa.array(np.ones(len(ns), np.int64))
    return summed([pa.table([pa.array(steps.at(ns)), value, one, size], schema=COUNTS)])
