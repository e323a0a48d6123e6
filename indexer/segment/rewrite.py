"""One segment without some of its rows: what expiry and deletion leave of it.

The rows of a segment and a choice of them go in; out come the bytes of a segment with the others,
in their order, and which rows went. Rows kept and rows dropped must balance to what was read.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from indexer.segment.conserve import check, tally
from indexer.segment.merge import ZSTD_LEVEL
from indexer.segment.write import SegmentWriter

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
