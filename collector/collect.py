"""One node's collector: scan, read, pack, ship, remember.

Files of the node's containers go in; batches go out to the topic. The checkpoint never runs ahead
of topic and spool, and what cannot be read or sent waits or is reported, never dropped in silence.
"""

import asyncio
import logging
import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from collector.durable import to_its_end
from collector.file_names import SPOOL
from collector.files import checkpoint
from collector.files.checkpoint import Checkpoint, FileKey, LaneState
from collector.files.discover import Discovery, ScanLimits
from collector.files.layout import roots_of
from collector.files.life_cycle import Stage
from collector.files.placement import Placement, in_use
from collector.files.tail import ReadLimits
from collector.files.time_left import Rotation
from collector.files.watch import Watch
from collector.inventory import Inventories
from collector.labels.metadata import Metadata
from collector.metrics import CollectorMetrics
from collector.policy.apply import Policy
from collector.read import Reader
from collector.settings import CollectorSettings
from collector.ship.backlog import Backlog
from collector.ship.pack import Sent
from collector.ship.packer import ShipLimits
from collector.ship.shipper import Shipper
from collector.ship.spool import Spool
from collector.topic.interface import Topic

_log = logging.getLogger(__name__)
_MS = 1_000_000
_MINUTE_NS = 60_000_000_000
_HOUR_NS = 60 * _MINUTE_NS
Clock = Callable[[], int]
"""Nanoseconds since 1970."""


class _Inputs(NamedTuple):
    """What a collector is told besides its settings: rules, labels, which files there are."""

    policy: Policy
    metadata: Metadata
    discovery: Discovery


class _Saving(NamedTuple):
    """A checkpoint on its way to the disk, and how far everything was when it was taken."""

    state: Checkpoint
    progress: tuple[int, ...]
    acked: int  # batches of the spool


def _inputs(settings: CollectorSettings, run: bytes, clock: Clock) -> _Inputs:
    """Return what the settings name, without asking anybody. Raises SettingError."""
    chance = random.Random(run)  # noqa: S311  # it spreads requests, and hides nothing
    targets = filter(None, settings.link_targets.split(os.pathsep))
    limits = ScanLimits(settings.depth_max, settings.directories_max)
    return _Inputs(
        Policy(Path(settings.policy) if settings.policy else None, clock),
        Metadata(settings.metadata, settings.node, Path(settings.state), clock, chance),
        Discovery(roots_of(settings), clock, targets, limits=limits),
    )


