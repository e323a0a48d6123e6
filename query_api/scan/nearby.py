"""The rows of one file around a place in it: which those of a segment are, and their columns.

A file, a place and how many rows go in; out come first the keys of the nearest rows, for which no
message is read, then the rows that were chosen of all segments. Row groups are told apart by the
bounds of their files and offsets.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from indexer.query.meant import Matcher
from indexer.segment.reader import SegmentReader
from indexer.store.bucket import Ranges
from query_api.scan.segment import (
    RESULT_SCHEMA,
    SHOWN,
    Group,
    RowGroup,
    Scanned,
    ScanTask,
    kept_rows,
    shown_rows,
    visit,
)

PLACES = pa.schema(
    [
        pa.field("offset", pa.int64()),
        pa.field("segment", pa.string()),  # as the bucket names it
        pa.field("group", pa.int64()),  # the number of the row group
        pa.field("row", pa.int64()),  # of the row group, from 0 on
    ]
)


@dataclass(frozen=True, slots=True)
class Near:
    """So many rows ``before`` and ``after`` the one at ``offset``, with that, of one file.

    All of them begin in ``[low, high)``.
    """

    file_id: bytes
    epoch: int
    offset: int
    low: int
    high: int
    before: int
    after: int


def nearest(tables: Sequence[pa.Table], near: Near) -> pa.Table:
    """Return the places (PLACES) that are asked for, in the order of the file."""
    places = pa.concat_tables([PLACES.empty_table(), *tables]).sort_by("offset")
    offsets = places.column("offset").to_numpy()
    return places.take(pa.array(_chosen(offsets, near)))


def _chosen(offsets: NDArray[np.int64], near: Near) -> NDArray[np.int64]:
    """Return which of some ascending offsets are asked for."""
    first, last = np.searchsorted(offsets, [near.low, near.high], "left").tolist()
    here = int(np.searchsorted(offsets, near.offset, "left"))
    behind = int(np.searchsorted(offsets, near.offset, "right"))
    return np.arange(max(first, here - near.before), min(last, behind + near.after))


def tightened(near: Near, places: pa.Table) -> Near:
    """Return what can still be nearer than the places that are known."""
    offsets = places.column("offset").to_numpy()
    below, above = offsets[offsets < near.offset], offsets[offsets > near.offset]
    low, high = near.low, near.high
    if len(below) >= near.before:
        low = max(low, int(below[-near.before])) if near.before else max(low, near.offset)
    if len(above) >= near.after:
        high = min(high, int(above[near.after - 1]) + 1 if near.after else near.offset + 1)
    return replace(near, low=low, high=high)


def find_places(
    task: ScanTask,
    near: Near,
    bucket: Ranges | None = None,
    cancelled: Callable[[], bool] = lambda: False,
) -> Scanned:
    """Return the nearest places (PLACES) of a segment; never raises for a bad one."""
    best = PLACES.empty_table()

    def take(segment: SegmentReader, group: Group, matching: Matcher) -> None:
        nonlocal best
        wanted = tightened(near, best)
        if _may_hold(segment.footer, group.number, wanted):
            found = _places(RowGroup(segment, group), task, matching, wanted)
            if len(found):
                best = nearest([best, found], near)

    scanned = visit(task, bucket, cancelled, take)
    return scanned if scanned.error else replace(scanned, rows=best)


def _may_hold(footer: Any, number: int, near: Near) -> bool:
    """Return whether a row group may hold a row of the file between the bounds."""
    group = footer.row_group(number)
    columns = map(group.column, range(group.num_columns))
    found = {each.path_in_schema: each.statistics for each in columns}
    for name, low, high in (
        ("file_id", near.file_id, near.file_id), ("offset", near.low, near.high - 1),
    ):  # fmt: skip
        bounds = found[name]
        if bounds is not None and bounds.has_min_max and not (
            bounds.min <= high and low <= bounds.max
        ):  # fmt: skip
            return False
    return True


def _places(reader: RowGroup, task: ScanTask, matching: Matcher, near: Near) -> pa.Table:
    keys = reader.read(["file_id", "epoch", "offset"])
    offsets = keys.column("offset").to_numpy()
    is_file = pc.equal(keys.column("file_id"), pa.scalar(near.file_id, pa.binary(16)))
    kept = is_file.to_numpy() & (keys.column("epoch").to_numpy() == near.epoch)
    if kept.any() and reader.group.compared:
        kept &= kept_rows(reader, task, matching, task.from_ns, task.to_ns)
    rows = np.flatnonzero(kept)
    rows = rows[np.argsort(offsets[rows], kind="stable")]
    rows = rows[_chosen(offsets[rows], near)]
    where = ([task.name] * len(rows), [reader.group.number] * len(rows))
    return pa.table(
        [pa.array(offsets[rows]), *map(pa.array, where), rows], names=PLACES.names
    ).cast(PLACES)


def read_places(
    task: ScanTask,
    wanted: Mapping[int, Sequence[int]],
    bucket: Ranges | None = None,
    cancelled: Callable[[], bool] = lambda: False,
) -> Scanned:
    """Return rows (RESULT_SCHEMA) of a segment by the number of their row group and in that."""
    found = [RESULT_SCHEMA.empty_table()]

    def take(segment: SegmentReader, group: Group, _: Matcher) -> None:
        reader, rows = RowGroup(segment, group), pa.array(wanted[group.number])
        keys = reader.read(["file_id", "epoch", "offset"]).add_column(0, "ns", reader.ns)
        found.append(shown_rows(keys.take(rows), reader.read(SHOWN).take(rows)))

    scanned = visit(replace(task, row_groups=tuple(wanted)), bucket, cancelled, take)
    return scanned if scanned.error else replace(scanned, rows=pa.concat_tables(found))
