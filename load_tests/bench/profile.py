"""Where the indexer's CPU goes: one run of it in this process, with a clock around each step.

A topic goes in; out comes the CPU time of each step without the steps inside of it, and of all that
is none of them.
"""

import asyncio
import functools
import inspect
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

import fastavro
import prometheus_client

from collector.topic.local import LocalTopic
from collector.wire import batch
from indexer import assemble, consume, suspect, trim
from indexer.index import Indexer
from indexer.ledger.ledger import Ledger
from indexer.metrics import IndexerMetrics
from indexer.parse import parse
from indexer.segment import write as segment
from indexer.segment.tokens import TokenFilterWriter
from indexer.settings import IndexerSettings
from indexer.store.local import LocalBucket
from indexer.store.open import open_bucket
from indexer.table.table import Table
from load_tests.bench.indexer import linked

_STEPS: tuple[tuple[Any, str, str], ...] = (
    (LocalTopic, "read", "read the topic"),
    (batch, "decode", "unpack zstd"),
    (fastavro, "schemaless_reader", "decode Avro"),
    (consume, "crc32", "CRC of records"),
    (trim.Trimmer, "trim", "trim"),
    (trim, "crc32", "CRC of ranges"),
    (suspect, "assemble", "assemble: join, sort, count"),
    (assemble, "parse", "parse: allocate, count lines"),
    (parse, "_parse_pieces", "parse: lines to columns, levels, events"),
    (assemble, "build_segments", "segment: columns to Arrow"),
    (segment.SegmentWriter, "append", "segment: Parquet"),
    (segment.SegmentWriter, "finish", "segment: footer"),
    (TokenFilterWriter, "append", "filter: tokens"),
    (TokenFilterWriter, "finish", "filter: blocks"),
    (suspect, "to_object", "coverage"),
    (LocalBucket, "put", "upload"),
    (Table, "commit", "commit"),
    (Ledger, "apply", "trim state"),
)


class Steps:
    """CPU seconds by step; ``clock()`` is the CPU time of the thread that asks."""

    def __init__(self, clock: Callable[[], float] = time.thread_time) -> None:
        """Start with nothing."""
        self._clock = clock
        self._of_thread = threading.local()
        self._adding = threading.Lock()
        self.cpu_s: dict[str, float] = {}

    @property
    def _inside(self) -> list[float]:
        """CPU seconds of the steps inside of each step that this thread is in."""
        if not hasattr(self._of_thread, "inside"):
            self._of_thread.inside = []
        inside: list[float] = self._of_thread.inside
        return inside

    def timed(self, step: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function with a clock around it; its time is not that of its caller's step."""
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def awaited(*words: Any, **named: Any) -> Any:
                began = self._begin()
                try:
                    return await function(*words, **named)
                finally:
                    self._end(step, began)

            return awaited

        @functools.wraps(function)
        def called(*words: Any, **named: Any) -> Any:
            began = self._begin()
            try:
                return function(*words, **named)
            finally:
                self._end(step, began)

        return called

    def _begin(self) -> float:
        self._inside.append(0.0)
        return self._clock()

    def _end(self, step: str, began: float) -> None:
        passed = self._clock() - began
        own = passed - self._inside.pop()
        with self._adding:
            self.cpu_s[step] = self.cpu_s.get(step, 0.0) + own
        if self._inside:
            self._inside[-1] += passed


async def _index(topic: Path, bucket: Path) -> None:
    settings = IndexerSettings(topic=str(topic), bucket=str(bucket))
    local = LocalTopic(topic, partitions=0)
    end = (await local.bounds(0))[1]
    await local.close()
    indexer = Indexer(
        settings,
        lambda: LocalTopic(topic, partitions=0),
        open_bucket(settings.bucket),
        IndexerMetrics(prometheus_client.CollectorRegistry()),
    )
    await indexer.start()
    while (before := indexer.status())["positions"] != {0: end}:
        await indexer.turn()
        if indexer.status()["buffered_bytes"] == before["buffered_bytes"]:
            await indexer.flush()  # all is read; no waiting for more
    await indexer.close()


def profile(full: Path, folder: Path) -> Mapping[str, float]:
    """Return the CPU seconds of each step of indexing a full topic, the last: the rest.

    It runs twice: the first time loads kernels and modules.
    """
    steps, cpu_s = Steps(), 0.0
    for run in range(2):
        shutil.rmtree(bucket := folder / "bucket", ignore_errors=True)
        topic = linked(full, folder / "topic")
        with ExitStack() as patches:
            for owner, name, step in _STEPS if run else ():
                timed = steps.timed(step, getattr(owner, name))
                patches.enter_context(patch.object(owner, name, timed))
            began = time.process_time()
            asyncio.run(_index(topic, bucket))
            cpu_s = time.process_time() - began
    found = {step: steps.cpu_s.get(step, 0.0) for _, _, step in _STEPS}
    return {**found, "the rest": cpu_s - sum(found.values())}


def print_profile(found: Mapping[str, float], raw_bytes: int) -> None:
    """Print a Markdown table of the steps, the most expensive first."""
    whole = sum(found.values())
    print("| step | CPU ms/MB | share |")
    print("|---|---|---|")
    for step, cpu_s in sorted(found.items(), key=lambda each: -each[1]):
        print(f"| {step} | {cpu_s * 1e9 / raw_bytes:.3f} | {cpu_s / whole:.1%} |")
    print(f"| all | {whole * 1e9 / raw_bytes:.3f} | |\n")
