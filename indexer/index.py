"""The indexer's loop: read, assemble, upload, commit, and only then go on from there.

Positions and trim state come from the table and are taken anew whenever somebody else has moved
them. One commit is on its way at a time, and meanwhile the next one is read. What was read and not
committed is in memory only, and is read again after a crash.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from collector.errors import CollectorError, PositionOutOfRange
from collector.topic.interface import Topic
from indexer.assemble import Assembled, Intake
from indexer.consume import Consumer, Following, app_id
from indexer.errors import BucketUnavailable, IndexerError, NotBalanced, PositionMoved
from indexer.ledger.ledger import Ledger
from indexer.ledger.stored import LedgerTable, bring_up
from indexer.metrics import IndexerMetrics
from indexer.names import dead_letter
from indexer.parse.patterns import PlainTimes
from indexer.recall import to_recall
from indexer.settings import IndexerSettings
from indexer.share import membership
from indexer.store.bucket import Bucket
from indexer.suspect import State, assemble_whole, suspects
from indexer.table.table import CLOSED, Table
from indexer.times import HOUR_NS
from indexer.upload import upload

_log = logging.getLogger(__name__)
_READ_WAIT_MS = 200
_RELOAD_S = 86_400  # as often as a keeper moves past files out of the live ones
_UPLOADS_KEEP_NS = HOUR_NS  # far below the age at which a keeper sweeps what no version names


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
        self._consumer = Consumer(name, partial(dead_letter, settings.cluster))
        self._membership = membership(settings, self._topic)
        self._uploads = ThreadPoolExecutor(settings.upload_threads, "upload")
        self._cut: dict[int, Following] = {}  # goes into the table before what follows it
        self._committing: asyncio.Task[Assembled] | None = None
        self._began_s = 0.0
        self._shown_bytes = 0
        self._flush_due_s = 0.0
        self._check_due_s = 0.0
        self._reload_due_s = 0.0
        self.ready = False

    # -- whose partitions, and from where on -------------------------------------------------

    async def start(self) -> None:
        """Make the table if need be, and take up the partitions."""
        await asyncio.to_thread(self._table.make)
        await self._topic.partitions()  # says so if there is no such topic
        await self._share()
        self.ready = True

    async def _share(self) -> None:
        """Let go what is no longer ours, and take up what is; go on with all the rest."""
        mine = await self._membership.mine()
        ours = set(self._consumer.following)
        if mine == ours:
            return
        with contextlib.suppress(IndexerError):  # what is not committed now is read again
            await (self.flush() if ours - mine else self._settle())
        for partition in ours - mine:
            self._consumer.drop(partition)
            self._cut.pop(partition, None)
            with contextlib.suppress(KeyError):
                self._metrics.lag_records.remove(str(partition))
        await self._take_up(mine - ours, await self._load(mine))
        self._metrics.shares_changed.inc()
        self._metrics.partitions.set(len(mine))

    async def _take_up(self, partitions: Collection[int], ledger: Ledger) -> None:
        """Drop what has come of these partitions, and go on where the table stands now."""
        self._ledger = ledger
        self._recalled.clear()
        identity = await self._topic.identity()
        for partition in sorted(partitions):
            self._cut.pop(partition, None)
            self._consumer.take_up(partition, ledger.positions.get(partition), identity)
        await self._check()

    async def _load(self, partitions: Collection[int]) -> Ledger:
        """Return the ledger of the newest version: the keeper's, and what has come since.

        Of the files only the live ones of ``partitions``; ``_recall`` finds the others.
        """

        def load() -> Ledger:
            # In this order: what a keeper folds meanwhile is not of a version that is to come.
            ledger = self._ledger_table.load_live(partitions)
            version = self._table.version()
            if ledger.version > version:
                ledger = Ledger()  # of a table that was made anew since: fold all of this one's
            return bring_up(ledger, self._table, version)

        return await asyncio.to_thread(load)

    async def _reload(self) -> None:
        """Let go of what the ledger says no longer of files that are gone for long."""
        if self._reload_due_s:
            await self.flush()
            await self._take_up((), await self._load(set(self._consumer.following)))
        self._reload_due_s = time.monotonic() + _RELOAD_S

    async def _check(self) -> None:
        """Look whether each partition's topic is still the one that was read."""
        other = self._open_topic()
        try:
            for partition in self._consumer.following:
                await self._consumer.check(partition, other)
            if any(f.replaces for f in self._consumer.following.values()):
                await self._membership.leave()
                await self._topic.close()
                self._topic = self._open_topic()
                self._membership = membership(self._settings, self._topic)
        finally:
            await other.close()
        self._check_due_s = time.monotonic() + self._settings.check_interval_ms / 1000

    # -- the loop ----------------------------------------------------------------------------

    async def turn(self) -> None:
        """Read what has come, and commit if it is time."""
        settings = self._settings
        if self._committing is not None and (self._committing.done() or self._is_full):
            self._metrics.buffer_full.inc(not self._committing.done())
            await self._settle()
        try:
            await self._share()
            if time.monotonic() >= self._reload_due_s:
                await self._reload()
            if time.monotonic() >= self._check_due_s:
                await self._check()
            await self._fetch()
        except CollectorError:
            # What has come can be committed; then look whether the topic is still the same.
            self._check_due_s = 0.0
            await self.flush()
            raise
        self._consumer.take(self._room_bytes, dense=self._topic.dense)
        self._show()
        now = time.monotonic()
        if not any(f.has_news for f in self._consumer.following.values()):
            self._flush_due_s = 0.0
        else:
            self._flush_due_s = self._flush_due_s or now + settings.flush_age_ms / 1000
        if self._cut or self._is_full or (self._flush_due_s and now >= self._flush_due_s):
            self._begin()

    @property
    def _room_bytes(self) -> int:
        """How many bytes the next commit may hold, beside the one that is on its way."""
        cut = sum(following.held_bytes for following in self._cut.values())
        return min(self._settings.flush_bytes, self._settings.buffer_bytes - cut)

    @property
    def _held_bytes(self) -> int:
        cut = sum(following.held_bytes for following in self._cut.values())
        return self._consumer.fetched_bytes + self._consumer.held_bytes + cut

    @property
    def _is_full(self) -> bool:
        """Whether a commit must be made before more can be taken."""
        return self._consumer.held_bytes >= self._room_bytes

    async def _fetch(self) -> None:
        """Read on, unless enough is at hand."""
        wanted = self._consumer.wanted()
        if self._consumer.has_fetched or self._held_bytes >= self._settings.buffer_bytes:
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

    # -- commits, one after the other --------------------------------------------------------

    async def flush(self) -> None:
        """Commit everything that has come."""
        await self._settle()
        while self._begin():
            await self._settle()

    def _begin(self) -> bool:
        """Start a commit unless one is on its way; return whether there is one to wait for.

        What a commit before could not add goes first, and alone.
        """
        if self._committing is None:
            if not self._cut:
                self._cut = self._consumer.cut()
                self._flush_due_s = 0.0
            if not self._cut:
                return False
            self._began_s = time.monotonic()
            work = asyncio.to_thread(self._commit, dict(self._cut))
            self._committing = asyncio.create_task(work)
        return True

    async def _settle(self) -> None:
        """Wait for the commit on its way and go on from what came of it.

        All that it has changed is changed here, where nothing else is being done.
        """
        task = self._committing
        if task is None:
            return
        try:
            await asyncio.wait([task])
            self._committing = None
            assembled = task.result()
        except PositionMoved as error:
            self._metrics.positions_moved.inc()
            _log.warning("another indexer was faster; going on from the table",
                         extra={"error": str(error)})  # fmt: skip
            await self._drop_moved()
            return
        except NotBalanced as error:
            await self._set_suspects_apart(error)
            return
        done, self._cut = self._cut, {}
        self._measure(assembled, time.monotonic() - self._began_s)
        reached = {partition: each.position.end for partition, each in done.items()}
        for partition, position in reached.items():
            await self._topic.forget(partition, position)
        await self._membership.tell(reached)

    async def _drop_moved(self) -> None:
        """Take up anew each partition whose position is no longer ours; keep the others' news.

        Where the table stands at the end of what was cut, the cut is there: an answer was lost.
        """
        ledger = await self._load(set(self._consumer.following))
        moved = []
        for partition, following in self._consumer.following.items():
            known = ledger.positions.get(partition)
            cut = self._cut.get(partition)
            stands = None if known is None else (app_id(known), known.end)
            if stands is None or (cut and cut.based_on == stands):
                continue
            self._cut.pop(partition, None)
            if following.based_on != stands:
                moved.append(partition)
        await self._take_up(moved, ledger)

    async def _set_suspects_apart(self, error: NotBalanced) -> None:
        """Bury the batches to blame as dead letters: nothing is lost, and the rest goes on.

        A partition that does not add up although its batches do is stopped: the fault is ours.
        """
        found = await asyncio.to_thread(suspects, dict(self._cut), self._state())
        if not found:
            raise error
        for partition, reasons in found.items():
            about = {"partition": partition, "batches": reasons, "error": str(error)}
            _log.error("a partition does not add up; setting it apart", extra=about)
            for position, why in reasons.items():
                self._consumer.refuse(partition, position, why)
                self._metrics.refused_batches.inc()
        await self._take_up(found, await self._load(set(self._consumer.following)))
        for partition, reasons in found.items():
            if not reasons:
                self._consumer.following[partition].stopped = str(error)

    def _state(self) -> State:
        hours = self._settings.retention_hours
        now_ns = self._clock()
        return State(self._ledger.files, now_ns, hours * HOUR_NS or None, self._plain_times)

    def _commit(self, cut: Mapping[int, Following]) -> Assembled:
        began_ns = self._clock()
        intakes = [following.intake() for following in cut.values()]
        self._recall(intakes)
        assembled, coverage = assemble_whole(intakes, self._state())
        added = upload(self._bucket, self._table.folder, assembled, coverage, self._uploads)
        if self._clock() - began_ns > _UPLOADS_KEEP_NS:
            raise BucketUnavailable("what was uploaded is so old that it may be swept; once more")
        expected: dict[str, int | None] = {}
        reached: dict[str, int] = {}
        for partition, following in cut.items():
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

    # -- the outside -------------------------------------------------------------------------

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

    def _show(self) -> None:
        self._shown_bytes = self._held_bytes
        self._metrics.buffered_bytes.set(self._shown_bytes)
        self._metrics.stopped.set(sum(bool(f.stopped) for f in self._consumer.following.values()))
        self._metrics.flooded.set(len(self._flooded()))

    def _flooded(self) -> dict[int, int]:
        """Return the letters in a row of each partition that has too many of them."""
        most = self._settings.dead_letters_in_row_max
        return {p: n for p, n in list(self._consumer.letters_in_row.items()) if n >= most}

    def _positions(self) -> dict[int, int]:
        """Return up to where each partition is committed."""
        following = dict(self._consumer.following)
        return {p: self._cut.get(p, f).position.start for p, f in following.items()}

    async def lag(self) -> None:
        """Measure how many records of each partition are not committed."""
        for partition, position in self._positions().items():
            _, end = await self._topic.bounds(partition)
            self._metrics.lag_records.labels(str(partition)).set(end - position)

    async def close(self) -> None:
        """Leave the group and the topic; a commit on its way is waited for, whatever its end."""
        if self._committing is not None:
            await asyncio.wait([self._committing])
            self._committing.exception()
        await self._membership.leave()
        await self._topic.close()
        self._uploads.shutdown()

    def status(self) -> dict[str, Any]:
        """Return what ``/status`` shows; called from another thread."""
        stopped = {p: f.stopped for p, f in dict(self._consumer.following).items() if f.stopped}
        flooded = self._flooded()
        return {
            "process": "indexer",
            "cluster": self._settings.cluster,
            "healthy": not stopped and not flooded,
            "ready": self.ready,
            "positions": self._positions(),
            "buffered_bytes": self._shown_bytes,
            "stopped": stopped,
            "dead_letters_in_row": flooded,
        }
