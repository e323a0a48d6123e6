"""One page of an answer from many segments.

Planned segments go in; out come the first rows of all in the order (time, time_ns, file_id, epoch,
offset), each as soon as nothing unread can come before it. Segments are read in the order of their
time bounds, several at once, and a page stops when no segment that is left can hold an earlier row:
never more than one page of rows is held for each segment that is being read.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa

from indexer.store.bucket import Ranges
from query_api.scan.count import COUNTS, Steps, count_segment, summed
from query_api.scan.nearby import PLACES, Near, find_places, nearest, read_places
from query_api.scan.nearby import tightened as tightened_near
from query_api.scan.outlines import Outlines
from query_api.scan.plan import Planned
from query_api.scan.segment import (
    RESULT_SCHEMA,
    Scanned,
    ScanTask,
    first_rows,
    fitting,
    scan_segment,
    tightened,
)

Scan = Callable[[Ranges, Callable[[], bool]], Scanned]
"""Scans one segment, of which all is known but the bucket, and whether nobody waits any more."""


@dataclass(slots=True)
class Page:
    """What a page took, and how it ends: known once its rows have been taken."""

    read: int = 0
    gets: int = 0
    bytes: int = 0
    left: int = 0  # segments that the time limit left unread, or not read to their end
    last: pa.Table | None = None  # its last row, if there are more
    is_cut_by_bytes: bool = False


class Scans:
    """Scans segments in a pool that all searches share.

    As many segments as the pool has threads wait for the store at the same time, and ``computing``
    of them, whichever those are, compute.
    """

    def __init__(
        self,
        pool: Executor,
        width: int,
        computing: int,
        bucket: Ranges,
        outlines: Outlines,
        monotonic: Callable[[], float],
    ) -> None:
        """Take what all pages have in common."""
        self._pool = pool
        self._width = width
        self._computing = computing
        self._turns = threading.Semaphore(computing)
        self._bucket = _InTurns(bucket, self._turns)
        self._outlines = outlines
        self._monotonic = monotonic

    def rows(
        self,
        planned: Sequence[Planned],
        task: ScanTask,
        until_s: float,
        failed: Callable[[Scanned], Any],
        page: Page,
    ) -> Iterator[pa.Table]:
        """Yield the rows of a page, in order, each as soon as none can come before it any more.

        ``task`` is what each of the planned segments is asked, with the folder of the table as its
        name. ``failed`` is told of each segment that cannot be read. At ``until_s`` by the clock
        it stops, with what it has.
        """
        waiting = deque(sorted(planned, key=_newest if task.newest_first else _oldest))
        best, sent = RESULT_SCHEMA.empty_table(), 0
        # What comes first often fills the page: only who reads on reads much at the same time.
        width = min(self._computing, self._width)
        stop = threading.Event()
        running: dict[Future[Scanned], Planned] = {}
        try:
            while True:
                while waiting and len(running) < width:
                    segment = waiting.popleft()
                    asked = _asked(task, segment, best, self._outlines)
                    if asked is None:
                        waiting.clear()  # nor can those behind it hold an earlier row
                        break
                    scan = partial(scan_segment, asked)
                    running[self._pool.submit(self._in_turn, scan, stop.is_set)] = segment
                settled = _settled(best, task, [*running.values(), *islice(waiting, 1)])
                if settled > sent:
                    yield best.slice(sent, settled - sent)
                    sent = settled
                if not running:
                    break
                left_s = max(0.0, until_s - self._monotonic())
                for future in wait(running, left_s, FIRST_COMPLETED).done:
                    self._outlines.learn(running.pop(future).name, future.result())
                    width = min(width + 1, self._width)
                    best = _added(best, page, future.result(), task, failed)
                if self._monotonic() >= until_s and (running or waiting):
                    page.left = len(running) + len(waiting)
                    break
        finally:
            stop.set()
            for future in running:
                future.cancel()
        fits = fitting(best, task)
        if fits > sent:
            yield best.slice(sent, fits - sent)
        # Behind a page that was cut off a cursor would pass over rows that were never looked at.
        if len(best) > fits and not page.left:
            page.last = best.slice(fits - 1, 1)
            page.is_cut_by_bytes = fits < task.limit

    def counts(
        self,
        planned: Sequence[Planned],
        task: ScanTask,
        steps: Steps,
        until_s: float,
        failed: Callable[[Scanned], Any],
        page: Page,
    ) -> pa.Table:
        """Return how many rows match (COUNTS); as ``rows`` for the rest."""

        def count(segment: Planned) -> Scan:
            return partial(count_segment, _named(task, segment, self._outlines), steps)

        found = self._each(planned, count, until_s, failed, page)
        return summed([COUNTS.empty_table(), *found])

    def each(
        self,
        planned: Sequence[Planned],
        task: ScanTask,
        scan_of: Callable[[ScanTask], Scan],
        until_s: tuple[float, float],
        failed: Callable[[Scanned], Any],
        page: Page,
    ) -> Iterator[pa.Table]:
        """Yield what a scan makes of each segment, those with the newest rows first.

        At the first of two times no more segments are begun, and those that are being read end as
        soon as they can, with what they have; at the second one nobody waits for them.
        """

        def scan(segment: Planned) -> Scan:
            asked = scan_of(_named(task, segment, self._outlines))
            return lambda bucket, cancelled: asked(bucket, lambda: cancelled() or is_over())

        def is_over() -> bool:
            return self._monotonic() >= until_s[0]

        newest = sorted(planned, key=_newest)
        yield from self._each(newest, scan, until_s[1], failed, page, is_over)

    def near(
        self,
        planned: Sequence[Planned],
        task: ScanTask,
        near: Near,
        until_s: float,
        failed: Callable[[Scanned], Any],
        page: Page,
    ) -> pa.Table:
        """Return the rows of a file around a place, in its order; as ``rows`` for the rest."""
        places = PLACES.empty_table()

        def find(segment: Planned) -> Scan:
            asked = _named(task, segment, self._outlines)
            return partial(find_places, asked, tightened_near(near, places))

        def read(segment: Planned) -> Scan:
            asked = _named(task, segment, self._outlines)
            return partial(read_places, asked, wanted[asked.name])

        for found in self._each(planned, find, until_s, failed, page):
            places = nearest([places, found], near)
        of_keys = page.read
        wanted: dict[str, dict[int, list[int]]] = {}
        for place in places.to_pylist():
            groups = wanted.setdefault(place["segment"], {})
            groups.setdefault(place["group"], []).append(place["row"])
        chosen = [each for each in planned if task.name + each.name in wanted]
        rows = list(self._each(chosen, read, until_s, failed, page))
        page.read = of_keys  # of which these are some
        return pa.concat_tables([RESULT_SCHEMA.empty_table(), *rows]).sort_by("offset")

    def _each(
        self,
        planned: Sequence[Planned],
        scan: Callable[[Planned], Scan],
        until_s: float,
        failed: Callable[[Scanned], Any],
        page: Page,
        is_over: Callable[[], bool] = lambda: False,
    ) -> Iterator[pa.Table]:
        """Yield what a scan makes of each segment that can be read, in any order."""
        waiting = deque(planned)
        stop = threading.Event()
        running: dict[Future[Scanned], Planned] = {}
        try:
            while waiting or running:
                if is_over():
                    page.left += len(waiting)
                    waiting.clear()
                while waiting and len(running) < self._width:
                    segment = waiting.popleft()
                    asked = scan(segment)
                    running[self._pool.submit(self._in_turn, asked, stop.is_set)] = segment
                left_s = max(0.0, until_s - self._monotonic())
                for future in wait(running, left_s, FIRST_COMPLETED).done:
                    scanned = future.result()
                    self._outlines.learn(running.pop(future).name, scanned)
                    page.left += scanned.is_cut
                    if _is_read(page, scanned, failed):
                        yield scanned.rows
                if self._monotonic() >= until_s and (running or waiting):
                    page.left += len(running) + len(waiting)
                    break
        finally:
            stop.set()
            for future in running:
                future.cancel()

    def _in_turn(self, scan: Scan, cancelled: Callable[[], bool]) -> Scanned:
        with self._turns:
            return scan(self._bucket, cancelled)


class _InTurns:
    """A bucket whose readers let others compute while they wait for it."""

    def __init__(self, bucket: Ranges, turns: threading.Semaphore) -> None:
        self._bucket = bucket
        self._turns = turns

    def get_range(self, name: str, start: int, length: int) -> bytes:
        """Read a range, and go on when it is this reader's turn again."""
        self._turns.release()
        try:
            return self._bucket.get_range(name, start, length)
        finally:
            self._turns.acquire()


