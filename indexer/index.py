"""The indexer's loop: read, assemble, upload, commit, and only then go on from there.

Positions and trim state come from the table and are taken anew whenever somebody else has moved
them. What was read and not committed is in memory only, and is read again after a crash.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from collector.errors import PositionOutOfRange
from collector.topic import Topic
from indexer.assemble import Assembled, Intake, assemble
from indexer.bucket import Bucket
from indexer.consume import Consumer, Following, app_id
from indexer.coverage import to_object
from indexer.errors import ObjectExists, PositionMoved
from indexer.ledger import Ledger
from indexer.ledger_table import LedgerTable, bring_up
from indexer.metrics import IndexerMetrics
from indexer.patterns import PlainTimes
from indexer.recall import to_recall
from indexer.settings import IndexerSettings
from indexer.table import (
    CLOSED,
    COVERAGE_FOLDER,
    NO_ROWS,
    Added,
    Table,
    new_name,
    segment_folder,
)

_log = logging.getLogger(__name__)
_HOUR_NS = 3_600_000_000_000
_READ_WAIT_MS = 200


class Indexer:
    """One indexer and the partitions that it follows."""

    def __init__(
        self,
        settings: IndexerSettings,
        open_topic: Callable[[], Topic],
        bucket: Bucket,
        metrics: IndexerMetrics,
        *,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        """``open_topic()`` connects to the topic; ``clock()`` gives ns since 1970.

        Raises SettingError if times of plain lines are described wrongly.
        """
        self._settings = settings
        self._open_topic = open_topic
        self._topic = open_topic()
        self._bucket = bucket
        self._metrics = metrics
        self._clock = clock
        self._table = Table(bucket, settings.cluster)
        self._ledger_table = LedgerTable(bucket, settings.cluster)
        self._ledger = Ledger()
        self._recalled: set[bytes] = set()  # files that were looked up already
        self._plain_times = PlainTimes.of(settings.plain_time_formats, settings.plain_time_zone)
        name = settings.topic.rpartition("/")[2] if "://" in settings.topic else "local"
        self._consumer = Consumer(name, self._letter_name)
        self._flush_due_s = 0.0
        self._check_due_s = 0.0
        self.ready = False

    # -- taking up ---------------------------------------------------------------------------

    async def start(self) -> None:
        """Make the table if need be, and take positions and trim state from it."""
        await asyncio.to_thread(self._table.make)
        chosen = self._settings.partitions
        found = range(await self._topic.partitions())
        partitions = [int(p) for p in chosen.split(",")] if chosen else list(found)
        await self._take_up(partitions)
        self.ready = True

    async def _take_up(self, partitions: Sequence[int]) -> None:
        """Drop what has come of these partitions, and go on where the table stands now."""
        followed = {*self._consumer.following, *partitions}
        self._ledger = await asyncio.to_thread(self._newest_ledger, followed)
        self._recalled.clear()
        identity = await self._topic.identity()
        for partition in partitions:
            known = self._ledger.positions.get(partition)
            self._consumer.take_up(partition, known, identity)
        await self._check()

    def _newest_ledger(self, partitions: Collection[int]) -> Ledger:
        """Return the ledger of the newest version: the keeper's, and what has come since.

        Of the files only the live ones of ``partitions``; ``_recall`` finds the others.
        """
        version = self._table.version()
        ledger = self._ledger_table.load_live(partitions)
        if ledger.version > version:
            ledger = Ledger()  # of a table that was made anew since: fold all of this one's
        return bring_up(ledger, self._table, version)

    async def _check(self) -> None:
        """Look whether each partition's topic is still the one that was read."""
        probe = self._open_topic()
        try:
            for partition in self._consumer.following:
                await self._consumer.check(partition, probe)
            if any(f.replaces for f in self._consumer.following.values()):
                old, self._topic = self._topic, self._open_topic()
                await old.close()
        finally:
            await probe.close()
        self._check_due_s = time.monotonic() + self._settings.check_interval_ms / 1000

    # -- the loop ----------------------------------------------------------------------------

    async def turn(self) -> None:
        """Read what has come, and commit if it is time."""
        settings = self._settings
        if time.monotonic() >= self._check_due_s:
            await self._check()
        await self._fetch()
        self._consumer.take(settings.flush_bytes, dense=self._topic.dense)
        self._metrics.buffered_bytes.set(self._consumer.raw_bytes)
        stopped = [f for f in self._consumer.following.values() if f.stopped]
        self._metrics.stopped.set(len(stopped))
        if not any(f.has_news for f in self._consumer.following.values()):
            self._flush_due_s = 0.0
            return
        now = time.monotonic()
        self._flush_due_s = self._flush_due_s or now + settings.flush_age_ms / 1000
        if now >= self._flush_due_s or self._consumer.raw_bytes >= settings.flush_bytes:
            await self.flush()

    async def _fetch(self) -> None:
        """Read on, unless enough is at hand."""
        wanted = self._consumer.wanted()
        if self._consumer.has_fetched:
            return
        if not wanted:
            await asyncio.sleep(_READ_WAIT_MS / 1000)
            return
        try:
            fetch_bytes = self._settings.fetch_bytes
            self._consumer.fetch(await self._topic.read(wanted, fetch_bytes, _READ_WAIT_MS))
        except PositionOutOfRange:
            await self.flush()
            await self._check()

    async def flush(self) -> None:
        """Commit everything that has come; on a lost race, take the moved partitions up anew."""
        news = {p: f for p, f in self._consumer.following.items() if f.has_news}
        if not news:
            return
        began = time.monotonic()
        try:
            assembled = await asyncio.to_thread(self._commit, news)
        except PositionMoved as error:
            self._metrics.positions_moved.inc()
            _log.warning("another indexer was faster; going on from the table",
                         extra={"error": str(error)})  # fmt: skip
            await self._drop_moved()
            return
        self._flush_due_s = 0.0
        self._measure(assembled, time.monotonic() - began)
        for partition, following in news.items():
            self._consumer.go_on(partition)
            await self._topic.forget(partition, following.position.end)

    async def _drop_moved(self) -> None:
        """Take up anew each partition whose position is no longer ours; keep the others' news."""
        following = dict(self._consumer.following)
        ledger = await asyncio.to_thread(self._newest_ledger, following)
        moved = [
            p
            for p, f in following.items()
            if (known := ledger.positions.get(p)) is not None
            and (known.end, app_id(known)) != (f.position.start, app_id(f.position))
        ]
        await self._take_up(moved)

    # -- one commit --------------------------------------------------------------------------

    def _commit(self, news: Mapping[int, Following]) -> Assembled:
        settings = self._settings
        hours = settings.retention_hours
        intakes = [following.intake() for following in news.values()]
        self._recall(intakes)
        assembled = assemble(
            intakes,
            self._ledger.files,
            self._clock(),
            hours * _HOUR_NS or None,
            self._plain_times,
        )
        added = self._upload(assembled)
        expected: dict[str, int | None] = {}
        reached: dict[str, int] = {}
        for partition, following in news.items():
            known = self._ledger.positions.get(partition)
            name = app_id(following.position)
            expected[name] = following.position.start if known else None
            reached[name] = following.position.end
            if old := following.replaces:
                expected[app_id(old)] = old.end if known else None
                expected[name] = None
                reached[app_id(old)] = CLOSED
        self._table.commit(added, expected, reached)
        # Nobody else can have committed for these partitions in between, so the trim state is the
        # ledger with what was just added; other writers' work concerns other files.
        self._ledger.apply(assembled.coverage, self._ledger.version)
        return assembled

    def _recall(self, intakes: Sequence[Intake]) -> None:
        """Look up what the live trim state may lack of files that are sent again after long."""
        asked = to_recall(intakes, self._ledger) - self._recalled
        for past in self._ledger_table.lookup(asked).values():
            self._ledger.revive(past)
        self._recalled |= asked

    def _upload(self, assembled: Assembled) -> list[Added]:
        """Store every object under a name of its own; return what the commit will name."""
        added = []
        for segment in assembled.segments:
            name = new_name(segment_folder(segment.date, segment.hour), segment.data)
            self._put(self._table.folder + name, segment.data)
            added.append(Added(name, len(segment.data), segment.stats, segment.date, segment.hour))
        for letter in assembled.dead_letters:
            with contextlib.suppress(ObjectExists):  # the same letter, kept before a crash
                self._bucket.put(letter.name, letter.data)
        data = to_object(assembled.coverage)
        name = new_name(COVERAGE_FOLDER, data)
        self._put(self._table.folder + name, data)
        added.append(Added(name, len(data), NO_ROWS))
        return added

    def _put(self, name: str, data: bytes) -> None:
        try:
            self._bucket.put(name, data)
        except ObjectExists:
            # The name was never used before: an answer was lost, and a retry met its own object.
            if self._bucket.size(name) != len(data):
                raise

    def _letter_name(self, partition: int, position: int, crc: int) -> str:
        # With its CRC: a topic that was made anew has other records at the same positions.
        return f"{self._settings.cluster}/dead_letters/{partition}/{position:020d}-{crc:08x}"

    def _measure(self, assembled: Assembled, seconds: float) -> None:
        metrics, balance = self._metrics, assembled.coverage.balance
        metrics.commits.inc()
        metrics.commit_seconds.observe(seconds)
        metrics.raw_bytes.inc(balance.shipped_bytes)
        metrics.trimmed_bytes.inc(balance.trimmed_bytes)
        metrics.rows.inc(balance.rows)
        metrics.segment_bytes.inc(sum(len(segment.data) for segment in assembled.segments))
        metrics.dead_letters.inc(len(assembled.dead_letters))
        metrics.jumps.inc(len(assembled.coverage.jumps))
        metrics.epochs_raised.inc(assembled.epochs_raised)
        if assembled.epochs_raised:
            _log.error("ranges differ from what is known of their files; kept under a new epoch",
                       extra={"ranges": assembled.epochs_raised})  # fmt: skip

    # -- the outside -------------------------------------------------------------------------

    async def lag(self) -> None:
        """Measure how many records of each partition are not committed."""
        for partition, following in self._consumer.following.items():
            _, end = await self._topic.bounds(partition)
            lag = end - following.position.start
            self._metrics.lag_records.labels(str(partition)).set(lag)

    async def close(self) -> None:
        """Leave the topic."""
        await self._topic.close()

    def status(self) -> dict[str, Any]:
        """Return what ``/status`` shows; called from another thread."""
        following = dict(self._consumer.following)
        stopped = {p: f.stopped for p, f in following.items() if f.stopped}
        return {
            "process": "indexer",
            "cluster": self._settings.cluster,
            "healthy": not stopped,
            "ready": self.ready,
            "positions": {p: f.position.start for p, f in following.items()},
            "buffered_bytes": self._consumer.raw_bytes,
            "stopped": stopped,
        }