class Collector:
    """The state of one run, once it has ``started``; ``turn`` it until it is time to ``stop``."""

    @classmethod
    async def started(
        cls,
        settings: CollectorSettings,
        topic: Topic,
        metrics: CollectorMetrics,
        *,
        run: bytes,
        clock: Clock = time.time_ns,
    ) -> "Collector":
        """Take up what the run before has left, and look at the files for the first time.

        ``run`` is 16 random bytes that name this run. The topic must answer only at the very first
        start. Raises TopicError, SettingError, and OSError if the spool cannot be read; no file is
        open then.
        """
        given = _inputs(settings, run, clock)
        before = checkpoint.load(Path(settings.state)) or Checkpoint()
        placement = await _placement(settings, topic, before, clock)
        collector = cls(settings, topic, metrics, run, clock, given, before, placement)
        try:
            collector._scan()
            # From here on a crash must find this run's number, whose lanes have begun.
            collector.save()
        except BaseException:
            collector.watch.close()
            raise
        return collector

    def __init__(
        self,
        settings: CollectorSettings,
        topic: Topic,
        metrics: CollectorMetrics,
        run: bytes,
        clock: Clock,
        given: _Inputs,
        before: Checkpoint,
        placement: Placement,
    ) -> None:
        """Put the parts together; ``started`` is for everybody else."""
        self._settings = settings
        self._topic = topic
        self._metrics = metrics
        self._clock = clock
        self._run = run
        self._state = Path(settings.state)
        self.policy, self.metadata, self._discovery = given
        self._acked = 0
        self._saved: tuple[int, ...] = ()
        self._scan_began_ns = 0
        self._whole_scan_ns = before.scan_began_ns  # of the last one that looked into everything
        self._before_scan_ns = before.scan_began_ns  # the same of the run before
        self._next_scan_ns = self._next_checkpoint_ns = 0
        self._held_bytes = self._abandoned_bytes = 0
        self._said: dict[str, int] = {}  # until when it was so
        self.turned_ns = clock()
        spool = Spool(self._state / SPOOL)
        level = settings.compression_level
        self.backlog = Backlog(spool, settings.spool_bytes, level, clock)
        self.shipper = Shipper(
            topic,
            self.backlog,
            (settings.cluster, settings.node, run),
            _ship_limits(settings),
            level,
            clock,
            self._acknowledged,
            self._spooled,
        )
        self.watch = Watch(
            placement,
            before.files,
            before.copies,
            _recover(self.shipper, spool, before),
            self.shipper.add,
            clock,
            seal_quiet_ns=settings.seal_quiet_ms * _MS,
            gone_after_ns=settings.gone_after_ms * _MS,
            scan_late_ns=settings.scan_late_ms * _MS,
        )
        self.reader = Reader(
            self.watch,
            self.shipper,
            _read_limits(settings),
            _rotation(settings),
            self.policy,
            clock,
        )
        intervals_ms = (settings.inventory_interval_ms, settings.inventory_full_interval_ms)
        self.inventories = Inventories(
            self.watch, self.shipper, before, (intervals_ms[0] * _MS, intervals_ms[1] * _MS)
        )

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
            saving = self._saving()
            failure = await to_its_end(asyncio.to_thread(self._write, saving))  # a disk may be slow
            self._note_saved(saving, failure)
        return more or shipper.feeding

    async def learn_limits(self) -> None:
        """Ask the topic what it takes, once it answers; what to change about it, it says itself."""
        limits = await self._topic.limits()
        ours = self.shipper.limits.batch_wire_bytes
        if limits.value_bytes_max < ours:
            self._say_once(
                f"the topic accepts at most {limits.value_bytes_max} bytes a record, less than "
                f"batch_wire_bytes {ours}; sending smaller batches"
            )
            self.shipper.lower_batch_bytes(limits.value_bytes_max)

    def _progress(self) -> tuple[int, ...]:
        """Return what changes whenever a checkpoint would be worth its while.

        The time of the last scan alone is worth one a minute: it bounds what a deletion loses.
        """
        watch = self.watch
        minute = self._scan_began_ns // _MINUTE_NS
        counts = (self._acked, self.backlog.spooled_batches, watch.changes)
        return *counts, len(watch.tails), len(watch.files.closed), minute

    def idle_s(self) -> float:
        """Return how long nothing is due, in seconds."""
        wait_ns = self._next_scan_ns - self._clock()
        return min(max(wait_ns / 1e9, 0.0), self._settings.flush_age_ms / 4000)

    async def stop(self) -> bool:
        """Send what was read, within the grace time; return whether the topic has it all.

        However it ends, what has been sent by then is remembered.
        """
        try:
            return await self.shipper.drain(self._settings.drain_ms / 1000)
        finally:
            self.save()
            self.watch.close()

    # -- scans -------------------------------------------------------------------------------

    def _scan(self) -> None:
        began_ns = self._clock()
        found = self._discovery.scan(relist=bool(self.watch.errors))
        self.watch.apply(found)
        self.watch.account_for_missing(found.began_ns, self._before_scan_ns)
        self._bound_held(began_ns)
        self.reader.scanned(*self.watch.advance(began_ns))
        self.policy.reload()
        self._tell_metadata(began_ns)
        self._next_scan_ns = began_ns + self._settings.scan_interval_ms * _MS
        self._scan_began_ns = found.full_ns
        if not self.watch.errors:
            self._whole_scan_ns = found.full_ns
        for place in self.watch.errors.values():
            self._say_once(f"cannot read {place}; allow it, or remove it")
        for place in self.watch.links.values():
            self._say_once(str(place))
        if self._said:  # what has come and gone is said again an hour later
            self._said = {m: at for m, at in self._said.items() if began_ns - at < _HOUR_NS}
        self._metrics.scan_seconds.observe((self._clock() - began_ns) / 1e9)
        self._metrics.scan_errors.set(len(self.watch.errors))
        self._metrics.files.set(len(self.watch.tails))

    def _tell_metadata(self, now_ns: int) -> None:
        if self.metadata.pods:
            pods = {tail.stream.pod_uid for tail in self.watch.tails.values()}
            pods.update(closed.state.pod_uid for closed in self.watch.files.closed.values())
            for meta in self.metadata.take(pods):
                partition = self.watch.placement.of_file(meta.pod_uid, now_ns)
                self.shipper.add_meta(partition, meta)

    def _say_once(self, message: str) -> None:
        if message not in self._said:
            _log.warning(message)
        self._said[message] = self._clock()

    def _bound_held(self, now_ns: int) -> None:
        """Let go of deleted files, the largest pod's oldest first, when they hold too much disk."""
        deleted = [
            tail
            for tail in self.watch.tails.values()
            if not tail.linked and tail.stage is not Stage.UNBORN
        ]
        held: dict[str, int] = {}
        for tail in deleted:
            held[tail.stream.pod_uid] = held.get(tail.stream.pod_uid, 0) + tail.size
        self._held_bytes = sum(held.values())
        unread = [tail for tail in deleted if tail.read_mark.offset < tail.size]
        while self._held_bytes > self._settings.held_bytes and unread:
            tail = max(unread, key=lambda t: (held[t.stream.pod_uid], -t.moved_ns))
            unread.remove(tail)
            held[tail.stream.pod_uid] -= tail.size
            self._held_bytes -= tail.size
            self._abandoned_bytes += tail.size - tail.read_mark.offset
            self.watch.abandon(tail, now_ns, "deleted files held more than held_bytes")

    @property
    def shed_bytes(self) -> int:
        """How many raw bytes were given up, each in a GAP, for want of disk."""
        return self.backlog.shed_bytes + self._abandoned_bytes

    # -- memory ------------------------------------------------------------------------------

    def _acknowledged(self, sent: Sent) -> None:
        self.watch.acknowledged(sent.ends, sent.entries)
        self._metrics.acked_batches.inc()
        self._acked += 1

    def _spooled(self, sent: Sent) -> None:
        self.watch.spooled(sent.ends, sent.entries)

    def save(self) -> None:
        """Write the checkpoint; a full disk is said once and waited out."""
        saving = self._saving()
        self._note_saved(saving, self._write(saving))

    def _saving(self) -> _Saving:
        lanes = [LaneState(p, lane.oldest_unacked) for p, lane in self.shipper.lanes.items()]
        state = Checkpoint(
            run=self._run,
            partitions=list(self.watch.placement.entries),
            spool=self.backlog.spooled_positions,
            scan_began_ns=self._whole_scan_ns,
            lanes=lanes,
            files=self.watch.states(),
            copies=self.watch.files.sealed_copies(),
        )
        return _Saving(state, self._progress(), self.backlog.acked)

    def _write(self, saving: _Saving) -> OSError | None:
        try:
            checkpoint.save(self._state, saving.state)
        except OSError as error:
            return error
        return None

    def _note_saved(self, saving: _Saving, failure: OSError | None) -> None:
        self._metrics.checkpoint_failed.set(failure is not None)
        if failure is None:
            self._saved = saving.progress
        else:
            self._say_once(f"cannot write the checkpoint in {self._state}: {failure}; going on")
        # A full disk is no reason to keep what fills it: without it, files are read again.
        self.backlog.forget_acked(saving.acked)
        self._next_checkpoint_ns = self._clock() + self._settings.checkpoint_interval_ms * _MS

    def alive(self) -> dict[str, Any]:
        """Return whether it is ``healthy`` and ``ready`` as of now; any thread may ask."""
        shipper = self.shipper
        stuck_s = self._settings.stuck_ms / 1000
        turning = self._clock() - self.turned_ns < stuck_s * 1e9
        # A restart helps a collector that is stuck; it does not bring back a topic.
        shipping = bool(self._trouble) or self._unacked_s < stuck_s
        return {
            "healthy": shipper.failed is None and turning and shipping,
            "ready": self.inventories.sent,
        }

    @property
    def _trouble(self) -> str:
        return self._topic.trouble or self.shipper.trouble

    @property
    def _unacked_s(self) -> float:
        oldest_ns = self.shipper.handed_ns
        return (self._clock() - oldest_ns) / 1e9 if oldest_ns else 0.0

    def status(self) -> dict[str, Any]:
        """Return what ``/status`` shows. It looks at what turns change: no other thread may ask."""
        tails = self.watch.tails.values()
        return {
            "process": "collector",
            "cluster": self._settings.cluster,
            "node": self._settings.node,
            **self.alive(),
            "trouble": self._trouble,
            "files": len(tails),
            "unread_bytes": sum(max(t.size - t.read_mark.offset, 0) for t in tails),
            "unacked_bytes": sum(max(t.read_mark.offset - t.acked_mark.offset, 0) for t in tails),
            "oldest_unacked_seconds": round(self._unacked_s, 3),
            "seconds_until_deletion": _finite(self.reader.seconds_left),
            "held_bytes": self._held_bytes,
            "spool_bytes": self.backlog.spool.bytes,
            "shed_bytes": self.shed_bytes,
            "policy_error": self.policy.error,
            "metadata_error": self.metadata.error,
            "cannot_look_into": [each.path for each in self.watch.errors.values()],
            "not_followed": [each.path for each in self.watch.links.values()],
        }


