"""Pages are read ahead where a store is slow, and sent as far as they are certain."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace

import pyarrow as pa
import pytest

from indexer.query.tree import EVERYTHING
from indexer.store.bucket import Ranges
from query_api.scan import page as pages
from query_api.scan.outlines import Outlines
from query_api.scan.page import Page, Scans
from query_api.scan.plan import Planned
from query_api.scan.segment import RESULT_SCHEMA, Scanned, ScanTask
from tests.indexer.shipped import SECOND

TASK = ScanTask("", "", 0, 0, 100 * SECOND, (), EVERYTHING, True, None, 10, 1 << 20)


def rows_at(*times_ns: int) -> pa.Table:
    rows = [
        {"ns": ns, "file_id": bytes(16), "epoch": 0, "offset": ns, "message": str(ns)}
        for ns in times_ns
    ]
    return pa.Table.from_pylist(rows, RESULT_SCHEMA)


def not_expected(scanned: Scanned) -> None:
    raise AssertionError(scanned.error)


class Store:
    """Segments by name; each read of one waits until it is let go on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, segments: dict[str, tuple[int, ...]]):
        self.segments = segments
        self.let_go = {name: threading.Event() for name in segments}
        self.reading = self.computing = self.most_reading = self.most_computing = 0
        self.lock = threading.Lock()
        monkeypatch.setattr(pages, "scan_segment", self.scan)
        self.planned = [Planned(n, 1, 1, min(ts), max(ts)) for n, ts in segments.items()]

    def scan(self, task: ScanTask, bucket: Ranges, _: object) -> Scanned:
        with self.counted("computing"):
            pass
        bucket.get_range(task.name, 0, 1)
        with self.counted("computing"):
            time.sleep(0.001)
            return Scanned(rows_at(*self.segments[task.name]), 1, 1)

    def get_range(self, name: str, start: int, length: int) -> bytes:
        with self.counted("reading"):
            assert self.let_go[name].wait(30)
        return b"x"

    @contextmanager
    def counted(self, what: str) -> Iterator[None]:
        with self.lock:
            setattr(self, what, now := getattr(self, what) + 1)
            setattr(self, f"most_{what}", max(now, getattr(self, f"most_{what}")))
        yield
        with self.lock:
            setattr(self, what, getattr(self, what) - 1)


def test_rows_are_sent_before_older_segments_are_read(monkeypatch):
    store = Store(monkeypatch, {"new": (80, 90), "both": (40, 70), "old": (10, 50)})
    store.let_go["new"].set()
    with ThreadPoolExecutor(3) as pool:
        scans = Scans(pool, 3, 3, store, Outlines(1 << 20), time.monotonic)
        found = scans.rows(store.planned, TASK, time.monotonic() + 30, not_expected, Page())
        assert next(found).column("ns").to_pylist() == [90, 80]
        store.let_go["both"].set()
        assert next(found).column("ns").to_pylist() == [70]  # 40 may come behind one of the old
        store.let_go["old"].set()
        assert next(found).column("ns").to_pylist() == [50, 40, 10]
        assert list(found) == []


def test_many_segments_wait_for_the_store_while_few_compute(monkeypatch):
    store = Store(monkeypatch, {str(n): (n, 200 - n) for n in range(100)})
    with ThreadPoolExecutor(32) as pool:
        scans = Scans(pool, 32, 2, store, Outlines(1 << 20), time.monotonic)
        task = replace(TASK, limit=1_000)
        found = scans.rows(store.planned, task, time.monotonic() + 30, not_expected, Page())
        reader = threading.Thread(target=list, args=(found,))
        reader.start()
        for name in map(str, range(30)):
            store.let_go[name].set()
        while store.reading < 32:
            time.sleep(0.001)
        for event in store.let_go.values():
            event.set()
        reader.join()
    assert store.most_reading == 32
    assert store.most_computing <= 2


def test_a_page_that_its_first_segments_fill_asks_for_no_more(monkeypatch):
    store = Store(monkeypatch, {str(n): tuple(range(n * 20, n * 20 + 12)) for n in range(50)})
    for event in store.let_go.values():
        event.set()
    with ThreadPoolExecutor(32) as pool:
        scans, page = Scans(pool, 32, 2, store, Outlines(1 << 20), time.monotonic), Page()
        found = list(scans.rows(store.planned, TASK, time.monotonic() + 30, not_expected, page))
    assert sum(len(rows) for rows in found) == 10
    assert page.read <= 3
    assert page.last is not None
