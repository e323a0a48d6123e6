"""The process ``everyline indexer``: settings, signals, the loop, and patience.

It waits for a topic or a bucket that is away, commits what it has before it stops, and ends with
an error only where somebody has to act.
"""

import asyncio
import contextlib
import logging
import signal
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial

import prometheus_client

from collector.errors import CollectorError
from collector.process import StatusServer, load_settings, log_to_stderr
from collector.topic.open import open_topic
from collector.topic.security import Security
from indexer.allocator import keep_pages
from indexer.errors import IndexerError
from indexer.index import Indexer
from indexer.metrics import IndexerMetrics
from indexer.settings import IndexerSettings
from indexer.store.bucket import BucketLimits
from indexer.store.open import open_bucket
from indexer.store.probe import probe

_log = logging.getLogger(__name__)
_LAG_EVERY_S = 5.0


def main(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run the indexer until it is told to stop; return the exit code."""
    settings = load_settings(IndexerSettings, "indexer", argv, environ)
    log_to_stderr(settings.log_level)
    keep_pages()
    return asyncio.run(_run(settings))


async def _run(settings: IndexerSettings) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    metrics = IndexerMetrics(prometheus_client.CollectorRegistry())
    security = Security(settings.kafka)
    limits = BucketLimits(
        settings.bucket_connect_ms,
        settings.bucket_read_ms,
        settings.bucket_attempts,
        settings.upload_threads,
    )
    bucket = open_bucket(settings.bucket, limits)
    indexer = Indexer(
        settings,
        lambda: open_topic(settings.topic, partitions=0, security=security),
        bucket,
        metrics,
    )
    status_server = StatusServer(settings.listen, metrics.registry, indexer.status)
    patience = Patience(settings.retry_ms / 1000, settings.retry_most_ms / 1000, stop)
    try:
        tried = partial(asyncio.to_thread, probe, bucket, settings.cluster)
        await patience.until_done(tried, "waiting for the bucket")
        await patience.until_done(indexer.start, "waiting to start")
        measured = 0.0
        while not stop.is_set():
            await patience.until_done(indexer.turn, "waiting")
            if time.monotonic() - measured >= _LAG_EVERY_S:
                measured = time.monotonic()
                await patience.until_done(indexer.lag, "waiting")
        with contextlib.suppress(IndexerError, CollectorError):  # the next run reads it again
            await indexer.flush()
        _log.info("stopped")
        return 0
    finally:
        await indexer.close()
        status_server.shutdown()
        status_server.server_close()


class Patience:
    """Trying again what may succeed later, with a pause that doubles up to a limit."""

    def __init__(self, first_s: float, most_s: float, stop: asyncio.Event) -> None:
        """Give up waiting as soon as ``stop`` is set."""
        self._first_s, self._most_s, self._stop = first_s, most_s, stop

    async def until_done(self, step: Callable[[], Awaitable[None]], what: str) -> None:
        """Do ``step``; after a retriable error wait and do it again, others are raised."""
        pause_s = self._first_s
        while not self._stop.is_set():
            try:
                await step()
                return
            except (CollectorError, IndexerError) as error:
                if not error.retriable:
                    raise
                if pause_s == self._first_s:
                    _log.warning(what, extra={"error": str(error)})
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), pause_s)
            pause_s = min(pause_s * 2, self._most_s)