async def _placement(
    settings: CollectorSettings, topic: Topic, before: Checkpoint, clock: Clock
) -> Placement:
    later = settings.later_partitions
    entries = in_use(settings.partitions, later, before.partitions, clock())
    if entries is None:
        entries = in_use(await topic.partitions(), later, (), clock()) or ()
    return Placement(settings.cluster, settings.node, entries, settings.partition_spread)


def _recover(shipper: Shipper, spool: Spool, before: Checkpoint) -> dict[FileKey, int]:
    """Take up the spool; return up to where it has each file.

    What only it should have had, and has not, is read again.
    """
    records, lost = spool.recover(before.spool)
    if lost:
        _log.error("spooled batches are lost; reading files again", extra={"batches": lost})
        for state in before.files:
            state.distrust_spool()
    ends: dict[FileKey, int] = {}
    for sent in shipper.recover(records):
        for name, epoch, end in sent.ends:
            ends[name, epoch] = max(ends.get((name, epoch), 0), end)
    return {} if lost else ends


def _read_limits(settings: CollectorSettings) -> ReadLimits:
    return ReadLimits(settings.read_bytes, settings.event_bytes, settings.event_wait_ms * _MS)


def _rotation(settings: CollectorSettings) -> Rotation:
    return Rotation(
        settings.kubelet_log_bytes, settings.kubelet_log_files, settings.kubelet_check_ms / 1000
    )


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
