"""One node's collector: scan, read, pack, ship, remember.

Files of the node's containers go in; batches go out to the topic. The checkpoint never runs ahead
of topic and spool, and what cannot be read or sent waits or is reported, never dropped in silence.
"""

import logging
import os
import random
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from collector.files import checkpoint
from collector.files.checkpoint import Checkpoint, FileState, LaneState
from collector.files.discover import Discovery
from collector.files.layout import roots_of
from collector.files.lifetime import Kubelet
from collector.files.place import Place, in_use
from collector.files.tail import ReadLimits, Tail, is_same_content
from collector.files.watch import FileKey, Watch
from collector.inventory import Inventories
from collector.labels.metadata import Metadata
from collector.metrics import CollectorMetrics
from collector.names import SPOOL
from collector.policy.apply import Policy
from collector.read import Reader
from collector.settings import CollectorSettings
from collector.ship.backlog import Backlog
from collector.ship.pack import Sent
from collector.ship.shipper import ShipLimits, Shipper
from collector.ship.spool import Spool
from collector.topic.interface import Topic

_log = logging.getLogger(__name__)
_MS = 1_000_000
_MINUTE_NS = 60_000_000_000
Clock = Callable[[], int]
"""Nanoseconds since 1970."""


class Collector:
    """The state of one run; ``start`` it, then ``turn`` until it is time to ``stop``."""

    def __init__(
        self,
        settings: CollectorSettings,
        topic: Topic,
        metrics: CollectorMetrics,
        *,
        run: bytes,
        clock: Clock = time.time_ns,
    ) -> None:
        """``run`` is 16 random bytes that name this run. Raises SettingError."""
        self._settings = settings
        self._topic = topic
        self._metrics = metrics
        self._clock = clock
        self._run = run
        self._state = Path(settings.state)
        self.policy = Policy(Path(settings.policy) if settings.policy else None, clock)
        chance = random.Random(run)  # noqa: S311  # it spreads requests, and hides nothing
        self.metadata = Metadata(settings.metadata, settings.node, self._state, clock, chance)
        targets = filter(None, settings.link_targets.split(os.pathsep))
        self._discovery = Discovery(roots_of(settings), clock, targets)
        self._acked = 0
        self._saved: tuple[int, ...] = ()
        self._scan_began_ns = 0
        self._before_scan_ns = 0  # of the run before
        self._next_scan_ns = self._next_checkpoint_ns = 0
        self._held_bytes = self._abandoned_bytes = 0
        self._said: set[str] = set()
        self.turned_ns = 0
        self.watch: Watch
        self.backlog: Backlog
        self.shipper: Shipper
        self.reader: Reader
        self.inventories: Inventories

    async def start(self) -> None:
        """Take up what the run before has left, and look at the files for the first time.

        The topic must answer only at the very first start. Raises TopicError, SettingError, and
        OSError if the spool cannot be read.
        """
        settings = self._settings
        before = checkpoint.load(self._state) or Checkpoint()
        self._before_scan_ns = before.scan_began_ns
        place = await self._place(before)
        spool = Spool(self._state / SPOOL)
        level = settings.compression_level
        self.backlog = Backlog(spool, settings.spool_bytes, level, self._clock)
        self.shipper = Shipper(
            self._topic,
            self.backlog,
            (settings.cluster, settings.node, self._run),
            _ship_limits(settings),
            level,
            self._clock,
            self._acknowledged,
            self._kept,
        )
        self.watch = Watch(
            place,
            before.files,
            self._recover(spool, before),
            self.shipper.add,
            seal_quiet_ns=settings.seal_quiet_ms * _MS,
            gone_after_ns=settings.gone_after_ms * _MS,
            scan_late_ns=settings.scan_late_ms * _MS,
        )
        self.reader = Reader(
            self.watch,
            self.shipper,
            ReadLimits(settings.read_bytes, settings.event_bytes, settings.event_wait_ms * _MS),
            Kubelet(
                settings.kubelet_log_bytes,
                settings.kubelet_log_files,
                settings.kubelet_check_ms / 1000,
            ),
            self.policy,
            self._clock,
        )
        intervals_ms = (settings.inventory_interval_ms, settings.inventory_full_interval_ms)
        self.inventories = Inventories(
            self.watch, self.shipper, before, (intervals_ms[0] * _MS, intervals_ms[1] * _MS)
        )
        self.turned_ns = self._clock()
        self._scan()
        # From here on a crash must find this run's number, whose lanes have begun.
        self.save()

    async def _place(self, before: Checkpoint) -> Place:
        settings = self._settings
        later = settings.later_partitions
        entries = in_use(settings.partitions, later, before.partitions, self._clock())
        if entries is None:
            entries = in_use(await self._topic.partitions(), later, (), self._clock()) or ()
        return Place(settings.cluster, settings.node, entries, settings.partition_spread)

    def _recover(self, spool: Spool, before: Checkpoint) -> dict[FileKey, int]:
        """Take up the spool; return up to where it has each file.

        What only it should have had, and has not, is read again.
        """
        records, lost = spool.recover(before.spool)
        if lost:
            _log.error("spooled batches are lost; reading files again", extra={"batches": lost})
            for state in before.files:
                state.distrust_spool()
        ends: dict[FileKey, int] = {}
        for sent in self.shipper.recover(records):
            for name, epoch, end in sent.ends:
                ends[name, epoch] = max(ends.get((name, epoch), 0), end)
        return {} if lost else ends

    async def turn(self) -> bool:
        """Do what is due; return whether there is more to do at once.

        Raises what the topic has failed with, if that was no TopicError.
        """
        now = self._clock()
        if now < self.turned_ns:  # the clock was set back: nothing waits for the old time
            self._next_scan_ns = self._next_checkpoint_ns = 0
            self.inventories.make_due()
        self.turned_ns = now
        if now >= self._next_scan_ns:
            self._scan()
            # What waits behind others in a spool is old when it comes; but one is needed, to say
            # which run this one replaces.
            late = self.shipper.stalled and self.inventories.sent
            if self.inventories.due(now) and not late:
                self.inventories.send(self._scan_began_ns, now)
        await self.shipper.tend()
        # A topic that does not answer stops the reading, never the scans: each new file must be
        # held open before it is deleted.
        shipper = self.shipper
        if not shipper.has_room:
            await shipper.wait_for_room(self.idle_s())
        more = await self.reader.read()
        await shipper.flush()
        if self._clock() >= self._next_checkpoint_ns and self._progress() != self._saved:
            self.save()
        return more or shipper.feeding

    async def learn_limits(self) -> None:
        """Ask the topic what it takes, once it answers; what to change about it, it says itself."""
        limits = await self._topic.limits()
        ours = self.shipper.limits.batch_wire_bytes
        if limits.value_bytes_max < ours:
            self._say_once(
                f"the topic takes at most {limits.value_bytes_max} bytes a record, less than "
                f"batch_wire_bytes {ours}; sending smaller batches"
            )
            self.shipper.lower_batch_bytes(limits.value_bytes_max)

    def _progress(self) -> tuple[int, ...]:
        """Return what changes whenever a checkpoint would be worth its while.

        The time of the last scan alone is worth one a minute: it bounds what a deletion loses.
        """
        watch = self.watch
        minute = self._scan_began_ns // _MINUTE_NS
        counts = (self._acked, self.backlog.kept_batches, watch.changes)
        return *counts, len(watch.tails), len(watch.closed), minute

    def idle_s(self) -> float:
        """Return how long nothing is due, in seconds."""
        wait_ns = self._next_scan_ns - self._clock()
        return min(max(wait_ns / 1e9, 0.0), self._settings.flush_age_ms / 4000)

    async def stop(self) -> bool:
        """Send what was read, within the grace time; return whether the topic has it all."""
        drained = await self.shipper.drain(self._settings.drain_ms / 1000)
        self.save()
        for tail in self.watch.tails.values():
            tail.close()
        return drained

    # -- scans -------------------------------------------------------------------------------

    def _scan(self) -> None:
        began_ns = self._clock()
        found = self._discovery.scan()
        self.watch.apply(found)
        self.watch.account_for_missing(found, self._before_scan_ns)
        self._bound_held(began_ns)
        ready, moved = self._with_news(began_ns)
        self.reader.scanned(ready, moved)
        self.policy.reload()
        self._tell_metadata(began_ns)
        self._next_scan_ns = began_ns + self._settings.scan_interval_ms * _MS
        if not self.watch.errors:
            self._scan_began_ns = found.full_ns
        for path, error in self.watch.errors.items():
            self._say_once(f"cannot read {path}: {error}; allow it, or remove it")
        self._metrics.scan_seconds.observe((self._clock() - began_ns) / 1e9)
        self._metrics.scan_errors.set(len(self.watch.errors))
        self._metrics.files.set(len(self.watch.tails))

    def _tell_metadata(self, now_ns: int) -> None:
        if self.metadata.pods:
            pods = {tail.stream.pod_uid for tail in self.watch.tails.values()}
            pods.update(state.pod_uid for state in self.watch.closed.values())
            for meta in self.metadata.take(pods):
                partition = self.watch.place.of_file(meta.pod_uid, now_ns)
                self.shipper.add_meta(partition, meta)

    def _say_once(self, message: str) -> None:
        if message not in self._said:
            self._said.add(message)
            _log.warning(message)

    def _bound_held(self, now_ns: int) -> None:
        """Let go of deleted files, the largest pod's oldest first, when they hold too much disk."""
        deleted = [tail for tail in self.watch.tails.values() if not tail.linked and tail.file_id]
        held: dict[str, int] = {}
        for tail in deleted:
            held[tail.stream.pod_uid] = held.get(tail.stream.pod_uid, 0) + tail.size
        self._held_bytes = sum(held.values())
        unread = [tail for tail in deleted if tail.read.offset < tail.size]
        while self._held_bytes > self._settings.held_bytes and unread:
            tail = max(unread, key=lambda t: (held[t.stream.pod_uid], -t.moved_ns))
            unread.remove(tail)
            held[tail.stream.pod_uid] -= tail.size
            self._held_bytes -= tail.size
            self._abandoned_bytes += tail.size - tail.read.offset
            self.watch.abandon(tail, now_ns, "deleted files held more than held_bytes")

    def _with_news(self, now_ns: int) -> tuple[list[Tail], list[Tail]]:
        """Return the files to read from and those renamed; name, seal, drop what it is time for."""
        ready, moved = [], []
        for tail in list(self.watch.tails.values()):
            if tail.moved_ns:
                moved.append(tail)
            elif tail.file_id and tail.size == tail.read.offset:
                continue  # idle, as most files are most of the time
            ended = self.watch.ended(tail, now_ns)
            try:
                if not tail.file_id and not self.watch.name(tail, now_ns, ended=ended):
                    if ended and not tail.size:
                        self.watch.drop_unborn(tail.inode)
                elif tail.size == tail.read.offset and not ended:
                    continue
                elif not is_same_content(tail):
                    self.watch.truncated(tail, self._clock())
                elif tail.size != tail.read.offset:
                    tail.size_max = max(tail.size_max, tail.size)
                    ready.append(tail)
                elif tail.safe.offset == tail.size:
                    self.watch.seal(tail)
            except OSError as error:
                self.watch.cannot_read(tail, error)
        return ready, moved

    @property
    def shed_bytes(self) -> int:
        """How many raw bytes were given up, each in a GAP, for want of disk."""
        return self.backlog.shed_bytes + self._abandoned_bytes

    # -- memory ------------------------------------------------------------------------------

    def _acknowledged(self, sent: Sent) -> None:
        for name, epoch, end in sent.ends:
            if tail := self.watch.named.get((name, epoch)):
                tail.acknowledge(end)
            elif state := self.watch.closed.get((name, epoch)):
                state.acknowledge(end)
        for kind, name, epoch in sent.entries:
            self.watch.acknowledged(kind, (name, epoch))
        self._metrics.acked_batches.inc()
        self._acked += 1

    def _kept(self, sent: Sent) -> None:
        for name, epoch, end in sent.ends:
            if tail := self.watch.named.get((name, epoch)):
                tail.keep(end)
        for kind, name, epoch in sent.entries:
            if kind == "seal":
                self.watch.acknowledged(kind, (name, epoch))

    def save(self) -> None:
        """Write the checkpoint; a full disk is said once and waited out."""
        files: list[FileState] = [
            tail.state() for tail in self.watch.tails.values() if tail.file_id
        ]
        files.extend(self.watch.closed.values())
        lanes = [LaneState(p, lane.oldest_unacked) for p, lane in self.shipper.lanes.items()]
        state = Checkpoint(
            run=self._run,
            partitions=list(self.watch.place.entries),
            spool=self.backlog.kept_positions,
            scan_began_ns=self._scan_began_ns,
            lanes=lanes,
            files=files,
        )
        progress = self._progress()
        try:
            checkpoint.save(self._state, state)
            self._saved = progress
            self._metrics.checkpoint_failed.set(0)
        except OSError as error:
            self._metrics.checkpoint_failed.set(1)
            self._say_once(f"cannot write the checkpoint in {self._state}: {error}; going on")
        # A full disk is no reason to keep what fills it: without it, files are read again.
        self.backlog.forget_acked()
        self._next_checkpoint_ns = self._clock() + self._settings.checkpoint_interval_ms * _MS

    def status(self) -> Mapping[str, Any]:
        """Return what ``/status`` shows; called from another thread."""
        shipper = self.shipper
        tails = list(self.watch.tails.values())
        now = self._clock()
        oldest_ns = shipper.handed_ns
        unacked_s = (now - oldest_ns) / 1e9 if oldest_ns else 0.0
        trouble = self._topic.trouble or shipper.trouble
        turning = now - self.turned_ns < self._settings.stuck_ms * _MS
        # A restart helps a collector that is stuck; it does not bring back a topic.
        shipping = bool(trouble) or unacked_s < self._settings.stuck_ms / 1000
        return {
            "process": "collector",
            "cluster": self._settings.cluster,
            "node": self._settings.node,
            "healthy": shipper.failed is None and turning and shipping,
            "ready": self.inventories.sent,
            "trouble": trouble,
            "files": len(tails),
            "unread_bytes": sum(max(t.size - t.read.offset, 0) for t in tails),
            "unacked_bytes": sum(max(t.read.offset - t.acked.offset, 0) for t in tails),
            "oldest_unacked_seconds": round(unacked_s, 3),
            "seconds_until_deletion": _finite(self.reader.seconds_left),
            "held_bytes": self._held_bytes,
            "spool_bytes": self.backlog.spool.bytes,
            "shed_bytes": self.shed_bytes,
            "policy_error": self.policy.error,
            "metadata_error": self.metadata.error,
            "cannot_look_into": [str(path) for path in self.watch.errors],
        }


def _ship_limits(settings: CollectorSettings) -> ShipLimits:
    return ShipLimits(
        batch_raw_bytes=settings.batch_raw_bytes,
        batch_wire_bytes=settings.batch_wire_bytes,
        flush_age_ns=settings.flush_age_ms * _MS,
        unacked_bytes=settings.unacked_bytes,
        spool_after_ns=settings.spool_after_ms * _MS,
    )


def _finite(seconds: float) -> float | None:
    return round(seconds, 1) if seconds < float("inf") else None
