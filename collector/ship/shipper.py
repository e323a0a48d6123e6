"""From packed batches to acknowledged ones, one lane per partition.

Each batch gets the next number of its lane and goes to the topic at once, or into the spool while
the topic does not keep up, and from there in the same order. Acknowledgements come back in any
order and go out in the order of the numbers, so whoever hears of one knows that everything before
it is in the topic too. A batch leaves memory or spool only after that.
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import zstandard

from collector.errors import BatchTooLarge, TopicError
from collector.ship.backlog import Backlog
from collector.ship.batch_state import BatchState, Event
from collector.ship.lane import IN_THE_SPOOL, Lane, PendingBatch
from collector.ship.pack import Entry, Pack, Sent, encode_parts, halves, sent
from collector.topic.interface import Record, Topic
from collector.wire import batch as wire
from collector.wire.batch import Batch, Inventory, Meta
from collector.wire.range import Range, Stream

Report = Callable[[Sent], None]
_RETRY_NS = 2_000_000_000

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ShipLimits:
    """A batch is closed at ``batch_raw_bytes`` or ``flush_age_ns``; none is sent that is larger
    than ``batch_wire_bytes``; no more is read while ``unacked_bytes`` are on their way. Batches go
    to the spool once one has been on its way for ``spool_after_ns``.
    """

    batch_raw_bytes: int
    batch_wire_bytes: int
    flush_age_ns: int
    unacked_bytes: int
    spool_after_ns: int


class Shipper:
    """All lanes of one run, and what the spool holds of runs before."""

    def __init__(
        self,
        topic: Topic,
        backlog: Backlog,
        header: tuple[str, str, bytes],
        limits: ShipLimits,
        level: int,
        clock: Callable[[], int],
        acknowledged: Report,
        spooled: Report,
    ) -> None:
        """``header`` is (cluster, node, run). ``acknowledged`` hears of each batch that the topic
        has, ``spooled`` of each that the spool has; both in the order of a lane.
        """
        self._topic = topic
        self.backlog = backlog
        self._cluster, self._node, self._run = header
        self.limits = limits
        self._clock = clock
        self._acknowledged = acknowledged
        self._spooled = spooled
        self._compressor = zstandard.ZstdCompressor(level=level)
        self._room = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._refused: deque[PendingBatch] = deque()  # to be handed to the topic again
        self._retry_ns = 0
        self._handed_bytes = 0
        self.handed_ns = 0  # since when the topic has the oldest batch, as of the last `tend`
        self.failed: BaseException | None = None
        self.trouble = ""  # what the topic last refused a batch with
        self.urgent = False  # what waits in files will soon be deleted
        self.lanes: dict[int, Lane] = {}
        self.old_lanes: dict[tuple[bytes, int], Lane] = {}
        self.unacked_bytes = self.wire_bytes = 0
        self.batches = 0

    def recover(self, records: Sequence[Record]) -> list[Sent]:
        """Take up what the spool holds of runs before; return what to remember of each batch."""
        lanes, found = self.backlog.recover(records)
        for lane in lanes:
            self.old_lanes[lane.run, lane.partition] = lane
            self.unacked_bytes += sum(pending.wire_bytes for pending in lane.pending.values())
        return found

    def spooled_numbers(self, run: bytes, partition: int) -> tuple[int, ...]:
        """Return the numbers of a lane that the spool still holds."""
        lane = self.old_lanes.get((run, partition))
        return tuple(lane.pending) if lane else ()

    # -- from entries to batches ---------------------------------------------------------------

    def lane(self, partition: int) -> Lane:
        """Return the lane of a partition."""
        return self.lanes.setdefault(partition, Lane(self._run, partition))

    def add(self, partition: int, stream: Stream, entry: Range | Entry) -> None:
        """Put a range or a control entry of one file into the partition's open pack."""
        self.lane(partition).pack.add(stream, entry, self._clock())

    def add_meta(self, partition: int, meta: Meta) -> None:
        """Put what is known of a pod into the partition's open pack."""
        self.lane(partition).pack.add_meta(meta, self._clock())

    def add_inventory(
        self, partition: int, inventory: Inventory, files: dict[bytes, Stream]
    ) -> None:
        """Put an inventory into the partition's open pack, which is then due."""
        pack = self.lane(partition).pack
        pack.files.update(files)
        pack.inventory = inventory
        pack.opened_ns = 1

    def lower_batch_bytes(self, wire_bytes: int) -> None:
        """Make no larger batches from now on."""
        self.limits = replace(self.limits, batch_wire_bytes=wire_bytes)

    @property
    def has_room(self) -> bool:
        """Whether more may be read: what is on its way, or the spool, is below its limit."""
        if self.spooling and not self.backlog.failed:
            return self.backlog.has_room
        return not self.pressed

    @property
    def pressed(self) -> bool:
        """Whether the topic takes less than is read."""
        return self._handed_bytes >= self.limits.unacked_bytes

    def may_displace(self, pod: str) -> bool:
        """Whether the full spool makes room for a pod that is about to lose lines."""
        return self.spooling and self.backlog.may_displace(pod, self.limits.batch_raw_bytes)

    async def wait_for_room(self, timeout_s: float) -> None:
        """Wait until the topic has taken something, but not for long."""
        self._room.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._room.wait(), timeout_s)

    async def flush(self, *, everything: bool = False) -> None:
        """Send the batches that are due, or all."""
        if self.failed is not None:
            raise self.failed
        for lane in list(self.lanes.values()):
            pack = lane.pack
            due = (
                everything
                or pack.raw_bytes >= self.limits.batch_raw_bytes
                # Also if the clock was set back meanwhile.
                or not 0 <= self._clock() - pack.opened_ns < self.limits.flush_age_ns
            )
            if due and not pack.empty:
                lane.pack = Pack()
                await self._send(lane, pack)

    async def _send(self, lane: Lane, pack: Pack) -> None:
        empty = Batch(
            cluster=self._cluster,
            node=self._node,
            run=self._run,
            partition=lane.partition,
            sequence=0,
            oldest_unacked=0,
            created_ns=self._clock(),
            files={},
        )
        for batch, data in self._encoded(lane, pack.batch(empty)):
            headers = wire.record_headers(batch)
            pending = PendingBatch(lane, batch.sequence, len(data), headers, sent(batch), data)
            lane.put(pending)
            self.unacked_bytes += len(data)
            self.wire_bytes += len(data)
            self.batches += 1
            if not (self.spooling and await self._spool(pending)):
                await self._hand_over(pending)

    def _encoded(self, lane: Lane, batch: Batch) -> Iterator[tuple[Batch, bytes]]:
        """Yield ``batch`` numbered and encoded, in as many pieces as its wire bytes ask for."""
        oldest = lane.oldest_unacked
        numbered = replace(batch, sequence=lane.next_sequence, oldest_unacked=oldest)
        data = wire.encode(numbered, self._compressor)
        if len(data) > self.limits.batch_wire_bytes and (pieces := halves(batch)):
            for piece in pieces:
                yield from self._encoded(lane, piece)
            return
        lane.next_sequence += 1
        yield numbered, data

    # -- to the topic --------------------------------------------------------------------------

    async def _hand_over(self, pending: PendingBatch) -> None:
        """Give a batch to the topic; whatever it says to that, the batch stays."""
        pending.move(Event.HAND)
        pending.handed_ns = self._clock()
        self._handed_bytes += pending.wire_bytes
        await self._append(pending, [pending.value])

    async def _append(self, pending: PendingBatch, values: Sequence[bytes]) -> None:
        pending.tries += 1
        pending.left = len(values)
        tries = pending.tries
        for value in values:
            try:
                future = await self._topic.append(pending.lane.partition, value, pending.headers)
            except TopicError as error:
                if tries == pending.tries:  # no part before this one was refused meanwhile
                    self._failed(pending, error)
                return
            future.add_done_callback(partial(self._done, pending, tries))

    def _failed(self, pending: PendingBatch, error: TopicError) -> None:
        pending.tries += 1  # what is still to come of this try does not count
        if isinstance(error, BatchTooLarge):
            task = asyncio.create_task(self._send_parts(pending, error.size))
            self._tasks.add(task)
            task.add_done_callback(self._ended)
        else:
            self._refuse(pending, error)

    def _refuse(self, pending: PendingBatch, error: TopicError) -> None:
        """Remember a batch that the topic did not take, to try again."""
        if str(error) != self.trouble:
            self.trouble = str(error)
            _log.error("the topic did not take a batch; retrying", extra={"error": self.trouble})
        pending.move(Event.REFUSE)
        self._handed_bytes -= pending.wire_bytes
        self._refused.append(pending)
        self._retry_ns = self._clock() + _RETRY_NS

    def _done(self, pending: PendingBatch, tries: int, future: "asyncio.Future[int]") -> None:
        self._room.set()
        if future.cancelled() or tries != pending.tries:
            return
        error = future.exception()
        if isinstance(error, TopicError):
            self._failed(pending, error)
        elif error is not None:
            self.failed = self.failed or error
        else:
            pending.left -= 1
            if not pending.left:
                pending.move(Event.ACK)
                if not self._refused:
                    self.trouble = ""
                self._settle(pending.lane)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.failed = self.failed or error
            self._room.set()

    async def _send_parts(self, pending: PendingBatch, refused: int) -> None:
        """Send a batch in parts, one of ``refused`` bytes being too large; it is acknowledged when
        all of them are.
        """
        try:
            limit = min((await self._topic.limits()).value_bytes_max, refused // 2)
        except TopicError:
            limit = refused // 2
        batch = wire.decode(pending.value, zstandard.ZstdDecompressor())
        parts = encode_parts(batch, limit, self._compressor)
        _log.warning(
            "the topic takes no batch as large as this; sending it in parts",
            extra={"bytes": pending.wire_bytes, "parts": len(parts)},
        )
        await self._append(pending, parts)

    def _settle(self, lane: Lane) -> None:
        """Report the batches that the topic has now with all before them."""
        for pending in lane.settled():
            self.unacked_bytes -= pending.wire_bytes
            self._handed_bytes -= pending.wire_bytes
            self.backlog.settled(pending)
            reported = pending.number < lane.next_spooled
            # What a lost batch held is known only as long as it was not reported as spooled.
            if pending.state is not BatchState.LOST or not reported:
                self._acknowledged(pending.sent)
            pending.move(Event.SETTLE)
        self._report_spooled(lane)

    # -- the spool -----------------------------------------------------------------------------

    @property
    def spooling(self) -> bool:
        """Whether new batches go to the spool: the topic does not keep up."""
        return bool(self.backlog.unfed) or self.urgent or self.stalled

    @property
    def stalled(self) -> bool:
        """Whether the topic has let a batch wait for too long."""
        if self._refused:
            return True
        since = self.oldest_handed_ns()
        return bool(since) and self._clock() - since >= self.limits.spool_after_ns

    def oldest_handed_ns(self) -> int:
        """Return since when the topic has had the oldest batch that it has not taken; 0: none."""
        found = 0
        for lane in (*self.lanes.values(), *self.old_lanes.values()):
            if (first := lane.first) is not None and first.state.handed:
                found = min(found or first.handed_ns, first.handed_ns)
        return found

    @property
    def feeding(self) -> bool:
        """Whether the topic takes at once what the spool holds."""
        return bool(self.backlog.unfed) and not (self.stalled or self.pressed)

    async def tend(self) -> None:
        """Do for the spool what is due: save what the topic does not take, feed what it does."""
        self.handed_ns = self.oldest_handed_ns()
        if self.stalled or self.urgent:
            await self._spool_all()
        if self._refused and self._clock() >= self._retry_ns:
            for _ in range(len(self._refused)):
                await self._hand_over(self._refused.popleft())
        while self.feeding:
            await self._feed(self.backlog.unfed.popleft())

    async def _spool_all(self) -> None:
        """Write into the spool what so far is in memory only, as far as there is room."""
        for lane in list(self.lanes.values()):
            for number in range(lane.next_spooled, lane.next_sequence):
                pending = lane.pending.get(number)
                if pending is None or pending.state.in_spool:
                    continue
                if not self.has_room or not await self._spool(pending):
                    return

    async def _spool(self, pending: PendingBatch) -> bool:
        spooled = await self.backlog.put(pending)
        self._report_spooled(pending.lane)
        return spooled

    def _report_spooled(self, lane: Lane) -> None:
        for pending in lane.newly_spooled():
            self._spooled(pending.sent)
            if pending.state in (BatchState.SPOOLED, BatchState.LOST):
                pending.sent = IN_THE_SPOOL

    async def _feed(self, pending: PendingBatch) -> None:
        size = self.backlog.spool.size(pending.position)
        self.unacked_bytes += size - pending.wire_bytes  # it may have shed something
        pending.wire_bytes = size
        if await self.backlog.fetch(pending):
            await self._hand_over(pending)
            return
        # Its number will be missing in the lane, and so prove what is lost.
        _log.error("a spooled batch cannot be read; it is lost", extra={"number": pending.number})
        pending.move(Event.LOSE)
        self._handed_bytes += pending.wire_bytes
        self._settle(pending.lane)

    async def drain(self, grace_s: float) -> bool:
        """Send everything and wait for the topic; return whether it has taken it all.

        What it has not taken within the time goes to the spool, as far as there is room.
        """
        try:
            async with asyncio.timeout(grace_s):
                await self.flush(everything=True)
                while self.unacked_bytes and self.failed is None:
                    await self.tend()
                    await self.wait_for_room(0.1)
        except TimeoutError:
            self.urgent = True
            await self._spool_all()
        return not self.unacked_bytes and not self.backlog.unfed and self.failed is None
