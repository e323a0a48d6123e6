"""Deletion on request: rows that a request describes are taken out of every segment.

Requests and the objects of a snapshot go in. Segments are rewritten without the rows, and the same
commit names each row that went, by file and offset. Bytes stay covered, so what is sent again is
trimmed; a request stays open for a while, for rows that were still on their way.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.compute as pc

from indexer.coverage import Balance, Coverage, Deleted
from indexer.fence import FencedTable
from indexer.request import DeletionRequest, checked
from indexer.rewrite import exchange
from indexer.table import Live

SEGMENTS_AT_ONCE = 16
"""Segments that one commit exchanges: what a crash makes a keeper do again."""

_COLUMNS = ("pod", "container", "file_id", "epoch", "offset", "time", "time_ns")
# Statistics of times may be cut to milliseconds.
_CUT = timedelta(milliseconds=1)


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


def may_hold(each: Live, request: DeletionRequest) -> bool:
    """Return whether the statistics of an object allow a row that a request describes."""
    if each.is_coverage:
        return False
    for name in ("namespace", "pod", "container"):
        wanted = getattr(request, name)
        least, greatest = each.stats.get(name, (wanted, wanted))
        if wanted and not least <= wanted <= greatest:
            return False
    least, greatest = each.stats.get("time", (None, None))
    if least is None:
        return True
    return bool(least - _CUT < _time(request.to_ns) and _time(request.from_ns) <= greatest + _CUT)


def _time(ns: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=ns // 1000)


def matcher(request: DeletionRequest) -> Callable[[pa.Table], pa.Array]:
    """Return what tells, for each row of a table, whether the request describes it."""

    def fits(rows: pa.Table) -> pa.Array:
        masks = [
            pc.equal(rows.column(name), value)
            for name in ("namespace", "pod", "container")
            if (value := getattr(request, name))
        ]
        ns = _ns(rows)
        masks += [pc.greater_equal(ns, request.from_ns), pc.less(ns, request.to_ns)]
        message = rows.column("message")
        if request.text:
            masks.append(pc.match_substring(message, request.text))
        if request.regex:
            masks.append(pc.match_substring_regex(message, request.regex))
        return functools.reduce(pc.and_, masks)

    return fits


def _ns(rows: pa.Table) -> pa.ChunkedArray:
    us = rows.column("time").cast(pa.int64())
    return pc.add(pc.multiply(us, 1000), rows.column("time_ns").cast(pa.int64()))


def delete(
    fenced: FencedTable, request: DeletionRequest, examined: Examined, now_ns: int
) -> Iterator[tuple[int, int, int]]:
    """Delete what a request describes; yield (segments done, segments to do, rows) as it goes.

    Once it has ended, no row of the snapshot that ``fenced`` took at its start is left. Raises
    PositionMoved if another keeper is at work, BadRequest if the request cannot be understood.
    """
    fits = matcher(checked(request))
    left = examined.left(request, fenced.take())
    marks = functools.partial(_marks, request, now_ns)
    for start in range(0, len(left), SEGMENTS_AT_ONCE):
        some = left[start : start + SEGMENTS_AT_ONCE]
        rows = exchange(fenced, some, fits, _COLUMNS, marks, f"deletion {request.id}")
        examined.add(request, some)
        yield start + len(some), len(left), rows


def _marks(request: DeletionRequest, now_ns: int, dropped: Sequence[pa.Table]) -> Coverage:
    rows = pa.concat_tables(dropped).unify_dictionaries()
    rows = rows.append_column("ns", _ns(rows)).select(
        ["pod", "container", "file_id", "epoch", "offset", "ns"]
    )
    found: dict[tuple[str, str, bytes, int], list[tuple[int, int]]] = {}
    for *file, offset, ns in zip(*(c.to_pylist() for c in rows.columns), strict=True):
        found.setdefault((file[0], file[1], file[2], file[3]), []).append((offset, ns))
    deleted = [
        Deleted(
            request.id, request.namespace, *file, sorted(offset for offset, _ in places),
            min(ns for _, ns in places), max(ns for _, ns in places),
        )
        for file, places in found.items()
    ]  # fmt: skip
    return Coverage(now_ns, [], [], [], [], [], Balance(), deleted=deleted)
