"""The process ``everyline collector``: settings, one lock a node, signals, the loop.

It starts when the topic answers, stops within its grace time on SIGTERM or SIGINT, and exits with
an error only where somebody has to act.
"""

import asyncio
import contextlib
import logging
import resource
import signal
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import prometheus_client

from collector.collect import Collector
from collector.durable import locked
from collector.errors import AnotherCollector, CollectorError
from collector.file_names import LOCK
from collector.metrics import CollectorMetrics
from collector.process import StatusServer, data_directory, load_settings, log_to_stderr
from collector.settings import CollectorSettings
from collector.topic.interface import Topic
from collector.topic.open import open_topic
from collector.topic.security import Security

_log = logging.getLogger(__name__)
_RETRY_S = 2.0
_UNEXPECTED_S = 60.0
_SHOW_EVERY_S = 1.0


def main(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run the collector until it is told to stop; return the exit code."""
    settings = load_settings(CollectorSettings, "collector", argv, environ)
    log_to_stderr(settings.log_level)
    state = data_directory(settings.state)
    _raise_file_limit()
    taken = AnotherCollector(
        f"another collector uses {state}; stop it, or give this one its own --state"
    )
    with locked(state / LOCK, or_raise=taken):
        return asyncio.run(_run(settings))


def _raise_file_limit() -> None:
    """Allow as many open files as the system does: each log file is held open."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def _run(settings: CollectorSettings) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    metrics = CollectorMetrics(prometheus_client.CollectorRegistry())
    topic = open_topic(
        settings.topic, partitions=max(settings.partitions, 1), security=Security(settings.kafka)
    )
    beside: list[asyncio.Task[None]] = []
    starting = {"process": "collector", "healthy": True, "ready": False}
    status_server = StatusServer(settings.listen, metrics.registry, lambda: starting)
    try:
        collector = await _started(settings, topic, metrics, stop)
        if collector is None:
            return 0
        latest = collector.status()
        # Made here, where nothing changes meanwhile; but whether this loop still turns, the thread
        # that answers must see for itself.
        status_server.status = lambda: {**latest, **collector.alive()}
        _log.info("collecting", extra={"roots": settings.roots, "topic": settings.topic})
        beside.append(asyncio.create_task(_ask_for_limits(collector)))
        beside.append(asyncio.create_task(_learn_labels(collector)))
        shown = 0.0
        while not stop.is_set():
            more = await collector.turn()
            if time.monotonic() - shown >= _SHOW_EVERY_S:
                shown = time.monotonic()
                latest = collector.status()
                _show(collector, latest, metrics)
            if not more:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), collector.idle_s())
        drained = await collector.stop()
        _log.info("stopped", extra={"everything_sent": drained})
        return 0
    finally:
        for task in beside:
            task.cancel()
        if beside:
            await asyncio.wait(beside)
        await topic.close()
        status_server.shutdown()
        status_server.server_close()


async def _started(
    settings: CollectorSettings, topic: Topic, metrics: CollectorMetrics, stop: asyncio.Event
) -> Collector | None:
    """Return a collector once the topic answers; None if told to stop before."""
    said = ""
    run = uuid.uuid4().bytes
    while not stop.is_set():
        try:
            return await Collector.started(settings, topic, metrics, run=run)
        except CollectorError as error:
            if not error.retriable:
                raise
            if str(error) != said:
                said = str(error)
                _log.error("waiting for the topic", extra={"error": said})
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), _RETRY_S)
    return None


async def _ask_for_limits(collector: Collector) -> None:
    """Learn what the topic takes as soon as it answers; until then the settings count."""
    while True:
        try:
            await collector.learn_limits()
            return
        except CollectorError:  # said by what appends to it
            await asyncio.sleep(_RETRY_S)
        except Exception:  # whatever it is, lines go on
            _log.exception("cannot learn what the topic takes; asking again")
            await asyncio.sleep(_UNEXPECTED_S)


async def _learn_labels(collector: Collector, pause_s: float = _UNEXPECTED_S) -> None:
    """Ask Kubernetes beside the way of the lines, which never waits for it."""
    while True:
        try:
            await collector.metadata.run()
            return  # there is nobody to ask
        except Exception as error:  # whatever it is, lines go on
            collector.metadata.failed(error)
        await asyncio.sleep(pause_s)


def _show(collector: Collector, status: Mapping[str, Any], metrics: CollectorMetrics) -> None:
    metrics.unread_bytes.set(status["unread_bytes"])
    metrics.unacked_bytes.set(status["unacked_bytes"])
    metrics.oldest_unacked_seconds.set(status["oldest_unacked_seconds"])
    metrics.seconds_until_deletion.set(collector.reader.seconds_left)
    metrics.held_bytes.set(status["held_bytes"])
    shipper = collector.shipper
    metrics.advance(metrics.wire_bytes, shipper.wire_bytes)
    metrics.spool_bytes.set(collector.backlog.spool.bytes)
    metrics.spool_batches.set(len(collector.backlog.spool))
    metrics.spool_failed.set(collector.backlog.failed)
    metrics.topic_stalled.set(shipper.stalled)
    metrics.advance(metrics.shed_bytes, collector.shed_bytes)
    metrics.advance(metrics.read_bytes, collector.reader.read_bytes)
    metrics.advance(metrics.redacted_ranges, collector.reader.redacted_ranges)
    for rule, (size, lines) in collector.reader.elided.items():
        metrics.advance(metrics.elided_bytes.labels(rule), size)
        metrics.advance(metrics.elided_lines.labels(rule), lines)
    metrics.policy_rules.set(len(collector.policy.rules))
    metrics.advance(metrics.policy_reload_failures, collector.policy.reloads_failed)
    known = collector.metadata
    metrics.metadata_pods.set(known.pods)
    metrics.advance(metrics.metadata_requests, known.requests)
    metrics.advance(metrics.metadata_failures, known.failures)
    metrics.metadata_success_timestamp_seconds.set(known.last_success_ns / 1e9)
    for limit, count in known.limited.items():
        metrics.advance(metrics.metadata_limit_reached.labels(limit), count)
