"""Deletion on request: rows that a request means are taken out of every segment.

Requests and the objects of a snapshot go in. Segments are rewritten without the rows, and the same
commit names each row that went, by file and offset. Bytes stay covered, so what is sent again is
trimmed; a request stays open for a while, for rows that were still on their way.
"""

import functools
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

from indexer.deletable import matcher, may_hold
from indexer.equal_runs import runs
from indexer.keeper.exchange import LEFT_ALONE, batches, exchange
from indexer.keeper.fence import FencedTable
from indexer.schema import times_ns
from indexer.segment.rewrite import Rewritten, without
from indexer.table.coverage import Balance, Coverage, Deleted
from indexer.table.request import DeletionRequest, checked
from indexer.table.table import Live

_FILE = ("namespace", "pod", "container", "file_id", "epoch")
_COLUMNS = (*_FILE, "offset", "time", "time_ns")


class Examined:
    """Which segments a request has been through already; lost, they are gone through again."""

    def __init__(self) -> None:
        self._names: dict[str, set[str]] = {}

    def left(self, request: DeletionRequest, objects: Sequence[Live]) -> list[Live]:
        """Return the segments that may hold rows of a request and were not examined yet."""
        seen = self._names.setdefault(request.id, set())
        seen &= {each.name for each in objects}
        return [each for each in objects if each.name not in seen and may_hold(each, request)]

    def add(self, request: DeletionRequest, objects: Sequence[Live]) -> None:
        """Note that no row of the request is left in these."""
        self._names[request.id].update(each.name for each in objects)


def delete(
    fenced: FencedTable, request: DeletionRequest, examined: Examined, now_ns: int
) -> Iterator[tuple[int, int, int]]:
    """Delete what a request describes; yield (segments done, segments to do, rows) as it goes.

    Once it has ended, no row of the snapshot that ``fenced`` took at its start is left. Raises
    PositionMoved if another keeper is at work, BadRequest if the request cannot be understood, and
    when all others are done what keeps some segments from being rewritten.
    """
    fits = matcher(checked(request))
    left = examined.left(request, fenced.take())
    marks = functools.partial(_marks, request, now_ns)
    what = f"deletion {request.id}"

    def rewrite(each: Live) -> Rewritten[pa.Table]:
        return without(fenced.reader(each).row_groups(), fits, _COLUMNS, what)

    done, failed = 0, None
    for some in batches(left):
        done += len(some)
        try:
            rows = exchange(fenced, some, rewrite, marks, what)
        except LEFT_ALONE as error:
            failed = failed or error
            continue
        examined.add(request, some)
        yield done, len(left), rows
    if failed is not None:
        raise failed


def _marks(request: DeletionRequest, now_ns: int, dropped: Sequence[pa.Table]) -> Coverage:
    rows = pa.concat_tables(dropped).unify_dictionaries().combine_chunks()
    ns, offsets = times_ns(rows).to_numpy(), rows.column("offset").to_numpy()
    starts, files = runs(rows.select(_FILE))
    first, last = np.minimum.reduceat(ns, starts), np.maximum.reduceat(ns, starts)
    found = zip(files, np.split(offsets, starts[1:]), first.tolist(), last.tolist(), strict=True)
    deleted = [
        Deleted(
            request.id,
            namespace,
            pod,
            container,
            file_id,
            epoch,
            places.tolist(),
            first_ns,
            last_ns,
        )
        for (namespace, pod, container, file_id, epoch), places, first_ns, last_ns in found
    ]
    return Coverage(now_ns, [], [], [], [], [], Balance(), deleted=deleted)
