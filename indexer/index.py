"""The indexer's loop: read, assemble, upload, commit, and only then go on from there.

Positions and trim state come from the table and are taken again whenever somebody else has moved
them. One commit is on its way at a time, and meanwhile the next one is read. What was read and not
committed is in memory only, and is read again after a crash.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from collector.errors import CollectorError, PositionOutOfRange
from collector.topic.interface import Topic
from indexer.assemble import Assembled
from indexer.commit import Committed, Committer, Unbalanced
from indexer.consume import Consumer
from indexer.errors import IndexerError, PositionMoved
from indexer.ledger.ledger import Ledger
from indexer.metrics import IndexerMetrics
from indexer.object_names import dead_letter
from indexer.ownership import Ownership, app_id
from indexer.settings import IndexerSettings
from indexer.share import membership
from indexer.store.bucket import Bucket

_log = logging.getLogger(__name__)
_READ_WAIT_MS = 200
_RELOAD_S = 86_400  # as often as a keeper moves past files out of the live ones


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
        self._metrics = metrics
        self._committer = Committer(settings, bucket, clock)
        self._ledger = Ledger()
        self._looked_up: set[bytes] = set()  # files of which the ledger has what there is
        name = settings.topic.rpartition("/")[2] if "://" in settings.topic else "local"
        self._consumer = Consumer(name, partial(dead_letter, settings.cluster))
        self._membership = membership(settings, self._topic)
        self._committing: asyncio.Task[Committed | Unbalanced] | None = None
        self._began_s = 0.0
        self._shown_bytes = 0
        self._flush_due_s = 0.0
        self._check_due_s = 0.0
        self._reload_due_s = 0.0
        self.ready = False

    # -- whose partitions, and from where on -------------------------------------------------

    async def start(self) -> None:
        """Make the table if need be, and take up the partitions."""
        await asyncio.to_thread(self._committer.make)
        await self._topic.partitions()  # says so if there is no such topic
        await self._share()
        self.ready = True

    async def _share(self) -> None:
        """Let go what is no longer ours, and take up what is; go on with all the rest."""
        mine = await self._membership.mine()
        ours = set(self._consumer.partitions)
        if mine == ours and not self._consumer.in_state(Ownership.TAKING):
            return
        with contextlib.suppress(IndexerError):  # what is not committed now is read again
            await (self.flush() if ours - mine else self._settle())
        for partition in ours - mine:
            self._consumer.drop(partition)
            with contextlib.suppress(KeyError):
                self._metrics.lag_records.remove(str(partition))
        for partition in mine - ours:
            self._consumer.own(partition)
        if mine != ours:
            self._metrics.shares_changed.inc()
            self._metrics.partitions.set(len(mine))
        await self._take_up(await self._load())

    async def _load(self) -> Ledger:
        """Return the ledger as the table has it now, with the files of our partitions."""
        return await asyncio.to_thread(self._committer.load, set(self._consumer.partitions))

    async def _take_up(self, ledger: Ledger) -> None:
        """Go on from this ledger, with each partition to be taken where the table stands in it."""
        self._ledger = ledger
        self._looked_up.clear()
        identity = await self._topic.identity()
        for partition in sorted(each.number for each in self._consumer.in_state(Ownership.TAKING)):
            self._consumer.take_up(partition, ledger.positions.get(partition), identity)
        await self._check()

    async def _reload(self) -> None:
        """Let go of what the ledger says no longer of files that are gone for long."""
        if self._reload_due_s:
            await self.flush()
            await self._take_up(await self._load())
        self._reload_due_s = time.monotonic() + _RELOAD_S

    async def _check(self) -> None:
        """Look whether each partition's topic is still the one that was read."""
        other = self._open_topic()
        try:
            for partition in self._consumer.partitions.values():
                if partition.state is not Ownership.TAKING:
                    await self._consumer.check(partition, other)
            if self._consumer.in_state(Ownership.RESET):
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
            if time.monotonic() >= self._check_due_s or self._consumer.in_state(Ownership.CHECKING):
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
        if not self._consumer.has_news:
            self._flush_due_s = 0.0
        else:
            self._flush_due_s = self._flush_due_s or now + settings.flush_age_ms / 1000
        if self._consumer.cut or self._is_full or (self._flush_due_s and now >= self._flush_due_s):
            self._begin()

    @property
    def _room_bytes(self) -> int:
        """How many bytes the next commit may hold, beside the one that is on its way."""
        return min(
            self._settings.flush_bytes, self._settings.buffer_bytes - self._consumer.cut_bytes
        )

    @property
    def _held_bytes(self) -> int:
        consumer = self._consumer
        return consumer.fetched_bytes + consumer.held_bytes + consumer.cut_bytes

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
            if not self._consumer.cut:
                self._consumer.cut_off()
                self._flush_due_s = 0.0
            cut = self._consumer.cut
            if not cut:
                return False
            self._began_s = time.monotonic()
            work = asyncio.to_thread(self._committer.commit, cut, self._ledger, self._looked_up)
            self._committing = asyncio.create_task(work)
        return True

    async def _settle(self) -> None:
        """Wait for the commit on its way and go on from what came of it.

        All that it has changed is changed here, where nothing else is being done: the thread that
        makes it changes the table alone.
        """
        task = self._committing
        if task is None:
            return
        try:
            await asyncio.wait([task])
            self._committing = None
            done = task.result()
        except PositionMoved as error:
            self._metrics.positions_moved.inc()
            _log.warning("another indexer committed first; going on from the table",
                         extra={"error": str(error)})  # fmt: skip
            await self._void_moved()
            return
        if isinstance(done, Unbalanced):
            await self._set_suspects_apart(done)
            return
        # In a thread: a fold may take a while, and this indexer's group must hear of it meanwhile.
        await asyncio.to_thread(self._fold, done)
        reached = self._consumer.settle()
        self._measure(done.assembled, time.monotonic() - self._began_s)
        for partition, position in reached.items():
            await self._topic.forget(partition, position)
        await self._membership.tell(reached)

    def _fold(self, done: Committed) -> None:
        self._ledger.files.update(done.revived)
        self._looked_up.update(done.looked_up)
        # Nobody else can have committed for these partitions in between, so the trim state is the
        # ledger with what was just added; other writers' work concerns other files.
        self._ledger.apply(done.assembled.coverage, self._ledger.version)

    async def _void_moved(self) -> None:
        """Take up again each partition whose position is no longer ours; keep the others' news.

        Where the table stands at the end of what was cut off, that is there: an answer was lost.
        """
        ledger = await self._load()
        for number, partition in self._consumer.partitions.items():
            known, cut = ledger.positions.get(number), partition.cut
            stands = None if known is None else (app_id(known), known.end)
            if partition.state is Ownership.TAKING or stands is None:
                continue
            if cut is not None and cut.based_on == stands:
                continue  # it goes into the next commit
            if partition.coming.based_on == stands:
                partition.settle()
            else:
                partition.void()
        await self._take_up(ledger)

    async def _set_suspects_apart(self, unbalanced: Unbalanced) -> None:
        """Bury the batches to blame as dead letters: nothing is lost, and the rest goes on.

        A partition that does not balance although its batches do is stopped: the fault is ours.
        """
        error = str(unbalanced.error)
        for number, reasons in unbalanced.suspects.items():
            about = {"partition": number, "batches": reasons, "error": error}
            _log.error(
                "the counts of a partition do not balance; committing it by itself", extra=about
            )
            partition = self._consumer.partitions[number]
            partition.refused.update(reasons)
            self._metrics.refused_batches.inc(len(reasons))
            partition.void()
        await self._take_up(await self._load())
        for number, reasons in unbalanced.suspects.items():
            if not reasons:
                self._consumer.partitions[number].stop(error)

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
        self._metrics.stopped.set(len(self._consumer.in_state(Ownership.STOPPED)))
        self._metrics.flooded.set(len(self._flooded()))

    def _flooded(self) -> dict[int, int]:
        """Return the letters in a row of each partition that has too many of them."""
        most = self._settings.dead_letters_in_row_max
        partitions = dict(self._consumer.partitions)
        return {n: p.letters_in_row for n, p in partitions.items() if p.letters_in_row >= most}

    def _positions(self) -> dict[int, int]:
        """Return up to where each partition is committed."""
        partitions = dict(self._consumer.partitions)
        return {n: p.committed for n, p in partitions.items() if p.state is not Ownership.TAKING}

    async def lag(self) -> None:
        """Measure how many records of each partition are not committed."""
        for partition, position in self._positions().items():
            _, end = await self._topic.bounds(partition)
            self._metrics.lag_records.labels(str(partition)).set(end - position)

    async def close(self) -> None:
        """Leave the group and the topic; a commit on its way is waited for, whatever its end."""
        if self._committing is not None:
            await asyncio.wait([self._committing])
            if not self._committing.cancelled():
                self._committing.exception()
        await self._membership.leave()
        await self._topic.close()
        self._committer.close()

    def status(self) -> dict[str, Any]:
        """Return what ``/status`` shows; called from another thread."""
        partitions = dict(self._consumer.partitions)
        stopped = {n: p.why_stopped for n, p in partitions.items() if p.state is Ownership.STOPPED}
        flooded = self._flooded()
        return {
            "process": "indexer",
            "cluster": self._settings.cluster,
            "alive": True,  # a restart mends neither, and would hold up all other partitions
            "healthy": not stopped and not flooded,
            "ready": self.ready,
            "positions": self._positions(),
            "buffered_bytes": self._shown_bytes,
            "stopped": stopped,
            "dead_letters_in_row": flooded,
        }