def _settled(best: pa.Table, task: ScanTask, unread: Iterable[Planned]) -> int:
    """Return how many rows of the page are before whatever is still to be read."""
    times = best.column("ns").to_numpy()[: fitting(best, task)]
    if task.newest_first:
        first_ns = max((segment.high_ns for segment in unread), default=None)
        return len(times) if first_ns is None else int(np.count_nonzero(times > first_ns))
    first_ns = min((segment.low_ns for segment in unread), default=None)
    return len(times) if first_ns is None else int(np.count_nonzero(times < first_ns))


def _newest(segment: Planned) -> tuple[int, str]:
    return -segment.high_ns, segment.name


def _oldest(segment: Planned) -> tuple[int, str]:
    return segment.low_ns, segment.name


def _asked(task: ScanTask, segment: Planned, best: pa.Table, outlines: Outlines) -> ScanTask | None:
    """Return the task for a segment, None if it cannot hold a row that comes before the last."""
    from_ns, to_ns = tightened(task, best)
    if segment.high_ns < from_ns or segment.low_ns >= to_ns:
        return None
    return replace(_named(task, segment, outlines), from_ns=from_ns, to_ns=to_ns)


def _named(task: ScanTask, segment: Planned, outlines: Outlines) -> ScanTask:
    """Return the task for a segment."""
    return replace(
        task,
        name=task.name + segment.name,
        size_bytes=segment.size_bytes,
        row_groups=segment.row_groups,
        end=outlines.end_of(segment.name),
    )


def _added(
    best: pa.Table, page: Page, scanned: Scanned, task: ScanTask, failed: Callable[[Scanned], Any]
) -> pa.Table:
    """Return the first rows with those of a segment, and note what that took."""
    if not _is_read(page, scanned, failed):
        return best
    return first_rows([best, scanned.rows], task)


def _is_read(page: Page, scanned: Scanned, failed: Callable[[Scanned], Any]) -> bool:
    """Note what a segment took; return whether it could be read."""
    page.gets += scanned.gets
    page.bytes += scanned.bytes
    if scanned.error:
        failed(scanned)
        return False
    page.read += 1
    return True
