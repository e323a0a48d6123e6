"""One page of an answer from many segments.

Planned segments go in; out come the first rows of all in the order (time, time_ns, file_id, epoch,
offset). Segments are read in the order of their time bounds, several at once, and a page stops
when no segment that is left can hold an earlier row: never more than one page of rows is held for
each segment that is being read.
"""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from indexer.store.bucket import Bucket
from query_api.scan.plan import Planned
from query_api.scan.segment import (
    RESULT_SCHEMA,
    Scanned,
    ScanTask,
    first_rows,
    scan_segment,
    tightened,
)


@dataclass(slots=True)
class Page:
    """The rows of a page (RESULT_SCHEMA), and what it took."""

    rows: pa.Table
    read: int = 0
    gets: int = 0
    bytes: int = 0
    left: int = 0  # segments that the time limit left unread


class Scans:
    """Scans the segments of one page, ``width`` at a time, in a pool that others share."""

    def __init__(
        self,
        pool: Executor,
        width: int,
        bucket: Bucket,
        monotonic: Callable[[], float],
    ) -> None:
        """Take what all pages have in common."""
        self._pool = pool
        self._width = width
        self._bucket = bucket
        self._monotonic = monotonic

    def page(
        self,
        planned: Sequence[Planned],
        task: ScanTask,
        until_s: float,
        failed: Callable[[Scanned], Any],
    ) -> Page:
        """Return the first ``task.limit`` rows of the planned segments.

        ``task`` is what each of them is asked, with the folder of the table as its name.
        ``failed`` is told of each segment that cannot be read. At ``until_s`` by the clock it
        stops, with what it has.
        """
        ordered = sorted(planned, key=_newest if task.newest_first else _oldest)
        page = Page(RESULT_SCHEMA.empty_table())
        stop = threading.Event()
        running: set[Future[Scanned]] = set()
        at = 0
        try:
            while True:
                while len(running) < self._width and at < len(ordered):
                    asked = _asked(task, ordered[at], page.rows)
                    if asked is None:
                        at = len(ordered)  # nor can those behind it hold an earlier row
                        break
                    running.add(self._pool.submit(scan_segment, asked, self._bucket, stop.is_set))
                    at += 1
                if not running:
                    return page
                left_s = max(0.0, until_s - self._monotonic())
                done, running = wait(running, left_s, FIRST_COMPLETED)
                for future in done:
                    _add(page, future.result(), task, failed)
                if self._monotonic() >= until_s and (running or at < len(ordered)):
                    page.left = len(running) + len(ordered) - at
                    return page
        finally:
            stop.set()
            for future in running:
                future.cancel()


def _newest(segment: Planned) -> tuple[int, str]:
    return -segment.high_ns, segment.name


def _oldest(segment: Planned) -> tuple[int, str]:
    return segment.low_ns, segment.name


def _asked(task: ScanTask, segment: Planned, best: pa.Table) -> ScanTask | None:
    """Return the task for a segment, None if it cannot hold a row that comes before the last."""
    from_ns, to_ns = tightened(task, best)
    if segment.high_ns < from_ns or segment.low_ns >= to_ns:
        return None
    return replace(
        task,
        name=task.name + segment.name,
        size_bytes=segment.size_bytes,
        from_ns=from_ns,
        to_ns=to_ns,
    )


def _add(page: Page, scanned: Scanned, task: ScanTask, failed: Callable[[Scanned], Any]) -> None:
    page.gets += scanned.gets
    page.bytes += scanned.bytes
    if scanned.error:
        failed(scanned)
        return
    page.read += 1
    page.rows = first_rows([page.rows, scanned.rows], task.limit, task.newest_first)
