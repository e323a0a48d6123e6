"""One node's collector: scan, read, pack, ship, remember.

Files of the node's containers go in; batches go out to the topic. The checkpoint never runs ahead
of the topic, and what cannot be read or sent waits or is reported, never dropped in silence.
"""

import logging
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from collector import checkpoint
from collector.batch import Inventory, Replaces, Seen, Unborn
from collector.checkpoint import Checkpoint, FileState, LaneState
from collector.discover import Discovery
from collector.metrics import CollectorMetrics
from collector.range import Stream
from collector.settings import CollectorSettings
from collector.ship import Sent, ShipLimits, Shipper
from collector.tail import ReadLimits, Tail, is_same_content, read_range
from collector.topic import Topic
from collector.watch import Place, Watch

_log = logging.getLogger(__name__)
_MS = 1_000_000
_CHECKPOINT_MOST_NS = 60_000_000_000
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
        """``run`` is 16 random bytes that name this run."""
        self._settings = settings
        self._topic = topic
        self._metrics = metrics
        self._clock = clock
        self._run = run
        self._state = Path(settings.state)
        roots = [Path(root) for root in settings.roots.split(os.pathsep)]
        self._discovery = Discovery(roots, clock)
        self._before = Checkpoint()
        self._identity = ""
        self._read_limits = ReadLimits(
            settings.read_bytes, settings.event_bytes, settings.event_wait_ms * _MS
        )
        self._reported: dict[tuple[bytes, int], tuple[int, int, int]] = {}
        self._ready: list[Tail] = []
        self._first_inventory = True
        self._acked = 0
        self._saved: tuple[int, ...] = ()
        self._scan_began_ns = 0
        self._next_scan_ns = self._next_inventory_ns = self._next_checkpoint_ns = 0
        self._next_full_ns = 0
        self._said: set[str] = set()
        self.watch: Watch
        self.shipper: Shipper

    async def start(self) -> None:
        """Take up what the run before has left, and look at the files for the first time."""
        settings = self._settings
        self._before = checkpoint.load(self._state) or Checkpoint()
        self._identity = await self._topic.identity()
        partitions = (
            settings.partitions or self._before.partitions or await self._topic.partitions()
        )
        place = Place(
            settings.cluster,
            settings.node,
            partitions,
            min(settings.partition_spread, partitions),
        )
        self.shipper = Shipper(
            self._topic,
            (settings.cluster, settings.node, self._run),
            ShipLimits(
                settings.batch_raw_bytes,
                settings.batch_wire_bytes,
                settings.flush_age_ms * _MS,
                settings.unacked_bytes,
            ),
            settings.compression_level,
            self._clock,
            self._acknowledged,
        )
        self.watch = Watch(
            place,
            self._before.files,
            self.shipper.add,
            seal_quiet_ns=settings.seal_quiet_ms * _MS,
            gone_after_ns=settings.gone_after_ms * _MS,
            scan_late_ns=settings.scan_late_ms * _MS,
        )
        self._scan()
        # From here on a crash must find this run's number, whose lanes have begun.
        self.save()

    async def turn(self) -> bool:
        """Do what is due; return whether there is more to do at once.

        Raises TopicError once the topic has refused a batch for good.
        """
        if self.shipper.failed is not None:
            raise self.shipper.failed
        now = self._clock()
        if now >= self._next_scan_ns:
            self._scan()
            if now >= self._next_inventory_ns and self.shipper.has_room:
                self._send_inventories()
        # A topic that does not answer stops the reading, never the scans: each new file must be
        # held open before it is deleted.
        if not self.shipper.has_room:
            await self.shipper.wait_for_room(self.idle_s())
        more = await self._read()
        await self.shipper.flush()
        if self._clock() >= self._next_checkpoint_ns and self._progress() != self._saved:
            self.save()
        return more

    def _progress(self) -> tuple[int, ...]:
        """Return what changes whenever a checkpoint would be worth its while.

        The time of the last scan alone is worth one a minute: it bounds what a deletion loses.
        """
        watch = self.watch
        minute = self._scan_began_ns // _CHECKPOINT_MOST_NS
        return self._acked, watch.changes, len(watch.tails), len(watch.closed), minute

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

    # -- reading -----------------------------------------------------------------------------

    def _scan(self) -> None:
        began_ns = self._clock()
        found = self._discovery.scan()
        self.watch.apply(found)
        self.watch.account_for_missing(found, self._before.scan_began_ns)
        self._ready = self._with_news(began_ns)
        self._next_scan_ns = began_ns + self._settings.scan_interval_ms * _MS
        if not self.watch.errors:
            self._scan_began_ns = found.full_ns
        for path, error in self.watch.errors.items():
            self._say_once(f"cannot look into {path}: {error}")
        self._metrics.scan_seconds.observe((self._clock() - began_ns) / 1e9)
        self._metrics.scan_errors.set(len(self.watch.errors))
        self._metrics.files.set(len(self.watch.tails))

    def _say_once(self, message: str) -> None:
        if message not in self._said:
            self._said.add(message)
            _log.warning(message)

    def _with_news(self, now_ns: int) -> list[Tail]:
        """Return the files to read from; name, seal and drop those for which it is time."""
        ready = []
        for tail in list(self.watch.tails.values()):
            if tail.file_id and not tail.moved_ns and tail.size == tail.read.offset:
                continue  # idle, as most files are most of the time
            ended = self.watch.ended(tail, now_ns)
            try:
                if not tail.file_id and not self.watch.name(tail, now_ns, ended=ended):
                    if ended and not tail.size:
                        self.watch.drop_unborn(tail.inode)
                elif tail.size == tail.read.offset and not ended:
                    continue
                elif not is_same_content(tail):
                    self.watch.truncated(tail, now_ns)
                elif tail.size != tail.read.offset:
                    tail.size_max = max(tail.size_max, tail.size)
                    ready.append(tail)
                elif tail.acked.offset == tail.size:
                    self.watch.seal(tail)
            except OSError as error:
                self.watch.errors[tail.path] = str(error)
                self._say_once(f"cannot read {tail.path}: {error}")
        return ready

    async def _read(self) -> bool:
        """Take one range of each file that has news; return whether any has more."""
        more = []
        now = self._clock()
        for tail in self._ready:
            if not self.shipper.has_room:
                more.append(tail)
                continue
            try:
                if not is_same_content(tail):
                    self.watch.truncated(tail, now)
                    continue
                taken = read_range(tail, self._read_limits, now, ended=self.watch.ended(tail, now))
            except OSError as error:
                self._say_once(f"cannot read {tail.path}: {error}")
                continue
            if taken is not None:
                self.shipper.add(tail.partition, tail.stream, taken)
                self._metrics.read_bytes.inc(len(taken.data))
                if tail.read.offset < tail.size:
                    more.append(tail)
                await self.shipper.flush()
        self._ready = more
        return bool(more) and self.shipper.has_room

    # -- control entries ---------------------------------------------------------------------

    def _send_inventories(self) -> None:
        """Tell each partition that the node can reach what the last full scan found."""
        now = self._clock()
        full = self._first_inventory or now >= self._next_full_ns
        by_partition: dict[int, list[Tail]] = {p: [] for p in self.watch.place.reachable()}
        unborn = []
        for tail in self.watch.tails.values():
            if tail.file_id:
                by_partition.setdefault(tail.partition, []).append(tail)
            elif tail.size:
                unborn.append(Unborn(tail.stream, tail.size))
        partitions = tuple(sorted(by_partition))
        old_lanes = {lane.partition: lane.oldest_unacked for lane in self._before.lanes}
        for partition, tails in by_partition.items():
            changed = [tail for tail in tails if full or self._changed(tail)]
            seen = [self._seen(tail) for tail in changed]
            streams = {tail.file_id: tail.stream for tail in changed}
            if full:
                closed = [s for s in self.watch.closed.values() if s.partition == partition]
                seen += [Seen(s.file_id, s.epoch, s.size, s.acked, s.acked) for s in closed]
                streams |= {state.file_id: state.stream for state in closed}
            replaces = None
            if self._first_inventory and self._before.run:
                replaces = Replaces(self._before.run, old_lanes.get(partition, 0))
            inventory = Inventory(
                scan_began_ns=self._scan_began_ns,
                partitions=partitions,
                full=full,
                files=tuple(seen),
                unborn=tuple(u for u in unborn if self._goes_to(u.stream, partition)),
                unchanged=len(tails) - len(changed),
                errors=tuple(
                    # A name that is no UTF-8 cannot be part of a batch.
                    f"{path}: {error}".encode(errors="backslashreplace").decode()
                    for path, error in self.watch.errors.items()
                ),
                replaces=replaces,
            )
            self.shipper.add_inventory(partition, inventory, streams)
        if full:
            self._reported = {k: v for k, v in self._reported.items() if k in self.watch.named}
            self._next_full_ns = now + self._settings.inventory_full_interval_ms * _MS
        self._next_inventory_ns = now + self._settings.inventory_interval_ms * _MS
        self._first_inventory = False

    def _goes_to(self, stream: Stream, partition: int) -> bool:
        return self.watch.place.of_pod(stream.pod_uid) == partition

    def _changed(self, tail: Tail) -> bool:
        seen = (tail.size, tail.read.offset, tail.acked.offset)
        return self._reported.get((tail.file_id, tail.epoch)) != seen

    def _seen(self, tail: Tail) -> Seen:
        key = (tail.file_id, tail.epoch)
        self._reported[key] = (tail.size, tail.read.offset, tail.acked.offset)
        return Seen(*key, *self._reported[key])

    # -- memory ------------------------------------------------------------------------------

    def _acknowledged(self, sent: Sent) -> None:
        for name, epoch, end in sent.ends:
            if tail := self.watch.named.get((name, epoch)):
                tail.acknowledge(end)
        for entry in sent.entries:
            self.watch.acknowledged(entry)
        self._metrics.acked_batches.inc()
        self._acked += 1

    def save(self) -> None:
        """Write the checkpoint; a full disk is said once and waited out."""
        files: list[FileState] = [
            tail.state() for tail in self.watch.tails.values() if tail.file_id
        ]
        files.extend(self.watch.closed.values())
        lanes = [LaneState(p, lane.oldest_unacked) for p, lane in self.shipper.lanes.items()]
        state = Checkpoint(
            run=self._run,
            topic=self._identity,
            partitions=self.watch.place.partitions,
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
        self._next_checkpoint_ns = self._clock() + self._settings.checkpoint_interval_ms * _MS

    def status(self) -> Mapping[str, Any]:
        """Return what ``/status`` shows; called from another thread."""
        tails = list(self.watch.tails.values())
        oldest_ns = self.shipper.oldest_unacked_ns()
        unacked_s = (self._clock() - oldest_ns) / 1e9 if oldest_ns else 0.0
        return {
            "process": "collector",
            "cluster": self._settings.cluster,
            "node": self._settings.node,
            "healthy": self.shipper.failed is None,
            "ready": not self._first_inventory,
            "files": len(tails),
            "unread_bytes": sum(max(t.size - t.read.offset, 0) for t in tails),
            "unacked_bytes": sum(max(t.read.offset - t.acked.offset, 0) for t in tails),
            "oldest_unacked_seconds": round(unacked_s, 3),
            "cannot_look_into": [str(path) for path in self.watch.errors],
        }
